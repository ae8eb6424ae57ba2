//! Reads the configuration section `limits`: the limits for callers. Every limit has a default, and no limit can be
//! switched off.

use crate::config::yaml::Cursor;
use crate::policy::Limits;
use crate::time::{Rate, parse_rate};

/// The largest accepted value of two settings: `limits.head_max` in bytes, and `limits.throughput_min` in bytes per
/// second.
const HEAD_BYTES_MAX: u64 = 1 << 20;
/// The largest accepted value of `limits.headers_max`, the number of headers of a request.
const HEADERS_MAX: u64 = 256;
/// The largest accepted value of two settings, in bytes: `limits.body_memory_max` and `listen.egress.body_memory_max`.
pub(super) const BODY_MEMORY_MAX: u64 = 1 << 40;

/// Reads the configuration section `limits`. Without the section, the defaults apply.
pub(crate) fn limits(at: Option<Cursor<'_>>) -> Option<Limits> {
    let defaults = Limits::default();
    let Some(at) = at else { return Some(defaults) };
    let mut fields = at.fields()?;
    let mut duration =
        |key, default| fields.optional(key).map_or(Some(default), |at: Cursor<'_>| at.duration());
    let body_deadline = duration("body_deadline", defaults.body_deadline);
    let head_deadline = duration("head_deadline", defaults.head_deadline);
    let idle_timeout = duration("idle_timeout", defaults.idle_timeout);
    let mut number = |key, default: u64, range| {
        fields.optional(key).map_or(Some(default), |at: Cursor<'_>| at.whole_number(range))
    };
    let connections = number("connections_max", defaults.connections_max as u64, 1..=1_000_000);
    let per_address =
        number("connections_per_address_max", defaults.connections_per_address_max as u64, 1..=1_000_000);
    let headers = number("headers_max", defaults.headers_max as u64, 1..=HEADERS_MAX);
    let streams = number("streams_max", defaults.streams_max.into(), 1..=1000);
    let mut size = |key, default: u64, max| {
        fields.optional(key).map_or(Some(default), |at: Cursor<'_>| match at.size(max)? {
            0 => at.error("must be more than nothing", ""),
            size => Some(size),
        })
    };
    let body_memory = size("body_memory_max", defaults.body_memory_bytes_max, BODY_MEMORY_MAX);
    let head_max = size("head_max", defaults.head_bytes_max as u64, HEAD_BYTES_MAX);
    let min_rate = size("throughput_min", defaults.bytes_per_second_min, HEAD_BYTES_MAX);
    let rate = fields.optional("rate_per_address").map(|at| rate(&at));
    fields.finish();
    Some(Limits {
        body_deadline: body_deadline?,
        body_memory_bytes_max: body_memory?,
        bytes_per_second_min: min_rate?,
        connections_max: usize::try_from(connections?).ok()?,
        connections_per_address_max: usize::try_from(per_address?).ok()?,
        head_bytes_max: usize::try_from(head_max?).ok()?,
        head_deadline: head_deadline?,
        headers_max: usize::try_from(headers?).ok()?,
        idle_timeout: idle_timeout?,
        rate_per_address: rate.map_or(Some(None), |read| read.map(Some))?,
        streams_max: u32::try_from(streams?).ok()?,
    })
}

/// Reads a rate limit such as `100/s`, `30/m` or `500/h`. A rate of `100/s` also allows 100 requests at the same
/// moment.
pub(crate) fn rate(at: &Cursor<'_>) -> Option<Rate> {
    let text = at.text()?;
    let hint = "such as 100/s, 30/m or 500/h; as many may come at once";
    match parse_rate(text) {
        Some(rate) => Some(rate),
        None => at.error(format!("`{text}` is not a rate"), hint),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::tests::{MINIMAL, mistake, parse};

    #[test]
    fn limits_are_read() {
        let agent = "agent:";
        let with = |fields: &str| format!("limits: {{ {fields} }}\n{agent}");
        mistake(agent, &with("head_max: 2MiB"), "limits.head_max", "more than");
        mistake(agent, &with("throughput_min: 0"), "limits.throughput_min", "more than nothing");
        mistake(agent, &with("connections_max: 0"), "limits.connections_max", "from 1");
        mistake(agent, &with("rate_per_address: 10"), "limits.rate_per_address", "expected text");
        for bad in ["0/s", "+1/s", "1/d", "1", "9999999/s"] {
            let text = with(&format!("rate_per_address: \"{bad}\""));
            mistake(agent, &text, "limits.rate_per_address", "not a rate");
        }
        let limits = |text: &str| parse(text).unwrap().policy.limits;
        assert_eq!(limits(MINIMAL).head_bytes_max, 32 << 10);
        let stated = MINIMAL.replacen(
            agent,
            &with("head_max: 4KiB, head_deadline: 2s, streams_max: 7, rate_per_address: 30/m"),
            1,
        );
        let read = limits(&stated);
        assert_eq!((read.head_bytes_max, read.head_deadline), (4096, Duration::from_secs(2)));
        let rate = read.rate_per_address.unwrap();
        assert_eq!((rate.requests.get(), rate.per, read.streams_max), (30, Duration::from_secs(60), 7));
    }
}
