//! Fetches documents over the network: key sets, address lists and certificates.
//!
//! A cache folder keeps the documents across restarts. [`Fetcher`] accepts requests for a document, and [`Work`] is the
//! task that fetches. Fetched documents are published as part of a new `Policy`; this module does not decide about any
//! callback.

mod cache;
mod certificates;
mod client;
mod errands;
mod fetched_data;
mod fetcher;
mod flight;
mod queue;

pub use fetcher::{Fetcher, Work, with_cached};
