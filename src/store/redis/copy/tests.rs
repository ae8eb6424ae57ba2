//! Tests of copies between two simulated shared ledgers.

use super::super::simulation::SimulatedLedger;
use super::*;
use crate::interaction::{Ask, Follow, Interaction, Report};
use crate::path::{CanonicalPath, Template};

fn at(seconds: u64, now: Timestamp) -> Timestamp {
    now.plus(Duration::from_secs(seconds))
}

/// Returns a delivered event as a tuple, so that a test can compare events.
fn plain(loose: &Loose) -> (Option<[u64; 2]>, u128, u8, i64) {
    let until = loose.until.unix_ms();
    match loose.event {
        LooseEvent::Key(key, number) => (None, key.0, number, until),
        LooseEvent::Fingerprint(secret, fingerprint) => (Some(secret.0), fingerprint.into(), 0, until),
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_has_every_interaction_and_every_event_until_the_end_of_its_retention() {
    let (_, [from]) = SimulatedLedger::start(|_| {}).await;
    let (_, [to]) = SimulatedLedger::start(|_| {}).await;
    let now = from.clock.now().unwrap();
    for id in ["int_a", "int_b"] {
        let record = Interaction::new("r".into(), "".into(), now, at(3600, now)).matched();
        from.open(id, record).await.unwrap();
    }
    from.bind("int_b", "task 1").await.unwrap();
    let secret = FingerprintKey([1, 2]);
    let loose = [LooseEvent::Fingerprint(secret, 64 + 3), LooseEvent::Key(EventKey(5), 7)];
    let until = [at(900, now), at(600, now)];
    let loose: Vec<_> = loose.into_iter().zip(until).map(|(event, until)| Loose { event, until }).collect();
    let expired = Loose { event: LooseEvent::Key(EventKey(6), 8), until: at(0, now) };
    from.write_loose(&[&loose[..], &[expired]].concat()).await.unwrap();

    let mut report = CopyReport::default();
    to.write_all(from.read_all().await.unwrap(), &mut report).await.unwrap();
    assert_eq!((report.added, report.events, report.provider_ids), (2, 2, 1), "{report:?}");
    let copy = to.read_all().await.unwrap();
    assert!(copy.interactions.iter().map(|one| &*one.id).eq(["int_a", "int_b"]));
    assert_eq!(copy.interactions[1].record.interaction.provider_id(), Some("task 1"));
    assert_eq!(copy.loose.iter().map(plain).collect::<Vec<_>>(), loose.iter().map(plain).collect::<Vec<_>>());

    tokio::time::advance(Duration::from_secs(601)).await;
    assert_eq!(to.read_all().await.unwrap().loose.len(), 1, "the retention of one event has ended");
    tokio::time::advance(Duration::from_secs(300)).await;
    assert_eq!(to.read_all().await.unwrap().loose.len(), 0);
}

/// Two interactions have the same provider's id. The first one is known in the target ledger, and the second one is
/// copied.
#[tokio::test(start_paused = true)]
async fn a_copied_provider_id_finds_the_later_of_two_interactions() {
    for (name, first, second, finds_second) in [
        ("the same", Some(("int_a", 5)), ("int_a", 5), true),
        ("an earlier one", Some(("int_a", 5)), ("int_b", 3), true),
        ("a later one", Some(("int_a", 3)), ("int_b", 5), false),
        ("the lower id", Some(("int_a", 5)), ("int_b", 5), true),
        ("the higher id", Some(("int_b", 5)), ("int_a", 5), false),
        ("a removed one", Some(("removed", 1)), ("int_b", 5), true),
        ("none", None, ("int_b", 5), true),
    ] {
        let (_, [store]) = SimulatedLedger::start(|_| {}).await;
        let now = store.clock.now().unwrap();
        let created = |(_, age): (&str, u64)| now.minus(Duration::from_secs(age));
        if let Some(known) = first {
            if known.0 != "removed" {
                let record = Interaction::new("r".into(), "".into(), created(known), at(3600, now));
                store.open(known.0, record).await.unwrap();
            }
            store.remember_provider_id("r", "work", known.0).await.unwrap();
        }
        let (id, route, provider_id) = (second.0.into(), "r".into(), "work".into());
        let binding = Binding { id, route, provider_id, created: created(second) };
        assert_eq!(store.copy_binding(&binding).await.unwrap(), finds_second, "{name}");
        let (captures, follow) = (Template::parse("/w").unwrap(), Follow::default());
        let captures = captures.capture(&CanonicalPath::parse("/w").unwrap());
        let report = Report { id: Some("work".into()), ..Report::default() };
        let ask = Ask::new(&binding.route, &captures, &follow, &report);
        let found = store.find_matched(&ask, Duration::ZERO).await.unwrap();
        let expected = if finds_second { Some(second.0) } else { first.map(|(id, _)| id) };
        assert_eq!(found.as_deref(), expected, "{name}");
    }
}
