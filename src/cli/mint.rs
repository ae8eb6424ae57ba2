//! `callgate mint`: mints a callback URL and its token.
//!
//! The command asks the running Callgate, which records the interaction in its ledger. With `--offline`, or if no
//! Callgate is running, the command mints from the configuration alone, and no interaction is recorded.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::common::{EXIT_DATA, EXIT_UNAVAILABLE, moment, now_unless, print_json, printable};
use super::read::ConfigArg;
use crate::config::{AdminListener, Config, Unknown};
use crate::policy::MintRequest;
use crate::random::new_id;
use crate::source::reachable;
use crate::time::{Timestamp, format_duration, parse_duration};
use crate::token::Form;

/// The timeout for the connection to the running Callgate, and for each read.
const PATIENCE: Duration = Duration::from_secs(10);
/// The maximum size of the response of a running Callgate, in bytes. The rest of a larger response is not read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

#[derive(Args)]
pub(super) struct MintArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Name of the route.
    #[arg(long, value_name = "NAME")]
    route: String,
    /// Value of one capture of the route. Repeat the option for each capture.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// Lifetime of the token, such as 2h. Default: the lifetime in the configuration.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// Number of callbacks for which the token is valid. Default: unlimited.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    uses: Option<u32>,
    /// Mint from the configuration alone, without asking a running Callgate.
    #[arg(long)]
    offline: bool,
    /// Time at which the token is minted: RFC 3339 or Unix seconds. Default: now. Implies --offline.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a number and one of ms, s, m, h, d, such as 2h".to_owned())
}

pub(super) fn mint(args: &MintArgs) -> u8 {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let doubled =
        |(i, (name, _)): (usize, &(String, String))| args.params.iter().take(i).any(|(n, _)| n == name);
    if args.params.iter().enumerate().any(doubled) {
        eprintln!("error: route {}: the same --param is given twice", args.route);
        return EXIT_DATA;
    }
    let asked = match &config.startup.admin {
        Some(admin) if !args.offline && args.at.is_none() && admin.address.port() != 0 => args.ask(admin),
        _ => None,
    };
    let minted = asked.unwrap_or_else(|| args.make(&config));
    match minted {
        Ok(minted) if args.json => print_json(&minted),
        Ok(minted) => {
            for name in ["interaction", "callback_url", "callback_token", "expires_at"] {
                let value = minted.get(name).and_then(Value::as_str).unwrap_or_default();
                println!("{name:<15} {}", printable(value));
            }
        }
        Err((code, message)) => {
            eprintln!("error: {}", printable(&message));
            return code;
        }
    }
    0
}

impl MintArgs {
    /// Mints a callback URL and its token from the configuration alone. On failure, returns the exit code and the
    /// message.
    fn make(&self, config: &Config) -> Result<Value, (u8, String)> {
        let store = &config.startup.store;
        if config.policy.minting.as_ref().is_some_and(|minting| minting.minter.form() == Form::Opaque) {
            let message =
                "an opaque token is valid only if the running Callgate mints it (`callback_tokens.form`)";
            return Err((EXIT_DATA, message.to_owned()));
        }
        if store.unknown == Unknown::Refuse {
            eprintln!(
                "warning: `store.unknown` is `refuse`, and this interaction is not in the ledger: its \
                 callbacks will be denied"
            );
        }
        let no_randomness = || (EXIT_UNAVAILABLE, "the system's random number generator failed".to_owned());
        let interaction = new_id("int_").ok_or_else(no_randomness)?;
        let parameters: Vec<_> =
            self.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let request =
            MintRequest { route: &self.route, parameters: &parameters, ttl: self.ttl, uses: self.uses };
        let minted = config.policy.mint(&request, &interaction, now_unless(self.at));
        let minted = minted.map_err(|fault| (EXIT_DATA, format!("route {}: {fault}", self.route)))?;
        Ok(json!({
            "interaction": minted.interaction,
            "callback_url": minted.callback_url,
            "callback_token": minted.callback_token,
            "expires_at": minted.expires.to_string(),
        }))
    }

    /// Asks the running Callgate to mint a callback URL and its token. Returns `None` if no Callgate is running. On
    /// failure, returns the exit code and the message.
    fn ask(&self, admin: &AdminListener) -> Option<Result<Value, (u8, String)>> {
        let address = reachable(admin.address);
        let Ok(stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
            eprintln!("note: no Callgate is running on {address}; minting from the configuration alone");
            return None;
        };
        let body = json!({
            "route": self.route,
            "params": self.params.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "ttl": self.ttl.map(format_duration),
            "uses": self.uses,
        });
        Some(match converse(stream, address, admin, &body.to_string()) {
            Ok((201, minted)) => Ok(minted),
            Ok((status, problem)) => {
                let detail = problem.get("detail").and_then(Value::as_str).unwrap_or("no reason given");
                let code = if status >= 500 { EXIT_UNAVAILABLE } else { EXIT_DATA };
                Err((code, format!("route {}: {detail} (HTTP {status} from {address})", self.route)))
            }
            Err(error) => {
                let message = format!("the server on {address} is not Callgate ({error}); try --offline");
                Err((EXIT_UNAVAILABLE, message))
            }
        })
    }
}

fn converse(
    mut stream: TcpStream,
    address: SocketAddr,
    admin: &AdminListener,
    body: &str,
) -> Result<(u16, Value), String> {
    let words = |error: std::io::Error| error.to_string();
    stream.set_read_timeout(Some(PATIENCE)).map_err(words)?;
    let mut request = format!(
        "POST /callbacks HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        body.len()
    )
    .into_bytes();
    if let Some(token) = &admin.token {
        request.extend_from_slice(b"authorization: Bearer ");
        request.extend_from_slice(token.expose());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body.as_bytes());
    stream.write_all(&request).map_err(words)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(words)?;
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(end)) = head.parse(&answer) else {
        return Err("not HTTP".to_owned());
    };
    let body = answer.get(end..).unwrap_or_default();
    let value = serde_json::from_slice(body).map_err(|_| "not JSON".to_owned())?;
    Ok((head.code.unwrap_or_default(), value))
}
