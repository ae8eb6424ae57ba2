//! The callbacks API: mints, lists, reads and revokes interactions. `local` reads the ledger of this process, and
//! `members` also asks the other replicas.

mod api;
pub(super) mod local;
mod members;

pub(super) use api::refused;
pub(super) use local::ListQuery;
pub use local::LocalInteractions;
pub(super) use members::unknown_route;
