//! The only module that names pingora: listeners, the exchanges of ingress and egress, delivering to the agent.
//!
//! pingora gives the server half (TLS, HTTP/1.1 and HTTP/2, keep-alive) and reads the agent's answers; its
//! streaming forward path is not used, because a callback is read whole, decided whole, delivered whole.

mod action;
mod agent;
mod answer;
mod body;
mod cache;
mod clock;
mod deliver;
mod egress;
mod exchange;
mod fetch;
mod http1;
mod http_client;
mod listen;
mod overdue;
mod plain;
mod provider;
mod refuse;
mod server;
mod session;
mod tls;
mod traffic;

pub use clock::{Clock, LedgerClock, instant};
pub use fetch::with_cached;
pub use plain::{PlainRequest, PlainResponse};
pub use server::{Options, Server, StartError};
pub use tls::check as check_tls;
