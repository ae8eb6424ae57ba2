//! Documents by which a receiver says in public which of its addresses take messages.

use std::sync::Arc;

use serde_json::json;

use crate::ingress::{Document, Route};

/// The document of MCP Events: the beginnings of the paths that take deliveries, which saves their senders the
/// challenge.
const MCP_RECEIVER: &str = "/.well-known/mcp-webhook-receiver.json";

/// The documents of all routes whose provider is to be published.
pub(super) fn documents(routes: &[Arc<Route>]) -> Vec<Document> {
    let published = |route: &&Arc<Route>| route.provider.as_ref().is_some_and(|provider| provider.published);
    let mut prefixes: Vec<&str> =
        routes.iter().filter(published).map(|route| prefix(route.path.as_str())).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    if prefixes.is_empty() {
        return Vec::new();
    }
    vec![Document { path: MCP_RECEIVER, body: json!({ "receivers": prefixes }).to_string() }]
}

/// What stands before the first capture.
fn prefix(path: &str) -> &str {
    path.split_once('{').map_or(path, |(before, _)| before)
}
