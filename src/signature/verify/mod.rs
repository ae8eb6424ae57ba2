//! Verifies signatures, answers handshakes, and signs as a provider does.

mod answer_handshake;
mod body;
mod head;
mod mac_with_secrets;
mod presented;
mod sign;
mod signature_over_content;
mod verifier;

pub use self::presented::PresentedSignature;
pub use self::sign::SignedRequest;
pub use self::verifier::Verifier;

#[cfg(test)]
mod tests;
