//! The ingress core: find the route, run its gate, give a verdict. Pure: the request, the body and the time
//! are arguments; the answer is a value. Nothing here awaits, reads a clock or names a server.
//!
//! [`Ingress::decide_head`] admits a request by its head, [`Admitted::decide_body`] turns that and the whole
//! body into a [`Permit`], and only a permit can be delivered.

mod decide;
mod forward;
mod gate;
mod route;
mod router;

pub use decide::{Admitted, Denied, Edge, Ingress, Permit, Seen};
pub use route::{Carrier, Provider, QueryRule, Route, TokenRule};
