//! Metrics of the process, with the names that Prometheus client libraries use.

use std::time::Duration;

use prometheus::{GaugeVec, IntGaugeVec};

use super::registry::MetricRegistry;

/// The resources that the process uses. A value is `None` if the operating system does not provide it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUsage {
    /// The CPU time that the process has used since its start. The time that the operating system spent for the process
    /// is included.
    pub cpu: Option<Duration>,
    /// The resident memory of the process, in bytes.
    pub resident_bytes: Option<u64>,
    /// The virtual memory of the process, in bytes.
    pub virtual_bytes: Option<u64>,
    /// The number of open file descriptors of the process.
    pub open_fds: Option<u64>,
    /// The maximum number of open file descriptors of the process.
    pub max_fds: Option<u64>,
    /// The number of threads of the process.
    pub threads: Option<u64>,
    /// The start time of the process, in Unix seconds.
    pub started: Option<f64>,
}

/// The registered metrics of the process. A time series is created when its first value is set. If the operating system
/// does not provide a value, the metric therefore has no time series.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    pub(super) cpu_seconds: prometheus::CounterVec,
    pub(super) max_fds: IntGaugeVec,
    pub(super) open_fds: IntGaugeVec,
    pub(super) resident_bytes: IntGaugeVec,
    pub(super) start_time: GaugeVec,
    pub(super) threads: IntGaugeVec,
    pub(super) virtual_bytes: IntGaugeVec,
}

impl ProcessMetrics {
    pub(super) fn new(make: &MetricRegistry<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            cpu_seconds: make
                .seconds("process_cpu_seconds_total", "CPU time of the process, in seconds (Linux).")?,
            max_fds: make.gauges(
                "process_max_fds",
                "Maximum number of open file descriptors (Linux).",
                &[],
            )?,
            open_fds: make.gauges("process_open_fds", "Open file descriptors (Linux).", &[])?,
            resident_bytes: make.gauges(
                "process_resident_memory_bytes",
                "Resident memory, in bytes (Linux).",
                &[],
            )?,
            start_time: make.ages(
                "process_start_time_seconds",
                "Start time of the process, in Unix seconds (Linux).",
                &[],
            )?,
            threads: make.gauges("process_threads", "Threads of the process (Linux).", &[])?,
            virtual_bytes: make.gauges(
                "process_virtual_memory_bytes",
                "Virtual memory, in bytes (Linux).",
                &[],
            )?,
        })
    }
}
