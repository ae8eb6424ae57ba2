//! Creates the public documents in which some providers look up the paths that accept their messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::config::yaml::Cursor;
use crate::ingress::{Document, Route};

/// Returns the documents of all providers with `well_known: publish`. A document contains one entry for each route of
/// the provider: the part of the route's path before the first capture, such as `/hooks/` for `/hooks/{id}`.
pub(crate) fn documents(at: &Cursor<'_>, routes: &[Arc<Route>]) -> Option<Vec<Document>> {
    let mut prefixes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for route in routes {
        let Some(path) = route.provider.as_ref().and_then(|provider| provider.published.as_deref()) else {
            continue;
        };
        let prefix = prefix(route.path.as_str());
        if prefix == "/" {
            return at.error(
                format!("the document for the route {} would contain every path of this host", route.name),
                "begin the path of the route with a literal segment",
            );
        }
        let known = prefixes.entry(path).or_default();
        if !known.contains(&prefix) {
            known.push(prefix);
        }
    }
    let document = |(path, prefixes): (&str, Vec<&str>)| Document {
        path: path.into(),
        body: json!({ "receivers": prefixes }).to_string(),
    };
    Some(prefixes.into_iter().map(document).collect())
}

/// Returns the part of a path template before the first capture. For `/hooks/{id}`, returns `/hooks/`.
fn prefix(path: &str) -> &str {
    path.split_once('{').map_or(path, |(before, _)| before)
}
