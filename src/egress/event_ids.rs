//! Finds the provider's task id in an event stream (`text/event-stream`) while the stream is relayed.

use crate::json::{Found, Pointer, find};

/// The maximum number of bytes, from the beginning of an event stream, that are searched for the provider's task id.
const BYTES_MAX: usize = 256 << 10;

/// Searches the events of a stream for the provider's task id. The id is a value in the JSON data of an event.
#[derive(Debug)]
pub struct EventIds {
    pointers: Vec<Pointer>,
    /// The current line without its line ending.
    line: Vec<u8>,
    /// The data of the current event (the text of its `data` lines).
    data: Vec<u8>,
    /// Whether the last byte was a carriage return. A line feed after it belongs to the same line ending.
    after_carriage_return: bool,
    /// The number of bytes that may still be searched.
    bytes_left: usize,
}

impl EventIds {
    /// Creates a search for an id. `pointers` are the possible locations of the id in the data of an event. The first
    /// location that has a string or a number counts.
    pub fn new(pointers: Vec<Pointer>) -> Self {
        let (line, data) = (Vec::new(), Vec::new());
        Self { pointers, line, data, after_carriage_return: false, bytes_left: BYTES_MAX }
    }

    /// Searches the next bytes of the stream. Returns the id as soon as the event with the id is complete. After that,
    /// all calls return `None`.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Box<str>> {
        for byte in bytes {
            self.bytes_left = self.bytes_left.checked_sub(1)?;
            let ends_line = match byte {
                b'\n' => !self.after_carriage_return,
                b'\r' => true,
                _ => false,
            };
            self.after_carriage_return = *byte == b'\r';
            if ends_line {
                if let Some(id) = self.end_line() {
                    self.bytes_left = 0;
                    return Some(id);
                }
            } else if !matches!(byte, b'\n' | b'\r') {
                self.line.push(*byte);
            }
        }
        None
    }

    /// Processes a complete line. An empty line ends the event. Returns the id if the event contains one.
    fn end_line(&mut self) -> Option<Box<str>> {
        let line = std::mem::take(&mut self.line);
        if let Some(data) = line.strip_prefix(b"data:") {
            if !self.data.is_empty() {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
        }
        if !line.is_empty() {
            return None;
        }
        id_at(&std::mem::take(&mut self.data), &self.pointers)
    }
}

/// Returns the id in a JSON document: the value at the first of the locations `pointers` that has a string or a number.
/// Returns `None` if no location has such a value, or if the value is empty or longer than 256 bytes.
pub fn id_at(document: &[u8], pointers: &[Pointer]) -> Option<Box<str>> {
    let found = find(document, &pointers.iter().collect::<Vec<_>>()).ok()?;
    found.into_iter().find_map(Found::id).filter(|id| !id.is_empty() && id.len() <= 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> EventIds {
        let pointers = ["/task/id", "/statusUpdate/taskId"];
        EventIds::new(pointers.iter().map(|text| Pointer::parse(text).unwrap()).collect())
    }

    #[test]
    fn the_id_is_found_wherever_the_stream_is_split() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = format!(
                ": hello{end}{end}event: x{end}data: {{\"message\":{{}}}}{end}{end}\
                 data: {{\"statusUpdate\":{end}data:{{\"taskId\":\"t-1\"}}}}{end}id: 7{end}{end}data: {{\"task\":{{\"id\":\"t-2\"}}}}{end}{end}"
            );
            for size in 1..stream.len() {
                let mut ids = ids();
                let found: Vec<_> =
                    stream.as_bytes().chunks(size).filter_map(|part| ids.read(part)).collect();
                assert_eq!(found, [Box::from("t-1")], "{size} {end:?}");
            }
        }
    }

    #[test]
    fn an_id_is_a_text_or_a_number() {
        let pointers = ["/task", "/id"].map(|text| Pointer::parse(text).unwrap());
        for (document, id) in [
            (r#"{"task":"t-1","id":"t-2"}"#, Some("t-1")),
            (r#"{"id":17}"#, Some("17")),
            (r#"{"task":true,"id":"t-2"}"#, Some("t-2")),
            (r#"{"task":{"id":1},"id":"true"}"#, Some("true")),
            (r#"{"task":null,"id":false}"#, None),
            (r#"{"task":""}"#, None),
            (r#"{"task":"a","task":"b"}"#, None),
        ] {
            assert_eq!(id_at(document.as_bytes(), &pointers).as_deref(), id, "{document}");
        }
    }

    #[test]
    fn an_incomplete_event_and_a_long_stream_have_no_id() {
        let event = b"data: {\"task\":{\"id\":\"t\"}}\n";
        assert_eq!(ids().read(event), None);
        let mut late = ids();
        assert_eq!(late.read(&vec![b'x'; BYTES_MAX]), None);
        assert_eq!(late.read(b"\n"), None);
        assert_eq!(late.read(&[event.as_slice(), b"\n"].concat()), None);
        assert!(late.line.len() <= BYTES_MAX);
    }
}
