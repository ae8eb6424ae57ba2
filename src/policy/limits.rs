//! The limits that apply to all routes.

use std::time::Duration;

use crate::time::Rate;

/// The limits that apply to all routes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum time from the end of a request head to the end of its body.
    pub body_deadline: Duration,
    /// The maximum total size of all request bodies that are in memory at the same time, in bytes.
    pub body_memory_bytes_max: u64,
    /// The minimum average rate at which a caller must send its body and receive the response, in bytes per second.
    /// [`Limits::time_for`] converts this rate into a maximum time.
    pub bytes_per_second_min: u64,
    /// The maximum number of concurrent connections.
    pub connections_max: usize,
    /// The maximum number of concurrent connections from one IPv4 address or one IPv6 /64 network.
    pub connections_per_address_max: usize,
    /// The maximum size of a request head, in bytes.
    pub head_bytes_max: usize,
    /// The maximum time for receiving a request head. The time starts with the first byte of the head, or, for the
    /// first head of a connection, when the connection is ready for requests. The PROXY header and the TLS handshake
    /// come earlier. They have a separate limit of the same length.
    pub head_deadline: Duration,
    /// The maximum number of header lines in a request.
    pub headers_max: usize,
    /// The maximum time for which a connection may wait for its next request.
    pub idle_timeout: Duration,
    /// The rate limit for requests from one IPv4 address or one IPv6 /64 network. `None` means that the rate is not
    /// limited.
    pub rate_per_address: Option<Rate>,
    /// The maximum number of concurrent requests on one HTTP/2 connection.
    pub streams_max: u32,
}

impl Limits {
    /// The additional time for each transfer. A transfer may take this time, plus its size divided by the minimum rate.
    pub const SLOW_START: Duration = Duration::from_secs(5);

    /// Returns the maximum time for transferring this number of bytes: the time at the minimum rate, plus
    /// [`Limits::SLOW_START`].
    pub fn time_for(&self, bytes: u64) -> Duration {
        Self::SLOW_START
            + Duration::from_millis(bytes.saturating_mul(1000) / self.bytes_per_second_min.max(1))
    }

    /// Returns the maximum total size of the bodies for one agent, in bytes, if there are `agents` agents. Each agent
    /// has an equal share, so that the bodies that wait for a slow agent leave memory for the other agents.
    pub fn body_memory_share(&self, agents: usize) -> u64 {
        self.body_memory_bytes_max / u64::try_from(agents.max(1)).unwrap_or(u64::MAX)
    }

    /// Returns the maximum number of requests that one agent may have in progress. Each of `agents` agents has an equal
    /// share of [`Self::connections_max`]. Returns `None` if there is only one agent, because only `connections_max`
    /// limits its requests.
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
