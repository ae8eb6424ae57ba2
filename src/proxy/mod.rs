//! The only module that names pingora: listeners, the exchanges of ingress and egress, delivering to the agent.
//!
//! pingora gives TLS, HTTP/2 and the connections to providers; its streaming forward path is not used, because a callback
//! is read whole, decided whole, delivered whole. HTTP/1 is read and written here, on every listener and towards agent and
//! providers, in one reading by the rules of [`crate::framing`].

mod accept;
mod action;
mod agent;
mod answer;
mod answer_head;
mod body;
mod connection;
mod deliver;
mod egress;
mod egress_server;
mod ended;
mod exchange;
mod fault;
mod handshake;
mod head;
mod http1_client;
mod http1_server;
mod idle_pool;
mod listen;
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
mod upstream;
mod wire;

use crate::clock;

pub use clock::{Clock, LedgerClock, instant};
pub use plain::{PlainRequest, PlainResponse};
pub use server::{Options, Prepared, Server, StartError};
pub use tls::check as check_tls;
