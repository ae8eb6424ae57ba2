//! The real binary as a process. Its addresses are read from its log lines at startup.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A process, which is killed when this value is dropped.
pub struct Process {
    pub child: Child,
    /// Addresses of the ingress listeners, in the order of the configuration.
    pub ingress: Vec<SocketAddr>,
    pub admin: SocketAddr,
    _folder: tempfile::TempDir,
}

/// Returns the path of the tested binary. `CALLGATE_BINARY` selects another build.
#[allow(clippy::disallowed_methods, reason = "another build is asked for by the environment")]
pub fn binary() -> String {
    std::env::var("CALLGATE_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_callgate").to_owned())
}

impl Process {
    /// Starts the process with a configuration in a new folder.
    pub fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    /// Starts the process with a configuration that is written into this folder.
    pub fn start_in(folder: tempfile::TempDir, config: &str) -> Self {
        Self::start_with(folder, config, &[])
    }

    /// Starts the process with additional environment variables.
    pub fn start_with(folder: tempfile::TempDir, config: &str, variables: &[(&str, &str)]) -> Self {
        let path = folder.path().join("callgate.yaml");
        fs::write(&path, config).unwrap();
        let mut child = Command::new(binary())
            .args(["run", "-c"])
            .arg(&path)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut address = |name: &str| {
            let line = lines.find(|line| line.contains(name)).unwrap();
            let rest = line.split(name).nth(1).unwrap();
            rest.split(": ").next().unwrap().trim().parse().unwrap()
        };
        let listeners = config.split("admin:").next().unwrap().matches("{ address: 127.0.0.1:0").count();
        let ingress = (0..listeners).map(|_| address("ingress on ")).collect();
        let admin = address("admin on ");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, ingress, admin, _folder: folder }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits until the process exits.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
