//! Binds the addresses of all listeners.

use std::net::SocketAddr;

use super::egress::OwnAddresses;
use super::listen::{BoundListener, bind};
use crate::config::Startup;
use crate::store::StoreError;

/// The reason why the server did not start. If the server does not start, no address stays bound.
#[derive(Debug)]
pub enum StartError {
    /// An address could not be bound. Contains the address and the error.
    Bind(SocketAddr, std::io::Error),
    /// A component of the server, such as the fetcher of the providers' keys or the exporter of trace spans, could not
    /// be created. Contains a message for the operator.
    Component(String),
    /// The ledger cannot be used.
    Store(StoreError),
    /// A certificate, a private key or the trusted roots are unusable. Contains a message for the operator.
    Tls(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Store(error) => error.fmt(f),
            Self::Component(message) | Self::Tls(message) => f.write_str(message),
        }
    }
}

/// The bound listeners of the server.
pub(super) struct Addresses {
    pub(super) ingress: Vec<BoundListener>,
    pub(super) egress: Option<BoundListener>,
    pub(super) admin: Option<BoundListener>,
    pub(super) replicas: Option<BoundListener>,
}

impl Addresses {
    pub(super) fn bind(startup: &Startup) -> Result<Self, StartError> {
        Ok(Self {
            ingress: startup
                .ingress
                .iter()
                .map(|listener| bind_named(listener.address))
                .collect::<Result<_, _>>()?,
            egress: startup.egress.as_ref().map(|egress| bind_named(egress.address)).transpose()?,
            admin: startup.admin.as_ref().map(|admin| bind_named(admin.address)).transpose()?,
            replicas: startup.replicas.as_ref().map(|one| bind_named(one.listener.address)).transpose()?,
        })
    }

    /// Returns the bound addresses of all listeners.
    pub(super) fn own_addresses(&self) -> OwnAddresses {
        let bound = self.ingress.iter().chain(&self.egress).chain(&self.admin).chain(&self.replicas);
        OwnAddresses::new(bound.map(|bound| bound.address).collect())
    }
}

fn bind_named(address: SocketAddr) -> Result<BoundListener, StartError> {
    bind(address).map_err(|error| StartError::Bind(address, error))
}
