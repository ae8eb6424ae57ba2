//! Measures a large ledger with the real process. `cargo test --test suite ledger_scale:: -- --ignored --nocapture` prints
//! the figures; `CALLGATE_BINARY` selects another build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use callgate::clock::{Clock, instant};

use crate::crash::{Acknowledged, Load, Running, call, config, try_send};
use crate::harness::{ANSWER, Agent, parse};
use crate::ledger_file::{Ledger, ids};

fn ledger(folder: &Path, agent: &Agent) -> (PathBuf, Ledger) {
    let path = config(folder, agent);
    let text = fs::read_to_string(&path).unwrap();
    let text = text
        .replace("grace: 1s", "grace: 60s, keep_ended: 0s, interactions_max: 10000000, events_max: 10000000");
    fs::write(&path, &text).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = parse(&text.replace("env: SECRET", "env: HMAC_SECRET"));
    (path, Ledger { path: folder.join("ledger"), config, runtime })
}

fn interactions(running: &Running) -> Option<usize> {
    let (_, page) = try_send(running.admin, "GET", "/metrics", "", "")?;
    page.lines().find_map(|line| line.strip_prefix("callgate_store_interactions ")?.parse().ok())
}

/// Prints the median, the 99th percentile and the maximum.
fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    println!(
        "{what}: {} callbacks, median {:?}, 99 % {:?}, maximum {:?}",
        times.len(),
        at(50),
        at(99),
        at(100)
    );
}

#[test]
#[ignore = "takes minutes, and its figures depend on the machine"]
fn very_many_interactions_that_expire_at_once() {
    const COUNT: usize = 100_000;
    let (folder, agent) = (tempfile::tempdir().unwrap(), Agent::start(ANSWER));
    let (path, ledger) = ledger(folder.path(), &agent);
    let lifetime = Duration::from_secs(120);
    let began = Clock::System.now();
    let store = ledger.open();
    ledger.mint(&store, &ids('a', COUNT), 100, lifetime, began);
    store.close();
    drop(store);
    let size = || fs::metadata(&ledger.path).unwrap().len() >> 20;
    let filled = size();
    let running = Running::start(&path);
    let (acknowledged, operations) = (Mutex::new(Acknowledged::default()), AtomicUsize::new(0));
    let load = Load { running: &running, acknowledged: &acknowledged, operations: &operations, round: 0 };
    let known = load.mint().unwrap();
    let (expiring, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let (mut before, mut during) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while Clock::System.now() < began.plus(lifetime) {
                std::thread::sleep(Duration::from_millis(5));
            }
            expiring.store(true, Ordering::SeqCst);
            let since = instant();
            while interactions(&running).is_none_or(|count| count > 1) {
                std::thread::sleep(Duration::from_millis(20));
            }
            println!("{COUNT} interactions expired within {:?}", since.elapsed());
            done.store(true, Ordering::SeqCst);
        });
        for n in 0.. {
            let (expires, since) = (expiring.load(Ordering::SeqCst), instant());
            assert_eq!(call(running.ingress, &known, &format!("e{n}")), Some(200));
            // The callbacks of the last ten seconds before the expiry are compared with those during the expiry.
            if expires {
                during.push(since.elapsed());
            } else if Clock::System.now().plus(Duration::from_secs(10)) > began.plus(lifetime) {
                before.push(since.elapsed());
            }
            if done.load(Ordering::SeqCst) {
                break;
            }
        }
    });
    print("before", before);
    print("during", during);
    let mut least = size();
    for n in 0..200 {
        call(running.ingress, &known, &format!("after{n}"));
        std::thread::sleep(Duration::from_millis(20));
        least = least.min(size());
    }
    println!("file: {filled} MiB filled, {} MiB after the expiry, {least} MiB smallest", size());
}

#[test]
#[ignore = "takes minutes, and its figures depend on the machine"]
fn a_start_with_a_million_interactions() {
    const COUNT: usize = 1_000_000;
    let (folder, agent) = (tempfile::tempdir().unwrap(), Agent::start(ANSWER));
    let (path, ledger) = ledger(folder.path(), &agent);
    let store = ledger.open();
    let now = Clock::System.now();
    for part in ids('a', COUNT).chunks(10_000) {
        ledger.mint(&store, part, 12, Duration::from_secs(7200), now);
    }
    store.close();
    drop(store);
    println!("{COUNT} interactions: {} MiB of file", fs::metadata(&ledger.path).unwrap().len() >> 20);
    // The second start is one after a crash.
    for what in ["a stop", "a crash"] {
        let since = instant();
        let running = Running::start(&path);
        let took = since.elapsed();
        assert_eq!(interactions(&running), Some(COUNT));
        // The allocator returns memory to the kernel with a delay.
        for seconds in [0, 3] {
            std::thread::sleep(Duration::from_secs(seconds));
            let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
            let memory: Vec<_> = status
                .lines()
                .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
                .collect();
            println!("start after {what}: {took:?}, {memory:?}");
        }
        let (status, _) = try_send(running.admin, "GET", "/callbacks?limit=100", "", "").unwrap();
        assert_eq!(status, 200);
        assert!(
            Command::new("kill").args(["-9", &running.child.id().to_string()]).status().unwrap().success()
        );
    }
}
