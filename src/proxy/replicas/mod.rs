//! Several replicas of one Callgate: the replicas find each other, forward callbacks to the owner of the interaction,
//! and move their ledger to another replica before they stop.

mod api;
mod discovery;
mod hand_over;
mod leave;
mod liveness;
mod log_lines;
mod member_client;
mod replication;
mod view;

pub(crate) use api::API_BODY_BYTES_MAX;
pub(crate) use discovery::run as run_discovery;
pub(crate) use hand_over::{Acceptance, Place};
pub(crate) use member_client::{API, IDLE_TIMEOUT, MemberResponse, Sending};
pub(crate) use replication::HandedOver;
pub use replication::{CallbacksApi, MemberAnswer, MemberRequest, Replication};
