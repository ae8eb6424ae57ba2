//! Reads `handshakes`: the requests with which a provider checks that a URL accepts its messages, and Callgate's
//! replies to these requests. The setting is in a preset, or in a signature scheme that a user describes.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, DATE, EXPIRES, LOCATION,
    PRAGMA, REFRESH, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, Method};

use super::signature_scheme::certificate_rule;
use crate::config::yaml::{Cursor, Fields};
use crate::json::Pointer;
use crate::request::HOP_BY_HOP;
use crate::signature::{
    Handshake, HandshakeCondition, HandshakeValueSource, ReplyBody, ReplyTemplate, ReplyTemplatePart,
    ReplyValue,
};

const METHODS: &[(&str, &Method)] =
    &[("GET", &Method::GET), ("HEAD", &Method::HEAD), ("OPTIONS", &Method::OPTIONS), ("POST", &Method::POST)];

/// The maximum number of handshakes that a user can describe for one provider.
const HANDSHAKES_MAX: usize = 16;

/// The headers that the reply to a handshake must not have. Callgate writes some of these headers itself. Other headers
/// in the list would change what a browser does with the reply. The rest would let a cache store the reply, although
/// the reply repeats the challenge of one request.
const RESERVED: [HeaderName; 12] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
    CACHE_CONTROL,
    HeaderName::from_static("cdn-cache-control"),
    DATE,
    EXPIRES,
    LOCATION,
    PRAGMA,
    REFRESH,
    SET_COOKIE,
    HeaderName::from_static("surrogate-control"),
    X_CONTENT_TYPE_OPTIONS,
];

/// Reads the handshakes of a preset file.
pub(super) fn handshakes(at: &Cursor<'_>) -> Option<Vec<Handshake>> {
    let read: Vec<_> = at.list()?.iter().map(|at| handshake(at, None)).collect();
    read.into_iter().collect()
}

/// Reads the handshakes of a signature scheme that a user describes. `signs` is true if the scheme has a signature.
/// Handshakes are then signed, unless the user writes `signed: false`.
pub(super) fn own_handshakes(at: &Cursor<'_>, signs: bool) -> Option<Vec<Handshake>> {
    let list = at.list()?;
    if list.len() > HANDSHAKES_MAX {
        return at.error(format!("there are more than {HANDSHAKES_MAX} handshakes"), "describe fewer");
    }
    let one = |at: &Cursor<'_>| {
        let handshake = handshake(at, Some(signs))?;
        check_own(at, &handshake, signs);
        Some(handshake)
    };
    let read: Vec<_> = list.iter().map(one).collect();
    read.into_iter().collect()
}

/// Reports an error for each property of a user's handshake that is unsafe or cannot work.
///
/// - A signed handshake needs a scheme with a signature. `signs` is true if the scheme has a signature.
/// - An unsigned POST handshake needs a condition, a verify token or a subscription. Otherwise Callgate would treat
///   every unsigned message as this handshake.
/// - An unsigned handshake must not make Callgate fetch a URL.
/// - The reply must not have a reserved header.
fn check_own(at: &Cursor<'_>, handshake: &Handshake, signs: bool) {
    if handshake.signed && !signs {
        let _: Option<()> = at.error("the scheme `none` has no signed handshakes", "write `signed: false`");
    }
    let conditions = &handshake.condition;
    let distinct = !(conditions.head.is_empty() && conditions.body.is_empty() && conditions.form.is_empty());
    let proves = handshake.token.is_some() || handshake.subscription.is_some();
    if !handshake.signed && handshake.method == Method::POST && !distinct && !proves {
        let hint = "add `when`, `token` or `of`, which only handshakes fulfil";
        let _: Option<()> = at.error("every request without a signature would be this handshake", hint);
    }
    if !handshake.signed && handshake.confirmation.is_some() {
        let hint = "write `signed: true`, or remove `fetch`";
        let _: Option<()> = at.error("anybody could make Callgate fetch a URL", hint);
    }
    for (name, _) in &handshake.headers {
        let reserved = RESERVED.contains(name) || HOP_BY_HOP.contains(name);
        if reserved || name.as_str().starts_with("content-") {
            let message = format!("a reply to a handshake must not have the header {name}");
            let _: Option<()> = at.error(message, "remove it");
        }
    }
}

/// Reads the description of one handshake. The parameter `signed` is the default of the field `signed`. If the
/// parameter is `None`, the field is required.
fn handshake(at: &Cursor<'_>, signed: Option<bool>) -> Option<Handshake> {
    let mut fields = at.fields()?;
    let name = fields.required("name").and_then(|at| at.name());
    let method = fields.required("method").and_then(|at| at.one_of(METHODS));
    let signed = match signed {
        Some(default) => fields.optional("signed").map_or(Some(default), |at| at.boolean()),
        None => fields.required("signed").and_then(|at| at.boolean()),
    };
    let condition = fields.optional("when").map_or(Some(HandshakeCondition::default()), |at| when(&at));
    let token = fields.optional("token").map(|at| place(&at));
    let subscription = fields.optional("of").map(|at| place(&at));
    let secret = fields.optional("learn").map(|at| place(&at));
    let confirmation = fields.optional("fetch").map(|at| certificate_rule(&at));
    let answer = fields.required("answer").and_then(|at| answer(&at));
    fields.finish();
    let (status, headers, body) = answer?;
    Some(Handshake {
        name: name?.into(),
        method: method?.clone(),
        signed: signed?,
        condition: condition?,
        token: token.map_or(Some(None), |read| read.map(Some))?,
        subscription: subscription.map_or(Some(None), |read| read.map(Some))?,
        secret: secret.map_or(Some(None), |read| read.map(Some))?,
        confirmation: confirmation.map_or(Some(None), |read| read.map(Some))?,
        status,
        headers,
        body,
    })
}

/// Reads the location of a value in a handshake request: `{body: /pointer}`, `{header: NAME}` or `{query: NAME}`.
fn place(at: &Cursor<'_>) -> Option<HandshakeValueSource> {
    let mut fields = at.fields()?;
    let body = fields.optional("body").map(|at| at.pointer().map(HandshakeValueSource::Body));
    let header = fields.optional("header").map(|at| at.header_name().map(HandshakeValueSource::Header));
    let query =
        fields.optional("query").map(|at| at.text().map(|name| HandshakeValueSource::Query(name.into())));
    fields.finish();
    let mut given = [body, header, query].into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(one), None) => one,
        _ => at.error("expected exactly one of body, header and query", ""),
    }
}

fn when(at: &Cursor<'_>) -> Option<HandshakeCondition> {
    let mut fields = at.fields()?;
    let mut when = HandshakeCondition::default();
    for (key, what) in entries(&mut fields, "header")? {
        when.head.push((HandshakeValueSource::Header(header(key, &what)?), what.expected_value()?));
    }
    for (key, what) in entries(&mut fields, "query")? {
        when.head.push((HandshakeValueSource::Query(key.into()), what.expected_value()?));
    }
    for (key, what) in entries(&mut fields, "body")? {
        let Some(pointer) = Pointer::parse(key) else {
            return what
                .error(format!("`{key}` is not a JSON pointer"), "begin with a slash, such as /challenge");
        };
        when.body.push((pointer, what.expected_value()?));
    }
    for (key, what) in entries(&mut fields, "form")? {
        when.form.push((key.into(), what.expected_value()?));
    }
    fields.finish();
    Some(when)
}

/// Parses `key`, a key of a mapping, as the name of a header. `at` is the position for an error.
fn header(key: &str, at: &Cursor<'_>) -> Option<HeaderName> {
    match HeaderName::from_bytes(key.as_bytes()) {
        Ok(name) if !key.contains('_') => Some(name),
        _ => at.error(format!("`{key}` is not a header name"), "use letters, digits and `-`"),
    }
}

fn entries<'n>(fields: &mut Fields<'n>, key: &'static str) -> Option<Vec<(&'n str, Cursor<'n>)>> {
    fields.optional(key).map_or(Some(Vec::new()), |at| at.named())
}

impl Cursor<'_> {
    /// Reads an expected value of a handshake condition. Returns `Some(None)` for `true`, which accepts any value.
    fn expected_value(&self) -> Option<Option<Box<str>>> {
        let words = self.scalar_text()?;
        Some((&*words != "true").then_some(words))
    }
}

type Headers = Vec<(HeaderName, ReplyTemplate)>;

fn answer(at: &Cursor<'_>) -> Option<(u16, Headers, ReplyBody)> {
    let mut fields = at.fields()?;
    let status = fields.required("status").and_then(|at| at.whole_number(200..=299));
    let text = fields.optional("text").map(|at| template(&at));
    let json = fields.optional("json").map(|at| json(&at));
    let mut headers = Vec::new();
    if let Some(at) = fields.optional("headers") {
        for (name, at) in at.named()? {
            headers.push((header(name, &at)?, template(&at)?));
        }
    }
    fields.finish();
    if let (Some(status @ (204 | 205)), true) = (status, text.is_some() || json.is_some()) {
        let hint = "remove `text` and `json`, or use the status 200";
        return at.error(format!("a response with status {status} has no body"), hint);
    }
    let answer = match (text, json) {
        (Some(text), None) => ReplyBody::Text(text?),
        (None, Some(json)) => ReplyBody::Json(json?),
        (None, None) => ReplyBody::Empty,
        (Some(_), Some(_)) => return at.error("`text` and `json` exclude each other", "keep one of the two"),
    };
    Some((u16::try_from(status?).ok()?, headers, answer))
}

fn json(at: &Cursor<'_>) -> Option<Vec<(Box<str>, ReplyValue)>> {
    let one = |(name, at): (&str, Cursor<'_>)| {
        let value = match at.is_text() {
            true => ReplyValue::Text(template(&at)?),
            false => ReplyValue::Raw(at.scalar_text()?),
        };
        Some((name.into(), value))
    };
    let read: Vec<_> = at.named()?.into_iter().map(one).collect();
    read.into_iter().collect()
}

/// Reads a template for the text of a handshake reply. Its placeholders are `{query:x}`, `{body:/pointer}`,
/// `{header:x}`, `{hmac_hex:…}` and `{hmac_base64:…}`.
fn template(at: &Cursor<'_>) -> Option<ReplyTemplate> {
    let text = at.text()?;
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let piece = behind.split_once('}').and_then(|(name, after)| Some((piece(name)?, after)));
        let Some((piece, after)) = piece else {
            return at.error(format!("`{text}` has an unknown placeholder"), "");
        };
        if !before.is_empty() {
            pieces.push(ReplyTemplatePart::Literal(before.into()));
        }
        pieces.push(piece);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(ReplyTemplatePart::Literal(rest.into()));
    }
    Some(ReplyTemplate(pieces))
}

fn piece(name: &str) -> Option<ReplyTemplatePart> {
    if let Some(rest) = name.strip_prefix("hmac_hex:") {
        return source(rest).map(ReplyTemplatePart::HmacHex);
    }
    if let Some(rest) = name.strip_prefix("hmac_base64:") {
        return source(rest).map(ReplyTemplatePart::HmacBase64);
    }
    source(name).map(ReplyTemplatePart::Echo)
}

fn source(name: &str) -> Option<HandshakeValueSource> {
    let (kind, rest) = name.split_once(':')?;
    match kind {
        "body" => Pointer::parse(rest).map(HandshakeValueSource::Body),
        "header" => HeaderName::from_bytes(rest.as_bytes()).ok().map(HandshakeValueSource::Header),
        "query" => Some(HandshakeValueSource::Query(rest.into())),
        _ => None,
    }
}
