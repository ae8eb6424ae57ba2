//! Runs the commands in README.md and docs/commands.md as a reader types them, and compares the output with the
//! documents.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

/// Returns the commands of a text in order, each with its expected output.
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

/// Reports whether a line has the expected form, in which `...` stands for any text.
fn is_as_shown(shown: &str, line: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else { return false };
    for part in parts {
        let Some(at) = rest.rfind(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || shown.ends_with("...")
}

/// Replaces the ports in a text by free ports.
fn on_free_ports(text: &str, ports: &[(&str, TcpListener)]) -> String {
    ports.iter().fold(text.to_owned(), |text, (port, listener)| {
        let free = format!("127.0.0.1:{}", listener.local_addr().unwrap().port());
        text.replace(&format!("127.0.0.1:{port}"), &free)
    })
}

/// A shell loop that waits until a background process listens.
const WAIT: &str = "for address in $listeners; do
  for _ in {1..400}; do (: 3<>/dev/tcp/${address/:/\\/}) 2> /dev/null && break; sleep 0.05; done
done
";

/// Runs the commands of a section in a copy of the files that they name, and compares the output.
fn runs_as_shown(document: &str, section: &str, background: &[&[&str]]) {
    let ports = ["8000", "8080", "8081", "8090", "9901"];
    let ports = ports.map(|port| (port, TcpListener::bind("127.0.0.1:0").unwrap()));
    let text = fs::read_to_string(document).unwrap();
    let text = text.split_once(&format!("\n## {section}\n")).unwrap().1.split("\n## ").next().unwrap();
    let commands = commands(&on_free_ports(text, &ports));
    assert!(commands.len() >= 5, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config/quickstart.yaml", "tests/demo/quickstart.py"] {
        let copy = folder.path().join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::write(copy, on_free_ports(&fs::read_to_string(file).unwrap(), &ports)).unwrap();
    }
    let mut script = "exec 2>&1\ntrap 'kill $(jobs -p) 2> /dev/null' EXIT\n".to_owned();
    let mut background = background.iter();
    for (i, (command, _)) in commands.iter().enumerate() {
        script.push_str(&format!("echo '@{i}'\n{command}\n"));
        if command.ends_with('&') {
            let listeners = background.next().unwrap().iter().map(|port| format!("127.0.0.1:{port} "));
            let listeners = on_free_ports(&listeners.collect::<String>(), &ports);
            script.push_str(&format!("listeners='{listeners}'\n{WAIT}"));
        }
    }
    script.push_str(&format!("echo '@{}'\n", commands.len()));
    drop(ports);
    let binaries = Path::new(env!("CARGO_BIN_EXE_callgate")).parent().unwrap();
    let out = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{}", binaries.display(), env!("PATH")))
        .output()
        .unwrap();
    let said = String::from_utf8(out.stdout).unwrap();
    for (i, (command, shown)) in commands.iter().enumerate() {
        let after = said.split_once(&format!("@{i}\n")).unwrap_or_else(|| panic!("{said}")).1;
        // A program in the background can still write while the next commands run.
        if command.ends_with('&') {
            for shown in shown {
                assert!(after.lines().any(|line| is_as_shown(shown, line)), "{command}: {shown}\n{after}");
            }
            continue;
        }
        let part = after.split(&format!("@{}\n", i + 1)).next().unwrap();
        // Callgate listens before it has written its last messages, so they can follow later commands.
        let is_message = |line: &str| line.starts_with("info: ") || line.starts_with("warn: ");
        let is_shown = |line: &str| shown.iter().any(|shown| is_as_shown(shown, line));
        let lines: Vec<_> = part.lines().filter(|line| !is_message(line) || is_shown(line)).collect();
        assert_eq!(lines.len(), shown.len(), "{command}\n{part}\nof\n{said}");
        for (shown, line) in shown.iter().zip(lines) {
            assert!(is_as_shown(shown, line), "{command}:\n{shown}\n{line}");
        }
    }
}

#[test]
fn the_quick_start_is_as_it_is_shown() {
    runs_as_shown("README.md", "Try it in sixty seconds", &[&["8000", "8090"], &["8080", "8081", "9901"]]);
}

#[test]
fn the_configuration_that_is_shown_is_the_one_that_runs() {
    let text = fs::read_to_string("README.md").unwrap();
    let shown = text.split_once("```yaml\n").unwrap().1.split("```").next().unwrap();
    assert_eq!(shown, fs::read_to_string("config/quickstart.yaml").unwrap());
}

#[test]
fn mint_sign_and_explain_are_as_they_are_shown() {
    runs_as_shown(
        "docs/commands.md",
        "Mint, sign and explain",
        &[&["8000", "8090"], &["8080", "8081", "9901"]],
    );
}

/// In every example, a callback can end the interaction. Otherwise every interaction would expire, even if it was
/// answered.
#[test]
fn the_interactions_of_the_examples_can_end() {
    let mut count = 0;
    for path in fs::read_dir("config").unwrap().map(|entry| entry.unwrap().path()) {
        let config: serde_json::Value = serde_yaml::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let routes = config["routes"].as_array().unwrap().iter();
        for route in routes.filter(|route| route["token"]["kind"] == "callback") {
            let interaction = &route["interaction"];
            let ends = interaction["done"].is_array() || interaction["preset"].is_string();
            assert!(ends, "{}: {}", path.display(), route["name"]);
            count += 1;
        }
    }
    assert!(count >= 7, "{count}");
}
