//! Redis and Valkey as the tests start them, and the few commands that the tests send to them.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{PATIENCE, eventually};

/// The servers that the tests start.
pub const ENGINES: [&str; 2] = ["redis-server", "valkey-server"];

/// Where a process runs: its address, and the network namespace that has this address.
#[derive(Clone, Debug)]
pub struct Place {
    pub host: Ipv4Addr,
    pub namespace: Option<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self { host: Ipv4Addr::LOCALHOST, namespace: None }
    }
}

impl Place {
    /// Returns the command that starts a program there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    /// Returns an address that is free now.
    pub fn free_address(&self) -> SocketAddr {
        (self.host, free_port()).into()
    }
}

/// A running server with a folder of its own. It is killed when this value is dropped.
pub struct Engine {
    pub address: SocketAddr,
    place: Place,
    program: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
    folder: tempfile::TempDir,
}

/// Returns the path of a server. `make engines` brings it.
pub fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/engines/bin").join(name);
    assert!(path.exists(), "{} is missing; run `make engines`", path.display());
    path
}

/// Returns a port that is free now. The system gives no such port to other programs, so that a server that was killed
/// can start again at its port.
pub fn free_port() -> u16 {
    let drawn = || 10_000 + u16::from_be_bytes(callgate::random::random().unwrap()) % 20_000;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(drawn).find(is_free).unwrap()
}

impl Engine {
    pub fn start(name: &str, more: &[&str]) -> Self {
        Self::start_in(&Place::default(), name, more)
    }

    /// Starts a sentinel with a file of settings, which it changes.
    pub fn start_sentinel(place: &Place, file: &Path) -> Self {
        Self::new(place, "redis-sentinel", &[file.to_str().unwrap()], &[])
    }

    pub fn start_in(place: &Place, name: &str, more: &[&str]) -> Self {
        Self::new(place, name, &[], &[&["--save", ""], more].concat())
    }

    fn new(place: &Place, name: &str, first: &[&str], more: &[&str]) -> Self {
        let (address, folder) = (place.free_address(), tempfile::tempdir().unwrap());
        let (host, port) = (place.host.to_string(), address.port().to_string());
        let own = ["--port", &port, "--bind", &host, "--protected-mode", "no", "--dir"];
        let arguments = [first, &own, &[folder.path().to_str().unwrap()], more].concat();
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        let (place, program) = (place.clone(), program(name));
        let mut engine = Self { address, place, program, arguments, child: None, folder };
        engine.start_again();
        engine
    }

    /// Starts the server again, with the same address and folder.
    pub fn start_again(&mut self) {
        self.spawn();
        eventually(|| {
            // Another program may have the port for a moment.
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                self.spawn();
            }
            let answer = self.try_command(&["PING"]);
            answer.filter(|answer| answer.starts_with("+PONG") || answer.starts_with("-NOAUTH"))
        });
    }

    fn spawn(&mut self) {
        let child = self
            .place
            .command(&self.program)
            .args(&self.arguments)
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Kills the server.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Sends a signal to the server, such as STOP.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Sends a command that changes nothing until it is answered. A sentinel closes the connections of all clients when it
    /// gives a node another role.
    pub fn read(&self, words: &[&str]) -> String {
        eventually(|| self.try_command(words))
    }

    /// Sends a command. Returns the response as the protocol has it.
    pub fn command(&self, words: &[&str]) -> String {
        self.try_command(words).unwrap()
    }

    fn try_command(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        // The response to a second command shows where the first response ends.
        request.push_str("*2\r\n$4\r\nPING\r\n$8\r\nthe end.\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let (mut response, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            response.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&response);
            if let Some(text) = text.strip_suffix("$8\r\nthe end.\r\n") {
                return Some(text.to_owned());
            }
            // A server that loads its data denies `PING`, so that the end would never come.
            if text.ends_with("\r\n") && text.lines().last().is_some_and(|line| line.starts_with("-LOADING"))
            {
                return None;
            }
            if text.starts_with("-NOAUTH") && text.matches("-NOAUTH").count() == 2 {
                return Some(text.into_owned());
            }
        }
    }

    /// Returns all keys that match a pattern.
    pub fn keys(&self, pattern: &str) -> Vec<String> {
        let answer = self.command(&["KEYS", pattern]);
        answer.lines().filter(|line| !line.starts_with(['*', '$'])).map(str::to_owned).collect()
    }

    /// Returns the section `store` for this server.
    pub fn store(&self, more: &str) -> String {
        format!("store: {{ kind: redis, redis: {{ nodes: [\"{}\"]{more} }} }}\n", self.address)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}
