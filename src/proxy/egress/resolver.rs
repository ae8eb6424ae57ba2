//! Resolves the host names of providers.

use std::net::SocketAddr;

use tokio::net::lookup_host;

use crate::guard::Url;

/// The source of the addresses of a provider's host name.
#[derive(Clone, Debug, Default)]
pub(super) enum Resolver {
    /// The resolver of the operating system.
    #[default]
    System,
    /// Resolves every host name to these addresses. Used only in tests.
    #[cfg(test)]
    Fixed(Vec<std::net::IpAddr>),
    /// Resolves the first host name to these addresses, and then every host name to the address of the metadata service
    /// of clouds. Used only in tests.
    #[cfg(test)]
    OnceThenMetadata(std::sync::Arc<parking_lot::Mutex<Vec<std::net::IpAddr>>>),
}

impl Resolver {
    /// Returns the addresses of a URL's host, at least one. If the host is an IP address, returns only this address.
    ///
    /// # Errors
    /// Returns the error of the operating system, or an error if the name has no address.
    pub(super) async fn resolve(&self, url: &Url) -> std::io::Result<Vec<SocketAddr>> {
        if let Some(address) = url.address() {
            return Ok(vec![SocketAddr::new(address, url.port())]);
        }
        let found: Vec<_> = match self {
            Self::System => lookup_host((url.host(), url.port())).await?.collect(),
            #[cfg(test)]
            Self::Fixed(all) => all.iter().map(|address| SocketAddr::new(*address, url.port())).collect(),
            #[cfg(test)]
            Self::OnceThenMetadata(first) => {
                let metadata = std::net::IpAddr::from([169, 254, 169, 254]);
                let all = std::mem::replace(&mut *first.lock(), vec![metadata]);
                all.iter().map(|address| SocketAddr::new(*address, url.port())).collect()
            }
        };
        if found.is_empty() { Err(std::io::Error::other("the name has no address")) } else { Ok(found) }
    }
}
