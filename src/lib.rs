//! Callgate: the door through which outside services call back an AI agent.
//!
//! Read from the top, this list is the program from the bottom: a module may name only modules above it,
//! and `tests/tidy.rs` holds it to that. Nothing up to `config` awaits, opens a socket or reads a clock;
//! everything up to there compiles without pingora and tokio (`--no-default-features`), so that `explain`,
//! tests, benchmarks and fuzzers drive the very code that production runs.

pub mod browser;
pub mod denial;
pub mod feed;
pub mod framing;
pub mod json;
pub mod query;
pub mod random;
pub mod request;
pub mod secret;
pub mod time;
pub mod trail;

pub mod jose;

pub mod guard;
pub mod path;
pub mod signature;
pub mod source;
pub mod token;

pub mod interaction;

pub mod egress;
pub mod ingress;

pub mod policy;

pub mod config;
#[cfg(feature = "proxy")]
pub mod observe;

#[cfg(feature = "proxy")]
pub mod clock;
#[cfg(feature = "proxy")]
pub mod file;

#[cfg(feature = "proxy")]
pub mod store;

#[cfg(feature = "proxy")]
pub mod fetch;

#[cfg(feature = "proxy")]
pub mod http;

#[cfg(feature = "proxy")]
pub mod proxy;

#[cfg(feature = "proxy")]
pub mod admin;

#[cfg(feature = "proxy")]
pub mod cli;
