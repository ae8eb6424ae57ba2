//! Texts with deep nesting, for which serde_yaml alone needs minutes.

use std::fs;
use std::process::{Command, Output};

const CALLGATE: &str = env!("CARGO_BIN_EXE_callgate");

fn run(args: &[&str]) -> Output {
    Command::new(CALLGATE).args(args).output().unwrap()
}

#[test]
fn deep_nesting_is_an_error_in_every_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let deep = format!("threads: 1\nx: {}", "{a: ".repeat(200_000));
    fs::write(path("deep.yaml"), &deep).unwrap();
    fs::write(path("main.yaml"), "include: deep.yaml\n").unwrap();
    let manifest = format!("apiVersion: v1\nkind: Pod\nmetadata: {}", "{a: ".repeat(200_000));
    fs::write(path("pod.yaml"), manifest).unwrap();
    for (args, code, expected) in [
        (
            ["check", "-c", &path("deep.yaml")],
            64,
            "line 2: lists and mappings are nested more than 64 levels deep",
        ),
        (
            ["check", "-c", &path("main.yaml")],
            64,
            "deep.yaml: line 2: lists and mappings are nested more than 64",
        ),
        (["inject", "-f", &path("pod.yaml")], 65, "nested more than 64 levels deep, at line 3"),
    ] {
        let out = run(&args);
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(code) && said.contains(expected), "{args:?}: {said:.300}");
    }
}
