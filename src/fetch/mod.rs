//! Fetches documents over the network: key sets, address lists and certificates.
//!
//! The cache folder keeps the documents across restarts. [`Fetcher`] accepts requests for a document. [`Work`] is the
//! task that fetches the documents and publishes them as part of a new `Policy`.

mod cache;
mod certificates;
mod fetcher;
mod http_client;
mod one_fetch;
mod publish;
mod queue;
mod recent_requests;
mod requested_fetches;

pub use fetcher::{Fetcher, Work, with_cached};
