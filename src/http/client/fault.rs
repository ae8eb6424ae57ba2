//! Why there is no complete response from the agent or from a provider.

use crate::denial::Denial;

/// Why there is no whole answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ResponseFault {
    /// It reports success although the message was not sent to its end.
    Early,
    /// It is not HTTP/1.1.
    Garbled,
    /// The connection ended; the message may have arrived.
    Reset,
    /// It took too long; the message may have arrived.
    Timeout,
    /// There is no connection; nothing was sent.
    Unreachable,
}

impl ResponseFault {
    /// The reason, when it is the agent's.
    pub(crate) const fn of_agent(self) -> Denial {
        match self {
            Self::Early | Self::Garbled => Denial::AgentGarbled,
            Self::Reset => Denial::AgentReset,
            Self::Timeout => Denial::AgentTimeout,
            Self::Unreachable => Denial::AgentUnreachable,
        }
    }

    /// The reason, when it is a provider's.
    pub(crate) const fn of_provider(self) -> Denial {
        match self {
            Self::Early | Self::Garbled => Denial::ProviderGarbled,
            Self::Reset => Denial::ProviderReset,
            Self::Timeout => Denial::ProviderTimeout,
            Self::Unreachable => Denial::ProviderUnreachable,
        }
    }
}
