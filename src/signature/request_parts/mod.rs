//! The parts of a request that take part in a signature.

mod body_member;
mod event_id;
mod format;
mod header;
mod place;
mod structured_fields;
mod timestamp;

pub(in crate::signature) use self::body_member::members;
pub use self::event_id::IdSource;
pub(in crate::signature) use self::format::Slice;
pub use self::format::{Format, FormatFault};
pub(in crate::signature) use self::header::{optional, required};
pub use self::place::Place;
pub(in crate::signature) use self::structured_fields::{Input, byte_members, bytes, inputs};
pub(in crate::signature) use self::timestamp::within;
pub use self::timestamp::{TimestampRule, TimestampSource, TimestampUnit};
