//! Writes notices. A notice is a request that informs the agent that an expected callback did not arrive or was not
//! delivered. It is a POST request to the `notify` path of the route. Callgate sends it over the same connection pool
//! as callbacks.

use serde::Serialize;
use serde_json::{Map, Value};

use super::edge::Edge;
use super::route::Route;
use crate::interaction::{Interaction, Overdue};
use crate::request::write_line as line;
use crate::token::{Asserted, Stamp};

/// The data of a notice to the agent about one interaction.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// The route of the interaction.
    pub route: &'a Route,
    /// The id of the interaction.
    pub id: &'a str,
    /// The record of the interaction.
    pub interaction: &'a Interaction,
    /// The cause of the notice.
    pub cause: Overdue,
    /// The settings and the data that all routes share.
    pub edge: &'a Edge,
    /// The id of the message, and the time at which it is sent.
    pub stamp: Stamp<'a>,
}

/// The JSON body of a notice. Its times are in RFC 3339 format.
#[derive(Serialize)]
struct Body<'a> {
    interaction: &'a str,
    route: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    captures: Map<String, Value>,
    outcome: &'static str,
    status: Option<&'a str>,
    progress: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_id: Option<&'a str>,
    created_at: String,
    last_event_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undelivered: Option<Value>,
    deadline_at: String,
    at: String,
}

impl Notice<'_> {
    /// Returns the head and the body of the HTTP/1.1 request that contains the notice. The head includes the blank
    /// line. Returns `None` if the route has no `notify` path, or if the interaction lacks a capture of this path.
    pub fn write(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let captures: Vec<_> = self.interaction.captures().collect();
        let value = |name: &str| captures.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let target = self.route.notify.as_ref()?.fill(value)?;
        let body = serde_json::to_vec(&self.body(&captures)).ok()?;
        let mut head = format!("POST {target} HTTP/1.1\r\n").into_bytes();
        let agent = &self.route.agent;
        line(&mut head, "host", self.edge.host(agent).as_bytes());
        self.edge.write_forwarded_headers(agent, None, None, &mut head);
        line(&mut head, "content-type", b"application/json");
        line(&mut head, "callgate-route", self.route.name.as_bytes());
        if let Some(provider) = &self.route.provider {
            line(&mut head, "callgate-provider", provider.name.as_bytes());
        }
        line(&mut head, "callgate-interaction", self.id.as_bytes());
        line(&mut head, "callgate-notice", self.cause.name().as_bytes());
        let message = Asserted {
            method: "POST",
            target: &target,
            body: Some(&body),
            interaction: Some(self.id),
            event_id: None,
            question: None,
            notice: Some(self.cause.name()),
            is_untrusted: false,
            stamp: self.stamp,
        };
        self.route.assert(&message, &mut head);
        line(&mut head, "content-length", body.len().to_string().as_bytes());
        head.extend_from_slice(b"\r\n");
        Some((head, body))
    }

    fn body<'b>(&'b self, captures: &[(&str, &str)]) -> Body<'b> {
        let record = self.interaction;
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::from(*value));
        Body {
            interaction: self.id,
            route: &self.route.name,
            provider: record.provider.as_deref(),
            captures: captures.iter().map(pair).collect(),
            outcome: self.cause.name(),
            status: record.status(),
            progress: record.progress(),
            provider_id: record.provider_id(),
            created_at: record.created().to_string(),
            last_event_at: record.last_event().map(|at| at.to_string()),
            undelivered: record.undelivered().map(|undelivered| undelivered.to_json()),
            deadline_at: record.deadline().to_string(),
            at: self.stamp.now.to_string(),
        }
    }
}
