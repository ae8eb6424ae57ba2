//! What is to be thought of what came of a case.

use super::run::{Delivered, Heard, find, length};
use super::strict::{End, Reading, Request, is_token};

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Delivered, and exactly what the strict reader read.
    Accepted,
    /// Refused, with an answer.
    Refused,
    /// Refused by the end of the connection alone.
    Closed,
    /// A request was delivered, or answered, that was not sent; or one with a body that is not its own.
    Hard(String),
    /// Delivered, but in a form that a third reader could take for something else, or although it has no reading.
    Dirty(String),
    /// Nothing came, not even the end.
    Stall,
}

impl Verdict {
    /// What it is counted as.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Hard(_) => "hard",
            Self::Dirty(_) => "dirty",
            Self::Stall => "stall",
        }
    }
}

pub fn verdict(reading: &Reading, heard: &Heard) -> Verdict {
    // A body that is passed on while it arrives is passed on in part if it breaks off. No reader takes that for a whole
    // request, and nothing follows it on its connection.
    let (delivered, parts): (Vec<_>, Vec<_>) = heard.delivered.iter().cloned().partition(|one| one.is_whole);
    if let Some(fault) = smuggled(reading, &delivered) {
        return fault;
    }
    if let Some(what) = heard.delivered.iter().find_map(dirt) {
        return Verdict::Dirty(what);
    }
    if parts.len() > 1 || (!parts.is_empty() && !matches!(reading.end, End::Incomplete | End::Refused(_))) {
        return Verdict::Hard(format!(
            "cut short: {:?}",
            parts.iter().map(|one| text(&one.head)).collect::<Vec<_>>()
        ));
    }
    let statuses = match statuses(reading, &heard.answers) {
        Ok(statuses) => statuses,
        Err(what) => return Verdict::Hard(what),
    };
    let more = matches!(reading.end, End::Incomplete | End::Refused(_));
    if statuses.len() > reading.requests.len() + usize::from(more) {
        return Verdict::Hard(format!("answers to nothing: {statuses:?}"));
    }
    if heard.hangs {
        return Verdict::Stall;
    }
    match statuses.last() {
        None => Verdict::Closed,
        Some(status) if !parts.is_empty() && *status < 400 => {
            Verdict::Hard(format!("a part of a request is answered with {status}"))
        }
        _ if delivered.is_empty() => Verdict::Refused,
        Some(_) => Verdict::Accepted,
    }
}

/// What was delivered must be some of what the strict reader read, in the same order: what it read may be refused.
fn smuggled(reading: &Reading, delivered: &[Delivered]) -> Option<Verdict> {
    let mut expected = reading.requests.iter();
    let mut ambiguous = None;
    for one in delivered {
        if expected.any(|request| is_of(request, one)) {
            continue;
        }
        let what = format!("{:?} with {:?}", text(&one.head), text(&one.body));
        // The one request that is there in every reading; what is behind it is there in some.
        let read = reading.requests.iter().any(|request| request.target.contains("-a"));
        let is_there = find(one.target(), b"-a").is_some() && ambiguous.is_none() && !read;
        match reading.end {
            End::Refused(why) if is_there => ambiguous = Some((why, what)),
            _ => return Some(Verdict::Hard(format!("smuggled: {what}"))),
        }
    }
    ambiguous.map(|(why, what)| Verdict::Dirty(format!("delivered in spite of {why}: {what}")))
}

fn is_of(request: &Request, delivered: &Delivered) -> bool {
    request.target.as_bytes() == delivered.target()
        && request.method.as_bytes() == delivered.method()
        && request.body == delivered.body
}

/// What is wrong with the form of a delivered message.
pub fn dirt(delivered: &Delivered) -> Option<String> {
    let complain = |what: &str| Some(format!("{what}: {:?}", text(&delivered.head)));
    let Some(behind) = find(&delivered.head, b"\r\n") else { return complain("no fields") };
    let (line, fields) = (&delivered.head[..behind], &delivered.head[behind + 2..]);
    let words: Vec<_> = line.split(|b| *b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words.as_slice() else { return complain("request line") };
    if !is_token(method) || !target.starts_with(b"/") || !target.iter().all(u8::is_ascii_graphic) {
        return complain("request line");
    }
    let (mut lengths, mut hosts, mut codings) = (0, 0, 0);
    let mut rest = fields;
    while !rest.is_empty() {
        let end = find(rest, b"\r\n").unwrap_or(rest.len());
        let line = &rest[..end];
        rest = rest.get(end + 2..).unwrap_or_default();
        let Some(colon) = find(line, b": ") else { return complain("no colon") };
        let (name, value) = (&line[..colon], &line[colon + 2..]);
        if !is_token(name) || name.iter().any(|b| b.is_ascii_uppercase() || *b == b'_') {
            return complain("name");
        }
        if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return complain("control character");
        }
        match name {
            b"content-length" => lengths += 1,
            b"host" => hosts += 1,
            b"transfer-encoding" if delivered.passed_on && value == b"chunked" => codings += 1,
            b"trailer" if delivered.passed_on => {}
            b"te" | b"connection" | b"upgrade"
                if delivered.passed_on
                    && [&b"trailers"[..], b"te", b"upgrade", b"websocket"].contains(&value) => {}
            b"connection" | b"expect" | b"keep-alive" | b"proxy-connection" | b"te" | b"trailer"
            | b"transfer-encoding" | b"upgrade" => return complain("of one hop"),
            _ => {}
        }
        let letters: Vec<_> = name.iter().filter(|b| b.is_ascii_alphanumeric()).copied().collect();
        if !matches!(name, b"content-length" | b"transfer-encoding")
            && matches!(&letters[..], b"contentlength" | b"transferencoding")
        {
            return complain("framing in disguise");
        }
    }
    let framed = match codings {
        0 => lengths == 1 || (lengths == 0 && delivered.body.is_empty()),
        _ => codings == 1 && lengths == 0,
    };
    let is_of_length = codings == 1 || !delivered.is_whole || length(&delivered.head) == delivered.body.len();
    if !framed || hosts != 1 || !is_of_length {
        return complain("framing");
    }
    None
}

/// The statuses of the final answers; complains of bytes that are none.
fn statuses(reading: &Reading, mut bytes: &[u8]) -> Result<Vec<u16>, String> {
    let mut statuses = Vec::new();
    while !bytes.is_empty() {
        let complain = || format!("not an answer: {:?}", text(bytes));
        let end = find(bytes, b"\r\n\r\n").ok_or_else(complain)?;
        let head = &bytes[..end];
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3)).ok_or_else(complain)?;
        let status: u16 =
            std::str::from_utf8(status).ok().and_then(|s| s.parse().ok()).ok_or_else(complain)?;
        if find(&bytes[9..end], b"HTTP/1.1 ").is_some() {
            return Err(complain());
        }
        let request = reading.requests.get(statuses.len());
        let to_head = request.map_or(reading.ends_with_head, |request| request.method == "HEAD");
        let body = if to_head || status < 200 { 0 } else { length(head) };
        bytes = bytes.get(end + 4 + body..).ok_or_else(complain)?;
        if status >= 200 {
            statuses.push(status);
        }
    }
    Ok(statuses)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
