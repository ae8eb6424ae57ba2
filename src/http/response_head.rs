//! Serializes the heads of HTTP/1 responses.

use http::StatusCode;
use http::header::DATE;
use pingora::protocols::http::date::get_cached_date;

use crate::request::write_line;

/// Writes the head of a response, including `Date` and `Connection`. If `keep_alive` is true, the caller may send
/// another request on the connection.
pub(crate) fn write_response_head<'l>(
    out: &mut Vec<u8>,
    status: u16,
    lines: impl IntoIterator<Item = (&'l str, &'l [u8])>,
    keep_alive: bool,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    out.extend_from_slice(reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_date = false;
    for (name, value) in lines {
        has_date |= name == DATE.as_str();
        write_line(out, name, value);
    }
    // A server with a clock must send `Date` (RFC 9110 section 6.6.1).
    if !has_date {
        write_line(out, "date", get_cached_date().as_bytes());
    }
    write_line(out, "connection", if keep_alive { b"keep-alive" } else { b"close" });
    out.extend_from_slice(b"\r\n");
}
