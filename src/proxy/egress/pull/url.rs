//! The URLs of the pull API: every path that begins with `/callbacks` on the egress listener.

use std::time::Duration;

use crate::config::CALLBACKS;
use crate::path::{Parameter, parameter};
use crate::request::RequestHead;
use crate::time::parse_duration;

/// The value of the label `rule` in metrics and the log for requests of the pull API (`/callbacks`).
pub(crate) const RULE: &str = "callbacks";
/// The maximum time that a request of the pull API waits for messages.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The default number of messages in one response of the pull API. The total size of the messages is limited, too.
const MAX_DEFAULT: usize = 10;
const MAX: usize = 1000;
/// The query parameters of a request that pulls messages.
const PARAMETERS: [&str; 5] = ["after", "agent", "max", "wait", "watch"];

/// The parsed path of a request of the pull API.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct PullUrl {
    /// The interaction id in the path. `None` selects the messages of all interactions.
    pub(in crate::proxy::egress) interaction: Option<String>,
    pub(in crate::proxy::egress) asked: Asked,
}

#[derive(Debug, Eq, PartialEq)]
pub(in crate::proxy::egress) enum Asked {
    /// Requests the next messages.
    Events,
    /// Acknowledges the message with this number as processed.
    Taken(u64),
    /// Gives the message with this number back to the inbox, so that the message can be leased again.
    Failed(u64),
    /// The path is not a path of the pull API.
    Nothing,
}

impl PullUrl {
    /// Parses a path that begins with `/callbacks`. Returns `None` for any other path.
    pub(crate) fn parse(head: &RequestHead<'_>) -> Option<Self> {
        let rest = head.raw_path().strip_prefix('/')?.strip_prefix(CALLBACKS)?;
        let rest = if rest.is_empty() { rest } else { rest.strip_prefix('/')? };
        let segments: Vec<_> = rest.split('/').collect();
        let (interaction, rest) = match segments.as_slice() {
            ["events", rest @ ..] => (None, rest),
            [id, "events", rest @ ..] if !id.is_empty() => (Some((*id).to_owned()), rest),
            _ => return Some(Self { interaction: None, asked: Asked::Nothing }),
        };
        let asked = match rest {
            [] => Asked::Events,
            [number, verb] => match (parse_number(number), *verb) {
                (Some(number), "taken") => Asked::Taken(number),
                (Some(number), "failed") => Asked::Failed(number),
                _ => Asked::Nothing,
            },
            _ => Asked::Nothing,
        };
        Some(Self { interaction, asked })
    }
}

/// Parses a number that consists of decimal digits only.
fn parse_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The query parameters of a request that acknowledges or returns a message.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::proxy::egress) struct SettleQuery {
    /// The number of the delivery attempt that the agent processed.
    pub(in crate::proxy::egress) attempt: Option<u32>,
    /// The agent to which the message belongs.
    pub(in crate::proxy::egress) agent: Option<String>,
}

impl SettleQuery {
    /// Parses the query of a request that acknowledges or returns a message.
    ///
    /// # Errors
    /// Returns an explanation if a parameter is unknown, occurs twice, or has an invalid value.
    pub(in crate::proxy::egress) fn parse(query: &str) -> Result<Self, &'static str> {
        check_names(query, &["agent", "attempt"], "the parameters are `agent` and `attempt`")?;
        let attempt = value(query, "attempt")?.map(|text| parse_number(&text));
        let attempt = attempt.map(|number| number.and_then(|number| u32::try_from(number).ok()));
        if attempt == Some(None) {
            return Err("`attempt` must be the number of an attempt");
        }
        Ok(Self { attempt: attempt.flatten(), agent: value(query, "agent")? })
    }
}

/// Checks that a query contains no parameters other than `names`.
///
/// # Errors
/// Returns `fault` if the query has another parameter.
fn check_names(query: &str, names: &[&str], fault: &'static str) -> Result<(), &'static str> {
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    let is_known = |pair: &str| names.contains(&pair.split('=').next().unwrap_or_default());
    if pairs.all(is_known) { Ok(()) } else { Err(fault) }
}

fn value(query: &str, name: &str) -> Result<Option<String>, &'static str> {
    match parameter(query, name) {
        Parameter::One(value) => Ok(Some(value.into_owned())),
        Parameter::Missing => Ok(None),
        Parameter::Several => Err("a parameter occurs twice"),
    }
}

/// The query parameters of a request that pulls messages.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::proxy::egress) struct PullQuery {
    /// The maximum time that the request waits for messages.
    pub(in crate::proxy::egress) wait: Duration,
    /// The maximum number of messages in the response.
    pub(in crate::proxy::egress) max: usize,
    /// The agent whose messages the request selects.
    pub(in crate::proxy::egress) agent: Option<String>,
    /// For a request that only watches: the number of the last message that the caller has seen. Watched messages are
    /// not leased.
    pub(in crate::proxy::egress) watched_after: Option<u64>,
}

impl PullQuery {
    /// Parses the query of a request that pulls messages.
    ///
    /// # Errors
    /// Returns an explanation if a parameter is unknown, occurs twice, or has an invalid value.
    pub(in crate::proxy::egress) fn parse(query: &str) -> Result<Self, &'static str> {
        check_names(query, &PARAMETERS, "the parameters are `wait`, `max`, `agent`, `watch` and `after`")?;
        let value = |name: &str| value(query, name);
        let wait = value("wait")?.map_or(Some(Duration::ZERO), |text| parse_duration(&text));
        let wait = wait.ok_or("`wait` must be a duration, such as 30s")?.min(WAIT_MAX);
        let max = value("max")?.map_or(Some(MAX_DEFAULT), |text| text.parse().ok());
        let max = max.filter(|max| *max > 0).ok_or("`max` must be a number of messages")?.min(MAX);
        let after = value("after")?.map_or(Some(0), |text| text.parse().ok());
        let after = after.ok_or("`after` must be the number of a message")?;
        let watches = match value("watch")?.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err("`watch` must be true or false"),
        };
        Ok(Self { wait, max, agent: value("agent")?, watched_after: watches.then_some(after) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_callbacks_have_a_meaning_or_none() {
        let headers = http::HeaderMap::new();
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        let parse = |path: &str| PullUrl::parse(&RequestHead::new("GET", path, &headers, peer));
        for (path, interaction, asked) in [
            ("/callbacks/events?wait=1s", None, Asked::Events),
            ("/callbacks/int_a/events", Some("int_a"), Asked::Events),
            ("/callbacks/int_a/events/7/taken", Some("int_a"), Asked::Taken(7)),
            ("/callbacks/events/7/failed", None, Asked::Failed(7)),
            ("/callbacks/events/x/failed", None, Asked::Nothing),
            ("/callbacks/events/+7/failed", None, Asked::Nothing),
            ("/callbacks/events//failed", None, Asked::Nothing),
            ("/callbacks/events/7/eaten", None, Asked::Nothing),
            ("/callbacks/int_a", None, Asked::Nothing),
            ("/callbacks", None, Asked::Nothing),
            ("/callbacks/", None, Asked::Nothing),
        ] {
            let url = parse(path).unwrap();
            assert_eq!(url.asked, asked, "{path}");
            if url.asked != Asked::Nothing {
                assert_eq!(url.interaction.as_deref(), interaction, "{path}");
            }
        }
        assert_eq!(parse("/callbacksx/events"), None);
        assert_eq!(parse("/other"), None);
    }

    #[test]
    fn a_settling_request_can_name_its_agent_and_its_attempt() {
        let parse = SettleQuery::parse;
        assert_eq!(parse("").unwrap(), SettleQuery { attempt: None, agent: None });
        let named = SettleQuery { attempt: Some(2), agent: Some("a".to_owned()) };
        assert_eq!(parse("attempt=2&agent=a").unwrap(), named);
        for bad in ["attempt=+2", "attempt=x", "attempt=1&attempt=2", "wait=1s", "attempt=99999999999"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_have_limits() {
        let parse = PullQuery::parse;
        assert_eq!(
            parse("wait=5m&max=3&agent=a").unwrap(),
            PullQuery { wait: WAIT_MAX, max: 3, agent: Some("a".to_owned()), watched_after: None }
        );
        assert_eq!(parse("").unwrap().max, 10);
        assert_eq!(parse("watch=true&after=7").unwrap().watched_after, Some(7));
        assert_eq!(parse("max=5000").unwrap().max, 1000);
        for bad in ["wait=soon", "max=0", "max=-1", "max=1&max=2", "limit=1", "watch=yes", "after=x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
