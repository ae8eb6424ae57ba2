//! The client of a forwarded callback, as one replica describes this client to another replica.

use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;

use crate::request::ClientCertificate;

/// The client that sent a callback to another replica. The other replica checked the client and forwarded the callback
/// to this process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vouched {
    /// The IP address of the client.
    pub address: IpAddr,
    /// Whether the client sent the callback over TLS.
    pub is_tls: bool,
    /// The verified client certificate. `None` if the client presented none.
    pub certificate: Option<ClientCertificate>,
}

impl Vouched {
    /// Returns the text form of the client, such as `192.0.2.1+tls+Y2xpZW50`: the IP address, then `+tls` for a client
    /// with TLS, and then `+` and each name of the client certificate in base64url.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.address.to_string();
        if self.is_tls {
            text.push_str("+tls");
        }
        for name in self.certificate.iter().flat_map(|certificate| &certificate.names) {
            text.push('+');
            text.push_str(&BASE64URL_NOPAD.encode(name.as_bytes()));
        }
        // A trailing `+` distinguishes a certificate without names from no certificate.
        if self.certificate.as_ref().is_some_and(|certificate| certificate.names.is_empty()) {
            text.push('+');
        }
        text
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('+').peekable();
        let address = parts.next()?.parse().ok()?;
        let is_tls = parts.next_if_eq(&"tls").is_some();
        let mut certificate = None;
        for name in parts {
            let names = &mut certificate.get_or_insert_with(ClientCertificate::default).names;
            if !name.is_empty() {
                let name = BASE64URL_NOPAD.decode(name.as_bytes()).ok()?;
                names.push(String::from_utf8(name).ok()?.into());
            }
        }
        Some(Self { address, is_tls, certificate })
    }
}
