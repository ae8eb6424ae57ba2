//! Where the request of an exchange comes from.

use std::net::IpAddr;

use crate::clock::Clock;
use crate::denial::Denial;
use crate::http::Caller;
use crate::proxy::listen::ConnInfo;
use crate::replica::{Incarnation, Proof, Vouched};
use crate::request::RequestHead;

/// Where a request comes from.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'o> {
    /// A connection of an ingress listener.
    Connection(&'o ConnInfo),
    /// Another member, which has checked the callback and hands it over. Its client is the one that the other member
    /// vouches for.
    Member(&'o Proof, &'o Vouched),
}

impl<'o> Origin<'o> {
    /// Returns the caller, with its client certificate if the certificate is still trusted.
    pub(super) fn caller(self, clock: &Clock) -> Caller<'o> {
        match self {
            Self::Connection(conn) => conn.caller(clock),
            Self::Member(_, client) => Caller::at(client.address)
                .with_certificate(client.certificate.as_ref())
                .with_tls(client.is_tls),
        }
    }

    /// Returns the address of the caller.
    pub(super) fn peer(self) -> IpAddr {
        match self {
            Self::Connection(conn) => conn.peer,
            Self::Member(_, client) => client.address,
        }
    }

    /// Reports whether a request is a health check of a load balancer.
    pub(super) fn is_health_check(self, head: &RequestHead<'_>) -> bool {
        matches!(self, Self::Connection(conn) if conn.is_health_check(head))
    }

    /// Records that a request has begun.
    pub(super) fn request_began(self) {
        if let Self::Connection(conn) = self {
            conn.request_began();
        }
    }

    /// Checks that the body is the one that the other member has checked.
    ///
    /// # Errors
    /// Returns `replica_proof` otherwise.
    pub(super) fn check_body(self, body: &[u8]) -> Result<(), Denial> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Member(proof, _) => proof.check_body(body).map_err(|_| Denial::ReplicaProof),
        }
    }

    /// Reports whether another member has handed over the request.
    pub(super) fn is_member(self) -> bool {
        self.member().is_some()
    }

    /// Returns the member that has handed over the request.
    pub(super) fn member(self) -> Option<Incarnation> {
        match self {
            Self::Connection(_) => None,
            Self::Member(proof, _) => Some(proof.from),
        }
    }
}
