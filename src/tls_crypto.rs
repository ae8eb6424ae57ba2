//! The cryptography library of TLS connections.

use rustls::crypto::aws_lc_rs;

/// Makes AWS-LC the cryptography library of all TLS connections of the process. Must be called before the first TLS
/// configuration is created: pingora would otherwise select *ring*. A further call has no effect.
///
/// AWS-LC contains the hybrid key exchange X25519MLKEM768, and needs less CPU time than *ring* for a handshake with an
/// RSA certificate (`docs/performance.md`).
pub fn install() {
    let _ = aws_lc_rs::default_provider().install_default();
}
