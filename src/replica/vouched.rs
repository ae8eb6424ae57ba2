//! The client of a callback, as one member describes it to another.

use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;

use crate::request::ClientCertificate;

/// The client of a callback that another member hands over. That member has checked the client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Vouched {
    /// The client address.
    pub address: IpAddr,
    /// Whether the callback arrived over TLS.
    pub is_tls: bool,
    /// The verified client certificate.
    pub certificate: Option<ClientCertificate>,
}

impl Vouched {
    /// Returns the address. With TLS, `+tls` and the names of the client certificate follow, each in base64url.
    pub(super) fn to_text(&self) -> String {
        let mut text = self.address.to_string();
        if self.is_tls {
            text.push_str("+tls");
        }
        for name in self.certificate.iter().flat_map(|certificate| &certificate.names) {
            text.push('+');
            text.push_str(&BASE64URL_NOPAD.encode(name.as_bytes()));
        }
        // A certificate without names differs from no certificate.
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
