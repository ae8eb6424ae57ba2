//! Request paths: the canonical form, and the templates of routes, such as `/webhooks/{id}`. The module also exports
//! the functions for queries, so that it covers both parts of a request target. The module does not depend on routes,
//! tokens or headers.

mod canonical;
mod captures;
mod redact;
mod template;

pub use crate::query::{Parameter, check_query, parameter, with_parameter, without_parameter};
pub use canonical::{CanonicalPath, PathFault, Segments};
pub use captures::{Captures, TOKEN_CAPTURE};
pub use redact::{has_token, is_opaque_form, redacted_segment};
pub use template::{Segment, Template, TemplateFault, is_capturable, is_remainder};
