//! A bare pingora pass-through proxy: no checks, one worker. `passthrough LISTEN UPSTREAM [TLS_LISTEN CERTIFICATE KEY]`.

use async_trait::async_trait;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::{HttpPeer, Opt, Result, Server, Session, http_proxy_service};
use pingora::proxy::ProxyHttp;

struct Pass {
    upstream: String,
}

#[async_trait]
impl ProxyHttp for Pass {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&self.upstream, false, String::new())))
    }
}

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let mut server = Server::new(None::<Opt>).expect("server");
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Pass { upstream: args[2].clone() });
    service.add_tcp(&args[1]);
    if let [address, certificate, key] = &args[3..] {
        let mut settings = TlsSettings::intermediate(certificate, key).expect("tls");
        settings.enable_h2();
        service.add_tls_with_settings(address, None, settings);
    }
    server.add_service(service);
    server.run_forever();
}
