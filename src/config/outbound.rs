//! Reads the settings of requests to providers: the section `outbound_proxy`, and the settings that egress rules and
//! the `actions` of routes have in common.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::yaml::{Cursor, Fields};
use crate::guard::{Scheme, Url, UrlFault};
use crate::outbound::{Exemption, OutboundProxy};
use crate::request::HOP_BY_HOP;
use crate::secret::Secret;

/// Reads headers whose values are secrets: `{ authorization: {env: NAME} }`.
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

/// Reports whether the configuration may set a header. Hop-by-hop headers, framing headers and `Callgate-*` headers
/// cannot be set.
pub(super) fn can_be_set(name: &HeaderName) -> bool {
    !HOP_BY_HOP.contains(name) && !name.as_str().starts_with("callgate-")
}

/// Reads `timeouts: {connect, response}` of requests to a provider. Returns the two timeouts in this order.
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

/// Reads the configuration section `outbound_proxy: {url, no_proxy, credentials}`.
pub(super) fn proxy(at: &Cursor<'_>) -> Option<OutboundProxy> {
    let mut fields = at.fields()?;
    let url = fields.required("url").and_then(|at| proxy_url(&at));
    let no_proxy = fields.optional("no_proxy").map_or(Some(Vec::new()), |at| {
        let read: Vec<_> = at.list()?.iter().map(exemption).collect();
        read.into_iter().collect()
    });
    let credentials = fields.optional("credentials").map(|at| credentials(&at));
    fields.finish();
    let credentials = credentials.map_or(Some(None), |read| read.map(Some))?;
    Some(OutboundProxy::new(url?, no_proxy?, credentials))
}

/// Reads the URL of the outbound proxy. The error messages do not repeat the URL, because it may contain a password.
fn proxy_url(at: &Cursor<'_>) -> Option<Url> {
    let text = at.text()?;
    let hint = "such as http://proxy.example.com:3128";
    // Common proxies have different default ports, so the port is required.
    let has_port = |url: &Url| {
        let rest = text.split_once("://").map_or("", |(_, rest)| rest).trim_end_matches('/');
        rest.ends_with(&format!(":{}", url.port()))
    };
    match Url::parse(text) {
        Ok(url) if url.scheme() == Scheme::Https => {
            at.error("TLS to the proxy is not supported; TLS to the providers does not need it", hint)
        }
        Ok(url) if url.target() != "/" => at.error("the URL of the proxy has a path or a query", hint),
        Ok(url) if !has_port(&url) => at.error("the URL of the proxy has no port", hint),
        Ok(url) => Some(url),
        Err(UrlFault::UserInfo) => at.error(
            "the URL of the proxy contains a user name or a password",
            "write `credentials: {env: NAME}` instead, with user:password in the variable",
        ),
        Err(UrlFault::Scheme) => at.error("the scheme of the proxy is not http", hint),
        Err(_) => at.error("not the URL of a proxy", hint),
    }
}

fn exemption(at: &Cursor<'_>) -> Option<Exemption> {
    let text = at.text()?;
    let parsed = Exemption::parse(text);
    if parsed.is_none() {
        return at.error(
            format!("`{text}` is not a host name, an IP address or a network"),
            "such as example.com, .example.com, example.com:8443, 10.1.2.3 or 10.0.0.0/8; `*` is not supported: remove \
             `outbound_proxy` instead",
        );
    }
    parsed
}

/// Reads the credentials of the outbound proxy, `user:password` (RFC 7617 section 2).
fn credentials(at: &Cursor<'_>) -> Option<Secret> {
    let secret = at.password()?;
    let is_valid = std::str::from_utf8(secret.expose()).is_ok_and(|text| {
        !text.chars().any(char::is_control) && text.find(':').is_some_and(|colon| colon > 0)
    });
    if is_valid { Some(secret) } else { at.error("the secret is not `user:password`", "") }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{LOOP, parse};

    #[test]
    fn timeouts_are_read_and_have_defaults() {
        let timeouts = |text: &str| {
            let policy = parse(text).unwrap().policy;
            let (agent, rule) = (&policy.agents[0], &policy.egress.rules()[0]);
            let actions = policy.route("r").unwrap().actions.as_ref().unwrap();
            [
                (agent.connect_timeout, agent.response_timeout),
                (rule.connect_timeout, rule.response_timeout),
                (actions.connect_timeout, actions.response_timeout),
            ]
            .map(|(connect, response)| (connect.as_secs(), response.as_secs()))
        };
        assert_eq!(timeouts(LOOP), [(1, 30), (5, 60), (5, 60)]);
        let mut text = LOOP.to_owned();
        for (place, connect) in [("8000 }", 2), ("[example.com] }", 3), ("token: /token }", 4)] {
            let set = format!("timeouts: {{ connect: {connect}s, response: {}s }}", connect + 10);
            let changed = match place.strip_prefix("token") {
                None => place.replace(" }", &format!(", {set} }}")),
                Some(_) => format!("{place}\n    {set}"),
            };
            text = text.replacen(place, &changed, 1);
        }
        assert_eq!(timeouts(&text), [(2, 12), (4, 14), (3, 13)]);
    }
}
