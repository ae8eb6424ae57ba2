//! The signed content: the bytes for which a signature is computed.

mod canonical_json;
mod scheme;
mod template;
mod twilio_form;

pub use self::scheme::ContentScheme;
pub use self::template::{ContentPart, ContentTemplate, ContentTemplateError};
pub(in crate::signature) use self::template::{ContentValues, normalized_body};
pub(in crate::signature) use self::twilio_form::alternative_port;
