//! Commands for the forward proxy.

mod ca;
mod doctor;
mod env;
mod java;

pub(super) use ca::{CaArgs, ca};
pub(super) use doctor::{DoctorArgs, doctor};
pub(super) use env::{EnvArgs, ProxyUrl, env, variables};
