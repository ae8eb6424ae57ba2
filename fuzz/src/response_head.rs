//! Responses of the agent and of providers: a response is read in the same way, whether it arrives at once or in pieces,
//! and the response that Callgate relays is read as the received one.

use callgate::http::{ResponseBytes, read_response};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use super::first_line;

/// A line with the size of the pieces and perhaps the word `HEAD`, and a response.
pub fn run(data: &[u8]) -> bool {
    let Some((line, bytes)) = first_line(data) else { return false };
    let expects_body = !line.ends_with("HEAD");
    let step = line.trim_end_matches("HEAD").trim().parse().unwrap_or(1);
    let whole = read_response(bytes, bytes.len(), expects_body);
    for step in [1, step] {
        assert_eq!(whole, read_response(bytes, step, expects_body), "in pieces of {step}");
    }
    let Some(response) = whole else { return false };
    assert!((200..=599).contains(&response.status.as_u16()), "{response:?}");
    assert!(response.body.len() + response.rest < bytes.len(), "{response:?}");
    let has_no_body = !expects_body || matches!(response.status.as_u16(), 204 | 304);
    assert!(!has_no_body || response.body.is_empty(), "{response:?}");
    // The parser accepts 256 header lines, and the length below is one more.
    if response.is_complete && !has_no_body && response.headers.len() < 256 {
        relayed(&response);
    }
    true
}

/// Writes the response with a length, as Callgate relays it, and reads it again.
fn relayed(response: &ResponseBytes) {
    let mut bytes = format!("HTTP/1.1 {} R\r\n", response.status.as_u16()).into_bytes();
    let framing = |name: &http::HeaderName| *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING;
    for (name, value) in response.headers.iter().filter(|(name, _)| !framing(name)) {
        assert!(!value.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{value:?}");
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", response.body.len()).as_bytes());
    bytes.extend_from_slice(&response.body);
    let again = read_response(&bytes, bytes.len(), true).expect("a valid response");
    assert_eq!((again.status, &again.body, again.rest), (response.status, &response.body, 0));
    assert!(again.is_complete && again.is_unambiguous);
    assert_eq!(again.headers.len(), 1 + response.headers.iter().filter(|(name, _)| !framing(name)).count());
}
