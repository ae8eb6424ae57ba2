//! What comes of a request on a route that only observes, where a gate would have refused it: it is delivered as it
//! came, and is no permit. The ledger does not hear of it, and nothing vouches for it to the agent.

use std::sync::Arc;

use http::header::COOKIE;

use super::decide::{Admitted, Seen};
use super::forward::cookies;
use super::route::Route;
use crate::denial::Denial;
use crate::request::{HOP_BY_HOP, RequestHead, connection_options, write_line as line};

/// What becomes of a verified request that is not let through after all.
#[derive(Debug)]
pub enum Turned {
    /// It is not delivered.
    Away(Box<Seen>),
    /// Its route only observes.
    Observed(Box<Observed>),
}

/// A request that is delivered though its route's gate would not have let it through.
#[derive(Debug)]
pub struct Observed {
    pub(super) admitted: Admitted,
    pub(super) target: String,
    /// What would have become of it: a denial's code, `handshake`, `duplicate` or `stale`.
    pub(super) instead: &'static str,
}

impl Observed {
    /// The internal request target.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// What would have become of it: the code of the first denial, `handshake`, `duplicate` or `stale`.
    pub fn instead(&self) -> &'static str {
        self.instead
    }

    /// Every denial there would have been.
    pub fn denials(&self) -> &[Denial] {
        &self.admitted.found.observed
    }

    /// The route.
    pub fn route(&self) -> &Arc<Route> {
        &self.admitted.route
    }

    /// What is known of it.
    pub fn into_seen(self) -> Seen {
        self.admitted.into_seen()
    }

    /// Writes the head of the HTTP/1.1 request for the agent, blank line included. Whatever the agent checked before
    /// there was a Callgate is still there for it to check; whatever a Callgate says is not.
    pub fn write_head(&self, head: &RequestHead<'_>, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(head.method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.target.as_bytes());
        out.extend_from_slice(b" HTTP/1.1\r\n");
        line(out, "host", self.admitted.edge.authority.as_bytes());
        let listed: Vec<_> = connection_options(head.headers).collect();
        for (name, value) in head.headers {
            let text = name.as_str();
            let one_hop = listed.iter().any(|option| option.eq_ignore_ascii_case(text));
            if *name != COOKIE && !HOP_BY_HOP.contains(name) && !one_hop && !says_callgate(text) {
                line(out, text, value.as_bytes());
            }
        }
        cookies(head.headers, |_| true, out);
        line(out, "callgate-observed", self.instead.as_bytes());
        if !body.is_empty() || !matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "DELETE") {
            line(out, "content-length", itoa::Buffer::new().format(body.len()).as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether a header is one of ours, to whoever reads `_` as `-`, too.
pub(super) fn says_callgate(name: &str) -> bool {
    name.strip_prefix("callgate").is_some_and(|rest| rest.starts_with(['-', '_']))
}
