//! The requests of the admin listener: metrics, health, the callbacks API, the inbox and the admin page.
//!
//! `server.rs` reads requests and writes responses. `respond.rs` finds the response to a request.

mod callbacks;
mod caller;
mod inbox;
mod interaction_view;
mod page;
mod respond;
mod responses;
mod server;
mod service;
mod status;

pub use callbacks::LocalInteractions;
pub use server::{AdminRequest, AdminResponse, serve};
pub use service::Admin;
