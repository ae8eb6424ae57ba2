//! The bodies of the fuzz targets. Each takes any bytes and asserts what must hold for all of them. The tests of the
//! main package include this file and run every seed through it, so that a seed stays a regression test on stable.

pub mod config;
pub mod connect;
pub mod decide;
pub mod forwarded;
pub mod forwarded_oracle;
pub mod json_pointer;
#[cfg(feature = "proxy")]
pub mod ledger_file;
pub mod path;
#[cfg(feature = "proxy")]
pub mod response_head;
pub mod signature_headers;
pub mod template;
pub mod token;

use callgate::config::{Config, Surroundings};
use callgate::time::Timestamp;

/// A target. It tells whether the input was accepted: a target that lets nothing in asserts nothing.
pub type Target = fn(&[u8]) -> bool;

/// Every target by its name, which is also that of its folder in `seeds`.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config::run),
    ("connect", connect::run),
    ("decide", decide::run),
    ("forwarded", forwarded::run),
    ("json_pointer", json_pointer::run),
    #[cfg(feature = "proxy")]
    ("ledger_file", ledger_file::run),
    ("path", path::run),
    #[cfg(feature = "proxy")]
    ("response_head", response_head::run),
    ("signature_headers", signature_headers::run),
    ("template", template::run),
    ("token", token::run),
];

/// The moment of every decision: 2026-01-01T00:00:00Z. Seeds with tokens and signatures in them depend on it.
pub const NOW: Timestamp = Timestamp::from_unix_secs(1_767_225_600);

/// The shared key that callback tokens and JWTs are made with here.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// The only variable that is set.
pub fn env(name: &str) -> Option<String> {
    (name == "KEY").then(|| KEY.to_owned())
}

/// A configuration, or what is wrong with it.
pub fn read(text: &str) -> Result<Config, String> {
    let file = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    let parsed = Config::parse(text, &Surroundings { env: &env, file: &file });
    parsed.map_err(|errors| {
        assert!(!errors.is_empty(), "refused without a word");
        errors.iter().map(|error| format!("{error}\n")).collect()
    })
}

/// The first line, and what is behind it.
pub fn first_line(data: &[u8]) -> Option<(&str, &[u8])> {
    let at = data.iter().position(|b| *b == b'\n')?;
    Some((std::str::from_utf8(data.get(..at)?).ok()?, data.get(at + 1..)?))
}
