//! Very many notices at once, with the real process: they leave as fast as the agent accepts them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use callgate::clock::Clock;

use crate::crash::{Running, try_send};
use crate::harness::{ANSWER, Agent, PATIENCE, eventually};
use crate::ledger_file::{Ledger, ids};

const NOTICES: usize = 2000;

/// Fills a ledger with interactions whose deadline has passed, and returns the configuration.
fn overdue(folder: &Path, agent: &Agent, count: usize) -> (std::path::PathBuf, Vec<String>) {
    let ledger = Ledger::at(&folder.join("ledger"));
    let (store, ids) = (ledger.open(), ids('a', count));
    // The deadline of the route is one hour, and the tokens are valid for two.
    let minted = Clock::System.now().minus(Duration::from_secs(90 * 60));
    ledger.mint(&store, &ids, 1, Duration::from_secs(7200), minted);
    store.close();
    let store = format!("{{ kind: file, path: {} }}", ledger.path.display());
    let path = folder.join("callgate.yaml");
    fs::write(&path, crate::ledger::config(&agent.address.to_string(), &store)).unwrap();
    (path, ids)
}

fn start(path: &Path) -> Running {
    Running::start_with(path, &[("WHSEC", Path::new("whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="))])
}

/// The interactions of the notices that the agent received.
fn noticed(agent: &Agent) -> Vec<String> {
    agent.received().iter().map(|notice| notice.header("callgate-interaction")[0].to_owned()).collect()
}

#[test]
fn many_notices_leave_as_fast_as_the_agent_takes_them() {
    let (folder, agent) = (tempfile::tempdir().unwrap(), Agent::start(ANSWER));
    let (path, ids) = overdue(folder.path(), &agent, NOTICES);
    let running = start(&path);
    // At sixteen every 250 ms they would take 31 s, which is longer than `eventually` waits.
    assert!(PATIENCE < Duration::from_millis(250) * u32::try_from(NOTICES / 16).unwrap());
    eventually(|| (noticed(&agent).len() >= NOTICES).then_some(()));
    let told = noticed(&agent);
    assert_eq!(told.len(), NOTICES, "each is sent once");
    assert_eq!(told.iter().collect::<BTreeSet<_>>(), ids.iter().collect());
    assert!(agent.connections() <= 2 * 16, "{} connections for 16 at a time", agent.connections());
    // All of them are answered: none is sent again after a restart.
    eventually(|| {
        let (_, page) = try_send(running.admin, "GET", "/metrics", "", "").unwrap();
        let answered = "callgate_notices_total{cause=\"expired\",outcome=\"answered\",route=\"doc\"} 2000\n";
        page.contains(answered).then_some(())
    });
    running.kill();
    let running = start(&path);
    let wanted = r#"{"route":"doc","params":{"id":"a"}}"#;
    assert_eq!(try_send(running.admin, "POST", "/callbacks", "", wanted).unwrap().0, 201);
    assert_eq!(noticed(&agent).len(), NOTICES);
}
