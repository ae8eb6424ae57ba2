//! The only module that names pingora: listeners, the exchanges of ingress and egress, delivering to the agent.
//!
//! pingora gives TLS, HTTP/2 and the connections to providers; its streaming forward path is not used, because a callback
//! is read whole, decided whole, delivered whole. HTTP/1 is read and written here, on every listener and towards agent and
//! providers, in one reading by the rules of [`crate::framing`].

mod accept;
mod action;
mod agent;
mod answer;
mod body;
mod cache;
mod clock;
mod connection;
mod deliver;
mod egress;
mod egress_server;
mod ended;
mod exchange;
mod fetch;
mod file;
mod handshake;
mod head;
mod http1_client;
mod http1_server;
mod http_client;
mod listen;
mod outside;
mod overdue;
mod patience;
mod plain;
mod provider;
mod proxied;
mod rates;
mod refusals;
mod refuse;
mod requests;
mod server;
mod session;
mod slots;
mod tls;
mod traffic;
mod wire;

pub use clock::{Clock, LedgerClock, instant};
pub use file::{FILE_BYTES_MAX, read as read_file};
pub use outside::with_cached;
pub use plain::{PlainRequest, PlainResponse};
pub use server::{Options, Prepared, Server, StartError};
pub use tls::check as check_tls;
