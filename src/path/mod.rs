//! Paths: the one canonical form a request path may have, the templates routes are written in, and the
//! query that rides behind it. Knows nothing of routes, tokens or headers.

mod canonical;
mod template;

pub use crate::query::{Parameter, check_query, parameter, with_parameter, without_parameter};
pub use canonical::{CanonicalPath, PathFault, Segments};
pub use template::{Captures, Segment, TOKEN_CAPTURE, Template, TemplateFault, is_capturable};
