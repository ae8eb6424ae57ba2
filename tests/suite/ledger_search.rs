//! The callbacks API finds interactions by what they are for.

use serde_json::json;

use crate::ledger::World;

#[test]
fn interactions_are_found_by_a_capture() {
    let world = World::new("{ kind: memory }");
    let wanted = world.mint(&json!({ "route": "doc", "params": { "id": "doc-7f3a" } }));
    world.mint(&json!({ "route": "doc", "params": { "id": "other" } }));
    let found = |query: &str| {
        let page = world.callgate.admin_get(&format!("/callbacks?{query}")).json();
        let found = page["interactions"].as_array().unwrap().iter();
        found.map(|one| one["interaction"].clone()).collect::<Vec<_>>()
    };
    for query in
        ["capture.id=doc-7f3a", "capture.id=doc%2D7f3a&route=doc&state=open", "capture%2Eid=doc-7f3a"]
    {
        assert_eq!(found(query), [wanted["interaction"].clone()], "{query}");
    }
    assert_eq!(found("capture.id=doc").len(), 0);
    assert_eq!(found("capture.name=doc-7f3a").len(), 0);
    assert_eq!(found("provider_id=none").len(), 0);
    assert_eq!(found("").len(), 2);
}

#[test]
fn a_misspelt_or_repeated_filter_is_an_error() {
    let world = World::new("{ kind: memory }");
    for query in
        ["captures.id=a", "stat=open", "route=doc&route=doc", "capture.id=a&capture.id=b", "x", "%ff=1"]
    {
        let response = world.callgate.admin_get(&format!("/callbacks?{query}"));
        assert_eq!(response.status, 400, "{query} {}", response.text());
    }
}
