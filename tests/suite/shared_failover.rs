//! A ledger on a cluster and behind sentinels, whose primary is killed or hangs. Nothing that was acknowledged is lost.

use std::fs;
use std::time::Duration;

use callgate::clock::instant;

use crate::engine::{Engine, Place, free_port};
use crate::harness::eventually;
use crate::shared_ledger::Process;

/// How long a node must be silent until the others replace it.
const NODE_TIMEOUT_MS: &str = "2000";
/// The node timeout, the election, and the time that a busy machine may add.
const OUTAGE_MAX: Duration = Duration::from_secs(30);

/// Returns a fact of `INFO`.
pub fn fact(engine: &Engine, name: &str) -> String {
    let info = engine.read(&["INFO"]);
    let found = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_default().to_owned()
}

/// Reports whether a replica has the data of its primary and follows it.
pub fn follows(replica: &Engine) -> bool {
    fact(replica, "master_link_status") == "up"
}

/// Starts a primary and a replica that follows it.
pub fn with_replica() -> (Engine, Engine) {
    let primary = Engine::start("redis-server", &["--repl-diskless-sync-delay", "0"]);
    let replica = start_replica(&primary);
    eventually(|| follows(&replica).then_some(()));
    (primary, replica)
}

fn start_replica(primary: &Engine) -> Engine {
    let port = primary.address.port().to_string();
    let settings = ["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"];
    Engine::start("redis-server", &settings)
}

/// Starts a cluster of three primaries, which come first, and the replicas of the first ones.
pub fn cluster(replicas: usize) -> Vec<Engine> {
    let start = |_| {
        let bus = free_port().to_string();
        let settings =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", NODE_TIMEOUT_MS, "--cluster-port", &bus];
        let more = ["--repl-diskless-sync-delay", "0", "--cluster-require-full-coverage", "no"];
        Engine::start("redis-server", &[&settings[..], &more].concat())
    };
    let nodes: Vec<_> = (0..3 + replicas).map(start).collect();
    for (node, slots) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
        assert_eq!(node.command(&["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]), "+OK\r\n");
    }
    for node in &nodes[1..] {
        let bus = fact_of_configuration(node, "cluster-port");
        let port = node.address.port().to_string();
        assert_eq!(nodes[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]), "+OK\r\n");
    }
    // Without this, a node may be killed before the others know each other.
    let known = format!("cluster_known_nodes:{}\r", nodes.len());
    let is_ready = |node: &Engine| {
        let info = node.command(&["CLUSTER", "INFO"]);
        ["cluster_state:ok", "cluster_slots_assigned:16384", &known].iter().all(|fact| info.contains(fact))
    };
    eventually(|| nodes.iter().all(is_ready).then_some(()));
    for (primary, replica) in nodes[..3].iter().zip(&nodes[3..]) {
        let id = primary.command(&["CLUSTER", "MYID"]);
        let id = id.lines().nth(1).unwrap().to_owned();
        eventually(|| (replica.command(&["CLUSTER", "REPLICATE", &id]) == "+OK\r\n").then_some(()));
    }
    // A replica that has not synchronized yet is never promoted.
    eventually(|| nodes[3..].iter().all(follows).then_some(()));
    eventually(|| nodes[..replicas].iter().all(|node| fact(node, "connected_slaves") == "1").then_some(()));
    nodes
}

fn fact_of_configuration(engine: &Engine, name: &str) -> String {
    engine.command(&["CONFIG", "GET", name]).lines().nth(4).unwrap().to_owned()
}

/// Mints interactions, harms a node, and sends a callback for each until it is delivered. `heal` brings the node back
/// meanwhile. Returns the longest outage.
fn survives(process: &Process, harm: impl FnOnce(), heal: impl FnOnce() + Send) -> Duration {
    let minted: Vec<_> = (0..40).map(|_| process.mint("jobs", "")).collect();
    harm();
    std::thread::scope(|scope| {
        scope.spawn(heal);
        all_are_delivered(process, &minted)
    })
}

fn all_are_delivered(process: &Process, minted: &[(String, String)]) -> Duration {
    let began = instant();
    let mut longest = Duration::ZERO;
    for (interaction, token) in minted {
        loop {
            let status = process.callback("jobs", token, "{\"status\":\"done\"}").status;
            if status == 200 {
                break;
            }
            // An interaction that was lost would be unknown: 401.
            assert_eq!(status, 503, "{interaction}");
            assert!(began.elapsed() < OUTAGE_MAX);
        }
        longest = longest.max(began.elapsed());
    }
    for (interaction, _) in minted {
        assert_eq!(process.view(interaction)["state"], "done");
    }
    longest
}

#[test]
fn a_cluster_whose_primary_is_killed_or_hangs_loses_nothing() {
    for hangs in [false, true] {
        let mut nodes = cluster(3);
        let store = format!(
            "store: {{ kind: redis, unknown: refuse, redis: {{ mode: cluster, nodes: [\"{}\", \"{}\"], wait: {{ replicas: 1 }} }} }}\n",
            nodes[0].address, nodes[1].address
        );
        let process = Process::start(&store);
        let (harmed, others) = nodes.split_first_mut().unwrap();
        let harmed = std::sync::Mutex::new(harmed);
        let harm = || match hangs {
            true => harmed.lock().unwrap().signal("STOP"),
            false => harmed.lock().unwrap().kill(),
        };
        // The new primary has no replica until the old one is back, so nothing can be confirmed before.
        let heal = || {
            eventually(|| (fact(&others[2], "role") == "master").then_some(()));
            match hangs {
                true => harmed.lock().unwrap().signal("CONT"),
                false => harmed.lock().unwrap().start_again(),
            }
        };
        let outage = survives(&process, harm, heal);
        println!("a primary that {}: {outage:?}", if hangs { "hangs" } else { "was killed" });
    }
}

/// A primary with two replicas behind three sentinels.
pub struct Sentinels {
    pub primary: Engine,
    _others: Vec<Engine>,
    _folder: tempfile::TempDir,
    /// The addresses of the sentinels, as a list of YAML.
    pub nodes: String,
}

impl Sentinels {
    pub fn start() -> Self {
        let primary = Engine::start("redis-server", &["--repl-diskless-sync-delay", "0"]);
        let port = primary.address.port().to_string();
        let mut others = vec![start_replica(&primary), start_replica(&primary)];
        eventually(|| others.iter().all(follows).then_some(()));
        let folder = tempfile::tempdir().unwrap();
        let sentinels: Vec<_> = (0..3)
            .map(|number| {
                let file = folder.path().join(format!("{number}.conf"));
                let text = format!(
                    "sentinel monitor cg 127.0.0.1 {port} 2\nsentinel down-after-milliseconds cg 1000\nsentinel failover-timeout cg 3000\n"
                );
                fs::write(&file, text).unwrap();
                Engine::start_sentinel(&Place::default(), &file)
            })
            .collect();
        let knows = |sentinel: &Engine| {
            let text = sentinel.command(&["SENTINEL", "MASTER", "cg"]);
            let value = |name: &str| {
                let mut lines = text.lines().skip_while(|line| *line != name);
                lines.nth(2).unwrap_or_default().to_owned()
            };
            value("num-slaves") == "2" && value("num-other-sentinels") == "2"
        };
        eventually(|| sentinels.iter().all(knows).then_some(()));
        let nodes: Vec<_> = sentinels.iter().map(|node| format!("\"{}\"", node.address)).collect();
        let nodes = format!("[{}]", nodes.join(", "));
        others.extend(sentinels);
        Self { primary, _others: others, _folder: folder, nodes }
    }
}

#[test]
fn behind_sentinels_the_new_primary_is_found() {
    let mut sentinels = Sentinels::start();
    let store = format!(
        "store: {{ kind: redis, unknown: refuse, redis: {{ mode: sentinel, master: cg, nodes: {}, wait: {{ replicas: 1 }} }} }}\n",
        sentinels.nodes
    );
    let process = Process::start(&store);
    let outage = survives(&process, || sentinels.primary.kill(), || {});
    println!("behind sentinels: {outage:?}");
}

#[test]
fn without_enough_replicas_nothing_is_acknowledged() {
    let (primary, mut replica) = with_replica();
    let store = format!(
        "store: {{ kind: redis, grace: 1s, redis: {{ nodes: [\"{}\"], wait: {{ replicas: 1, timeout: 300ms }} }} }}\n",
        primary.address
    );
    let process = Process::start(&store);
    let becomes_ready = |wanted: u16| {
        eventually(|| (process.callgate.admin_get("/readyz").status == wanted).then_some(()));
    };
    // The replica may need some time for its first confirmation.
    eventually(|| (process.hook("d0", "{}").status == 200).then_some(()));
    let minted: Vec<_> = (0..3).map(|_| process.mint("jobs", "")).collect();
    let hook = |delivery: &str| process.hook(delivery, "{}").status;
    assert_eq!(hook("d1"), 200);
    replica.kill();
    eventually(|| (fact(&primary, "connected_slaves") == "0").then_some(()));
    let wanted = r#"{"route":"jobs","params":{"id":"a"}}"#;
    assert_eq!(process.callgate.admin_send("POST", "/callbacks", wanted).status, 503);
    for _ in 0..2 {
        assert_eq!(process.callback("jobs", &minted[0].1, "{\"status\":\"done\"}").status, 503);
        assert_eq!(hook("d1"), 503, "a duplicate is acknowledged, too");
        assert_eq!(hook("d2"), 503);
        let revoked = format!("/callbacks/{}", minted[1].0);
        assert_eq!(process.callgate.admin_send("DELETE", &revoked, "").status, 503);
    }
    becomes_ready(503);
    assert!(process.callgate.metrics().contains("\ncallgate_store_failed 1\n"));
    replica.start_again();
    eventually(|| follows(&replica).then_some(()));
    becomes_ready(200);
    let again = || process.callback("jobs", &minted[0].1, "{\"status\":\"done\"}").status;
    eventually(|| (again() == 200).then_some(()));
    eventually(|| (hook("d2") == 200).then_some(()));
    assert_eq!(process.view(&minted[0].0)["state"], "done");
    assert_eq!(process.callback("jobs", &minted[2].1, "{}").status, 200);
}

#[test]
fn one_silent_node_of_a_cluster_does_not_stop_the_deadlines_of_the_others() {
    let mut nodes = cluster(0);
    let store = format!(
        "store: {{ kind: redis, grace: 1s, redis: {{ mode: cluster, nodes: [\"{}\"], timeout: 200ms }} }}\n",
        nodes[1].address
    );
    let process = Process::start(&store);
    let minted: Vec<_> = (0..60).map(|_| process.mint("short", "").0).collect();
    let records = |node: &Engine| node.keys("*i:*");
    let kept: Vec<_> = nodes[1..].iter().flat_map(records).collect();
    assert!(!kept.is_empty() && kept.len() < minted.len(), "{}", kept.len());
    nodes[0].kill();
    let notices = || process.agent.received().into_iter().filter(|one| one.target() == "/notice").count();
    eventually(|| (notices() >= kept.len()).then_some(()));
    eventually(|| process.callgate.metrics().contains("\ncallgate_store_failed 1\n").then_some(()));
    assert_eq!(process.callgate.admin_get("/readyz").status, 200, "most callbacks are accepted");
}
