//! The folder with the certificates that the agent must trust. The folder never contains a private key.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use data_encoding::BASE64;
use pingora::tls::CertificateDer;

use super::trust_store::pkcs12;

/// The name of the file with the certificate of the forward proxy's certificate authority. The file also contains the
/// additional certificates in the configured file of the authority.
const CA: &str = "ca.pem";
/// The name of the file that contains the root certificates of the system and the certificates in [`CA`].
const BUNDLE: &str = "bundle.pem";
/// The name of the Java trust store, which contains the same certificates as [`BUNDLE`].
const TRUST_STORE: &str = "trust.p12";

/// Writes `ca.pem`, `bundle.pem` and `trust.p12` to a folder. Creates the folder if it does not exist. Replaces each
/// file atomically, so that a client never reads a partial file. `authority` is the certificate of the forward proxy's
/// authority. `further` contains the certificates of additional authorities that the agent must trust.
pub(super) fn write(
    folder: &str,
    authority: &[u8],
    further: &[CertificateDer<'static>],
) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("the folder {folder} cannot be written: {error}");
    let all = std::iter::once(authority).chain(further.iter().map(AsRef::as_ref));
    let ca: String = all.map(|certificate| pem("CERTIFICATE", certificate)).collect();
    let roots = rustls_native_certs::load_native_certs().unwrap_or_default();
    if roots.is_empty() {
        log::warn!(
            "the system has no trusted roots, so that {folder}/{BUNDLE} and {TRUST_STORE} contain only the certificate authority of Callgate: clients that use them trust no tunneled host; install ca-certificates"
        );
    }
    let bundle: String = roots.iter().map(|root| pem("CERTIFICATE", root)).chain([ca.clone()]).collect();
    let numbered = roots.iter().enumerate().map(|(i, root)| (format!("root-{i}"), root.as_ref()));
    let more = further.iter().enumerate().map(|(i, one)| (format!("callgate-{}", i + 2), one.as_ref()));
    let trust_store = pkcs12(numbered.chain([("callgate".to_owned(), authority)]).chain(more));
    fs::create_dir_all(folder).map_err(failed)?;
    replace(Path::new(folder), CA, ca.as_bytes()).map_err(failed)?;
    replace(Path::new(folder), BUNDLE, bundle.as_bytes()).map_err(failed)?;
    replace(Path::new(folder), TRUST_STORE, &trust_store).map_err(failed)
}

fn replace(folder: &Path, name: &str, content: &[u8]) -> std::io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
    file.write_all(content)?;
    // The umask of the process may have removed permissions that the agent needs.
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))
}

/// Returns a PEM block with this label (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).unwrap_or_default());
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}
