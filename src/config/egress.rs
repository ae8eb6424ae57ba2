//! `store` and `egress`: read strictly, so that a file that loads today means the same tomorrow. This version
//! does not act on them, and says so in a warning.

use std::sync::Arc;

use super::reader::Cursor;
use crate::ingress::{Route, TokenRule};
use crate::path::TOKEN_CAPTURE;

/// Reads `store`.
pub(super) fn store(at: Option<Cursor<'_>>) {
    let Some(mut fields) = at.and_then(|at| at.fields()) else { return };
    let file = fields.required("kind").and_then(|at| at.one_of(&[("file", true), ("memory", false)]));
    let path = fields.optional("path");
    match (file, &path) {
        (Some(true), None) => {
            let _: Option<()> = fields.at().error("kind file needs a `path`", "");
        }
        (Some(false), Some(path)) => {
            let _: Option<()> = path.error("kind memory has no path", "");
        }
        _ => {}
    }
    path.and_then(|at| at.text());
    fields.finish();
}

/// Reads `egress`. `routes` is `None` when they have mistakes of their own.
pub(super) fn egress(at: Option<Cursor<'_>>, routes: Option<&[Arc<Route>]>) {
    let Some(at) = at else { return };
    at.warn("this version does not serve egress yet: the agent's requests are not given callbacks");
    let mut names = Vec::new();
    for at in at.list().unwrap_or_default() {
        let Some(mut fields) = at.fields() else { continue };
        if let Some((at, name)) =
            fields.required("name").and_then(|at| at.name().map(|name| (at.clone(), name)))
        {
            if names.contains(&name) {
                let _: Option<()> = at.error(format!("the name {name} is used twice"), "");
            }
            names.push(name);
        }
        fields.required("path").and_then(|at| at.template());
        if let Some(at) = fields.required("target") {
            target(&at);
        }
        if let Some(at) = fields.optional("inject") {
            inject(&at, routes);
        }
        fields.finish();
    }
}

fn target(at: &Cursor<'_>) -> Option<()> {
    let text = at.text()?;
    let uri: Option<http::Uri> = text.parse().ok();
    match uri {
        Some(uri) if matches!(uri.scheme_str(), Some("https" | "http")) && uri.host().is_some() => Some(()),
        _ => at.error(format!("`{text}` is not a URL"), "such as https://service.example.com/analyze"),
    }
}

fn inject(at: &Cursor<'_>, routes: Option<&[Arc<Route>]>) -> Option<()> {
    let mut fields = at.fields()?;
    let route = fields.required("route").and_then(|at| {
        let name = at.text()?;
        let found = routes?.iter().find(|route| *route.name == *name);
        match found {
            None => at.error(format!("there is no route {name}"), ""),
            Some(route) if !matches!(route.token, Some(TokenRule::Callback { .. })) => {
                at.error(format!("the route {name} takes no token of kind callback"), "")
            }
            Some(route) => Some(route),
        }
    });
    let params = fields.optional("params").and_then(|at| at.named()).unwrap_or_default();
    for (name, at) in &params {
        if route.is_some_and(|route| !route.path.has(name) || *name == TOKEN_CAPTURE) {
            let _: Option<()> = at.error(format!("the route has no capture {name}"), "");
        }
        if at.is_map() {
            let Some(mut new) = at.fields() else { continue };
            new.required("new").and_then(|at| at.one_of(&[("uuid", ())]));
            new.finish();
        } else {
            at.pointer();
        }
    }
    let captures = route.iter().flat_map(|route| route.path.names()).filter(|name| *name != TOKEN_CAPTURE);
    for capture in captures {
        if params.iter().all(|(name, _)| *name != capture) {
            let _: Option<()> =
                at.error(format!("`params` has no {capture}"), "a JSON pointer, or {new: uuid}");
        }
    }
    for key in ["url", "token"] {
        fields.optional(key).and_then(|at| at.pointer());
    }
    fields.finish();
    Some(())
}
