//! The egress core: it finds the rule for a request of the agent, decides which callback the request needs, and
//! writes the request to the provider. It has no side effects: it does not resolve names, connect, mint tokens or
//! read a clock.
//!
//! [`Egress::find`] finds the rule. [`Rule::plan`] decides whether a callback must be minted, and for which captures.
//! [`Rule::request`] puts the callback URL and token into the request. All other parts of the body and the query stay
//! unchanged. [`Rule::unchanged`] writes the head of a request that gets no callback, so that its body can be sent while
//! it arrives. [`Rule::local_location`] keeps redirects of the provider on the egress listener.

mod inject;
mod redirect;
mod rule;
mod shape;
mod write;

pub use inject::{BodyKind, Inject, Insertion, InsertionPlace, ValueSource};
pub use rule::{Egress, Plan, Rule, Target, Unruled};
pub use shape::{Callback, Segment, Shape, Slot};
pub use write::{Outgoing, Unchanged, answer_head};
