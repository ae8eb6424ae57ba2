//! A reader of HTTP/1.1 requests that takes nothing but what RFC 9112 lets a client write: the one reading that a
//! stream of bytes may have. It shares no code with the product, so that the two cannot be wrong together.

/// What a stream of bytes says.
#[derive(Debug)]
pub struct Reading {
    pub requests: Vec<Request>,
    pub end: End,
    /// Whether what comes behind the last request asks for a head alone, as far as that can be told.
    pub ends_with_head: bool,
}

#[derive(Debug)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// What comes behind the last request.
#[derive(Debug, Eq, PartialEq)]
pub enum End {
    /// Nothing.
    Clean,
    /// Whatever it is, the caller said that the connection ends here.
    Closed,
    /// The beginning of a request.
    Incomplete,
    /// Something that has no reading, or more than one.
    Refused(&'static str),
}

struct Head {
    request: Request,
    framing: Framing,
    closes: bool,
}

enum Framing {
    Chunked,
    Length(usize),
}

pub fn read(bytes: &[u8]) -> Reading {
    let mut requests = Vec::new();
    let mut rest = bytes;
    loop {
        // RFC 9112 section 2.2: empty lines before a request are no part of it.
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        if rest.is_empty() {
            return Reading { requests, end: End::Clean, ends_with_head: false };
        }
        let ends_with_head = rest.starts_with(b"HEAD ");
        match whole(&mut rest) {
            Ok((request, closes)) => {
                requests.push(request);
                if closes {
                    return Reading { requests, end: End::Closed, ends_with_head: false };
                }
            }
            Err(end) => return Reading { requests, end, ends_with_head },
        }
    }
}

fn whole(rest: &mut &[u8]) -> Result<(Request, bool), End> {
    let Head { mut request, framing, closes } = head(rest)?;
    request.body = match framing {
        Framing::Chunked => chunked(rest)?,
        Framing::Length(length) => take(rest, length)?.to_vec(),
    };
    Ok((request, closes))
}

fn head(rest: &mut &[u8]) -> Result<Head, End> {
    let (method, target, minor) = request_line(line(rest)?)?;
    let fields = fields(rest)?;
    let all = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect()
    };
    match all("host").len() {
        1 => {}
        0 if minor == 0 => {}
        _ => return Err(End::Refused("not one host")),
    }
    let framing = match (all("transfer-encoding").as_slice(), all("content-length").as_slice()) {
        ([], []) => Framing::Length(0),
        ([], [length]) => Framing::Length(digits(length)?),
        ([coding], []) if minor == 1 && coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        ([], _) => return Err(End::Refused("several lengths")),
        ([_], []) if minor == 0 => return Err(End::Refused("a coding in HTTP/1.0")),
        ([_], []) => return Err(End::Refused("a coding that is not chunked")),
        (_, []) => return Err(End::Refused("several codings")),
        _ => return Err(End::Refused("a length and a coding")),
    };
    let options = all("connection").join(&b","[..]).to_ascii_lowercase();
    let says = |option: &[u8]| options.split(|b| *b == b',').any(|o| o.trim_ascii() == option);
    let closes = says(b"close") || (minor == 0 && !says(b"keep-alive"));
    Ok(Head { request: Request { method, target, body: Vec::new() }, framing, closes })
}

fn request_line(line: &[u8]) -> Result<(String, String, u8), End> {
    let text = std::str::from_utf8(line).map_err(|_| End::Refused("a request line that is not text"))?;
    let parts: Vec<_> = text.split(' ').collect();
    let &[method, target, version] = parts.as_slice() else {
        return Err(End::Refused("a request line that is not three words"));
    };
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ => return Err(End::Refused("another version")),
    };
    if method == "CONNECT" {
        return Err(End::Refused("a CONNECT request"));
    }
    if !is_token(method.as_bytes()) || target.is_empty() {
        return Err(End::Refused("a method that is no token, or no target"));
    }
    if !target.bytes().all(|b| b.is_ascii_graphic() && !b"\"#<>".contains(&b)) {
        return Err(End::Refused("a target that is none"));
    }
    Ok((method.to_owned(), target.to_owned(), minor))
}

fn fields<'a>(rest: &mut &'a [u8]) -> Result<Vec<(String, &'a [u8])>, End> {
    let mut fields = Vec::new();
    loop {
        let line = line(rest)?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|b| *b == b':').ok_or(End::Refused("a field without a colon"))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) {
            return Err(End::Refused("a field name that is no token"));
        }
        if !value.iter().all(|b| is_text(*b)) {
            return Err(End::Refused("a control character in a field value"));
        }
        let blank = |b: &u8| matches!(b, b' ' | b'\t');
        let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
        let end = value.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
        fields.push((String::from_utf8(name.to_ascii_lowercase()).unwrap(), &value[start..end]));
    }
}

pub fn chunked(rest: &mut &[u8]) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    loop {
        let line = line(rest)?;
        if !line.iter().all(|b| is_text(*b)) {
            return Err(End::Refused("a control character in a chunk extension"));
        }
        let size = line.split(|b| *b == b';').next().unwrap_or_default();
        if size.is_empty() || size.len() > 8 || !size.iter().all(u8::is_ascii_hexdigit) {
            return Err(End::Refused("a chunk size that is no number"));
        }
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        if size == 0 {
            fields(rest)?;
            return Ok(body);
        }
        body.extend_from_slice(take(rest, size)?);
        match rest.get(..2) {
            Some(b"\r\n") => *rest = &rest[2..],
            Some(_) => return Err(End::Refused("a chunk that is longer than it says")),
            None => return Err(End::Incomplete),
        }
    }
}

/// The next line, without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], End> {
    let at = rest.iter().position(|b| *b == b'\n').ok_or(End::Incomplete)?;
    let line = rest[..at].strip_suffix(b"\r").ok_or(End::Refused("a bare line feed"))?;
    if line.contains(&b'\r') {
        return Err(End::Refused("a bare carriage return"));
    }
    *rest = &rest[at + 1..];
    Ok(line)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], End> {
    let (taken, behind) = rest.split_at_checked(length).ok_or(End::Incomplete)?;
    *rest = behind;
    Ok(taken)
}

fn digits(value: &[u8]) -> Result<usize, End> {
    let number = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    number.and_then(|text| text.parse().ok()).ok_or(End::Refused("a length that is no number"))
}

fn is_text(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

/// RFC 9110 section 5.6.2.
pub fn is_token(name: &[u8]) -> bool {
    let special = |b: &u8| b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || special(b))
}
