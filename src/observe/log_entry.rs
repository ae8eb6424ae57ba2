//! The entries of the access log, and their JSON format.

use std::io::Write;
use std::net::IpAddr;

use super::logger::escape_unsafe;
use crate::denial::Denial;
use crate::source::write_address;
use crate::time::Timestamp;
use crate::trail::Trail;

/// The maximum length of the fields `detail` and `event_id` of a log entry, in bytes. A longer text is cut at a
/// character boundary.
const DETAIL_BYTES_MAX: usize = 300;

/// The access-log entry of one ingress request. It never contains a token, a secret, a query or a body.
#[derive(Debug)]
pub struct Entry<'a> {
    /// The time at which the request ended.
    pub time: Timestamp,
    /// The request id. The caller receives the same id in the response.
    pub request_id: &'a str,
    /// The name of the route, or `none` if no route matches the path.
    pub route: &'a str,
    /// The name of the provider, or `none` if the route has no provider.
    pub provider: &'a str,
    /// The name of the agent of the route. `None` if no route matches the path.
    pub agent: Option<&'a str>,
    /// The verdict about the request: `allow`, `duplicate`, `observe`, `deny` or `fail`.
    pub verdict: &'static str,
    /// The reason of the verdict: the code of a denial, or another reason such as `ok` or `duplicate`.
    pub reason: &'static str,
    /// Whether the route of the request is in observe mode.
    pub observes: bool,
    /// The denials that would have applied in enforce mode. Empty unless the request was delivered on a route in
    /// observe mode.
    pub observed: &'a [Denial],
    /// The status of the HTTP response that the caller received, or 0 if the caller received no response.
    pub status: u16,
    /// The method of the request, or `other` if it is not a standard method. `-` if the head could not be parsed.
    pub method: &'a str,
    /// The path of the request. Text that could be a token is replaced. `-` if the head could not be parsed.
    pub path: &'a str,
    /// The client address, if it could be determined.
    pub client: Option<IpAddr>,
    /// The source address of the connection.
    pub peer: IpAddr,
    /// The id of the interaction, if the token of the request named one.
    pub interaction: Option<&'a str>,
    /// The event id that the provider gave to a verified callback.
    pub event_id: Option<&'a str>,
    /// The position of the secret that verified the request, starting at 1 for the first configured secret. `None` if
    /// only one secret is configured.
    pub secret: Option<usize>,
    /// The address of the process that owns the interaction and to which this process forwarded the request. `None` if
    /// the request was not forwarded, or if the owner did not respond.
    pub member: Option<&'a str>,
    /// The address of the process that forwarded the request to this process. If the address is unknown, the id of one
    /// run of that process. `None` if the request was not forwarded.
    pub from_member: Option<&'a str>,
    /// The number of bytes of the request body that were received.
    pub body_bytes: u64,
    /// The time from the end of the request head to the end of the response, in microseconds.
    pub duration_us: u64,
    /// The duration of the delivery to the agent, in microseconds. The delivery ends with the agent's response, or when
    /// it fails. 0 if Callgate did not try to deliver the request.
    pub deliver_us: u64,
    /// The checks that ran. The log entry contains the duration of each check in nanoseconds. The duration is null if
    /// it is included in the duration of the next check.
    pub trail: &'a Trail,
}

impl Entry<'_> {
    /// Returns the log entry as one line of JSON.
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(640);
        self.write(&mut line);
        line
    }

    /// Appends the log entry to `out` as one line of JSON. This function uses no serializer, because a serializer would
    /// take four times as long. Only the values that a caller can choose are searched for characters that must be
    /// escaped in JSON.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}", self.time);
        word(out, "\",\"request_id\":\"", self.request_id);
        word(out, "\",\"route\":\"", self.route);
        word(out, "\",\"provider\":\"", self.provider);
        if let Some(agent) = self.agent {
            word(out, "\",\"agent\":\"", agent);
        }
        word(out, "\",\"verdict\":\"", self.verdict);
        word(out, "\",\"reason\":\"", self.reason);
        word(out, "\",\"method\":\"", self.method);
        number(out, "\",\"status\":", self.status.into());
        if self.observes {
            out.extend_from_slice(b",\"mode\":\"observe\"");
        }
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
            text(out, ",\"detail\":", beginning(detail));
        }
        if let Some(interaction) = self.interaction {
            text(out, ",\"interaction\":", interaction);
        }
        if let Some(event_id) = self.event_id {
            text(out, ",\"event_id\":", beginning(event_id));
        }
        if let Some(secret) = self.secret {
            number(out, ",\"secret\":", secret as u64);
        }
        for (before, member) in [(",\"member\":", self.member), (",\"from_member\":", self.from_member)] {
            if let Some(member) = member {
                text(out, before, member);
            }
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

/// The access-log entry of one egress request. It never contains a token, a secret, a query or a body.
#[derive(Debug)]
pub struct EgressEntry<'a> {
    /// The time at which the egress request ended.
    pub time: Timestamp,
    /// The request id. The agent receives the same id in the response.
    pub request_id: &'a str,
    /// The name of the egress rule, or `none` if no rule matches the path.
    pub rule: &'a str,
    /// The verdict about the egress request: `allow`, `deny` or `fail`.
    pub verdict: &'static str,
    /// The reason of the verdict: the code of a denial, `ok` or `kept`. `ok` means that the request was sent. `kept`
    /// means that the request was sent unchanged, because it already had a callback and the rule has `if_present:
    /// keep`.
    pub reason: &'static str,
    /// The HTTP status that the agent received, or 0 if the agent received no response.
    pub status: u16,
    /// The method of the request, or `other` if it is not a standard method. `-` if the head could not be parsed.
    pub method: &'a str,
    /// The path of the request. Text that could be a token is replaced. `-` if the head could not be parsed.
    pub path: &'a str,
    /// A sentence about why the request was not sent, or why the agent received no response from the provider.
    pub detail: Option<&'a str>,
    /// The id of the interaction that this request started, or of the interaction whose question this request answers.
    pub interaction: Option<&'a str>,
    /// For a request to the forward proxy: the host and port to which the agent connects. `None` for all other
    /// requests.
    pub host: Option<&'a str>,
    /// The size of the request body, in bytes. For a tunnel of the forward proxy: the number of bytes that the agent
    /// sent.
    pub body_bytes: u64,
    /// For a tunnel of the forward proxy: the number of bytes that the host sent. `None` for other requests.
    pub received_bytes: Option<u64>,
    /// The time from the end of the request head to the end of the response, in microseconds.
    pub duration_us: u64,
}

impl EgressEntry<'_> {
    /// Returns the log entry as one line of JSON.
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
        if let Some(host) = self.host {
            text(&mut out, ",\"host\":", host);
        }
        text(&mut out, ",\"path\":", self.path);
        if let Some(detail) = self.detail.filter(|detail| !detail.is_empty()) {
            text(&mut out, ",\"detail\":", beginning(detail));
        }
        if let Some(interaction) = self.interaction {
            text(&mut out, ",\"interaction\":", interaction);
        }
        number(&mut out, ",\"body_bytes\":", self.body_bytes);
        if let Some(received) = self.received_bytes {
            number(&mut out, ",\"received_bytes\":", received);
        }
        number(&mut out, ",\"duration_us\":", self.duration_us);
        out.extend_from_slice(b"}\n");
        out
    }
}

/// Returns the beginning of a text for a log entry: at most [`DETAIL_BYTES_MAX`] bytes, cut at a character boundary.
fn beginning(detail: &str) -> &str {
    let ends = (0..=detail.len().min(DETAIL_BYTES_MAX)).rev();
    ends.into_iter().find_map(|end| detail.get(..end)).unwrap_or_default()
}

/// Appends `before` and then `value` to `out`, both without escaping. `value` must need no escaping in JSON, such as a
/// configured name, a code or a hexadecimal number.
fn word(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// Appends `before` without escaping, and then `value` as a JSON string in quotation marks. `value` may contain any
/// characters. Characters that must be escaped in JSON are escaped.
fn text(out: &mut Vec<u8>, before: &str, value: &str) {
    out.extend_from_slice(before.as_bytes());
    let plain = value.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\');
    if plain {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    } else {
        // Characters that are unsafe on a terminal are escaped as well, because the log may be read on a terminal.
        let mut escaped = String::with_capacity(value.len() + 2);
        escape_unsafe(&serde_json::to_string(value).unwrap_or_default(), &mut escaped);
        out.extend_from_slice(escaped.as_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::is_unsafe;

    #[test]
    fn a_detail_is_cut_before_a_character() {
        let of = |before: usize| format!("{}{}", "a".repeat(before), "\u{20ac}".repeat(200));
        for (before, length) in [(0, 300), (1, 298), (2, 299), (300, 300)] {
            assert_eq!(beginning(&of(before)).len(), length, "{before}");
        }
        assert_eq!(beginning("short"), "short");
    }

    #[test]
    fn a_line_is_json_whatever_is_in_it() {
        let path = "/a\"b\\c\u{1}é\n";
        for client in [None, Some(IpAddr::from([1, 2, 3, 4]))] {
            let entry = Entry {
                time: Timestamp::from_unix_secs(1_767_225_600),
                request_id: "r",
                route: "none",
                provider: "none",
                agent: client.map(|_| "planner"),
                verdict: "deny",
                reason: "path_malformed",
                observes: true,
                observed: &[Denial::TokenMissing, Denial::BodyTooLarge],
                status: 400,
                method: "GET",
                path,
                client,
                peer: IpAddr::from([1, 2, 3, 4]),
                interaction: Some("int_1"),
                event_id: client.map(|_| "msg \"1\" \u{9b}\u{202e}\u{7f}"),
                secret: client.map(|_| 2),
                member: client.map(|_| "10.2.3.5:8446"),
                from_member: client.map(|_| "a\"b:1"),
                body_bytes: u64::MAX,
                duration_us: 0,
                deliver_us: 0,
                trail: &Trail::verbose(),
            };
            let mut line = Vec::new();
            entry.write(&mut line);
            let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert!(!String::from_utf8(line).unwrap().trim_end().contains(is_unsafe));
            assert_eq!((read["path"].as_str(), read["body_bytes"].as_u64()), (Some(path), Some(u64::MAX)));
            assert_eq!(read["mode"], "observe");
            assert_eq!(read["observed"], serde_json::json!(["token_missing", "body_too_large"]));
            assert_eq!(read["time"], "2026-01-01T00:00:00Z");
            assert_eq!(read["peer"].is_null(), client.is_some());
            assert_eq!(read["agent"].as_str(), client.map(|_| "planner"));
            assert_eq!(read["event_id"].as_str(), client.map(|_| "msg \"1\" \u{9b}\u{202e}\u{7f}"));
            assert_eq!(read["secret"].as_u64(), client.map(|_| 2));
            assert_eq!(read["member"].as_str(), client.map(|_| "10.2.3.5:8446"));
            assert_eq!(read["from_member"].as_str(), client.map(|_| "a\"b:1"));
        }
    }
}
