//! Documents that Callgate fetches over the network: key sets, address lists and certificates. A cache folder keeps them
//! across restarts.

mod cache;
mod certificates;
mod client;
mod errands;
mod fetched_data;
mod fetcher;
mod flight;
mod queue;

pub use fetcher::{Fetcher, Work, with_cached};
