//! Tests of lists, counts and searches that read the whole ledger.

use std::time::Duration;

use serde_json::{Value, json};

use super::file_tests::{settings, start_with};
use crate::config::StoreSettings;
use crate::interaction::Interaction;
use crate::observe::Metrics;
use crate::store::ledger::{Store, Walk};
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);
const HOUR: Duration = Duration::from_secs(3600);

/// Returns a record of an interaction that was created some seconds ago, as another process hands it over.
fn record(id: &str, route: &str, age: u64) -> Value {
    let created = NOW.minus(Duration::from_secs(age));
    json!({ "id": id, "record": Interaction::new(route.into(), "".into(), created, NOW.plus(HOUR)) })
}

/// Starts a ledger in memory with these records.
async fn with(records: Vec<Value>) -> Store {
    let settings = StoreSettings { interactions_max: 10_000, ..settings(None) };
    let store = start_with(&settings, NOW).unwrap();
    store.take_over(serde_json::from_value(records.into()).unwrap()).await.unwrap();
    store
}

/// Performs a step of the walk. Then returns the age of the oldest open interaction of each route, in seconds, according
/// to the metrics.
async fn walked(store: &Store, walk: &mut Walk, metrics: &Metrics) -> Vec<(String, u64)> {
    store.walk(walk, metrics, NOW).await;
    let text = metrics.text().unwrap();
    let age = |line: &str| {
        let line = line.strip_prefix("callgate_interactions_oldest_age_seconds{route=\"")?;
        let (route, age) = line.split_once("\"} ").unwrap();
        Some((route.to_owned(), age.parse().unwrap()))
    };
    text.lines().filter_map(age).collect()
}

#[tokio::test]
async fn a_walk_of_several_steps_finds_the_oldest_open_interaction_of_each_route() {
    let mut records: Vec<_> =
        (0..3000).map(|number| record(&format!("int_{number}"), "many", number % 100)).collect();
    records.extend([("int_a", 5), ("int_b", 9), ("int_c", 7)].map(|(id, age)| record(id, "few", age)));
    let store = with(records).await;
    store.revoke("int_b", false, NOW).await.unwrap();
    let (mut walk, metrics) = (Walk::default(), Metrics::new().unwrap());
    let found = |few| vec![("few".to_owned(), few), ("many".to_owned(), 99)];
    assert_eq!(walked(&store, &mut walk, &metrics).await, [], "the first step reads a part of the ledger");
    assert_eq!(walked(&store, &mut walk, &metrics).await, found(7));
    store.revoke("int_c", false, NOW).await.unwrap();
    assert_eq!(walked(&store, &mut walk, &metrics).await, found(7), "the next walk has begun");
    assert_eq!(walked(&store, &mut walk, &metrics).await, found(5));
}

#[tokio::test]
async fn a_list_has_the_first_wanted_interactions_in_order() {
    let ids: Vec<_> = (0..1000).map(|number| format!("int_{number}")).collect();
    let route = |number: usize| if number.is_multiple_of(3) { "few" } else { "many" };
    let store = with(ids.iter().enumerate().map(|(number, id)| record(id, route(number), 0)).collect()).await;
    let of_route = |wanted: &str| {
        let wanted = ids.iter().enumerate().filter(|(number, _)| wanted == "all" || wanted == route(*number));
        let mut wanted: Vec<_> = wanted.map(|(_, id)| id.clone()).collect();
        wanted.sort();
        wanted
    };
    for (route, wanted) in ["all", "few", "many", "none"].map(|route| (route, of_route(route))) {
        let [seventh, last] = [wanted.get(7), wanted.last()].map(|id| id.map_or("", |id| id));
        for (after, limit) in
            [("", 0), ("", 1), ("", 100), ("", 2000), (seventh, 3), (seventh, 2000), (last, 3)]
        {
            let is_wanted = |record: &Interaction| route == "all" || *record.route == *route;
            let listed = store.list(after, limit, is_wanted).await.unwrap();
            let listed: Vec<_> = listed.keys().map(|id| id.to_string()).collect();
            let expected = wanted.iter().filter(|id| id.as_str() > after).take(limit).cloned();
            assert_eq!(listed, expected.collect::<Vec<_>>(), "{route} after {after:?}, at most {limit}");
        }
    }
}

#[tokio::test]
async fn only_a_ledger_in_a_file_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let in_file = start_with(&settings(Some(&folder.path().join("ledger"))), NOW).unwrap();
    assert_eq!((in_file.is_durable(), in_file.is_shared()), (true, false));
    let in_memory = with(Vec::new()).await;
    assert_eq!((in_memory.is_durable(), in_memory.is_shared()), (false, false));
}
