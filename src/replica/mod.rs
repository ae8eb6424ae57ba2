//! Several replicas of one Callgate: who owns an interaction, and how replicas prove to each other who they are.
//!
//! A *member* is one process. At start it draws an [`Incarnation`]. The *owner* of an interaction is the member that
//! minted its token. The token names its owner, encrypted ([`OwnerSealer`]). Another member that receives the callback
//! hands it over to the owner, with a [`Proof`].

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
