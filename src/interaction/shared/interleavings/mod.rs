//! Tests all interleavings of three processes that share one record. The processes receive two callbacks, one of them
//! twice, apply a deadline and revoke the interaction. One process crashes, and one call to the store is lost. A
//! breadth-first search visits every reachable state.
//!
//! The functions of the parent module compute each new record. This module simulates the store and the time. The
//! simulated store is a Redis server that writes a record only if the record's version has not changed. A call to the
//! store can remain without a response. The server executes such a call at once, later or never.

mod records;
mod scene;
mod world;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use self::records::Records;
use self::scene::{EXPIRES, Job, Scene, TICK, TICKS, at, key};
use self::world::World;
use super::{SharedRecord, Terms};
use crate::interaction::State;

/// Returns a description of the violated invariant, or `None` if the state is valid.
fn fault(world: &World, records: &Records, scene: Scene) -> Option<&'static str> {
    let seen = &world.seen;
    if let Some(wrong) = seen.wrong {
        return Some(wrong);
    }
    if seen.reported > 1 && !seen.may_report_again {
        return Some("the deadline was reported more than once");
    }
    if world.engine.text == 0 {
        let reached = world.tick * TICK >= EXPIRES;
        return (!reached).then_some("the record is missing before the token has expired");
    }
    let record = records.stored(world.engine.text);
    let (events, interaction) = (record.events(), &record.interaction);
    if (1..events.len()).any(|number| events[number..].contains(&events[number - 1])) {
        return Some("an event was settled twice");
    }
    if interaction.deliveries as usize != events.len() {
        return Some("a settle was recorded without its event");
    }
    if scene.uses.is_some_and(|uses| interaction.deliveries > uses) {
        return Some("more uses than allowed");
    }
    if seen.is_revoked && interaction.state != State::Revoked {
        return Some("a revoked interaction is not revoked any more");
    }
    let is_missing = |event: usize| !record.has_delivered(key(event)) || seen.accepted[event] == 0;
    if (0..2).any(|event| seen.acknowledged[event] && is_missing(event)) {
        return Some("an acknowledged event is missing");
    }
    fault_after_all_crashed(world, record)
}

/// Simulates that all processes crash now, and that another process continues after the end of all leases. Returns a
/// description of the violated invariant, or `None` if no invariant is violated.
fn fault_after_all_crashed(world: &World, mut record: SharedRecord) -> Option<&'static str> {
    let end = at((TICKS + 2) * TICK);
    if world.engine.due > end.unix_ms() {
        return Some("nobody will look at the record again");
    }
    record.resume(end);
    record.pass(Terms { id: 999, until: end.plus(Duration::from_secs(1)) }, end);
    let is_reported = world.seen.reported > 0 || record.interaction.notice().is_some();
    match record.interaction.state {
        State::Expired if !is_reported => Some("the deadline has passed, and nobody reports it"),
        state if state.is_open() => Some("the deadline is not applied"),
        _ => None,
    }
}

/// Visits all states. Returns the number of states. If a state violates an invariant, returns the steps to this state.
fn search(scene: Scene) -> Result<usize, String> {
    let mut jobs = vec![(0, Job::Callback(0)), (2, Job::Callback(1)), (1, Job::Callback(0))];
    jobs.truncate(scene.events);
    jobs.extend((0..scene.looks).map(|number| (2 - number % 3, Job::Look)));
    jobs.extend(scene.revokes.then_some((2, Job::Revoke)));
    let (mut records, first) = Records::new(scene);
    let first = World::new(first, jobs, scene);
    let mut before: HashMap<u64, u64> = HashMap::from([(first.fingerprint(), 0)]);
    let (mut queue, mut checked) = (VecDeque::from([first.clone()]), HashSet::new());
    let mut next = Vec::new();
    while let Some(world) = queue.pop_front() {
        let from = world.fingerprint();
        if checked.insert((world.engine.text, world.engine.due, world.tick, world.seen))
            && let Some(fault) = fault(&world, &records, scene)
        {
            return Err(format!("{}\n{fault}", way(first, from, &before, &mut records)));
        }
        world.successors(&mut records, &mut next);
        for world in next.drain(..) {
            let fingerprint = world.fingerprint();
            if let Entry::Vacant(place) = before.entry(fingerprint) {
                place.insert(from);
                queue.push_back(world);
            }
        }
    }
    Ok(before.len())
}

/// Describes the steps from the first state of the search to the state whose fingerprint is `to`.
fn way(first: World, to: u64, before: &HashMap<u64, u64>, records: &mut Records) -> String {
    let mut places = vec![to];
    while let Some(place) = before.get(places.last().unwrap()).filter(|place| **place != 0) {
        places.push(*place);
    }
    let (mut world, mut steps, mut next) = (first, Vec::new(), Vec::new());
    for place in places.iter().rev().skip(1) {
        world.successors(records, &mut next);
        let after = next.drain(..).find(|next| next.fingerprint() == *place).unwrap();
        steps.push(world.difference(&after));
        world = after;
    }
    steps.join("\n")
}

fn every_state_is_right(name: &str, scene: Scene) {
    match search(scene) {
        Ok(states) => println!("{name}: {states} states"),
        Err(way) => panic!("{name}:\n{way}"),
    }
}

#[test]
fn in_every_interleaving_each_event_is_settled_once_and_the_deadline_is_reported() {
    let scene = Scene { events: 3, is_final: true, looks: 1, crashes: 1, faults: 1, ..Scene::default() };
    every_state_is_right("three callbacks, a deadline, a crash and a lost call", scene);
}

#[test]
fn in_every_interleaving_the_deadline_is_reported_once() {
    let scene = Scene { events: 1, looks: 3, crashes: 1, faults: 1, ..Scene::default() };
    every_state_is_right("a callback, and three members that look at the deadline", scene);
}

#[test]
fn in_every_interleaving_the_only_use_is_used_once() {
    let scene = Scene { uses: Some(1), events: 3, crashes: 1, faults: 1, refusals: 1, ..Scene::default() };
    every_state_is_right("three callbacks for one use", scene);
}

#[test]
fn in_every_interleaving_a_revoked_interaction_stays_revoked() {
    let scene = Scene { events: 2, revokes: true, crashes: 1, faults: 1, ..Scene::default() };
    every_state_is_right("two callbacks, a revocation, a crash and a lost call", scene);
    let scene = Scene { events: 2, revokes: true, looks: 1, crashes: 1, ..Scene::default() };
    every_state_is_right("two callbacks, a revocation, a deadline and a crash", scene);
}
