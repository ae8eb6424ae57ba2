//! Metrics, access log, event log, traces, and the recent requests of the admin page.
//!
//! Label values come from the configuration and from fixed lists, never from a request. This module only records
//! events; `admin` serves the metrics and the recent requests.

mod access_log;
mod agent_metrics;
mod config_state;
mod fetch_metrics;
mod log_entry;
mod logger;
mod metrics;
mod recent;
mod record_server_metrics;
mod redact;
mod registry;
mod server_metrics;
mod traces;

pub use access_log::AccessLogger;
pub use agent_metrics::{AGENT_ACCEPTED, AGENT_REJECTED};
pub use config_state::{ConfigState, ConfigStatus, Refused};
pub use log_entry::{EgressEntry, Entry};
pub use logger::install as install_logger;
pub use metrics::Metrics;
pub use recent::{Recent, Rows};
pub use redact::redact_path;
pub use registry::{Label, Series, Values};
pub use traces::{Span, Traces};
