//! Commands for the forward proxy.

mod ca;
mod env;

pub(super) use ca::{CaArgs, ca};
pub(super) use env::{EnvArgs, ProxyUrl, env, variables};
