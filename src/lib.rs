//! Callgate: a reverse proxy that verifies the callbacks that outside services send to an AI agent.
//!
//! The modules are declared in layers, lowest layer first. A module may use only modules that are declared above it;
//! `tests/tidy.rs` enforces this. The modules up to and including `config` contain no async code, open no sockets and
//! read no clock. They compile without pingora and tokio (`--no-default-features`), so that `explain`, tests,
//! benchmarks and fuzzers run the same code as production.

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

pub mod body;
pub mod jose;

pub mod agent;
pub mod guard;
pub mod path;
pub mod replica;
pub mod signature;
pub mod source;
pub mod token;

pub mod outbound;

pub mod interaction;

pub mod inbox;

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
pub mod tls_crypto;

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
