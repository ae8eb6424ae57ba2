//! The timestamp of a signature: where it stands, how it is written, how far it may be off.

use std::time::Duration;

use http::HeaderName;
use time::format_description::well_known::Rfc2822;

use crate::denial::{Denial, Refusal};
use crate::json::Pointer;
use crate::time::Timestamp;

/// How a timestamp is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TimestampUnit {
    /// The date of HTTP (RFC 9110 section 5.6.7).
    HttpDate,
    /// RFC 3339.
    Rfc3339,
    /// Unix milliseconds, decimal.
    UnixMilliseconds,
    /// Unix seconds, decimal.
    UnixSeconds,
}

/// Where the timestamp comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TimestampSource {
    /// A member of the JSON body.
    Body(Pointer),
    /// A header of its own.
    Header(HeaderName),
    /// The `{timestamp}` field of the signature header.
    SignatureHeader,
}

/// The timestamp of a scheme, and how far it may be off.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TimestampRule {
    /// Where it comes from.
    pub source: TimestampSource,
    /// How it is written.
    pub unit: TimestampUnit,
    /// Allowed age; exactly this old still passes.
    pub past: Duration,
    /// Allowed lead; exactly this far ahead still passes.
    pub future: Duration,
}

impl TimestampRule {
    /// Holds the text of a timestamp against `now`.
    pub(in crate::signature) fn check(&self, text: &str, now: Timestamp) -> Result<(), Refusal> {
        let at = self.unit.read(text).ok_or_else(|| {
            Refusal::new(Denial::SignatureMalformed, "the timestamp is not in the scheme's form")
        })?;
        check_tolerance(at, now, self.past, self.future)
    }
}

/// Whether `at` is neither older nor newer than allowed.
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

impl TimestampUnit {
    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HttpDate => "http-date",
            Self::Rfc3339 => "rfc3339",
            Self::UnixMilliseconds => "ms",
            Self::UnixSeconds => "s",
        }
    }

    /// Digits only, at most thirteen of them: no sign, no fraction, no tail.
    fn read(self, text: &str) -> Option<Timestamp> {
        let decimal = || {
            let digits = (1..=13).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse::<i64>().ok()).flatten()
        };
        match self {
            Self::HttpDate if text.ends_with(" GMT") => {
                let moment = ::time::OffsetDateTime::parse(text, &Rfc2822).ok()?;
                Some(Timestamp::from_unix_secs(moment.unix_timestamp()))
            }
            Self::Rfc3339 if text.contains('T') => Timestamp::parse(text),
            Self::HttpDate | Self::Rfc3339 => None,
            Self::UnixMilliseconds => decimal().map(Timestamp::from_unix_ms),
            Self::UnixSeconds => decimal().map(Timestamp::from_unix_secs),
        }
    }

    /// Writes a timestamp as a provider does.
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
        let units = [
            TimestampUnit::HttpDate,
            TimestampUnit::Rfc3339,
            TimestampUnit::UnixMilliseconds,
            TimestampUnit::UnixSeconds,
        ];
        for unit in units {
            assert_eq!(unit.read(&unit.write(at)), Some(at), "{}", unit.name());
        }
        assert_eq!(TimestampUnit::HttpDate.write(at), "Thu, 01 Jan 2026 00:00:00 GMT");
        for bad in ["1767225600.5", "-1", "1767225600 ", "0x10", "", "99999999999999"] {
            assert_eq!(TimestampUnit::UnixSeconds.read(bad), None, "{bad}");
        }
        assert_eq!(TimestampUnit::Rfc3339.read("2026-01-01"), None);
        assert_eq!(TimestampUnit::HttpDate.read("Thu, 01 Jan 2026 00:00:00 +0100"), None);
    }
}
