//! Verifies signatures, replies to handshakes, and signs requests as a provider does.

mod answer_handshake;
mod mac_with_secrets;
mod mismatch;
mod presented;
mod sign;
mod signature_over_content;
mod verifier;
mod verify_body;
mod verify_head;

pub use self::presented::PresentedSignature;
pub use self::sign::SignedRequest;
pub use self::verifier::Verifier;

#[cfg(test)]
mod tests;
