//! Serves one request: from a caller of an ingress listener, or a callback that another replica forwards.

mod accept;
mod callback_exchange;
mod capture;
mod hand_over;
mod origin;
mod request_log;
mod respond_to_handshake;
mod stream_exchange;
mod undelivered;

pub(crate) use callback_exchange::{deny_head, serve};
pub(crate) use origin::Origin;
