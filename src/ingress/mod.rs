//! The ingress core: it finds the route of a request, runs the checks of the route (the gate), and returns a verdict.
//! It has no side effects: the request, the body and the time are arguments. It never awaits, never reads a clock, and
//! does not depend on an HTTP server.
//!
//! [`Ingress::decide_head`] checks the head of a request. [`Admitted::decide_body`] checks the whole body.
//! [`Verified::permit`] applies the verdict of the ledger. A callback is delivered only if the result is a [`Permit`].
//! There are two exceptions: an [`Observed`] request on a route in observe mode, and a [`Streamed`] request on a route
//! with `stream: true`.

mod action_endpoint;
mod decide;
mod decide_body;
mod decode_body;
mod edge;
mod event_keys;
mod forward;
mod head_checks;
mod kept;
mod observed;
mod passed_headers;

mod permit;
mod route;
mod router;
mod streamed;
mod write_notice;

pub use decide::{Admitted, Denied, Document, Ingress, Seen};
pub use decide_body::Decided;
pub use edge::{Edge, FetchedData};
pub use forward::BodyLength;
pub use kept::{Attempt, Kept, PulledHead};
pub use observed::{Observed, Turned};
pub use passed_headers::{HeaderAllowlist, is_always_removed};
pub use permit::{Halted, Permit, Verified};
pub use route::{Actions, Carrier, CertificateRule, Deliver, Mode, Provider, QueryRule, Route, TokenRule};
pub use streamed::Streamed;
pub use write_notice::Notice;
