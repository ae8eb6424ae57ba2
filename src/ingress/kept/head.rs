//! The head of a permitted callback, as the inbox stores it.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::ingress::permit::Permit;
use crate::ingress::route::Route;
use crate::request::RequestHead;
use crate::signature::{Proof, Verifier};
use crate::time::Timestamp;

/// The header with the message id in Standard Webhooks. Callgate writes this header for each delivery attempt.
pub(super) const WEBHOOK_ID: &str = "webhook-id";
/// The header with the time of signing in Standard Webhooks. Callgate writes this header for each delivery attempt.
pub(super) const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
/// The header with the signature in Standard Webhooks. Callgate writes this header for each delivery attempt.
pub(super) const WEBHOOK_SIGNATURE: &str = "webhook-signature";
/// The headers of HTTP message signatures (RFC 9421).
const MESSAGE_SIGNATURE: [&str; 2] = ["signature", "signature-input"];

/// The head of a permitted callback, as the inbox stores it. It contains no token and no shared secret.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Kept {
    /// The name of the route.
    pub route: Arc<str>,
    /// The id of the interaction that the callback belongs to, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interaction: Option<Box<str>>,
    /// The provider's event id, if the callback has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) question: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) owner_is_gone: bool,
    pub(super) client: IpAddr,
    pub(super) is_tls: bool,
    /// The HTTP method of the request to the agent.
    pub method: Box<str>,
    /// The internal path and query of the request to the agent.
    pub target: Box<str>,
    /// The names and values of the caller's headers that reach the agent. Each byte of a value is stored as one
    /// character.
    pub(super) headers: Vec<(Box<str>, Box<str>)>,
    /// The time at which Callgate accepted the callback, in Unix milliseconds.
    received: i64,
    /// Whether the callback reports progress, and does not report the end of the work.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_progress: bool,
    /// The size of the body that the agent receives, in bytes.
    pub body_bytes: u32,
    /// Whether the body is encrypted in the storage of the inbox.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_sealed: bool,
}

impl Permit {
    /// Returns the head that the inbox stores for this callback. `head` must be the head of the permitted request, and
    /// `body` must be the body that the agent receives. If `keeps_signature` is true, the result contains the
    /// provider's signature headers.
    pub fn keep(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        keeps_signature: bool,
        received: Timestamp,
    ) -> Kept {
        let mut headers = Vec::new();
        self.passed_headers(head, |name, value| {
            if !is_removed(self.route(), name, keeps_signature) {
                headers.push((name.as_str().into(), text(value)));
            }
        });
        Kept {
            route: Arc::clone(&self.route().name),
            interaction: self.interaction().map(Into::into),
            event_id: self.event_id().and_then(|id| id.to_str().ok()).map(Into::into),
            question: self.question(),
            owner_is_gone: self.owner_is_gone(),
            client: self.client(),
            is_tls: head.is_tls,
            method: head.method.into(),
            target: self.target().into(),
            headers,
            received: received.unix_ms(),
            is_progress: self.report().is_progress(),
            body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
            is_sealed: false,
        }
    }
}

impl Kept {
    /// Returns the time at which Callgate accepted the callback.
    pub fn received(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.received)
    }

    /// Serializes the head as JSON, as the inbox stores it.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Returns the stored headers of the caller as a JSON array of `[name, value]` pairs, for display.
    pub fn headers_json(&self) -> serde_json::Value {
        let pairs = self.headers.iter().map(|(name, value)| serde_json::json!([name, value]));
        pairs.collect()
    }

    /// Parses a head that [`Self::to_bytes`] has serialized.
    ///
    /// # Errors
    /// Returns an explanation if the bytes are not a serialized head.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}

/// Reports whether the inbox must not store this header of the caller. This is the case for a header with a shared
/// secret. It is also the case for a signature header, unless `keeps_signature` is true: the signature would be too old
/// at the time of the delivery. The headers of Standard Webhooks are stored only if they are the provider's signature
/// headers. Otherwise Callgate writes its own values.
fn is_removed(route: &Route, name: &HeaderName, keeps_signature: bool) -> bool {
    let is_written = [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE].contains(&name.as_str());
    let Some(verifier) = route.verifier() else { return is_written };
    let scheme = verifier.scheme();
    let is_proof = match &scheme.proof {
        Proof::MessageSignature(_) => MESSAGE_SIGNATURE.contains(&name.as_str()),
        _ => scheme.proof_headers().contains(name),
    };
    match scheme.proof {
        Proof::SharedSecret(_) => is_proof || is_written,
        _ if is_written => !keeps_signature || standard_webhooks(route).is_none(),
        _ => is_proof && !keeps_signature,
    }
}

/// Returns the verifier of the route's provider if the provider signs in the format of Standard Webhooks.
pub(super) fn standard_webhooks(route: &Route) -> Option<&Verifier> {
    let is_standard =
        |verifier: &&Verifier| verifier.scheme().proof_headers().iter().any(|name| name == WEBHOOK_SIGNATURE);
    route.verifier().filter(is_standard)
}

/// Returns a header value as text. Each byte becomes one character.
fn text(value: &HeaderValue) -> Box<str> {
    value.as_bytes().iter().map(|byte| char::from(*byte)).collect::<String>().into()
}

/// Returns the bytes of a header value from a text that [`text`] returned.
pub(super) fn bytes(text: &str) -> Vec<u8> {
    text.chars().filter_map(|character| u8::try_from(character).ok()).collect()
}
