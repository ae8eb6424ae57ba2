//! The state of one interaction: a request of the agent and all callbacks that it causes. This module defines the
//! states, the effect of each event, the values that a callback reports, and the input of the ledger's check before a
//! callback is delivered.
//!
//! This module has no side effects: the time is an argument, and the store saves the interactions.

mod ask;
mod captures;
mod copies;
mod deadlines;
mod delivered;
mod events;
mod failed_delivery;
mod inherited;
#[allow(clippy::module_inception, reason = "the type of this name is what the folder is about")]
mod interaction;
mod more;
mod notice;
mod questions;
mod report;
mod shared;
mod stale_progress;
mod state;

pub use ask::{Ask, ClaimError, Cleared, EventKey, Scope};
pub use captures::pairs;
pub use copies::Copies;
pub use deadlines::Due;
pub use events::EventState;
pub use interaction::{Claim, Interaction};
pub use more::Inherited;
pub use notice::{Informed, InformedBy, NoticeId, NoticeResult, Overdue, Undelivered};
pub use questions::{FIRST_QUESTION, Question, QuestionFault};
pub use report::{Follow, Report, StatusAt, UnmatchedCallback};
pub use shared::{LeaseId, Settled, SharedRecord, Terms};
pub use stale_progress::Stale;
pub use state::{Event, Over, State, next};
