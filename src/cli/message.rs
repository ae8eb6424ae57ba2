//! Reads and writes `.http` files: one raw HTTP/1.1 request, captured or written by hand.

use std::net::IpAddr;
use std::path::Path;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};

use crate::file::without_byte_order_mark;
use crate::query::{Parameter, parameter};
use crate::request::RequestHead;
use crate::source::LOOPBACK;

const HEADERS_MAX: usize = 128;

/// An HTTP request that was read from a file.
#[derive(Clone, Debug)]
pub struct Message {
    method: String,
    target: String,
    headers: HeaderMap,
    /// The raw body of the request, without the newline that an editor adds at the end of the file.
    pub body: Vec<u8>,
}

impl Message {
    /// Parses an HTTP request: request line, headers, empty line, body. A line of the head may end with LF instead of
    /// CRLF.
    ///
    /// # Errors
    /// Returns a description of the first error.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let head_bytes = match request.parse(bytes) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => {
                return Err("the empty line after the headers is missing".to_owned());
            }
            Err(error) => return Err(format!("not an HTTP/1.1 request message: {error}")),
        };
        let mut map = HeaderMap::new();
        for header in request.headers.iter() {
            let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|error| error.to_string())?;
            let value = HeaderValue::from_bytes(header.value).map_err(|error| error.to_string())?;
            map.append(name, value);
        }
        if map.contains_key(TRANSFER_ENCODING) {
            return Err(
                "Transfer-Encoding is not supported: remove it, and write the body without chunks".to_owned()
            );
        }
        let lengths: Vec<_> = map.get_all(CONTENT_LENGTH).iter().map(HeaderValue::as_bytes).collect();
        if lengths.len() > 1
            || lengths.iter().any(|text| text.is_empty() || !text.iter().all(u8::is_ascii_digit))
        {
            return Err("Content-Length must be one number".to_owned());
        }
        let body = bytes.get(head_bytes..).unwrap_or_default();
        let message = Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            headers: map,
            body: body.to_vec(),
        };
        Ok(message.without_last_newline())
    }

    /// Reads an HTTP request from a file and parses it.
    ///
    /// # Errors
    /// Returns the path of the file and a description of the error.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map(without_byte_order_mark).map_err(|error| error.to_string());
        bytes.and_then(|bytes| Self::parse(&bytes)).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Removes the newline that an editor adds at the end of a request file. The newline is removed only if
    /// `Content-Length` excludes it from the body.
    fn without_last_newline(mut self) -> Self {
        let declared = self.head(LOOPBACK).body_bytes_declared.and_then(|bytes| usize::try_from(bytes).ok());
        if let Some(declared) = declared
            && matches!(self.body.get(declared..), Some(b"\n" | b"\r\n"))
        {
            self.body.truncate(declared);
        }
        self
    }

    /// Returns the head of the request, with `peer` as the source address of the connection.
    pub fn head(&self, peer: IpAddr) -> RequestHead<'_> {
        RequestHead::new(&self.method, &self.target, &self.headers, peer)
    }

    /// Returns the first value of a request header. Returns `None` if the header is missing or is not ASCII text.
    pub fn header(&self, name: &HeaderName) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    /// Returns the decoded value of a query parameter. Returns `None` if the parameter does not occur exactly once.
    pub fn parameter(&self, name: &str) -> Option<String> {
        match parameter(self.head(LOOPBACK).raw_query()?, name) {
            Parameter::One(value) => Some(value.into_owned()),
            Parameter::Missing | Parameter::Several => None,
        }
    }

    /// Returns the headers of the request.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Replaces the target of the request.
    pub fn set_target(&mut self, target: String) {
        self.target = target;
    }

    /// Sets a header of the request and removes the previous values of this header.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    /// Serializes the request as an HTTP/1.1 message.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_and_written() {
        let bytes = b"POST /a?b=c HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(Message::parse(bytes).unwrap().to_bytes(), bytes);
        let by_hand = b"POST /a?b=c HTTP/1.1\nHost: x\nContent-Length: 2\n\n{}\n";
        assert_eq!(Message::parse(by_hand).unwrap().to_bytes(), bytes);
    }

    #[test]
    fn what_is_no_message_is_said() {
        for bad in ["", "POST /a HTTP/1.1\r\nhost: x\r\n", "hello", "POST /a HTTP/1.1\r\nbad header\r\n\r\n"]
        {
            assert!(Message::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Message::parse(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").is_err());
    }
}
