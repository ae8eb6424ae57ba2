//! Checks that the certificate of an authority has name constraints, and that the name constraints permit the
//! intercepted hosts.

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::time::Timestamp;

/// Returns the host names for which an authority may issue certificates. Returns `None` if the certificate has no
/// critical name constraints.
pub(super) fn permitted_names(certificate: &X509Certificate<'_>) -> Option<Vec<String>> {
    let constraints =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) if extension.critical => Some(constraints),
            _ => None,
        });
    let subtrees = constraints?.permitted_subtrees.as_ref()?;
    let names = subtrees.iter().filter_map(|subtree| match subtree.base {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some(names.collect())
}

/// Checks that a certificate belongs to an authority with name constraints, and that this authority may issue
/// certificates for all `hosts`. Returns the expiry time of the certificate.
pub(super) fn check_names(
    certificate: &[u8],
    hosts: &[Box<str>],
    now: Timestamp,
) -> Result<Timestamp, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| "it is not readable".to_owned())?;
    if !parsed.is_ca() {
        return Err("it is not the certificate of an authority".to_owned());
    }
    let (begin, end) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    if !(begin..end).contains(&now.unix_secs()) {
        return Err("it is not valid at this time".to_owned());
    }
    let names = permitted_names(&parsed).ok_or("it is not limited to names (critical name constraints)")?;
    let is_permitted = |host: &str| {
        let below = |name: &String| host.strip_suffix(name.as_str());
        names.iter().filter_map(below).any(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    match hosts.iter().find(|host| !is_permitted(host)) {
        Some(host) => Err(format!("its name constraints do not permit {host}")),
        None => Ok(Timestamp::from_unix_secs(end)),
    }
}
