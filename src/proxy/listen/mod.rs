//! Listeners: binding addresses, and accepting connections until they are ready for HTTP.

pub(crate) mod accept;
mod bind;
mod conn_info;
mod connection_limits;
mod log_throttle;
mod proxy_protocol;
mod tickets;
mod tls;

pub(crate) use accept::Admission;
pub(crate) use bind::{AcceptQueue, BoundListener, bind, close};
pub(crate) use conn_info::{ConnInfo, ListenerConfig};
pub(crate) use connection_limits::{ConnectionLimits, ConnectionSlot, rate_limit_key};
pub(crate) use log_throttle::LogThrottle;
pub(crate) use tickets::TicketKeys;
pub use tls::check as check_tls;
pub(crate) use tls::{EGRESS_PROTOCOLS, TlsConfig, expiry, load as load_tls};
