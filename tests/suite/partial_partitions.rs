//! Partitions in which a process or a node of a shared ledger sees some of the others, and not all.
//!
//! A proxy separates a process from the engine. Network namespaces separate any two places, also in one direction
//! (`make partition`).

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use callgate::clock::instant;

use crate::chaos::{CUT, FROZEN_FROM, FROZEN_TO, Link, Member, OPEN, number, try_send};
use crate::engine::{Engine, Place};
use crate::harness::eventually;
use crate::run_folder::RunFolder;
use crate::shared_chaos::{Installation, MEMBERS, Places, REPLICAS, run};
use crate::shared_history::What;
use crate::splitmix::Random;

/// Returns the status of a member's readiness. `None` if it does not answer.
fn readiness(member: &Member) -> Option<u16> {
    try_send(member.admin, "GET", "/readyz", "", "").map(|(status, _)| status)
}

fn becomes(member: &Member, wanted: u16) {
    eventually(|| (readiness(member) == Some(wanted)).then_some(()));
}

/// Separates one process from the engine while two others see it.
fn separate(installation: &Installation, links: &[Link], number: usize, mode: u8) {
    let (members, began) = (&installation.members, instant());
    let (member, other) = (&members[number], &members[(number + 1) % MEMBERS]);
    let minted = installation.mint_at(other, None, false).unwrap();
    links[number].mode.store(mode, Ordering::SeqCst);
    becomes(member, 503);
    let ready = members.iter().map(readiness).enumerate().filter(|(at, _)| *at != number);
    assert!(ready.map(|(_, status)| status).all(|status| status == Some(200)));
    assert!(installation.mint_at(member, None, false).is_none(), "nothing is minted without the engine");
    let event = format!("separated-{number}");
    assert_eq!(installation.attempt_at(member, &minted, &event, false), Some(503));
    let deliveries = || {
        let calls = installation.history.calls();
        calls
            .iter()
            .filter(|call| matches!(&call.what, What::Delivery(body) if body.contains(&event)))
            .count()
    };
    assert_eq!(deliveries(), 0, "it does not know whether it may deliver");
    assert_eq!(installation.attempt_at(other, &minted, &event, false), Some(200), "the others go on");
    assert_eq!(readiness(member), Some(503));
    links[number].mode.store(OPEN, Ordering::SeqCst);
    becomes(member, 200);
    installation.history.add(began, "", What::Trouble(format!("{number} was separated: {mode}")), None);
    eventually(|| (installation.attempt_at(member, &minted, &event, false) == Some(200)).then_some(()));
    assert_eq!(deliveries(), 1, "it is a duplicate for the separated process, too");
}

#[test]
fn a_process_without_the_engine_is_not_ready_and_the_others_go_on() {
    let folder = RunFolder::new("partition-");
    let node = Engine::start("redis-server", &[]);
    let links: Vec<_> = (0..MEMBERS).map(|_| Link::start(node.address)).collect();
    let store = |number: usize| format!("nodes: [\"{}\"], timeout: 300ms", links[number].address);
    let places = Places::default();
    let mut started = Installation::with_engine(folder.path(), &places, vec![node], Vec::new(), &store);
    // A notice that was under way has a lease of two minutes.
    started.has_silent = false;
    let installation = Arc::new(started);
    run(folder, &installation, "a process without the engine", || {
        installation.members.iter().for_each(|member| becomes(member, 200));
        let clients = installation.start_clients(1);
        for (number, mode) in [CUT, FROZEN_TO, FROZEN_FROM].into_iter().enumerate() {
            separate(&installation, &links, number, mode);
        }
        installation.end(clients);
    });
}

// === Network namespaces ===

fn execute(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Namespaces that a bridge connects. They end with the namespace in which this process runs.
struct Network {
    places: Vec<Place>,
}

const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 198, 0, 254);

impl Network {
    fn start(count: u8) -> Self {
        execute(&["ip", "link", "set", "lo", "up"]);
        execute(&["ip", "link", "add", "br0", "type", "bridge"]);
        execute(&["ip", "addr", "add", &format!("{BRIDGE}/24"), "dev", "br0"]);
        execute(&["ip", "link", "set", "br0", "up"]);
        let place = |number: u8| {
            let (name, host) = (format!("place{number}"), Ipv4Addr::new(10, 198, 0, number + 1));
            let (link, address) = (format!("link{number}"), format!("{host}/24"));
            execute(&["ip", "netns", "add", &name]);
            execute(&["ip", "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            execute(&["ip", "link", "set", &link, "master", "br0", "up"]);
            execute(&["ip", "-n", &name, "addr", "add", &address, "dev", "eth0"]);
            execute(&["ip", "-n", &name, "link", "set", "eth0", "up"]);
            execute(&["ip", "-n", &name, "link", "set", "lo", "up"]);
            Place { host, namespace: Some(name) }
        };
        Self { places: (0..count).map(place).collect() }
    }

    /// Drops everything that one place sends to another one.
    fn cut(&self, from: usize, to: usize) {
        let (host, name) = (self.places[from].host.to_string(), self.places[to].namespace.as_ref().unwrap());
        execute(&["ip", "netns", "exec", name, "iptables", "-A", "INPUT", "-s", &host, "-j", "DROP"]);
    }

    fn heal(&self) {
        for place in &self.places {
            let name = place.namespace.as_ref().unwrap();
            execute(&["ip", "netns", "exec", name, "iptables", "-F", "INPUT"]);
        }
    }
}

/// Cuts some directions for a while, and waits until everything is well again. `unready` are the members that must say
/// meanwhile that they are not ready. `None` if this depends on who is elected.
fn cut_for(
    (network, installation): (&Network, &Installation),
    name: &str,
    cuts: &[(usize, usize)],
    unready: Option<&[usize]>,
    time: Duration,
) {
    let began = instant();
    let acknowledged = || {
        let calls = installation.history.calls();
        calls
            .iter()
            .filter(|call| matches!(call.what, What::Event { .. }) && call.status == Some(200))
            .count()
    };
    let before = acknowledged();
    cuts.iter().for_each(|(from, to)| network.cut(*from, *to));
    sleep(time);
    if let Some(unready) = unready {
        for (number, member) in installation.members.iter().enumerate() {
            let wanted = if unready.contains(&number) { 503 } else { 200 };
            becomes(member, wanted);
        }
    }
    let during = acknowledged() - before;
    network.heal();
    installation.ready_for_a_kill();
    installation.members.iter().for_each(|member| becomes(member, 200));
    let took = began.elapsed();
    installation.history.add(began, "", What::Trouble(format!("{name}: {cuts:?}")), None);
    println!("{name}: {during} events acknowledged meanwhile, well again after {took:.1?}");
}

/// Partitions between the nodes, their sentinels and the processes. Each place has its own namespace.
#[test]
#[ignore = "needs a namespace of its own: make partition"]
fn partial_partitions_of_nodes_and_processes_lose_nothing() {
    const NODES: usize = 1 + REPLICAS;
    let (seed, rounds) = (number("CALLGATE_CHAOS_SEED", 1), number("CALLGATE_PARTITIONS", 8));
    let folder = RunFolder::new("partitions-");
    let network = Network::start((NODES + MEMBERS) as u8);
    let place = |number: usize| network.places[number].clone();
    let places = Places {
        nodes: [place(0), place(1), place(2)],
        members: [place(NODES), place(NODES + 1), place(NODES + 2)],
        agents: BRIDGE,
    };
    let installation = Arc::new(Installation::start("redis-server", REPLICAS, folder.path(), &places));
    run(folder, &installation, &format!("partial partitions, seed {seed}"), || {
        let primary = installation.ready_for_a_kill();
        let [first, second] = [(primary + 1) % NODES, (primary + 2) % NODES];
        let clients = installation.start_clients(seed);
        let both = (&network, &*installation);
        let time = Duration::from_secs(3);
        let member = NODES;
        // Without the confirmation of a replica, nothing is acknowledged anywhere.
        let all = [0, 1, 2];
        let pair = |one, other| [(one, other), (other, one)];
        cut_for(both, "primary and a replica", &pair(primary, first), Some(&all), time);
        cut_for(both, "from a replica to the primary", &[(first, primary)], Some(&all), time);
        cut_for(both, "from the primary to a replica", &[(primary, first)], Some(&all), time);
        cut_for(both, "two replicas", &pair(first, second), Some(&[]), time);
        cut_for(both, "a process and the primary", &pair(member, primary), Some(&[0]), time);
        cut_for(both, "from a process to the primary", &[(member, primary)], Some(&[0]), time);
        cut_for(both, "from the primary to a process", &[(primary, member)], Some(&[0]), time);
        cut_for(both, "a process and a replica", &pair(member, first), Some(&[]), time);
        // The other sentinels elect another primary, while the processes still see this one.
        let others = [pair(primary, first), pair(primary, second)].concat();
        cut_for(both, "the primary and all other nodes", &others, None, 2 * time);
        let mut random = Random(seed);
        for round in 0..rounds {
            let mut cuts = Vec::new();
            for _ in 0..1 + random.below(3) {
                let from = random.below((NODES + MEMBERS) as u64) as usize;
                let to = (from + 1 + random.below((NODES + MEMBERS - 1) as u64) as usize) % (NODES + MEMBERS);
                cuts.push((from, to));
                if random.below(2) == 0 {
                    cuts.push((to, from));
                }
            }
            cut_for(both, &format!("drawn {round}"), &cuts, None, random.millis(300, 5000));
        }
        installation.end(clients);
    });
}
