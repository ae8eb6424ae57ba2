//! The metrics of the process. `registry` registers every metric and stores its description.

mod agent_metrics;
mod fetch_metrics;
mod forward_proxy_metrics;
mod inbox_metrics;
#[allow(clippy::module_inception, reason = "the type of this name is what the folder is about")]
mod metrics;
mod process_metrics;
mod read_counts;
mod record_forward_proxy_metrics;
mod record_inbox_metrics;
mod record_server_metrics;
mod registry;
mod replicas;
mod server_metrics;
mod shared_store;

pub use agent_metrics::{AGENT_ACCEPTED, AGENT_REJECTED};
pub use metrics::Metrics;
pub use process_metrics::ProcessUsage;
pub use read_counts::Count;
pub use registry::{Label, Series, Values};
