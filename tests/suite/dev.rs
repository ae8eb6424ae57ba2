//! `callgate run --dev`, and the examples of docs/laptops.md.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::harness::{open_config, send_to};
use crate::process::binary;

fn command(config: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["run", "-c"]).arg(config).args(args).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn stopped(mut child: Child) {
    let _ = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    child.wait().unwrap();
}

/// Returns the output of a process that must not start.
fn fails(config: &Path, args: &[&str]) -> (Output, String) {
    let out = command(config, args).output().unwrap();
    let text = String::from_utf8(out.stderr.clone()).unwrap();
    (out, text)
}

#[test]
fn the_mode_explains_denials_and_prints_where_everything_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    fs::write(&path, open_config("127.0.0.1:1")).unwrap();
    let mut child = command(&path, &["--dev"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |words: &str| lines.find(|line| line.contains(words)).unwrap();
    assert!(next("DEVELOPMENT MODE").starts_with('|'));
    let address = |line: String| {
        line.split("http://").nth(1).unwrap().trim_end_matches(['|', ' ', '/']).parse().unwrap()
    };
    let ingress = address(next("callbacks "));
    let admin = address(next("admin page "));
    let command = next("curl ");
    assert!(command.contains(&format!("curl -i -X POST http://{ingress}/open/test")), "{command}");
    let denied = send_to(ingress, "GET", "/nope", &[], b"");
    assert_eq!((denied.status, denied.json()["reason"].as_str()), (404, Some("route_unknown")));
    let state = send_to(admin, "GET", "/ui/api/state", &[], b"").json();
    assert_eq!(state["config"]["dev"], true);
    // A reload keeps the mode.
    fs::write(&path, open_config("127.0.0.1:1").replace("2MiB", "1MiB")).unwrap();
    let _ = Command::new("kill").args(["-s", "HUP", &child.id().to_string()]).status();
    next("reloaded: generation 2");
    let denied = send_to(ingress, "GET", "/nope", &[], b"");
    assert_eq!(denied.json()["reason"], "route_unknown");
    stopped(child);
}

#[test]
fn the_mode_refuses_listeners_that_other_machines_can_reach() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    let open = open_config("127.0.0.1:1")
        .replace("ingress: [ { address: 127.0.0.1:0 } ]", "ingress: [ { address: 0.0.0.0:0 } ]");
    assert!(open.contains("0.0.0.0:0"));
    fs::write(&path, &open).unwrap();
    let (out, error) = fails(&path, &["--dev"]);
    assert_eq!(out.status.code(), Some(64));
    assert!(error.contains("listen.ingress[0].address") && error.contains("--any-address"), "{error}");
    assert!(!error.contains("ingress on"), "{error}");
    let admin = open_config("127.0.0.1:1")
        .replace("admin: { address: 127.0.0.1:0 }", "admin: { address: \"[::]:0\" }");
    fs::write(&path, admin).unwrap();
    let (out, error) = fails(&path, &["--dev"]);
    assert_eq!(out.status.code(), Some(64));
    assert!(error.contains("listen.admin.address"), "{error}");
    let (out, _) = fails(&path, &["--any-address"]);
    assert_eq!(out.status.code(), Some(64), "it needs --dev");
    fs::write(&path, &open).unwrap();
    let mut child = command(&path, &["--dev", "--any-address"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("DEVELOPMENT MODE")));
    stopped(child);
    // Without the mode, denials are not explained.
    fs::write(&path, open_config("127.0.0.1:1")).unwrap();
    let mut child = command(&path, &[]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = lines.find(|line| line.contains("ingress on ")).unwrap();
    let ingress = line.split("ingress on ").nth(1).unwrap().split(": ").next().unwrap().parse().unwrap();
    assert!(send_to(ingress, "GET", "/nope", &[], b"").json().get("reason").is_none());
    let _ = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    let mut rest = String::new();
    lines.for_each(|line| rest.push_str(&line));
    child.wait().unwrap();
    assert!(!rest.contains("DEVELOPMENT MODE"), "{rest}");
}

#[test]
fn the_configuration_for_compose_loads() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = folder.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    for (name, text) in [
        ("token-key", "0123456789abcdef0123456789abcdef"),
        ("provider", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="),
        ("admin-token", "0123456789abcdef"),
    ] {
        fs::write(secrets.join(name), text).unwrap();
    }
    let config = Command::new(binary())
        .args(["check", "-c", "deploy/compose/callgate.yaml", "--root"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut error = String::new();
    let mut config = config;
    config.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert!(config.wait().unwrap().success(), "{error}");
    let compose = fs::read_to_string("deploy/compose/compose.yaml").unwrap();
    let command = compose.lines().find_map(|line| line.trim().strip_prefix("command: [")).unwrap();
    let args: Vec<_> = command.trim_end_matches(']').split(", ").collect();
    let args: Vec<_> = std::iter::once("callgate").chain(args).collect();
    callgate::cli::understands(&args).unwrap();
    let unit = fs::read_to_string("deploy/systemd/callgate.service").unwrap();
    for line in
        unit.lines().filter_map(|line| line.split_once("=/usr/local/bin/").map(|(_, command)| command))
    {
        callgate::cli::understands(&line.split(' ').collect::<Vec<_>>()).unwrap();
    }
}

/// Runs the commands of the page as they are printed, in an empty folder.
#[test]
fn the_commands_of_the_first_minutes_work_as_they_are_printed() {
    let text = fs::read_to_string("docs/laptops.md").unwrap();
    let section = text.split_once("\n## The first minutes\n").unwrap().1;
    let commands = section.split_once("```sh\n").unwrap().1.split("```").next().unwrap();
    let run = commands.lines().last().unwrap();
    assert!(run.starts_with("callgate run ") && run.contains("--dev"), "{commands}");
    let folder = tempfile::tempdir().unwrap();
    // The ports of the page may be taken on this host.
    let script = commands.replace(
        run,
        &format!("sed -i 's/127.0.0.1:\\(8080\\|8081\\|9901\\) /127.0.0.1:0 /' callgate.yaml\nexec {run}"),
    );
    let binaries = Path::new(&binary()).parent().unwrap().to_owned();
    let mut child = Command::new("bash")
        .args(["-ec", &script])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{}", binaries.display(), env!("PATH")))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut said = Vec::new();
    let has_started = lines.into_iter().any(|line| {
        let is_banner = line.contains("DEVELOPMENT MODE");
        said.push(line);
        is_banner
    });
    assert!(has_started, "{said:#?}");
    assert!(said.iter().any(|line| line.contains("GITHUB_SECRET")), "{said:#?}");
    stopped(child);
}

#[test]
fn every_place_names_the_version_of_this_release() {
    let version = env!("CARGO_PKG_VERSION");
    let mut count = 0;
    for path in ["docs/laptops.md", "deploy/compose/compose.yaml", "docs/kubernetes.md"] {
        let text = fs::read_to_string(path).unwrap();
        for tag in text.split("callgate:").skip(1) {
            let tag: String = tag.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
            if tag.matches('.').count() == 2 {
                assert_eq!(tag.trim_end_matches('.'), version, "{path}");
                count += 1;
            }
        }
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn lines_of_the_event_log_have_a_time_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("callgate.yaml");
    fs::write(&path, open_config("127.0.0.1:1")).unwrap();
    for (args, has_time) in [(&["--log-time"] as &[_], true), (&[], false)] {
        let mut child = command(&path, args).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let line = lines.find(|line| line.contains("info: ingress on ")).unwrap();
        let before = line.split_once("info: ").unwrap().0.trim_end();
        let time = callgate::time::Timestamp::parse(before);
        assert_eq!((time.is_some(), before.is_empty()), (has_time, !has_time), "{line}");
        stopped(child);
    }
}
