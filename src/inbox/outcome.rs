//! The outcome of one attempt to deliver a message.

use std::time::Duration;

use http::StatusCode;

use crate::time::{Timestamp, parse_http_date};

/// The minimum delay that an agent can request with the header `Retry-After`.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
/// The maximum delay that an agent can request with the header `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The outcome of one attempt to deliver a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The agent responded with 2xx.
    Accepted,
    /// The agent responded with 408, 425 or 429: it is alive, and asks for a later attempt. The value is the delay in
    /// `Retry-After`.
    Busy(Option<Duration>),
    /// The agent responded with 5xx or a redirect, or without a valid response. The agent may have received the
    /// message. The value is the delay in `Retry-After`.
    Failed(Option<Duration>),
    /// The agent responded with 410, which means that the agent will never accept this message.
    Gone,
    /// The agent responded with a 4xx status other than 408, 410, 425 and 429.
    Rejected,
    /// No connection to the agent could be opened. Nothing was sent.
    Unreachable,
}

impl Outcome {
    /// Returns the outcome of an attempt from the agent's response. `retry_after` is the value of the header
    /// `Retry-After`.
    pub fn of_answer(status: StatusCode, retry_after: Option<&str>, now: Timestamp) -> Self {
        let delay = || retry_after.and_then(|text| self::retry_after(text, now));
        match status.as_u16() {
            200..=299 => Self::Accepted,
            408 | 425 | 429 => Self::Busy(delay()),
            410 => Self::Gone,
            400..=499 => Self::Rejected,
            _ => Self::Failed(delay()),
        }
    }

    /// Reports whether the outcome shows that the agent processes requests.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Accepted | Self::Busy(_) | Self::Gone | Self::Rejected)
    }

    /// Reports whether the agent may have received the message.
    pub fn was_sent(self) -> bool {
        self != Self::Unreachable
    }
}

/// Parses the value of the header `Retry-After`, which is a number of seconds or an HTTP date (RFC 9110, section
/// 10.2.3). Returns a delay from one second to one hour, or `None` if the value is invalid.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let asked = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that does not fit into 64 bits counts as the maximum delay.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let at = parse_http_date(text)?;
        let ms = at.unix_ms().saturating_sub(now.unix_ms());
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    };
    Some(asked.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_has_limits() {
        let now = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        for (text, seconds) in [
            ("0", Some(1)),
            ("1", Some(1)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("1000000000", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("Thu, 01 Jan 2026 00:02:00 GMT", Some(120)),
            ("Thu, 01 Jan 2026 00:00:00 GMT", Some(1)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(1)),
            ("Fri, 01 Jan 2027 00:00:00 GMT", Some(3600)),
            ("-1", None),
            ("", None),
            ("1.5", None),
            ("soon", None),
            ("+5", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn statuses_have_their_outcome() {
        let now = Timestamp::from_unix_secs(0);
        let of = |status: u16, after| Outcome::of_answer(StatusCode::from_u16(status).unwrap(), after, now);
        for status in [200, 202, 204, 299] {
            assert_eq!(of(status, Some("7")), Outcome::Accepted, "{status}");
        }
        for status in [408, 425, 429] {
            assert_eq!(of(status, Some("7")), Outcome::Busy(Some(Duration::from_secs(7))), "{status}");
        }
        for status in [301, 304, 500, 502, 503, 599] {
            assert_eq!(of(status, None), Outcome::Failed(None), "{status}");
        }
        assert_eq!(of(503, Some("0")), Outcome::Failed(Some(Duration::from_secs(1))));
        assert_eq!(of(410, None), Outcome::Gone);
        for status in [400, 401, 404, 409, 422, 451] {
            assert_eq!(of(status, Some("7")), Outcome::Rejected, "{status}");
        }
    }
}
