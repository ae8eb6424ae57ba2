//! The signed content: the bytes for which a signature is computed.

mod canonical_json;
mod content_scheme;
mod content_template;
mod twilio_form;

pub use self::content_scheme::ContentScheme;
pub use self::content_template::{ContentPart, ContentTemplate, ContentTemplateError};
pub(in crate::signature) use self::content_template::{ContentValues, normalized_body};
pub(in crate::signature) use self::twilio_form::alternative_port;
