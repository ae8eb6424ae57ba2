//! The reasons why a response from the agent or a provider is missing or invalid.

use crate::denial::Denial;

/// The reason why the agent or a provider has not sent a complete, valid response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ResponseFault {
    /// A response with status 2xx or 101 arrived before the whole request was sent.
    Early,
    /// The response of the agent or the provider is not valid HTTP/1.
    Garbled,
    /// The agent or the provider closed the connection before the end of its response. It may have received the
    /// request.
    Reset,
    /// The response did not arrive in time. The agent or the provider may have received the request.
    Timeout,
    /// No connection to the agent or the provider could be opened, so the request was not sent.
    Unreachable,
}

impl ResponseFault {
    /// Returns the denial if a request to the agent failed with this fault.
    pub(crate) const fn agent_denial(self) -> Denial {
        match self {
            Self::Early | Self::Garbled => Denial::AgentGarbled,
            Self::Reset => Denial::AgentReset,
            Self::Timeout => Denial::AgentTimeout,
            Self::Unreachable => Denial::AgentUnreachable,
        }
    }

    /// Returns the denial if a request to a provider failed with this fault.
    pub(crate) const fn provider_denial(self) -> Denial {
        match self {
            Self::Early | Self::Garbled => Denial::ProviderGarbled,
            Self::Reset => Denial::ProviderReset,
            Self::Timeout => Denial::ProviderTimeout,
            Self::Unreachable => Denial::ProviderUnreachable,
        }
    }
}
