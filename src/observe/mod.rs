//! Metrics, access log, event log, traces, and the recent requests of the admin page.
//!
//! Label values come from the configuration and from fixed lists, never from a request. This module only records data.
//! The module `admin` serves the metrics and the recent requests.

mod access_log;
pub mod capture;
mod config_state;
mod log_entry;
mod logger;
mod metrics;
mod recent;
mod redact;
mod traces;

pub use access_log::AccessLogger;
pub use config_state::{ConfigState, ConfigStatus, Refused, version as config_version};
pub use log_entry::{EgressEntry, Entry};
pub use logger::{
    add_time as add_log_time, escape_unsafe as escape_unsafe_in_json, install as install_logger, is_unsafe,
};
pub use metrics::{AGENT_ACCEPTED, AGENT_REJECTED, Count, Label, Metrics, ProcessUsage, Series, Values};
pub use recent::{Recent, Rows};
pub use redact::redact_path;
pub use traces::{Span, Traces};
