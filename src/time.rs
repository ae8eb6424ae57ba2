//! Timestamps and durations in the formats of the configuration and of HTTP. This module reads no clock. Callers pass
//! the current time as an argument.

use std::fmt;
use std::num::NonZero;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::{Rfc2822, Rfc3339};

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Timestamp {
    unix_ms: i64,
}

impl Timestamp {
    /// Creates a timestamp from Unix seconds. A value outside the range becomes the nearest end of the range.
    pub const fn from_unix_secs(secs: i64) -> Self {
        Self { unix_ms: secs.saturating_mul(1000) }
    }

    /// Creates a timestamp from Unix milliseconds.
    pub const fn from_unix_ms(unix_ms: i64) -> Self {
        Self { unix_ms }
    }

    /// Returns the timestamp in Unix seconds, rounded down.
    pub const fn unix_secs(self) -> i64 {
        self.unix_ms.div_euclid(1000)
    }

    /// Returns the timestamp in Unix milliseconds.
    pub const fn unix_ms(self) -> i64 {
        self.unix_ms
    }

    /// Returns the time that is `duration` later. Saturates at the end of the range.
    pub fn plus(self, duration: Duration) -> Self {
        Self { unix_ms: self.unix_ms.saturating_add(millis(duration)) }
    }

    /// Returns the time that is `duration` earlier. Saturates at the beginning of the range.
    pub fn minus(self, duration: Duration) -> Self {
        Self { unix_ms: self.unix_ms.saturating_sub(millis(duration)) }
    }

    /// Parses a timestamp in RFC 3339 or in Unix seconds. Returns `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().ok().map(Self::from_unix_secs);
        }
        let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        i64::try_from(moment.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Self::from_unix_ms)
    }
}

/// Converts a timestamp into the time type of the standard library. A time before the Unix epoch becomes the epoch.
impl From<Timestamp> for std::time::SystemTime {
    fn from(at: Timestamp) -> Self {
        Self::UNIX_EPOCH + Duration::from_millis(u64::try_from(at.unix_ms).unwrap_or(0))
    }
}

/// Formats the timestamp in RFC 3339, in UTC. Milliseconds are written unless they are zero. The formatter of the
/// `time` crate is not used, because it is slower and every line of the access log contains a timestamp.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(moment) = OffsetDateTime::from_unix_timestamp(self.unix_secs()) else {
            return write!(f, "{}ms", self.unix_ms);
        };
        let (date, clock) = (moment.date(), moment.time());
        let Ok(year @ 0..=9999) = u32::try_from(date.year()) else {
            return write!(f, "{}ms", self.unix_ms);
        };
        let mut text = String::with_capacity(24);
        digits(&mut text, year, 1000);
        for (mark, number) in [('-', u8::from(date.month())), ('-', date.day()), ('T', clock.hour())] {
            text.push(mark);
            digits(&mut text, number.into(), 10);
        }
        for number in [clock.minute(), clock.second()] {
            text.push(':');
            digits(&mut text, number.into(), 10);
        }
        if let Ok(ms @ 1..) = u32::try_from(self.unix_ms.rem_euclid(1000)) {
            text.push('.');
            digits(&mut text, ms, 100);
        }
        text.push('Z');
        f.write_str(&text)
    }
}

/// Appends `number` in decimal, padded with leading zeros to the number of digits of `scale`, a power of ten.
fn digits(text: &mut String, number: u32, mut scale: u32) {
    while scale > 0 {
        text.push(char::from_digit(number / scale % 10, 10).unwrap_or('0'));
        scale /= 10;
    }
}

/// A clock that shows the wall-clock time, but is protected against jumps. It compares the wall clock of the operating
/// system with a monotonic clock. If the wall clock jumps ahead, this clock continues with the old time until the wall
/// clock has been ahead for 60 seconds. Then it uses the new time. Use this clock for decisions that cannot be undone,
/// for example whether a deadline has passed.
///
/// If the wall clock jumps back, this clock uses the new time at once. This is safe, because an earlier time makes no
/// deadline pass. It is also necessary, because tokens are minted with the time of the wall clock. If this clock kept
/// the later time, a new token could appear expired.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steady {
    /// The last accepted difference between the wall clock and the monotonic clock, in milliseconds.
    offset_ms: Option<i64>,
    /// The monotonic time at which a jump of the wall clock was first seen. `None` if no jump is pending.
    apart_since: Option<Duration>,
}

impl Steady {
    /// The maximum change of the difference between wall clock and monotonic clock that counts as drift, in
    /// milliseconds. A larger change is a jump.
    const DRIFT_MS: i64 = 2_000;
    /// How long the wall clock must stay ahead after a jump before the new wall-clock time is used.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Returns the wall-clock time, protected against jumps. `wall` is the current time of the wall clock, and `steady`
    /// the current time of the monotonic clock.
    pub fn look(&mut self, wall: Timestamp, steady: Duration) -> Timestamp {
        let offset = wall.unix_ms.saturating_sub(millis(steady));
        let believed = *self.offset_ms.get_or_insert(offset);
        if offset.saturating_sub(believed).saturating_abs() <= Self::DRIFT_MS {
            self.apart_since = None;
            self.offset_ms = Some(offset);
            return wall;
        }
        let since = *self.apart_since.get_or_insert(steady);
        if steady.saturating_sub(since) >= Self::PATIENCE {
            *self = Self { offset_ms: Some(offset), apart_since: None };
            return wall;
        }
        wall.min(Timestamp { unix_ms: believed.saturating_add(millis(steady)) })
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Parses the date of an HTTP header in the preferred format, such as `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 section
/// 5.6.7). Returns `None` for any other text.
pub fn parse_http_date(text: &str) -> Option<Timestamp> {
    let moment = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    moment.offset().is_utc().then(|| Timestamp::from_unix_secs(moment.unix_timestamp()))
}

/// Parses a duration: a whole number and one of the units `ms`, `s`, `m`, `h`, `d`. Returns `None` for any other text.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(split)?;
    let number: u64 = digits.parse().ok()?;
    let ms_per_unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.checked_mul(ms_per_unit)?;
    i64::try_from(ms).ok().map(|_| Duration::from_millis(ms))
}

/// Formats a duration as [`parse_duration`] reads it, in the largest unit that leaves no remainder.
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms != 0 && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

/// A rate limit: at most `requests` requests in each period `per`. All of these requests can arrive at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// The maximum number of requests in one period.
    pub requests: NonZero<u32>,
    /// The length of the period in which the requests are counted.
    pub per: Duration,
}

/// Parses a rate limit of at most a million requests: a number, `/` and one of the units `s`, `m`, `h`. Returns `None`
/// for any other text.
pub fn parse_rate(text: &str) -> Option<Rate> {
    let (number, unit) = text.split_once('/')?;
    let per = match unit {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    let is_plain = number.bytes().all(|b| b.is_ascii_digit());
    let requests: NonZero<u32> = number.parse().ok().filter(|_| is_plain)?;
    (requests.get() <= 1_000_000).then_some(Rate { requests, per })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_round_trip() {
        for text in ["2026-01-01T00:00:00Z", "1999-12-31T23:59:59.250Z"] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::parse("1767225600").unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(Timestamp::parse("2026-01-01T01:00:00+01:00"), Timestamp::parse("1767225600"));
        for bad in ["", "yesterday", "-5", "+5", "2026-01-01", "99999999999999999999999"] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_clock_that_jumps_is_not_believed_at_once() {
        let (mut clock, wall) = (Steady::default(), Timestamp::from_unix_secs(1_000_000));
        let at = Duration::from_secs;
        assert_eq!(clock.look(wall, at(10)), wall);
        assert_eq!(clock.look(wall.plus(at(5)), at(15)), wall.plus(at(5)));
        // The clock is a day ahead for less than a minute and then correct again. The jump has no effect.
        assert_eq!(clock.look(wall.plus(at(86_400)), at(20)), wall.plus(at(10)));
        assert_eq!(clock.look(wall.plus(at(86_430)), at(50)), wall.plus(at(40)));
        assert_eq!(clock.look(wall.plus(at(50)), at(60)), wall.plus(at(50)));
        // The clock is set back an hour, and the new time is used at once.
        let set = wall.minus(at(3600));
        assert_eq!(clock.look(set, at(61)), set);
        assert_eq!(clock.look(set.plus(at(1)), at(62)), set.plus(at(1)));
        // The clock was set back for less than a minute. Its return to the former time is believed at once.
        assert_eq!(clock.look(wall.plus(at(53)), at(63)), wall.plus(at(53)));
        assert_eq!(clock.look(set.plus(at(3)), at(64)), set.plus(at(3)));
        assert_eq!(clock.look(set.plus(at(63)), at(124)), set.plus(at(63)));
        // The clock was set back for more than a minute. Its return to the former time is therefore treated like any
        // other jump ahead.
        assert_eq!(clock.look(wall.plus(at(115)), at(125)), set.plus(at(64)));
    }

    #[test]
    fn durations_are_strict() {
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        for bad in ["", "5", "m", "5 m", "-5m", "1.5h", "5M", "5minutes", "99999999999999999d"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
        for text in ["2h", "90m", "1d", "1500ms", "0ms"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
    }
}
