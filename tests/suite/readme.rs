//! The five minutes of README.md, as somebody types them.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// The commands of a text in the order in which they are typed, each with what is shown below it.
fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let mut all: Vec<(String, Vec<String>)> = Vec::new();
    for block in text.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
        let mut until = None;
        for line in block.lines() {
            if let Some(end) = until {
                let typed = &mut all.last_mut().unwrap().0;
                typed.push_str(&format!("\n{line}"));
                until = (line != end).then_some(end);
            } else if let Some(command) = line.strip_prefix("$ ") {
                until = command.split_once("<<").map(|(_, end)| end);
                all.push((command.to_owned(), Vec::new()));
            } else {
                all.last_mut().unwrap().1.push(line.to_owned());
            }
        }
    }
    all
}

/// Whether a line is as shown, where `...` stands for anything.
fn is_as_shown(shown: &str, line: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else { return false };
    for part in parts {
        let Some(at) = rest.rfind(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || shown.ends_with("...")
}

/// Ports that nobody has at the moment, in place of those that the text names.
fn on_free_ports(text: &str) -> String {
    let listeners = ["8080", "8081", "9901"].map(|port| (port, TcpListener::bind("127.0.0.1:0").unwrap()));
    listeners.iter().fold(text.to_owned(), |text, (port, listener)| {
        let free = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        text.replace(&format!("127.0.0.1:{port}"), &free)
    })
}

#[test]
fn the_five_minutes_are_as_they_are_shown() {
    let text = fs::read_to_string("README.md").unwrap();
    let section = text.split_once("\n## Five minutes\n").unwrap().1.split("\n## ").next().unwrap();
    let section = on_free_ports(section);
    let folder = tempfile::tempdir().unwrap();
    let (config, rest) = section.split_once("```yaml\n").unwrap().1.split_once("```").unwrap();
    assert!(!rest.contains("```yaml"), "there is one file");
    fs::write(folder.path().join("callgate.yaml"), config).unwrap();
    let commands = commands(rest);
    assert!(commands.len() > 10, "{commands:?}");
    let mut script = String::new();
    for (i, (command, _)) in commands.iter().enumerate() {
        script.push_str(&format!("echo '@{i}'\n{command}\n"));
        if command.ends_with('&') {
            // A reader does not type the next command before this one says that it serves.
            script.push_str(
                "trap \"kill $!\" EXIT\nfor _ in {1..200}; do callgate health --admin $ADMIN 2> health > health && break; sleep 0.05; done\n",
            );
        }
    }
    script.push_str(&format!("echo '@{}'\n", commands.len()));
    let admin = config.split("admin: { address: ").nth(1).unwrap().split(' ').next().unwrap();
    let binaries = Path::new(env!("CARGO_BIN_EXE_callgate")).parent().unwrap();
    let out = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(folder.path())
        .env("ADMIN", admin)
        .env("PATH", format!("{}:{}", binaries.display(), env!("PATH")))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    for (i, (command, shown)) in commands.iter().enumerate() {
        let part = said.split_once(&format!("@{i}\n")).unwrap_or_else(|| panic!("{said}")).1;
        let part = part.split(&format!("@{}\n", i + 1)).next().unwrap();
        let lines: Vec<_> = part.lines().collect();
        if command.ends_with('&') {
            for shown in shown {
                assert!(lines.iter().any(|line| is_as_shown(shown, line)), "{command}: {shown}\n{part}");
            }
            continue;
        }
        assert_eq!(lines.len(), shown.len(), "{command}\n{part}");
        for (shown, line) in shown.iter().zip(lines) {
            assert!(is_as_shown(shown, line), "{command}:\n{shown}\n{line}");
        }
    }
}
