//! The callbacks API: mint, list, read and revoke interactions. `local` knows only the ledger of this process, and
//! `members` asks the other members.

mod api;
pub(super) mod local;
mod members;

pub(super) use api::refused;
pub(super) use local::ListQuery;
pub use local::LocalInteractions;
pub(super) use members::unknown_route;
