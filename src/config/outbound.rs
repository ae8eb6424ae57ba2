//! The settings of requests to providers. Egress rules and the `actions` of routes have the same settings.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::yaml::{Cursor, Fields};
use crate::request::HOP_BY_HOP;
use crate::secret::Secret;

/// Reads headers with secret values: `{ authorization: {env: NAME} }`.
pub(super) fn headers(at: &Cursor<'_>) -> Option<Vec<(HeaderName, Secret)>> {
    let one = |(name, at): (&str, Cursor<'_>)| {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        let Some(header) = parsed.filter(can_be_set) else {
            return at.error(CANNOT_BE_SET, "such as authorization, x-api-key");
        };
        let secret = at.secret()?;
        match HeaderValue::from_bytes(secret.expose()) {
            Ok(_) => Some((header, secret)),
            Err(_) => at.error("the secret has characters that a header cannot contain", ""),
        }
    };
    let read: Vec<_> = at.named()?.into_iter().map(one).collect();
    read.into_iter().collect()
}

pub(super) const CANNOT_BE_SET: &str = "not the name of a header that can be set";

/// Reports whether a header can be configured. Hop-by-hop headers, framing headers and `Callgate-*` headers cannot be
/// configured.
pub(super) fn can_be_set(name: &HeaderName) -> bool {
    !HOP_BY_HOP.contains(name) && !name.as_str().starts_with("callgate-")
}

/// Reads `timeouts: {connect, response}` of requests to a provider.
pub(super) fn timeouts(fields: &mut Fields<'_>) -> Option<(Duration, Duration)> {
    let mut connect = Some(Duration::from_secs(5));
    let mut response = Some(Duration::from_secs(60));
    if let Some(at) = fields.optional("timeouts") {
        let mut fields = at.fields()?;
        connect = fields.optional("connect").map_or(connect, |at| at.duration());
        response = fields.optional("response").map_or(response, |at| at.duration());
        fields.finish();
    }
    Some((connect?, response?))
}
