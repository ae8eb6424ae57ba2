//! TLS of a listener. pingora panics on files it cannot use, so they are tried here first.

use pingora::listeners::tls::TlsSettings;
use pingora::tls::{ServerConfig, install_default_crypto_provider, load_certs_and_key_files};

use crate::config::TlsFiles;

/// Whether certificate and key can be used, and belong together.
///
/// # Errors
/// What is wrong with them, in words.
pub fn check(files: &TlsFiles) -> Result<(), String> {
    install_default_crypto_provider();
    let loaded = load_certs_and_key_files(&files.certificate, &files.key);
    let Ok(Some((certificates, key))) = loaded else {
        return Err(format!("{} and {} hold no usable certificate and key", files.certificate, files.key));
    };
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map(|_| ())
        .map_err(|error| format!("{} does not go with {}: {error}", files.key, files.certificate))
}

/// The settings of a listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
pub(super) fn settings(files: &TlsFiles) -> Result<TlsSettings, String> {
    check(files)?;
    let mut settings =
        TlsSettings::intermediate(&files.certificate, &files.key).map_err(|e| e.to_string())?;
    settings.enable_h2();
    Ok(settings)
}
