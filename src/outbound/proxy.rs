//! The outbound proxy: a forward proxy through which Callgate reaches the internet from a network without direct
//! access.

use std::net::IpAddr;

use data_encoding::BASE64;
use zeroize::Zeroizing;

use super::exemption::Exemption;
use crate::guard::Url;
use crate::secret::Secret;

/// The settings of the outbound proxy, through which Callgate opens tunnels with the method CONNECT.
#[derive(Clone, Debug)]
pub struct OutboundProxy {
    url: Url,
    no_proxy: Vec<Exemption>,
    /// The credentials for the proxy, as `user:password`.
    credentials: Option<Secret>,
}

impl OutboundProxy {
    /// Creates the settings of the outbound proxy. `url` has the scheme `http`. `credentials` contain `user:password`
    /// in UTF-8, without control characters.
    pub fn new(url: Url, no_proxy: Vec<Exemption>, credentials: Option<Secret>) -> Self {
        Self { url, no_proxy, credentials }
    }

    /// Returns the URL of the outbound proxy.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the hosts to which Callgate connects without the outbound proxy.
    pub fn no_proxy(&self) -> &[Exemption] {
        &self.no_proxy
    }

    /// Returns the user name and the password for the outbound proxy. The caller must not log these credentials.
    pub fn credentials(&self) -> Option<(&str, &str)> {
        std::str::from_utf8(self.credentials.as_ref()?.expose()).ok()?.split_once(':')
    }

    /// Reports whether a connection to the host of `url` goes through the outbound proxy. `resolved` is the address of
    /// the host, if Callgate has resolved the host name.
    ///
    /// Connections to `localhost` and to loopback addresses never go through the proxy, because the proxy would connect
    /// to its own host instead of the host of Callgate.
    pub fn serves(&self, url: &Url, resolved: Option<IpAddr>) -> bool {
        let address = url.address().or(resolved);
        let is_this_host =
            url.host() == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback());
        !is_this_host && !self.no_proxy.iter().any(|exemption| exemption.matches(url, resolved))
    }

    /// Returns the CONNECT request that opens a tunnel to `target`, which is `host:port` (RFC 9110 section 9.3.6).
    pub fn connect_request(&self, target: &str) -> Zeroizing<Vec<u8>> {
        let mut request = Zeroizing::new(Vec::new());
        request.extend_from_slice(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").as_bytes());
        request.extend_from_slice(
            concat!("User-Agent: callgate/", env!("CARGO_PKG_VERSION"), "\r\n").as_bytes(),
        );
        if let Some(credentials) = &self.credentials {
            request.extend_from_slice(b"Proxy-Authorization: Basic ");
            request.extend_from_slice(Zeroizing::new(BASE64.encode(credentials.expose())).as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        request
    }

    /// Reports whether two outbound proxies have equal settings. Compares the credentials in constant time.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_credentials = match (&self.credentials, &other.credentials) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.matches(theirs.expose()),
            _ => false,
        };
        self.url == other.url && self.no_proxy == other.no_proxy && same_credentials
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(no_proxy: &[&str], credentials: Option<&str>) -> OutboundProxy {
        let url = Url::parse("http://proxy.corp:3128").unwrap();
        let no_proxy = no_proxy.iter().map(|entry| Exemption::parse(entry).unwrap()).collect();
        OutboundProxy::new(url, no_proxy, credentials.map(|text| Secret::new(text.into())))
    }

    #[test]
    fn this_host_and_the_exempt_hosts_are_reached_directly() {
        let proxy = proxy(&[".internal.example", "10.0.0.0/8"], None);
        let serves = |url: &str, resolved: Option<&str>| {
            proxy.serves(&Url::parse(url).unwrap(), resolved.map(|text| text.parse().unwrap()))
        };
        for url in
            ["https://a.example", "https://internal.example", "http://192.0.2.1", "https://localhost.example"]
        {
            assert!(serves(url, None), "{url}");
        }
        for url in [
            "http://localhost:1",
            "http://127.9.9.9",
            "http://[::1]:1",
            "http://[::ffff:127.0.0.1]",
            "https://a.internal.example",
            "https://10.1.2.3",
        ] {
            assert!(!serves(url, None), "{url}");
        }
        assert!(serves("https://a.example", Some("192.0.2.1")));
        assert!(!serves("https://a.example", Some("127.0.0.1")));
        assert!(!serves("https://a.example", Some("10.1.2.3")));
    }

    #[test]
    fn the_request_names_the_target_and_the_credentials() {
        let text = |proxy: &OutboundProxy| {
            String::from_utf8(proxy.connect_request("a.example:443").to_vec()).unwrap()
        };
        let plain = text(&proxy(&[], None));
        assert!(plain.starts_with("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n"), "{plain}");
        assert!(plain.ends_with("\r\n\r\n") && !plain.contains("Proxy-Authorization"), "{plain}");
        let with = proxy(&[], Some("Aladdin:open sesame"));
        assert!(text(&with).contains("\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"));
        assert_eq!(with.credentials(), Some(("Aladdin", "open sesame")));
        assert!(!format!("{with:?}").contains("sesame"));
    }

    #[test]
    fn every_difference_is_noticed() {
        let one = proxy(&["a.example"], Some("a:b"));
        assert!(one.is_same(&proxy(&["a.example"], Some("a:b"))));
        for other in [
            proxy(&[], Some("a:b")),
            proxy(&["a.example"], Some("a:c")),
            proxy(&["a.example"], None),
            OutboundProxy { url: Url::parse("http://proxy.corp:3129").unwrap(), ..one.clone() },
        ] {
            assert!(!one.is_same(&other) && !other.is_same(&one));
        }
    }
}
