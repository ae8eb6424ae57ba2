//! The admin listener: metrics, health, the callbacks API, the inbox API, captured requests and the admin page.
//!
//! `server.rs` reads requests and writes responses. `respond.rs` finds the response to a request.

mod action_log;
mod callbacks;
mod caller;
mod capture;
mod certificate;
mod inbox;
mod interaction_view;
mod page;
mod process;
mod respond;
mod responses;
mod server;
mod service;
mod status;

pub use callbacks::LocalInteractions;
pub use certificate::ServedCertificate;
pub use server::{AdminRequest, AdminResponse, serve, serve_tls};
pub use service::Admin;
