//! Code that the benchmark programs share.

pub mod requests;
