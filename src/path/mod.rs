//! Request paths: the canonical form, and the templates of routes, such as `/webhooks/{id}`. It also exports the
//! functions for queries, so that callers find both parts of a request target here. This module knows nothing about
//! routes, tokens or headers.

mod canonical;
mod template;

pub use crate::query::{Parameter, check_query, parameter, with_parameter, without_parameter};
pub use canonical::{CanonicalPath, PathFault, Segments};
pub use template::{Captures, Segment, TOKEN_CAPTURE, Template, TemplateFault, is_capturable, is_remainder};
