//! The binary form of a record on Redis or Valkey: the version (8 random bytes), the format (1 byte), and the record in
//! JSON.
//!
//! A process that does not support the format of a record neither uses nor changes the record. Callgate may begin to
//! write a new format only in a release whose predecessor can already read the new format.

use crate::interaction::SharedRecord;

/// The format of records that this version of Callgate writes.
pub(in crate::store::redis) const FORMAT: u8 = 1;
/// The size of a record's version, in bytes.
const VERSION_BYTES: usize = 8;

/// Identifies one state of a record. Each change generates a new random version.
pub(super) type Version = [u8; VERSION_BYTES];

/// The reason why a stored record cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// A later version of Callgate has written the record in this format.
    Format(u8),
    /// The record is damaged.
    Damaged,
}

/// Returns the binary form of a record.
pub(super) fn encode(version: Version, record: &SharedRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(320);
    bytes.extend_from_slice(&version);
    bytes.push(FORMAT);
    // JSON can represent every value of a record, so this cannot fail.
    let _ = serde_json::to_writer(&mut bytes, record);
    bytes
}

/// Parses the binary form of a record.
///
/// # Errors
/// Returns an [`Unreadable`] if the record cannot be used.
pub(super) fn decode(bytes: &[u8]) -> Result<(Version, SharedRecord), Unreadable> {
    let (version, rest) = bytes.split_first_chunk::<VERSION_BYTES>().ok_or(Unreadable::Damaged)?;
    match rest.split_first() {
        Some((&FORMAT, json)) => {
            let record = serde_json::from_slice(json).map_err(|_| Unreadable::Damaged)?;
            Ok((*version, record))
        }
        Some((format, _)) if *format > FORMAT => Err(Unreadable::Format(*format)),
        _ => Err(Unreadable::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::{EventKey, Interaction};
    use crate::time::Timestamp;

    #[test]
    fn a_record_reads_back_and_an_unknown_format_is_left_alone() {
        let at = Timestamp::from_unix_secs;
        let interaction = Interaction::new("documents".into(), "document_id=a".into(), at(1), at(2));
        let mut record = SharedRecord::new(interaction, Some("0123456789abcdef 10.2.3.4:8446".into()));
        record.add_event(EventKey(u128::MAX));
        let mut bytes = encode([7; 8], &record);
        let (version, read) = decode(&bytes).unwrap();
        assert_eq!((version, read.owner.as_deref()), ([7; 8], record.owner.as_deref()));
        assert!(read.has_delivered(EventKey(u128::MAX)));
        bytes[8] = FORMAT + 1;
        assert_eq!(decode(&bytes).unwrap_err(), Unreadable::Format(FORMAT + 1));
        for damaged in [&b""[..], b"1234567", b"12345678", b"12345678\x01{", b"12345678\x00{}"] {
            assert_eq!(decode(damaged).unwrap_err(), Unreadable::Damaged);
        }
    }
}
