//! Simulates a large installation in virtual time: many agents, each with several processes that share a ledger. The
//! simulation contains callbacks, duplicates, silent providers, restarts and failovers. The store and the state machine
//! are the real code. [`StandIn`] simulates the Redis server. The seed alone determines the whole simulation.
//!
//! `make simulate` runs larger simulations. `CALLGATE_SIMULATE` is the number of interactions of each seed,
//! `CALLGATE_SIMULATE_SEED` the first seed, and `CALLGATE_SIMULATE_SEEDS` the number of seeds.

mod history;
mod ledger;
mod lookups;
mod process;
mod simulated_processes;
mod simulated_redis;
mod size;

use std::sync::Arc;
use std::time::Duration;

use self::simulated_processes::Group;
use self::simulated_redis::{Cost, Faults};
use self::size::Size;
use crate::clock::instant;
use crate::observe::Metrics;

pub(in crate::store) use self::ledger::SimulatedLedger;
pub(in crate::store::redis) use self::lookups::SCANNED_MAX;
pub(in crate::store::redis) use self::process::settings;
pub(in crate::store::redis) use self::simulated_redis::StandIn;

/// The results of a simulation.
struct Outcome {
    faults: Vec<String>,
    cost: Cost,
    cpu: Duration,
    virtual_time: Duration,
}

/// Returns the CPU time of this thread.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// The number of interactions that the unit tests simulate.
const INTERACTIONS: u64 = 10_000;
/// A simulation with at least this number of interactions prints its progress.
const LARGE: u64 = 100_000;

/// Returns the command that repeats a simulation with this seed.
fn repeat(seed: u64) -> String {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let interactions = number("CALLGATE_SIMULATE", INTERACTIONS);
    format!("repeat it with: make simulate INTERACTIONS={interactions} SEED={seed} PROFILE={profile}")
}

/// Prints the percentage of the interactions that have begun, in steps of 5 %.
async fn progress(groups: Vec<Arc<Group>>, size: Size, seed: u64) {
    let mut said = 0;
    while said < 20 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let begun: u64 = groups.iter().map(|group| group.begun()).sum();
        let part = 20 * begun / (size.interactions / size.groups * size.groups).max(1);
        if part > said && size.interactions >= LARGE {
            let cpu = cpu_time().as_secs();
            println!("seed {seed}: {} % of {} interactions, {cpu} s of CPU", 5 * part, size.interactions);
        }
        said = part;
    }
}

fn simulate(size: Size, seed: u64) -> Outcome {
    crate::random::repeatable::set(Some(seed));
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let began = cpu_time();
    let outcome = runtime.block_on(async {
        let metrics = Arc::new(Metrics::new().unwrap());
        let began = tokio::time::Instant::from_std(instant());
        let number = if size.is_troubled { 5 } else { 0 };
        let faults = Faults {
            lost_requests: number,
            lost_responses: number,
            late: number,
            waits: size.waits,
            lag_ms: if size.waits { 5 } else { 200 },
        };
        let groups: Vec<_> = (0..size.groups)
            .map(|number| Group::start(size, faults, seed ^ ((number + 1) << 20), &metrics))
            .collect();
        let running: Vec<_> = groups.iter().map(|group| tokio::spawn(Arc::clone(group).run())).collect();
        tokio::spawn(progress(groups.clone(), size, seed));
        for running in running {
            running.await.unwrap();
        }
        let mut outcome = Outcome {
            faults: Vec::new(),
            cost: Cost::default(),
            cpu: Duration::ZERO,
            virtual_time: began.elapsed(),
        };
        for group in groups {
            outcome.faults.extend(group.history.faults());
            let cost = group.engine.cost();
            outcome.cost.bytes += cost.bytes;
            for (name, count) in cost.calls {
                *outcome.cost.calls.entry(name).or_default() += count;
            }
        }
        outcome
    });
    crate::random::repeatable::set(None);
    Outcome { cpu: cpu_time() - began, ..outcome }
}

/// Runs a simulation, prints the cost of an interaction, and checks the observations.
fn run(name: &str, size: Size, seed: u64) {
    let Size { groups, members, interactions, .. } = size;
    let outcome = std::panic::catch_unwind(|| simulate(size, seed));
    let Ok(Outcome { faults, cost, cpu, virtual_time }) = outcome else {
        panic!("seed {seed}: it ended early; {}", repeat(seed));
    };
    // Processes also make these calls while nothing happens.
    let is_background = |name: &str| matches!(name, "beat" | "count" | "due");
    let (background, own): (Vec<_>, Vec<_>) = cost.calls.iter().partition(|(name, _)| is_background(name));
    let sum = |calls: &[(&&str, &u64)]| calls.iter().map(|(_, count)| **count).sum::<u64>();
    let each = |number: u64| number as f64 / interactions as f64;
    println!(
        "{name}: {groups} groups of {members} members, {interactions} interactions in {:.0} s of virtual time: \
         {:.1} calls, {:.0} bytes sent and read, {:.0} us of CPU each; {:.2} calls per member and second besides",
        virtual_time.as_secs_f64(),
        each(sum(&own)),
        each(cost.bytes),
        each(u64::try_from(cpu.as_micros()).unwrap()),
        sum(&background) as f64 / virtual_time.as_secs_f64() / (groups * members) as f64,
    );
    println!("  {:?}", cost.calls);
    let first: Vec<_> = faults.iter().take(5).collect();
    let (count, repeat) = (faults.len(), repeat(seed));
    assert!(faults.is_empty(), "seed {seed}: {count} faults, such as {first:#?}\n{repeat}");
}

/// Returns the number in an environment variable, which a larger run sets. Returns `default` if the variable is not
/// set.
#[allow(clippy::disallowed_methods, reason = "a larger run is asked for by the environment")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn simulated_members_lose_nothing_and_deliver_nothing_twice() {
    let interactions = number("CALLGATE_SIMULATE", INTERACTIONS);
    let (first, seeds) = (number("CALLGATE_SIMULATE_SEED", 1), number("CALLGATE_SIMULATE_SEEDS", 1));
    let groups = (interactions / 1000).clamp(1, 1000);
    let size = Size { groups, members: 5, interactions, is_troubled: true, waits: true };
    for seed in first..first + seeds {
        run(&format!("restarts and failovers, seed {seed}"), size, seed);
    }
}

#[test]
fn the_cost_of_a_simulated_interaction_does_not_grow() {
    let most = number("CALLGATE_SIMULATE", INTERACTIONS) / 20;
    let size = Size { groups: 1, members: 5, interactions: most, is_troubled: false, waits: false };
    run("the base", size, 1);
    run("more agents", Size { groups: 2, interactions: most * 2, ..size }, 1);
    run("more interactions", Size { interactions: most * 2, ..size }, 1);
    run("more members", Size { members: 10, ..size }, 1);
}

#[test]
#[should_panic(expected = "\nrepeat it with: make simulate INTERACTIONS=")]
fn the_simulation_notices_what_a_failover_without_replicas_loses() {
    let size = Size { groups: 4, members: 3, interactions: 2000, is_troubled: true, waits: false };
    run("failovers that lose changes", size, 7);
}
