//! Classes of bytes that occur in the head of an HTTP message.

/// Reports whether a byte is allowed in a method or a header name (`tchar` in RFC 9110 section 5.6.2).
pub(super) const fn is_token(b: u8) -> bool {
    matches!(
        b,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || b.is_ascii_alphanumeric()
}

/// Reports whether a byte is a control character that is not allowed in a header value (RFC 9110 section 5.5).
pub(super) const fn is_control(b: u8) -> bool {
    (b < b' ' && b != b'\t') || b == 0x7f
}
