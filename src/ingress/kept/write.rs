//! Writes the request that delivers a callback from the inbox, and the head that an agent receives when it pulls the
//! callback.

use http::HeaderMap;
use http::header::HOST;
use serde_json::{Map, Value};

use super::head::{Kept, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP, bytes, standard_webhooks};
use crate::ingress::edge::Edge;
use crate::ingress::route::Route;
use crate::request::{RequestHead, write_line as line};
use crate::signature::SignatureContext;
use crate::source::write_address;
use crate::token::{Asserted, Stamp, UNTRUSTED};

/// One attempt to deliver a callback from the inbox.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The route of the callback in the current configuration.
    pub route: &'a Route,
    /// The settings and the data that all routes share.
    pub edge: &'a Edge,
    /// The id of the message in the inbox. It is the same in all attempts.
    pub id: &'a str,
    /// The number of the attempt, starting at 1.
    pub number: u32,
    /// The id and the time of this attempt.
    pub stamp: Stamp<'a>,
}

/// The head of a callback that an agent pulls from the inbox.
#[derive(Clone, Debug)]
pub struct PulledHead {
    /// The headers of a delivery to the agent, without `Host`, `Content-Length`, the `X-Forwarded-*` headers and the
    /// assertion.
    pub headers: Map<String, Value>,
    /// The signed assertion. `None` if the route has no assertion.
    pub assertion: Option<String>,
}

impl Kept {
    /// Returns the head of the HTTP/1.1 request that delivers the callback to the agent, including the blank line.
    /// `body` is the body that the caller of this function writes after this head.
    pub fn write_head(&self, attempt: &Attempt<'_>, body: &[u8]) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        line(&mut out, "host", attempt.edge.host(&attempt.route.agent).as_bytes());
        for (name, value) in self.lines(attempt, body) {
            line(&mut out, &name, &value);
        }
        attempt.edge.write_forwarded_headers(
            &attempt.route.agent,
            Some(self.is_tls),
            Some(self.client),
            &mut out,
        );
        attempt.route.assert(&self.asserted(attempt, body), &mut out);
        line(&mut out, "content-length", itoa::Buffer::new().format(body.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out
    }

    /// Returns the head of the callback for an agent that pulls the callback from the inbox.
    pub fn pulled(&self, attempt: &Attempt<'_>, body: &[u8]) -> PulledHead {
        let mut headers = Map::new();
        for (name, value) in self.lines(attempt, body) {
            let text = String::from_utf8_lossy(&value);
            match headers.get_mut(&name) {
                Some(Value::String(former)) => {
                    former.push_str(if name == "cookie" { "; " } else { ", " });
                    former.push_str(&text);
                }
                _ => drop(headers.insert(name, Value::from(text))),
            }
        }
        PulledHead { headers, assertion: attempt.route.assertion(&self.asserted(attempt, body)) }
    }

    fn asserted<'a>(&'a self, attempt: &Attempt<'a>, body: &'a [u8]) -> Asserted<'a> {
        Asserted {
            method: &self.method,
            target: &self.target,
            body: Some(body),
            interaction: self.interaction.as_deref(),
            event_id: self.event_id.as_deref(),
            question: self.question,
            notice: None,
            is_untrusted: true,
            stamp: attempt.stamp,
        }
    }

    /// Returns the names and values of all headers for the agent: the stored headers of the caller and the headers that
    /// Callgate adds.
    fn lines(&self, attempt: &Attempt<'_>, body: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut lines: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.to_string(), bytes(value))).collect();
        let mut add = |name: &str, value: &[u8]| lines.push((name.to_owned(), value.to_vec()));
        add("callgate-route", self.route.as_bytes());
        if let Some(provider) = &attempt.route.provider {
            add("callgate-provider", provider.name.as_bytes());
        }
        add("callgate-content", UNTRUSTED.as_bytes());
        if let Some(interaction) = &self.interaction {
            add("callgate-interaction", interaction.as_bytes());
        }
        if let Some(id) = &self.event_id {
            add("callgate-event-id", id.as_bytes());
        }
        if let Some(number) = self.question {
            add("callgate-question", number.to_string().as_bytes());
        }
        if self.owner_is_gone {
            add("callgate-owner", b"gone");
        }
        let mut client = Vec::new();
        write_address(&mut client, self.client);
        add("callgate-client-address", &client);
        add("callgate-attempt", attempt.number.to_string().as_bytes());
        add("callgate-received-at", self.received().to_string().as_bytes());
        self.add_webhook_headers(attempt, body, &mut lines);
        lines
    }

    /// Adds the headers of Standard Webhooks, unless the stored headers already contain them. `webhook-id` is the same
    /// in all attempts. If the provider signs in this format, Callgate signs the callback again with the provider's
    /// first secret, because the provider's own signature would be too old.
    fn add_webhook_headers(&self, attempt: &Attempt<'_>, body: &[u8], lines: &mut Vec<(String, Vec<u8>)>) {
        if lines.iter().any(|(name, _)| name == WEBHOOK_ID) {
            return;
        }
        let verifier = standard_webhooks(attempt.route);
        let of_provider = self.event_id.as_deref().filter(|_| verifier.is_some());
        let id = of_provider.unwrap_or(attempt.id);
        let empty = HeaderMap::new();
        let head = RequestHead::new(&self.method, &self.target, &empty, self.client);
        let context = SignatureContext::new(head, &attempt.edge.public_url, attempt.stamp.now);
        let signed = verifier.and_then(|verifier| verifier.sign(&context, body, id));
        let written = signed.into_iter().flat_map(|signed| signed.headers);
        let written: Vec<_> =
            written.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
        if written.iter().any(|(name, _)| name == WEBHOOK_SIGNATURE) {
            let is_kept = |name: &str| !written.iter().any(|(other, _)| other == name) && name != HOST;
            lines.retain(|(name, _)| is_kept(name));
            lines.extend(written);
            return;
        }
        lines.push((WEBHOOK_ID.to_owned(), id.as_bytes().to_vec()));
        let now = attempt.stamp.now.unix_secs().to_string();
        lines.push((WEBHOOK_TIMESTAMP.to_owned(), now.into_bytes()));
    }
}
