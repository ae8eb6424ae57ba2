//! The content: the bytes that a signature is made over.

mod canonical_json;
mod scheme;
mod template;
mod twilio_form;

pub use self::scheme::ContentScheme;
pub use self::template::{Content, ContentFault, Part};
pub(in crate::signature) use self::template::{Values, made};
pub(in crate::signature) use self::twilio_form::other_port;
