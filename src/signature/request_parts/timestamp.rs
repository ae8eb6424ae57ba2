//! The timestamp of a signature: its location in a request, its format, and the accepted difference from Callgate's
//! clock.

use std::fmt;
use std::time::Duration;

use http::HeaderName;
use time::format_description::well_known::Rfc2822;

use super::body_member::BodyPart;
use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::time::Timestamp;

/// The length of an HTTP date, such as `Sun, 06 Nov 1994 08:49:37 GMT`, in bytes.
const HTTP_DATE_BYTES: usize = 29;

/// The format of the timestamp of a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimestampUnit {
    /// An HTTP date (RFC 9110 section 5.6.7).
    HttpDate,
    /// A date and time as in RFC 3339.
    Rfc3339,
    /// A Unix time in milliseconds, as a decimal number.
    UnixMilliseconds,
    /// A Unix time in seconds, as a decimal number.
    UnixSeconds,
}

/// The location of the timestamp of a signature in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TimestampSource {
    /// The timestamp is the value at this JSON pointer in the JSON body.
    Body(Pointer),
    /// The timestamp is in the form field of this name in the body.
    Form(Box<str>),
    /// The timestamp is the whole value of the header of this name.
    Header(HeaderName),
    /// The timestamp is in the query parameter of this name.
    Query(Box<str>),
    /// The timestamp is at the placeholder `{timestamp}` in the format of the signature header.
    SignatureHeader,
}

/// The rule for the timestamp of a signature: its location, its format, and the accepted difference from Callgate's
/// clock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimestampRule {
    /// The location of the timestamp in a request.
    pub source: TimestampSource,
    /// The format of the timestamp.
    pub unit: TimestampUnit,
    /// The maximum accepted age of the timestamp. A timestamp of exactly this age is accepted.
    pub past: Duration,
    /// The maximum time by which the timestamp may be ahead of Callgate's clock. A timestamp that is ahead by exactly
    /// this time is accepted.
    pub future: Duration,
}

impl TimestampRule {
    /// Parses the timestamp of a signature and compares it with `now`.
    ///
    /// # Errors
    /// Returns `signature_malformed`, `signature_too_old` or `signature_too_new`.
    pub(in crate::signature) fn check(&self, text: &str, now: Timestamp) -> Result<(), Refusal> {
        let hint = || self.other_unit(text, now).map(|hint| format!("; {hint}")).unwrap_or_default();
        let Some(at) = self.unit.read(text) else {
            let detail =
                format!("the timestamp in {} is not {}{}", self.source, self.unit.described(), hint());
            return Err(Refusal::new(Denial::SignatureMalformed, detail));
        };
        check_tolerance(at, now, self.past, self.future)
            .map_err(|refusal| Refusal::new(refusal.denial, format!("{}{}", refusal.detail, hint())))
    }

    /// Returns a hint if the sender probably used a format other than the expected format. This is the case if `text`,
    /// read in another format, is a time within a year of `now`.
    fn other_unit(&self, text: &str, now: Timestamp) -> Option<String> {
        const YEAR: Duration = Duration::from_secs(366 * 86_400);
        let is_plausible = |at: Timestamp| at >= now.minus(YEAR) && at <= now.plus(YEAR);
        let expected = self.unit.described();
        let found = TimestampUnit::ALL.into_iter().filter(|unit| *unit != self.unit);
        let mut found = found.filter(|unit| unit.read(text).is_some_and(is_plausible));
        if let Some(unit) = found.next() {
            return Some(format!("it looks like {}, expected {expected}", unit.described()));
        }
        let scaled = |digits: usize| {
            let seconds = (text.len() == 10 + digits && text.bytes().all(|b| b.is_ascii_digit()))
                .then(|| text.get(..10)?.parse::<i64>().ok())?;
            seconds.map(Timestamp::from_unix_secs).filter(|at| is_plausible(*at))
        };
        match (scaled(6), scaled(9)) {
            (Some(_), _) => Some(format!("it looks like microseconds, expected {expected}")),
            (_, Some(_)) => Some(format!("it looks like nanoseconds, expected {expected}")),
            _ => None,
        }
    }
}

/// Checks that the time `at` is at most `past` before `now` and at most `future` after `now`.
///
/// # Errors
/// Returns `signature_too_old` or `signature_too_new`.
pub(in crate::signature) fn check_tolerance(
    at: Timestamp,
    now: Timestamp,
    past: Duration,
    future: Duration,
) -> Result<(), Refusal> {
    let seconds = (now.unix_ms() - at.unix_ms()) as f64 / 1000.0;
    if at < now.minus(past) {
        let detail = format!("signed {seconds} s ago, tolerance {} s", past.as_secs());
        return Err(Refusal::new(Denial::SignatureTooOld, detail));
    }
    if at > now.plus(future) {
        let detail = format!("signed {} s ahead, tolerance {} s", -seconds, future.as_secs());
        return Err(Refusal::new(Denial::SignatureTooNew, detail));
    }
    Ok(())
}

impl TimestampSource {
    /// Returns the part of the body that contains the timestamp, or `None` if the timestamp is not in the body.
    pub(in crate::signature) fn body_part(&self) -> Option<BodyPart<'_>> {
        match self {
            Self::Body(pointer) => Some(BodyPart::Member(pointer)),
            Self::Form(name) => Some(BodyPart::Field(name)),
            Self::Header(_) | Self::Query(_) | Self::SignatureHeader => None,
        }
    }
}

/// Formats the location of the timestamp as a noun phrase, such as `the header x-timestamp`.
impl fmt::Display for TimestampSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(pointer) => write!(f, "{} of the body", pointer.as_str()),
            Self::Form(name) => write!(f, "the form field {name}"),
            Self::Header(name) => write!(f, "the header {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
            Self::SignatureHeader => write!(f, "the signature header"),
        }
    }
}

impl TimestampUnit {
    /// All formats of timestamps.
    const ALL: [Self; 4] = [Self::UnixSeconds, Self::UnixMilliseconds, Self::Rfc3339, Self::HttpDate];

    /// Returns a description of the timestamp format for error texts, such as `Unix seconds`.
    const fn described(self) -> &'static str {
        match self {
            Self::HttpDate => "an HTTP date",
            Self::Rfc3339 => "an RFC 3339 time",
            Self::UnixMilliseconds => "Unix milliseconds",
            Self::UnixSeconds => "Unix seconds",
        }
    }

    /// Returns the name of the timestamp format in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpDate => "http-date",
            Self::Rfc3339 => "rfc3339",
            Self::UnixMilliseconds => "ms",
            Self::UnixSeconds => "s",
        }
    }

    /// Parses a timestamp in this format. Returns `None` if the text is not in this format. Two rules are stricter than
    /// usual:
    ///
    /// - A Unix time must consist of one to thirteen digits. Other parsers could read a different time from a text with
    ///   a sign, a fraction or white space.
    /// - A Unix time must have no leading zero, and an HTTP date must have its fixed length. Otherwise the last bytes
    ///   of the signed part before the timestamp could become the first bytes of the timestamp.
    fn read(self, text: &str) -> Option<Timestamp> {
        let decimal = || {
            let digits = (1..=13).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse::<i64>().ok()).flatten()
        };
        match self {
            Self::HttpDate if text.len() == HTTP_DATE_BYTES && text.ends_with(" GMT") => {
                let moment = ::time::OffsetDateTime::parse(text, &Rfc2822).ok()?;
                Some(Timestamp::from_unix_secs(moment.unix_timestamp()))
            }
            Self::Rfc3339 if text.contains('T') => Timestamp::parse(text),
            Self::HttpDate | Self::Rfc3339 => None,
            Self::UnixMilliseconds => decimal().map(Timestamp::from_unix_ms),
            Self::UnixSeconds => decimal().map(Timestamp::from_unix_secs),
        }
    }

    /// Formats a time as a provider with this timestamp format does.
    pub(in crate::signature) fn write(self, at: Timestamp) -> String {
        match self {
            Self::HttpDate => {
                let moment = ::time::OffsetDateTime::from_unix_timestamp(at.unix_secs()).ok();
                let text = moment.and_then(|moment| moment.format(&Rfc2822).ok()).unwrap_or_default();
                text.replace("+0000", "GMT")
            }
            Self::Rfc3339 => at.to_string(),
            Self::UnixMilliseconds => at.unix_ms().to_string(),
            Self::UnixSeconds => at.unix_secs().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_reads_what_it_writes() {
        let at = Timestamp::from_unix_secs(1_767_225_600);
        for (unit, name) in [
            (TimestampUnit::HttpDate, "http-date"),
            (TimestampUnit::Rfc3339, "rfc3339"),
            (TimestampUnit::UnixMilliseconds, "ms"),
            (TimestampUnit::UnixSeconds, "s"),
        ] {
            assert_eq!((unit.read(&unit.write(at)), unit.name()), (Some(at), name));
        }
        assert_eq!(TimestampUnit::HttpDate.write(at), "Thu, 01 Jan 2026 00:00:00 GMT");
        for bad in ["1767225600.5", "-1", "1767225600 ", "0x10", "", "99999999999999", "01767225600", "00"] {
            assert_eq!(TimestampUnit::UnixSeconds.read(bad), None, "{bad}");
            assert_eq!(TimestampUnit::UnixMilliseconds.read(bad), None, "{bad}");
        }
        for bad in
            ["2026-01-01", "02026-01-01T00:00:00Z", "12026-01-01T00:00:00Z", "2026-01-01T00:00:00+00:001"]
        {
            assert_eq!(TimestampUnit::Rfc3339.read(bad), None, "{bad}");
        }
        for bad in [
            "Thu, 01 Jan 2026 00:00:00 +0100",
            "Thu, 1 Jan 2026 00:00:00 GMT",
            "01 Jan 2026 00:00:00 GMT",
            " Thu, 01 Jan 2026 00:00:00 GMT",
        ] {
            assert_eq!(TimestampUnit::HttpDate.read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_timestamp_in_another_unit_is_named() {
        let now = Timestamp::from_unix_secs(1_767_225_600);
        let check = |unit: TimestampUnit, text: &str| {
            let tolerance = Duration::from_secs(300);
            let rule = TimestampRule {
                source: TimestampSource::SignatureHeader,
                unit,
                past: tolerance,
                future: tolerance,
            };
            rule.check(text, now).unwrap_err().detail.into_owned()
        };
        let s = TimestampUnit::UnixSeconds;
        let ms = TimestampUnit::UnixMilliseconds;
        for (unit, text, words) in [
            (s, "1767225600123", "it looks like Unix milliseconds, expected Unix seconds"),
            (ms, "1767225600", "it looks like Unix seconds, expected Unix milliseconds"),
            (s, "1767225600123456", "it looks like microseconds, expected Unix seconds"),
            (s, "1767225600123456789", "it looks like nanoseconds, expected Unix seconds"),
            (s, "2026-01-01T00:00:00Z", "it looks like an RFC 3339 time, expected Unix seconds"),
            (TimestampUnit::Rfc3339, "1767225600", "it looks like Unix seconds, expected an RFC 3339 time"),
        ] {
            let detail = check(unit, text);
            assert!(detail.ends_with(words), "{detail}");
        }
        for (unit, text) in [(s, "1767215600"), (s, "yesterday"), (ms, "1767215600000"), (s, "1")] {
            assert!(!check(unit, text).contains("looks like"), "{text}");
        }
    }
}
