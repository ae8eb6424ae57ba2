//! The sender of an ingress request.

use std::net::IpAddr;

use crate::clock::Clock;
use crate::denial::Denial;
use crate::http::Caller;
use crate::proxy::listen::ConnInfo;
use crate::replica::{Incarnation, Proof, Vouched};
use crate::request::RequestHead;

/// The sender of an ingress request.
#[derive(Clone, Copy)]
pub(crate) enum Origin<'o> {
    /// A caller on a connection of an ingress listener.
    Connection(&'o ConnInfo),
    /// Another replica, which has checked the callback and forwards it. [`Vouched`] is the client that sent the
    /// callback to the other replica.
    Member(&'o Proof, &'o Vouched),
}

impl<'o> Origin<'o> {
    /// Returns the caller. Includes the client certificate if the current settings still trust the certificate.
    pub(super) fn caller(self, clock: &Clock) -> Caller<'o> {
        match self {
            Self::Connection(conn) => conn.caller(clock),
            Self::Member(_, client) => Caller::at(client.address)
                .with_certificate(client.certificate.as_ref())
                .with_tls(client.is_tls),
        }
    }

    /// Returns the IP address of the caller, or of the client that sent a forwarded callback.
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

    /// Records on the connection that a request has begun.
    pub(super) fn request_began(self) {
        if let Self::Connection(conn) = self {
            conn.request_began();
        }
    }

    /// Checks that the body of a forwarded callback is the body that the other replica has checked.
    ///
    /// # Errors
    /// Returns `replica_proof` if the body differs from the hash in the proof.
    pub(super) fn check_body(self, body: &[u8]) -> Result<(), Denial> {
        match self {
            Self::Connection(_) => Ok(()),
            Self::Member(proof, _) => proof.check_body(body).map_err(|_| Denial::ReplicaProof),
        }
    }

    /// Reports whether another replica forwarded the request.
    pub(super) fn is_member(self) -> bool {
        self.member().is_some()
    }

    /// Returns the id of the replica that forwarded the request, or `None` for a request from a caller.
    pub(super) fn member(self) -> Option<Incarnation> {
        match self {
            Self::Connection(_) => None,
            Self::Member(proof, _) => Some(proof.from),
        }
    }
}
