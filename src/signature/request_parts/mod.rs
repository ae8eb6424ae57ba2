//! Reads the parts of a request that belong to signatures: headers, query parameters, values of the body, form fields,
//! timestamps and event ids.

mod body_member;
mod event_id;
mod header;
mod header_format;
mod query_parameter;
mod signature_place;
mod structured_fields;
mod timestamp;

pub(in crate::signature) use self::body_member::{BodyPart, body_member, body_parts, raw_body_member};
pub use self::event_id::EventIdSource;
pub(in crate::signature) use self::header::{optional_header, required_header};
pub(in crate::signature) use self::header_format::HeaderSlice;
pub use self::header_format::{HeaderFormat, HeaderFormatError};
pub(in crate::signature) use self::query_parameter::{optional_parameter, required_parameter};
pub use self::signature_place::SignaturePlace;
pub(in crate::signature) use self::structured_fields::{
    SignatureInput, byte_sequence, byte_sequences, parse_signature_input,
};
pub(in crate::signature) use self::timestamp::check_tolerance;
pub use self::timestamp::{TimestampRule, TimestampSource, TimestampUnit};
