//! `include` and texts from the environment, with the real binary.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{ANSWER, Agent, eventually, open_config, send_to};
use crate::process::Process;

fn check(file: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_callgate"));
    command.env_clear().env("AGENT", "127.0.0.1:8000").env("ROUTE", "from-env").env("EMPTY", "");
    let out = command.args(["check", "-c"]).arg(file).args(args).output().unwrap();
    (out.status.code(), String::from_utf8([&out.stdout[..], &out.stderr[..]].concat()).unwrap())
}

#[test]
fn the_path_is_relative_to_the_file_and_errors_name_the_included_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let file = folder.path().join("team/callgate.yaml");
    fs::create_dir(folder.path().join("team")).unwrap();
    write(
        "team/callgate.yaml",
        &open_config("127.0.0.1:1").replace("limits: {", "include: ../shared.yaml\nno: {"),
    );
    write("shared.yaml", "limits: { connections_max: 77 }\n");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("no: { body_deadline: 1s }\n", "")).unwrap();
    let (code, said) = check(&file, &["--print"]);
    assert!(code == Some(0) && said.contains("connections_max: 77"), "{said}");
    // With --root, the configuration and its relative paths stay where they are.
    let (code, said) = check(&file, &["--root", "/nonexistent"]);
    assert_eq!(code, Some(0), "{said}");
    write("shared.yaml", "# shared\nlimits: { connection_max: 77 }\n");
    let (code, said) = check(&file, &[]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("error: ../shared.yaml: line 2: limits.connection_max: unknown key"), "{said}");
    let (_, said) = check(&file, &["--json"]);
    let errors: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(errors["errors"][0]["file"], "../shared.yaml");
    write("shared.yaml", "agent: { address: 127.0.0.1:2 }\n");
    let (code, said) = check(&file, &[]);
    assert!(code == Some(64) && said.contains("both have the section `agent`"), "{said}");
}

#[test]
fn addresses_and_names_come_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("callgate.yaml");
    let text = open_config("127.0.0.1:1").replace("\"127.0.0.1:1\"", "{ env: AGENT }");
    fs::write(&file, text.replace("name: open", "name: { env: ROUTE }")).unwrap();
    let (code, said) = check(&file, &["--print"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("127.0.0.1:8000") && said.contains("from-env"), "{said}");
    for (name, words) in [("MISSING", "MISSING is not set"), ("EMPTY", "EMPTY is empty")] {
        fs::write(&file, text.replace("AGENT", name)).unwrap();
        let (code, said) = check(&file, &[]);
        assert_eq!(code, Some(64), "{said}");
        assert!(said.contains("agent.address.env") && said.contains(words), "{said}");
    }
}

#[test]
fn a_changed_included_file_is_reloaded_and_a_broken_one_is_not() {
    let agent = Agent::start(ANSWER);
    let folder = tempfile::tempdir().unwrap();
    let shared = folder.path().join("shared.yaml");
    let route = |path: &str| format!("routes: [ {{ name: r, path: {path}, open: true, forward: /in }} ]\n");
    fs::write(&shared, route("/a")).unwrap();
    let text = open_config(&agent.address.to_string());
    let text = text.split("routes:").next().unwrap();
    let process = Process::start_in(folder, &format!("include: shared.yaml\n{text}"));
    let state = || send_to(process.admin, "GET", "/readyz?verbose", &[], b"").json()["config"].clone();
    let status = |path: &str| send_to(process.ingress[0], "POST", path, &[], b"{}").status;
    assert_eq!((status("/a"), status("/b")), (200, 404));
    let before = state();
    fs::write(&shared, route("/b")).unwrap();
    let after = eventually(|| Some(state()).filter(|state| state["generation"] == 2));
    assert_eq!((status("/a"), status("/b")), (404, 200));
    assert_ne!(before["version"], after["version"], "the version covers the included file");
    fs::write(&shared, "routes: [ {\n").unwrap();
    let refused = eventually(|| Some(state()).filter(|state| state["refused"].is_object()));
    assert!(refused["refused"]["errors"][0].as_str().unwrap().starts_with("shared.yaml: line "), "{refused}");
    assert_eq!(status("/b"), 200);
}
