//! Several replicas of one Callgate: which replica owns an interaction, and how replicas authenticate each other's
//! requests.
//!
//! A replica is one process with a replica id ([`Incarnation`]). The *owner* of an interaction is at first the replica
//! that minted the token of the interaction. The token contains the encrypted address of the owner ([`OwnerSealer`]).
//! If another replica receives the callback, it forwards the callback to the owner, with a [`Proof`] in a header.

mod incarnation;
mod nonces;
mod proof;
mod seal;
mod settings;
mod vouched;

pub use incarnation::Incarnation;
pub use nonces::{Nonces, SeenNonce};
pub use proof::{AGE_MAX, HEADER_BYTES_MAX, Outcome, Proof, ProofError, Prover, REPLICA, ResponseProof};
pub use seal::{Owner, OwnerSealer, is_address};
pub use settings::{Gone, Replicas};
pub use vouched::Vouched;
