//! One exchange with a caller of the ingress listeners, or with another member that hands over a callback.

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
