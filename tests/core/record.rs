//! The JSON of a record, which the ledger writes into its file. A later version of Callgate must read it.

use std::time::Duration;

use callgate::interaction::{Follow, Interaction, pairs};
use callgate::time::Timestamp;
use libtest_mimic::Trial;

/// A new interaction, with the defaults of all settings.
fn new() -> Interaction {
    let at = Timestamp::from_unix_secs;
    Interaction::new("r".into(), pairs([("id", "a"), ("user", "b")].into_iter()), at(1), at(2))
}

/// An interaction whose optional settings all have a value.
fn full() -> Interaction {
    let (deadline, stalled_after) = (Some(Duration::from_secs(3)), Some(Duration::from_secs(4)));
    let mut record =
        new().limited(Some(5)).followed(&Follow { deadline, stalled_after, ..Follow::default() }, true);
    record.provider = Some("gh".into());
    record.bind("job_1");
    record
}

const NEW: &str = r#"{"route":"r","captures":"id=a&user=b","state":"open","created":1000,"expires":2000,"deliveries":0,"notifies":false,"stall_noticed":false}"#;
const FULL: &str = r#"{"route":"r","provider":"gh","captures":"id=a&user=b","state":"open","created":1000,"expires":2000,"deadline":4000,"stalled_after_ms":4000,"uses_left":5,"deliveries":0,"notifies":true,"stall_noticed":false,"more":{"event_ids":[],"questions":[],"questions_asked":0,"provider_id":"job_1","notice":null}}"#;

/// Returns one test for each record.
pub fn trials() -> [Trial; 2] {
    [("a new interaction", new(), NEW), ("an interaction with all settings", full(), FULL)].map(
        |(name, record, expected)| {
            Trial::test(format!("records::{name}"), move || {
                let written = serde_json::to_string(&record).unwrap();
                assert_eq!(written, expected);
                let read: Interaction = serde_json::from_str(&written).unwrap();
                assert_eq!(serde_json::to_string(&read).unwrap(), expected);
                Ok(())
            })
        },
    )
}
