//! The TLS handshake on an intercepted connection, with a certificate that Callgate issued for the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::protocols::tls::TlsStream;
use pingora::tls::sign::CertifiedKey;
use pingora::tls::{ClientHello, ResolvesServerCert};

use super::exchange::Origin;
use crate::clock::instant;
use crate::guard::Url;
use crate::http::{BufferedIo, with_timeout};
use crate::proxy::egress::context::EgressContext;

/// Presents one certificate to every client. Records whether the client requested another server name than `host`.
#[derive(Debug)]
struct OneCertificate {
    key: Arc<CertifiedKey>,
    host: Box<str>,
    other_server_name: AtomicBool,
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let differs = hello.server_name().is_some_and(|name| !name.eq_ignore_ascii_case(&self.host));
        self.other_server_name.store(differs, Ordering::Relaxed);
        Some(Arc::clone(&self.key))
    }
}

/// Performs the TLS handshake on an intercepted connection. `leftover` contains the bytes that were read after the
/// CONNECT request, and `client` is the `User-Agent` of the CONNECT request. Returns the connection and the origin of
/// all requests on the connection, or `None` if the handshake failed.
pub(crate) async fn intercept(
    context: &EgressContext,
    stream: Stream,
    leftover: BytesMut,
    url: Url,
    client: &str,
) -> Option<(Stream, Origin)> {
    let authority = context.limits.authority.load_full()?;
    let key = match authority.leaf(url.host(), context.clocks.now()) {
        Ok(key) => key,
        Err(error) => {
            log::error!("no certificate could be issued for {}: {error}", url.host());
            return None;
        }
    };
    let certificate =
        Arc::new(OneCertificate { key, host: url.host().into(), other_server_name: AtomicBool::default() });
    let mut config = authority.server_config();
    config.cert_resolver = Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>;
    let acceptor = Acceptor::from_server_config(Arc::new(config));
    let deadline = context.policy.load().limits.head_deadline;
    let shaken = with_timeout(deadline, shake(&acceptor, stream, leftover)).await;
    let (outcome, reason) = match shaken {
        Some(Ok(stream)) => {
            context.recorder.metrics.proxy_handshake(url.host(), "ok");
            let other_server_name = certificate.other_server_name.load(Ordering::Relaxed);
            return Some((stream, Origin { url, other_server_name }));
        }
        Some(Err(error)) if error.contains("alert") => ("client_refused", error),
        Some(Err(error)) => ("failed", error),
        None => ("failed", "it took longer than `limits.head_deadline`".to_owned()),
    };
    context.recorder.metrics.proxy_handshake(url.host(), outcome);
    if context.log_throttle.should_log("egress_handshake", instant()) {
        let cure = trust_variable(client);
        log::warn!(
            "the TLS handshake on an intercepted connection to {} failed: {reason}; if the client does not trust the certificate authority, set {cure}; if it does not accept other authorities, list the host in `listen.egress.proxy.tunnel`; further failures are not logged for a minute",
            url.host()
        );
    }
    None
}

/// The transport below the TLS of an intercepted connection.
enum Outer {
    Plain(Box<BufferedIo>),
    /// A TLS connection, because the egress listener itself accepts TLS.
    Tls(Box<TlsStream<BufferedIo>>),
}

async fn shake(acceptor: &Acceptor, stream: Stream, leftover: BytesMut) -> Result<Stream, String> {
    let outer = outer(stream, leftover).ok_or("the client did not wait for the response to CONNECT")?;
    let shaken = match outer {
        Outer::Plain(io) => {
            Box::pin(acceptor.tls_handshake(*io)).await.map(|stream| Box::new(stream) as Stream)
        }
        Outer::Tls(io) => {
            Box::pin(acceptor.tls_handshake(*io)).await.map(|stream| Box::new(stream) as Stream)
        }
    };
    shaken.map_err(|error| error.to_string())
}

/// Converts the connection of an accepted CONNECT request to the transport of the inner TLS connection. `leftover`
/// contains the bytes that were read after the CONNECT request. If the listener accepts plain HTTP, the transport
/// returns these bytes first. Returns `None` if the listener accepts TLS and `leftover` is not empty.
fn outer(stream: Stream, leftover: BytesMut) -> Option<Outer> {
    match stream.into_any().downcast::<BufferedIo>() {
        Ok(mut io) => {
            io.rewind(leftover.freeze());
            Some(Outer::Plain(io))
        }
        Err(stream) if leftover.is_empty() => stream.downcast().ok().map(Outer::Tls),
        Err(_) => None,
    }
}

/// Returns the setting by which a client with this `User-Agent` trusts Callgate's certificate authority, such as
/// `SSL_CERT_FILE=bundle.pem`.
fn trust_variable(client: &str) -> &'static str {
    let known = [
        ("python-requests", "REQUESTS_CA_BUNDLE=bundle.pem"),
        ("python", "SSL_CERT_FILE=bundle.pem"),
        ("curl", "CURL_CA_BUNDLE=bundle.pem"),
        ("git", "GIT_SSL_CAINFO=bundle.pem"),
        ("node", "NODE_EXTRA_CA_CERTS=ca.pem"),
        ("undici", "NODE_EXTRA_CA_CERTS=ca.pem"),
        ("axios", "NODE_EXTRA_CA_CERTS=ca.pem"),
        ("deno", "DENO_CERT=ca.pem"),
        ("java", "its trust store with ca.pem (JAVA_TOOL_OPTIONS)"),
        ("go-http-client", "SSL_CERT_FILE=bundle.pem"),
    ];
    let client = client.to_ascii_lowercase();
    let found = known.iter().find(|(name, _)| client.contains(name));
    found.map_or(
        "SSL_CERT_FILE, REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE to bundle.pem, and NODE_EXTRA_CA_CERTS to ca.pem",
        |(_, cure)| cure,
    )
}
