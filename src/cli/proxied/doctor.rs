//! `callgate doctor egress`: tries which clients of this machine use the forward proxy and trust its certificates.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::runtime::Runtime;

use super::env::{ProxyUrl, variables};
use crate::cli::common::{EXIT_UNAVAILABLE, environment};
use crate::cli::run::{Serving, serve};
use crate::clock::{Clock, instant};
use crate::config::{Config, Surroundings};
use crate::observe::{ConfigState, Metrics};
use crate::random::new_id;

/// The maximum time that one client may need for its request.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);
/// The domain of the hosts that the tested clients request, such as `curl.callgate-doctor.invalid`. No real host can
/// have a name in this domain.
const DOMAIN: &str = "callgate-doctor.invalid";

#[derive(Args)]
pub(in crate::cli) struct DoctorArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Try which clients of this machine use the forward proxy and trust its certificates. Starts a listener of its own
    /// on a free port, and sends nothing to other hosts.
    Egress,
}

/// An HTTP client that `callgate doctor egress` tests with the forward proxy.
struct Client {
    /// The name of the client. It is also a part of the host name that the client requests.
    name: &'static str,
    /// The program of the client and its arguments. `URL` is replaced by the URL to request, and `FOLDER` by the folder
    /// with the files of the test.
    command: &'static [&'static str],
    /// A command that fails if the client is not installed.
    probe: &'static [&'static str],
    /// A hint about what to do if the client does not use the proxy.
    cure: &'static str,
}

const CLIENTS: [Client; 9] = [
    Client {
        name: "curl",
        command: &["curl", "-s", "-o", "/dev/null", "URL"],
        probe: &["curl", "--version"],
        cure: "set HTTPS_PROXY and CURL_CA_BUNDLE",
    },
    Client {
        name: "git",
        command: &["git", "ls-remote", "URL"],
        probe: &["git", "--version"],
        cure: "set HTTPS_PROXY and GIT_SSL_CAINFO",
    },
    Client {
        name: "urllib",
        command: &["python3", "-c", "import sys, urllib.request as u; u.urlopen(sys.argv[1])", "URL"],
        probe: &["python3", "--version"],
        cure: "set HTTPS_PROXY and SSL_CERT_FILE",
    },
    Client {
        name: "requests",
        command: &["python3", "-c", "import sys, requests; requests.get(sys.argv[1])", "URL"],
        probe: &["python3", "-c", "import requests"],
        cure: "do not set `trust_env = False`, and do not pass `verify`",
    },
    Client {
        name: "httpx",
        command: &["python3", "-c", "import sys, httpx; httpx.get(sys.argv[1])", "URL"],
        probe: &["python3", "-c", "import httpx"],
        cure: "do not pass `trust_env=False` or a transport of your own",
    },
    Client {
        name: "aiohttp",
        command: &[
            "python3",
            "-c",
            "import sys, asyncio, aiohttp\nasync def main():\n async with aiohttp.ClientSession() as s:\n  await s.get(sys.argv[1])\nasyncio.run(main())",
            "URL",
        ],
        probe: &["python3", "-c", "import aiohttp"],
        cure: "aiohttp.ClientSession(trust_env=True)",
    },
    Client {
        name: "urllib3",
        command: &[
            "python3",
            "-c",
            "import sys, urllib3; urllib3.PoolManager().request('GET', sys.argv[1], retries=False)",
            "URL",
        ],
        probe: &["python3", "-c", "import urllib3"],
        cure: "urllib3.ProxyManager(os.environ['HTTPS_PROXY'])",
    },
    Client {
        name: "node",
        command: &["node", "-e", "fetch(process.argv[1]).catch(() => {})", "URL"],
        probe: &["node", "--version"],
        cure: "use Node 22.21 or 24, or undici: setGlobalDispatcher(new EnvHttpProxyAgent())",
    },
    Client {
        name: "java",
        command: &["java", "FOLDER/Get.java", "URL"],
        probe: &["javac", "-version"],
        cure: "set JAVA_TOOL_OPTIONS, with trust.p12 as the trust store",
    },
];

const JAVA: &str = "import java.net.URI;\nimport java.net.http.*;\npublic class Get {\n  public static void main(String[] a) throws Exception {\n    HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.discarding());\n  }\n}\n";

pub(in crate::cli) fn doctor(args: &DoctorArgs) -> u8 {
    let What::Egress = args.what;
    let folder = std::env::temp_dir().join(format!("callgate-doctor-{}", new_id("").unwrap_or_default()));
    let tried = std::fs::create_dir(&folder)
        .map_err(|error| error.to_string())
        .and_then(|()| Practice::open(&folder));
    let code = match tried {
        Ok(practice) => {
            practice.examine();
            0
        }
        Err(error) => {
            eprintln!("error: the listener for the test cannot start: {error}");
            EXIT_UNAVAILABLE
        }
    };
    let _ = std::fs::remove_dir_all(&folder);
    code
}

/// A forward proxy with which HTTP clients are tested. It intercepts one host for each client, and answers every
/// request with 404.
struct Practice {
    folder: PathBuf,
    metrics: Arc<Metrics>,
    address: SocketAddr,
    /// The running server. It stops when this value is dropped.
    _serving: Serving,
    _runtime: Runtime,
}

impl Practice {
    fn open(folder: &Path) -> Result<Self, String> {
        std::fs::write(folder.join("Get.java"), JAVA).map_err(|error| error.to_string())?;
        let rules: String = CLIENTS
            .iter()
            .map(|Client { name, .. }| {
                format!("  - {{ name: {name}, path: /{name}/none, target: \"https://{name}.{DOMAIN}/none\", proxied: true, unmatched: refuse }}\n")
            })
            .collect();
        let text = format!(
            "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0, proxy: {{ bundle: \"{}/trust\" }} }} }}\nagent: {{ address: 127.0.0.1:1 }}\nroutes: [ {{ name: unused, path: /unused, open: true, forward: /unused }} ]\negress:\n{rules}",
            folder.display()
        );
        let surroundings = Surroundings { env: &environment, file: &|path| std::fs::read(path) };
        let config = Config::parse(&text, &surroundings).map_err(|errors| format!("{errors:?}"))?;
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
        let state = Arc::new(ConfigState::new(&text, Clock::System.now()));
        let started =
            runtime.block_on(async { serve(config, Clock::System, None, Arc::clone(&metrics), state).await });
        let serving = started.map_err(|error| error.to_string())?;
        let address = serving.server.egress.ok_or("it has no address")?;
        Ok(Self { folder: folder.to_owned(), metrics, address, _serving: serving, _runtime: runtime })
    }

    /// Tests each HTTP client with the forward proxy, and prints the results as a table.
    fn examine(&self) {
        println!("{:<10} {:<32} cure", "client", "result");
        for client in &CLIENTS {
            if !self.succeeds(client.probe, client.name) {
                println!("{:<10} not installed", client.name);
                continue;
            }
            self.succeeds(client.command, client.name);
            let metrics = self.metrics.text().unwrap_or_default();
            let counted = |outcome: &str| {
                let series = format!("host=\"{}.{DOMAIN}\",outcome=\"{outcome}\"", client.name);
                metrics.lines().any(|line| line.contains(&series))
            };
            match (counted("ok"), counted("client_refused") || counted("failed")) {
                (true, _) => println!("{:<10} uses the proxy", client.name),
                (false, true) => {
                    println!("{:<10} {:<32} {}", client.name, "does not trust the certificates", client.cure)
                }
                (false, false) => {
                    println!("{:<10} {:<32} {}", client.name, "does not use the proxy", client.cure)
                }
            }
        }
    }

    /// Runs a command with the environment variables of the forward proxy. Reports whether the command succeeded in
    /// time.
    fn succeeds(&self, command: &[&str], name: &str) -> bool {
        let url = format!("https://{name}.{DOMAIN}/");
        let folder = self.folder.display().to_string();
        let Some((program, arguments)) = command.split_first() else { return false };
        let Some(proxy) = ProxyUrl::local(self.address.port()) else { return false };
        let trust = format!("{folder}/trust");
        let (set, _) = variables(&proxy, &trust, &[], |_| None, |_, _| Some(true));
        let arguments = arguments.iter().map(|text| match *text {
            "URL" => url.clone(),
            text => text.replace("FOLDER", &folder),
        });
        let child = Command::new(program)
            .args(arguments)
            .envs(set)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = child else { return false };
        let deadline = instant() + PATIENCE;
        while instant() < deadline {
            match child.try_wait() {
                Ok(Some(status)) => return status.success(),
                Ok(None) => std::thread::sleep(PAUSE),
                Err(_) => break,
            }
        }
        let _ = child.kill();
        let _ = child.wait();
        false
    }
}
