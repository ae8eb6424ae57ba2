//! The ingress core: find the route, run its gate, give a verdict. Pure: the request, the body and the time
//! are arguments; the answer is a value. Nothing here awaits, reads a clock or names a server.
//!
//! [`Ingress::decide_head`] admits a request by its head, [`Admitted::decide_body`] verifies it with its whole
//! body, [`Verified::permit`] takes what the ledger has to say, and only a [`Permit`] can be delivered;
//! on a route that only observes, an [`Observed`], too.

mod body;
mod decide;
mod forward;
mod gate;
mod notice;
mod observed;
mod outside;
mod permit;
mod route;
mod router;

pub use body::Decided;
pub use decide::{Admitted, Denied, Document, Edge, Ingress, Seen};
pub use notice::Notice;
pub use observed::{Observed, Turned};
pub use outside::Outside;
pub use permit::{Halted, Permit, Verified};
pub use route::{Actions, Carrier, CertificateRule, Mode, Provider, QueryRule, Route, TokenRule};
