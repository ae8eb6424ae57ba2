//! The HTTP client that fetches documents. It verifies TLS with the configured or the platform's trusted roots, uses
//! the outbound proxy if there is one, follows no redirects, and limits the size of documents.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::file::{FILE_BYTES_MAX, read, without_byte_order_mark};
use crate::guard::Url;
use crate::outbound::{OutboundProxy, TrustedRoots};
use crate::policy::Policy;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Error, Proxy, ProxyProtocol};

/// The maximum size of a fetched key set or address list, in bytes.
pub(super) const DOCUMENT_BYTES_MAX: u64 = 8 << 20;
/// The maximum size of a certificate that a message names, in bytes.
pub(super) const CERTIFICATE_BYTES_MAX: u64 = 64 << 10;

/// An HTTP client that fetches documents from `https:` and `file:` URLs.
#[derive(Clone)]
pub(super) struct HttpClient {
    /// The settings with which this HTTP client was created.
    settings: Arc<Settings>,
    /// The `ureq` agent for direct connections.
    direct: Agent,
    /// The `ureq` agent for connections through the outbound proxy. `None` if no proxy is configured.
    proxied: Option<Agent>,
}

struct Settings {
    timeout: Duration,
    roots: Option<TrustedRoots>,
    proxy: Option<OutboundProxy>,
}

impl HttpClient {
    /// Creates an HTTP client with the timeout, the trusted roots and the outbound proxy of `policy`.
    ///
    /// # Errors
    /// Returns the reason as text if the trusted roots cannot be read, or if the proxy cannot be used.
    pub(super) fn new(policy: &Policy) -> Result<Self, String> {
        let (timeout, roots) = (policy.fetching.timeout, policy.trusted_roots.clone());
        let certificates = match &roots {
            Some(roots) => from_file(&roots.path)?,
            None => rustls_native_certs::load_native_certs()
                .map_err(|error| format!("cannot read the trusted roots of the platform: {error}"))?
                .iter()
                .map(|der| Certificate::from_der(der).to_owned())
                .collect(),
        };
        let tls = TlsConfig::builder().root_certs(RootCerts::Specific(Arc::new(certificates))).build();
        let agent = |proxy: Option<Proxy>| {
            let config = Agent::config_builder()
                .tls_config(tls.clone())
                .timeout_global(Some(timeout))
                .max_redirects(0)
                .proxy(proxy)
                .user_agent(concat!("callgate/", env!("CARGO_PKG_VERSION")));
            config.build().new_agent()
        };
        let proxy = policy.outbound_proxy.clone();
        let proxied = proxy.as_ref().map(through).transpose()?.map(|proxy| agent(Some(proxy)));
        let settings = Arc::new(Settings { timeout, roots, proxy });
        Ok(Self { settings, direct: agent(None), proxied })
    }

    /// Reports whether this HTTP client was created with the same settings as those of `policy`.
    pub(super) fn fits(&self, policy: &Policy) -> bool {
        let Settings { timeout, roots, proxy } = &*self.settings;
        let same_proxy = match (proxy, &policy.outbound_proxy) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.is_same(theirs),
            _ => false,
        };
        *timeout == policy.fetching.timeout && *roots == policy.trusted_roots && same_proxy
    }

    /// Returns the `ureq` agent for a URL, and the outbound proxy through which the agent connects. The proxy is `None`
    /// for a direct connection.
    fn agent(&self, url: &str) -> (&Agent, Option<&OutboundProxy>) {
        // The HTTP library may accept a URL that `Url::parse` rejects. This URL is fetched through the proxy, so that
        // it cannot bypass the proxy.
        let is_proxied =
            |proxy: &&OutboundProxy| Url::parse(url).map_or(true, |url| proxy.serves(&url, None));
        match (&self.proxied, self.settings.proxy.as_ref().filter(is_proxied)) {
            (Some(agent), Some(proxy)) => (agent, Some(proxy)),
            _ => (&self.direct, None),
        }
    }

    /// Fetches the document at an `https:` or `file:` URL, and removes a byte order mark at its beginning. Blocks the
    /// thread.
    ///
    /// # Errors
    /// Returns the reason as text if the document cannot be fetched, if it has more than `bytes_max` bytes, or if the
    /// HTTP status is not 200.
    pub(super) fn get(&self, url: &str, bytes_max: u64) -> Result<Vec<u8>, String> {
        if let Some(path) = url.strip_prefix("file:") {
            return read(path, bytes_max).map_err(|error| error.to_string());
        }
        let (agent, proxy) = self.agent(url);
        let mut response = agent.get(url).call().map_err(|error| match (error, proxy) {
            (error, None) => error.to_string(),
            (Error::ConnectProxyFailed(reason), Some(_)) => {
                format!("the outbound proxy did not open a tunnel: {reason}")
            }
            (error, Some(proxy)) => {
                format!("{error}, through the outbound proxy at {}", proxy.url().authority())
            }
        })?;
        if response.status() != 200 {
            return Err(format!("HTTP {}", response.status().as_u16()));
        }
        let body = response.body_mut().with_config().limit(bytes_max);
        body.read_to_vec().map(without_byte_order_mark).map_err(|error| error.to_string())
    }
}

/// Returns the settings of the outbound proxy as the type that the HTTP library uses. The proxy resolves the host
/// names.
fn through(proxy: &OutboundProxy) -> Result<Proxy, String> {
    let host = match proxy.url().address() {
        Some(IpAddr::V6(address)) => format!("[{address}]"),
        _ => proxy.url().host().to_owned(),
    };
    let mut builder = Proxy::builder(ProxyProtocol::Http).host(&host).port(proxy.url().port());
    if let Some((user, password)) = proxy.credentials() {
        builder = builder.username(user).password(password);
    }
    // The error of the HTTP library is not returned, because it could contain the credentials.
    builder.build().map_err(|_| "outbound_proxy cannot be used for fetches".to_owned())
}

fn from_file(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let bytes = read(path, FILE_BYTES_MAX).map_err(|error| format!("{path}: {error}"))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&bytes) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| format!("{path}: {error}"))? {
            certificates.push(certificate);
        }
    }
    Ok(certificates)
}
