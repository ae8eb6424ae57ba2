//! One interaction: the agent's one request and all callbacks it causes. What its state is, what each event
//! does to it, what a callback's body reports, and what is asked of the ledger before a callback is
//! delivered. Pure: the time is an argument, and where interactions are kept is not known here.

mod ask;
mod events;
mod lapse;
mod question;
mod record;
mod report;
mod state;

pub use ask::{Ask, Cleared, EventKey, Held, Scope};
pub use events::Known;
pub use lapse::{Due, NoticeId, Overdue};
pub use question::{FIRST_QUESTION, Question, QuestionFault};
pub use record::{Claim, Interaction, pairs};
pub use report::{Follow, Report, Stale, StatusAt};
pub use state::{Event, Over, State, next};
