//! The limits that apply to all routes.

use std::time::Duration;

use crate::time::Rate;

/// Limits that apply to all routes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum time from the end of the head to the end of the body.
    pub body_deadline: Duration,
    /// Maximum size of all bodies that are in memory at the same time, in bytes.
    pub body_memory_bytes_max: u64,
    /// Minimum average rate at which a caller must send its body and receive the response, in bytes per second.
    /// [`Limits::time_for`] converts it into a maximum time.
    pub bytes_per_second_min: u64,
    /// Maximum number of concurrent connections.
    pub connections_max: usize,
    /// Maximum number of concurrent connections from one IPv4 address or one IPv6 /64 network.
    pub connections_per_address_max: usize,
    /// Maximum size of a request head, in bytes.
    pub head_bytes_max: usize,
    /// Maximum time for receiving a request head. The time starts with the first byte of the head. For the first head
    /// of a connection, the time starts when the connection is ready for requests. Each earlier step, such as the TLS
    /// handshake, has a limit of its own, which is equally long.
    pub head_deadline: Duration,
    /// Maximum number of header lines of a request.
    pub headers_max: usize,
    /// Maximum time that a connection waits for its next request.
    pub idle_timeout: Duration,
    /// Rate limit for the requests from one IPv4 address or one IPv6 /64 network. `None` allows any number.
    pub rate_per_address: Option<Rate>,
    /// Maximum number of concurrent requests on one HTTP/2 connection.
    pub streams_max: u32,
}

impl Limits {
    /// A transfer may take this time, plus its size divided by the minimum rate.
    pub const SLOW_START: Duration = Duration::from_secs(5);

    /// Returns the maximum time for transferring this many bytes at the minimum rate, including [`Limits::SLOW_START`].
    pub fn time_for(&self, bytes: u64) -> Duration {
        Self::SLOW_START
            + Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_second_min.max(1))
    }

    /// Returns the maximum size of all bodies for one of this many agents, in bytes. Each agent has an equal share, so
    /// that the bodies that wait for a slow agent leave memory for the other agents.
    pub fn body_memory_share(&self, agents: usize) -> u64 {
        self.body_memory_bytes_max / u64::try_from(agents.max(1)).unwrap_or(u64::MAX)
    }

    /// Returns the maximum number of requests that one of this many agents may have in progress. Each agent has an
    /// equal share of [`Self::connections_max`]. A single agent has no such limit.
    pub fn requests_share(&self, agents: usize) -> Option<usize> {
        (agents > 1).then(|| (self.connections_max / agents).max(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_deadline: Duration::from_secs(30),
            body_memory_bytes_max: 64 << 20,
            bytes_per_second_min: 1 << 10,
            connections_max: 20_000,
            connections_per_address_max: 16_000,
            head_bytes_max: 32 << 10,
            head_deadline: Duration::from_secs(10),
            headers_max: 100,
            idle_timeout: Duration::from_secs(60),
            rate_per_address: None,
            streams_max: 100,
        }
    }
}
