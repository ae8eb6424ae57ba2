//! The lines of the access log: what is said of one request, and how it is written.

use std::io::Write;
use std::net::IpAddr;

use crate::denial::Denial;
use crate::source::write_address;
use crate::time::Timestamp;
use crate::trail::Trail;

/// Longest explanation of a denial, in bytes; a longer one is cut if that is possible.
const DETAIL_BYTES_MAX: usize = 300;

/// What the log says of one request. Never a token, a secret, a query or a body.
#[derive(Debug)]
pub struct Entry<'a> {
    /// When the request ended.
    pub time: Timestamp,
    /// The id the caller was told, too.
    pub request_id: &'a str,
    /// `none` where no route has the path.
    pub route: &'a str,
    /// `none` without one.
    pub provider: &'a str,
    /// `allow`, `observe`, `deny` or `fail`.
    pub verdict: &'static str,
    /// A denial's code, or `ok`.
    pub reason: &'static str,
    /// Every denial there would have been, on a route that only observes.
    pub observed: &'a [Denial],
    /// The status the caller saw; 0 when it saw none.
    pub status: u16,
    /// As sent, if it is one of the methods that exist.
    pub method: &'a str,
    /// The path, redacted.
    pub path: &'a str,
    /// Who called, as far as it could be told.
    pub client: Option<IpAddr>,
    /// Who is at the other end of the connection.
    pub peer: IpAddr,
    /// The interaction, where the token named one.
    pub interaction: Option<&'a str>,
    /// Bytes of the body that came in.
    pub body_bytes: u64,
    /// From the end of the head to the end of the answer, in microseconds.
    pub duration_us: u64,
    /// Spent with the agent, in microseconds.
    pub deliver_us: u64,
    /// The checks that ran; the log gives the nanoseconds of each, or null where they count with the next.
    pub trail: &'a Trail,
}

impl Entry<'_> {
    /// The line.
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(640);
        self.write(&mut line);
        line
    }

    /// Writes the line. By hand, because it is written for every request and a serializer takes four times
    /// as long; only what a caller can choose is looked at for characters that JSON escapes.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}", self.time);
        word(out, "\",\"request_id\":\"", self.request_id);
        word(out, "\",\"route\":\"", self.route);
        word(out, "\",\"provider\":\"", self.provider);
        word(out, "\",\"verdict\":\"", self.verdict);
        word(out, "\",\"reason\":\"", self.reason);
        word(out, "\",\"method\":\"", self.method);
        number(out, "\",\"status\":", self.status.into());
        for (i, denial) in self.observed.iter().enumerate() {
            word(out, if i == 0 { ",\"observed\":[\"" } else { "\",\"" }, denial.code());
        }
        if !self.observed.is_empty() {
            out.extend_from_slice(b"\"]");
        }
        text(out, ",\"path\":", self.path);
        if let Some(client) = self.client {
            address(out, ",\"client\":\"", client);
        }
        if self.client != Some(self.peer.to_canonical()) {
            address(out, ",\"peer\":\"", self.peer);
        }
        if let Some(detail) = self.trail.refusal().filter(|detail| !detail.is_empty()) {
            text(out, ",\"detail\":", detail.get(..DETAIL_BYTES_MAX).unwrap_or(detail));
        }
        if let Some(interaction) = self.interaction {
            text(out, ",\"interaction\":", interaction);
        }
        number(out, ",\"body_bytes\":", self.body_bytes);
        number(out, ",\"duration_us\":", self.duration_us);
        number(out, ",\"deliver_us\":", self.deliver_us);
        out.extend_from_slice(b",\"trail_ns\":{");
        for (i, step) in self.trail.steps().enumerate() {
            out.extend_from_slice(if i == 0 { b"\"" } else { b",\"" });
            word(out, step.check.name(), "\":");
            match step.nanos {
                Some(nanos) => number(out, "", nanos.into()),
                None => out.extend_from_slice(b"null"),
            }
        }
        out.extend_from_slice(b"}}\n");
    }
}

/// What the log says of one request of the agent. Never a token, a secret, a query or a body.
#[derive(Debug)]
pub struct EgressEntry<'a> {
    /// When the request ended.
    pub time: Timestamp,
    /// The id the agent was told, too.
    pub request_id: &'a str,
    /// `none` where no rule has the path.
    pub rule: &'a str,
    /// `allow`, `deny` or `fail`.
    pub verdict: &'static str,
    /// A denial's code, `ok` or `kept`.
    pub reason: &'static str,
    /// The status the agent saw; 0 when it saw none.
    pub status: u16,
    /// As sent, if it is one of the methods that exist.
    pub method: &'a str,
    /// The path, redacted.
    pub path: &'a str,
    /// Why the request was not sent or not answered.
    pub detail: Option<&'a str>,
    /// The interaction that was opened, or that the answer belongs to.
    pub interaction: Option<&'a str>,
    /// Bytes of the agent's body.
    pub body_bytes: u64,
    /// From the end of the head to the end of the answer, in microseconds.
    pub duration_us: u64,
}

impl EgressEntry<'_> {
    /// The line.
    pub fn line(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"{\"time\":\"");
        let _ = write!(out, "{}", self.time);
        word(&mut out, "\",\"request_id\":\"", self.request_id);
        word(&mut out, "\",\"egress\":\"", self.rule);
        word(&mut out, "\",\"verdict\":\"", self.verdict);
        word(&mut out, "\",\"reason\":\"", self.reason);
        word(&mut out, "\",\"method\":\"", self.method);
        number(&mut out, "\",\"status\":", self.status.into());
        text(&mut out, ",\"path\":", self.path);
        if let Some(detail) = self.detail.filter(|detail| !detail.is_empty()) {
            text(&mut out, ",\"detail\":", detail.get(..DETAIL_BYTES_MAX).unwrap_or(detail));
        }
        if let Some(interaction) = self.interaction {
            text(&mut out, ",\"interaction\":", interaction);
        }
        number(&mut out, ",\"body_bytes\":", self.body_bytes);
        number(&mut out, ",\"duration_us\":", self.duration_us);
        out.extend_from_slice(b"}\n");
        out
    }
}

/// A value that needs no escaping: names of the configuration, codes, hexadecimal. `before` is what stands
/// before it in the line.
fn word(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// A value that may hold anything.
fn text(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    let plain = value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\');
    if plain {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    } else {
        let _ = serde_json::to_writer(out, value);
    }
}

fn number(out: &mut Vec<u8>, before: &str, value: u64) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn address(out: &mut Vec<u8>, before: &str, value: IpAddr) {
    out.extend_from_slice(before.as_bytes());
    write_address(out, value);
    out.push(b'"');
}

/// A path that no route has, made fit for a log: what could be a token is blanked, controls are escaped.
pub fn redact_path(path: &str) -> String {
    let blank = |segment: &str| segment.len() > 40 || segment.contains("eyJ");
    let shown = path.split('/').map(|segment| if blank(segment) { "[redacted]" } else { segment });
    shown.take(16).collect::<Vec<_>>().join("/").escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_whatever_is_in_it() {
        let path = "/a\"b\\c\u{1}é\n";
        for client in [None, Some(IpAddr::from([1, 2, 3, 4]))] {
            let entry = Entry {
                time: Timestamp::from_unix_secs(1_767_225_600),
                request_id: "r",
                route: "none",
                provider: "none",
                verdict: "deny",
                reason: "path_malformed",
                observed: &[Denial::TokenMissing, Denial::BodyTooLarge],
                status: 400,
                method: "GET",
                path,
                client,
                peer: IpAddr::from([1, 2, 3, 4]),
                interaction: Some("int_1"),
                body_bytes: u64::MAX,
                duration_us: 0,
                deliver_us: 0,
                trail: &Trail::verbose(),
            };
            let mut line = Vec::new();
            entry.write(&mut line);
            let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!((read["path"].as_str(), read["body_bytes"].as_u64()), (Some(path), Some(u64::MAX)));
            assert_eq!(read["observed"], serde_json::json!(["token_missing", "body_too_large"]));
            assert_eq!(read["time"], "2026-01-01T00:00:00Z");
            assert_eq!(read["peer"].is_null(), client.is_some());
        }
    }

    #[test]
    fn paths_of_strangers_are_redacted() {
        assert_eq!(redact_path("/webhooks/doc-1"), "/webhooks/doc-1");
        assert_eq!(redact_path("/w/eyJhbGciOi.x.y/z"), "/w/[redacted]/z");
        assert_eq!(redact_path(&format!("/w/{}", "a".repeat(64))), "/w/[redacted]");
        assert_eq!(redact_path("/a\n\u{1b}[31m\"x"), "/a\\n\\u{1b}[31m\\\"x");
    }
}
