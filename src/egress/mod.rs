//! The egress core: find the rule for a request of the agent, see what its callback needs, and write the request
//! that leaves. Pure: nothing here resolves, dials, mints or reads a clock.
//!
//! [`Egress::find`] finds the rule, [`Rule::plan`] says what is to be minted, and [`Rule::request`] puts address and
//! token where the rule says. Nothing else of the agent's request changes.

mod inject;
mod rule;
mod shape;
mod write;

pub use inject::{Insertion, Place, Source};
pub use rule::{Egress, Inject, Plan, Rule, Target, Unruled};
pub use shape::{Callback, Segment, Shape, Slot};
pub use write::{Outgoing, answer_head};
