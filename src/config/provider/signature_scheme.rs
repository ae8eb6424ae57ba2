//! Reads the fields of a signature scheme. The fields are in the setting `signature` of a provider, or in a preset.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::event_identity::with_identity;
use super::place::{ENCODINGS, PUBLIC, RequestPart, TOLERANCE_DEFAULT, place, request_parts};
use super::proof::{jwt, message, token};
use crate::config::yaml::{Cursor, Fields};
use crate::json::{POINTERS_MAX, Pointer};
use crate::signature::{
    CertificateRule, CertificateSource, ContentPart, ContentScheme, ContentTemplate, DuplicateRule,
    EventIdSource, MacAlgorithm, Proof, PublicKeyAlgorithm, PublicKeySource, Scheme, SecretFormat,
    SharedSecretPlace, SignatureAlgorithm, SignaturePlace, TimestampRule, TimestampSource, TimestampUnit,
};

/// The longest timestamp tolerance that causes no warning.
const TOLERANCE_QUIET_MAX: Duration = Duration::from_secs(3600);

pub(super) const MACS: &[(&str, MacAlgorithm)] = &[
    ("plain-sha256", MacAlgorithm::PlainSha256),
    ("sha1", MacAlgorithm::HmacSha1),
    ("sha256", MacAlgorithm::HmacSha256),
    ("sha384", MacAlgorithm::HmacSha384),
    ("sha512", MacAlgorithm::HmacSha512),
];

const UNITS: &[(&str, TimestampUnit)] = &[
    ("http-date", TimestampUnit::HttpDate),
    ("ms", TimestampUnit::UnixMilliseconds),
    ("rfc3339", TimestampUnit::Rfc3339),
    ("s", TimestampUnit::UnixSeconds),
];

/// The kinds of signature schemes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Asymmetric,
    Basic,
    Hmac,
    Jwt,
    Message,
    None,
    Sns,
    Token,
}

/// The kinds of signature schemes, each with its name in the configuration.
pub(super) const KINDS: &[(&str, Kind)] = &[
    ("asymmetric", Kind::Asymmetric),
    ("basic", Kind::Basic),
    ("hmac", Kind::Hmac),
    ("jwt", Kind::Jwt),
    ("message-signatures", Kind::Message),
    ("none", Kind::None),
    ("sns", Kind::Sns),
    ("token", Kind::Token),
];

/// Reads `acknowledge` of a signature scheme: the response status for a message that Callgate accepts but does not
/// deliver.
fn acknowledge(at: Option<Cursor<'_>>) -> Option<Option<u16>> {
    let Some(at) = at else { return Some(None) };
    at.whole_number(200..=204).map(|status| u16::try_from(status).ok())
}

/// Reads the fields of a signature scheme of this kind.
pub(super) fn scheme(kind: Kind, fields: &mut Fields<'_>) -> Option<Scheme> {
    let id = fields.optional("id").map_or(Some(IdLocation::None), |at| id_of(&at, kind));
    let absent = fields.optional("absent").map_or(Some(Vec::new()), |at| pointers(&at));
    let require = fields.optional("require").map_or(Some(Vec::new()), |at| require(&at));
    let keys = match kind {
        Kind::Basic | Kind::Hmac | Kind::None | Kind::Token => Some(None),
        _ => fields.optional("keys").map_or(Some(None), |at| keys_at(&at, kind).map(Some)),
    };
    let secret_format = match kind {
        Kind::Hmac | Kind::Jwt | Kind::Message => {
            fields.optional("key").map_or(Some(SecretFormat::Utf8), |at| secret_format(&at))
        }
        _ => Some(SecretFormat::Utf8),
    };
    let duplicates = fields.optional("duplicates");
    let identity = fields.optional("identity");
    let acknowledge = acknowledge(fields.optional("acknowledge"));
    let source = match &id {
        Some(IdLocation::At(source)) => Some(source),
        _ => None,
    };
    let proof = match kind {
        Kind::Hmac | Kind::Asymmetric => content(kind, fields, source).map(Proof::Content),
        Kind::Jwt => jwt(fields).map(Proof::Jwt),
        Kind::Message => message(fields).map(Proof::MessageSignature),
        Kind::None => Some(Proof::None),
        Kind::Sns => Some(Proof::Sns),
        Kind::Basic => Some(Proof::SharedSecret(SharedSecretPlace::Basic)),
        Kind::Token => token(fields).map(Proof::SharedSecret),
    };
    let (id, absent) = (id?, absent?);
    let mut proof = proof?;
    let members = match &proof {
        Proof::Content(content) => content.content.body_parts_count(),
        _ => 0,
    };
    if absent.len() + members + 2 > POINTERS_MAX {
        return fields.at().error(format!("more than {} members are used", POINTERS_MAX - 2), "name fewer");
    }
    if let (Proof::Jwt(jwt), IdLocation::Claim(claim)) = (&mut proof, &id) {
        jwt.id = Some(claim.clone());
    }
    let id = match id {
        IdLocation::At(source) => Some(source),
        IdLocation::Claim(_) | IdLocation::None => None,
    };
    let scheme = Scheme {
        acknowledge: acknowledge?,
        absent,
        handshakes: Vec::new(),
        id,
        secret_format: secret_format?,
        keys: keys?,
        duplicates: DuplicateRule::Identity,
        identity: Vec::new(),
        proof,
        require: require?,
        stated_algorithm: None,
    };
    with_identity(scheme, duplicates.as_ref(), identity.as_ref())
}

fn pointers(at: &Cursor<'_>) -> Option<Vec<Pointer>> {
    let read: Vec<_> = at.list()?.iter().map(Cursor::pointer).collect();
    read.into_iter().collect()
}

fn content(kind: Kind, fields: &mut Fields<'_>, id_source: Option<&EventIdSource>) -> Option<ContentScheme> {
    let algorithm = fields.required("algorithm");
    let cipher = match kind {
        Kind::Asymmetric => {
            let fixed = fields.optional("signature_form");
            let fixed = fixed.map_or(Some(false), |at| at.one_of(&[("der", false), ("p1363", true)]));
            let algorithm = algorithm.and_then(|at| at.one_of(PUBLIC));
            algorithm.zip(fixed).map(|(algorithm, fixed)| {
                SignatureAlgorithm::Public(match (algorithm, fixed) {
                    (PublicKeyAlgorithm::EcdsaP256Der, true) => PublicKeyAlgorithm::EcdsaP256Fixed,
                    (PublicKeyAlgorithm::EcdsaP384Der, true) => PublicKeyAlgorithm::EcdsaP384Fixed,
                    (other, _) => other,
                })
            })
        }
        _ => algorithm.and_then(|at| at.one_of(MACS)).map(SignatureAlgorithm::Mac),
    };
    let place = place(fields);
    let content = fields.required("content").and_then(|at| {
        at.text().and_then(|text| match ContentTemplate::parse(text) {
            Ok(content) => Some(content),
            Err(fault) => at.error(format!("`{text}` {fault}"), "such as {timestamp}.{body}"),
        })
    });
    let encoding = fields.required("encoding").and_then(|at| at.one_of(ENCODINGS));
    let tolerance = fields.optional("tolerance");
    let stated = fields.optional("timestamp");
    let read = stated.as_ref().map(timestamp);
    let (place, content) = (place?, content?);
    let in_format = matches!(&place, SignaturePlace::Headers { format, .. } if format.has_timestamp());
    let nowhere = matches!(read, Some(Some((None, _)))) && !in_format;
    if let (Some(at), true) = (stated, nowhere) {
        return at.error("the timestamp has no location", "add `header`, or {timestamp} to `format`");
    }
    let timestamp = timestamp_rule(fields.at(), in_format, &content, read, tolerance)?;
    let plain = cipher == Some(SignatureAlgorithm::Mac(MacAlgorithm::PlainSha256));
    if plain && !content.parts().contains(&ContentPart::Secret) {
        return fields.at().error(
            "anybody can make a plain hash without the secret",
            "add {secret} to `content`, or use sha256",
        );
    }
    if content.uses_id() && !id_source.is_some_and(EventIdSource::is_in_head) {
        return fields
            .at()
            .error("{id} is signed, but has no location", "add `id: {header: NAME}` or `id: {query: NAME}`");
    }
    Some(ContentScheme { algorithm: cipher?, content, encoding: encoding?, place, timestamp })
}

pub(super) fn require(at: &Cursor<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let one = |(name, at): (&str, Cursor<'_>)| {
        let header = HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| !name.contains('_'));
        let value = at.text().and_then(|text| HeaderValue::from_str(text).ok());
        match header.zip(value) {
            Some(pair) => Some(pair),
            None => at.error("expected a header and the value it must have", ""),
        }
    };
    let read: Vec<_> = at.named()?.into_iter().map(one).collect();
    read.into_iter().collect()
}

/// Reads the source of public keys: `keys: {url: …}` or `keys: {certificate: {header: …, hosts: […], path: …}}`.
pub(super) fn keys_at(at: &Cursor<'_>, kind: Kind) -> Option<PublicKeySource> {
    let mut fields = at.fields()?;
    let url = fields.optional("url").map(|at| at.fetchable());
    let certificate = match kind {
        Kind::Asymmetric | Kind::Sns => fields.optional("certificate").map(|at| certificate_rule(&at)),
        _ => None,
    };
    let all_known = fields.all_asked();
    fields.finish();
    if !all_known {
        return None;
    }
    match (url, certificate) {
        (Some(url), None) => url.map(PublicKeySource::Url),
        (None, Some(rule)) => rule.map(PublicKeySource::Certificate),
        _ => at.error("expected exactly one of url and certificate", "{url: https://…}"),
    }
}

/// Reads the rule for certificate URLs in messages: the location of the URL in a message, and the accepted hosts and
/// path.
pub(super) fn certificate_rule(at: &Cursor<'_>) -> Option<CertificateRule> {
    let mut fields = at.fields()?;
    let header = fields.optional("header").map(|at| at.header_name());
    let body = fields.optional("body").map(|at| at.pointer());
    let hosts = fields.required("hosts").and_then(|at| at.texts());
    let path = fields.required("path").and_then(|at| at.text());
    fields.finish();
    let source = match (header, body) {
        (Some(header), None) => header.map(CertificateSource::Header),
        (None, Some(pointer)) => pointer.map(CertificateSource::Body),
        _ => at.error("expected exactly one of header and body", ""),
    };
    Some(CertificateRule { source: source?, hosts: hosts?, path: path?.into() })
}

fn secret_format(at: &Cursor<'_>) -> Option<SecretFormat> {
    if at.is_map() {
        let mut fields = at.fields()?;
        let base64 = fields.optional("base64_after").and_then(|at| at.text());
        let utf8 = fields.optional("utf8_after").and_then(|at| at.text());
        fields.finish();
        return match (base64, utf8) {
            (Some(prefix), None) => Some(SecretFormat::Base64 { prefix: prefix.into() }),
            (None, Some(prefix)) => Some(SecretFormat::Utf8After { prefix: prefix.into() }),
            _ => at.error("expected exactly one of base64_after and utf8_after", ""),
        };
    }
    #[derive(Clone, Copy)]
    enum Word {
        Base64,
        Hex,
        IdAndSecret,
        Utf8,
    }
    let words = [
        ("base64", Word::Base64),
        ("hex", Word::Hex),
        ("id_and_secret", Word::IdAndSecret),
        ("utf8", Word::Utf8),
    ];
    Some(match at.one_of(&words)? {
        Word::Base64 => SecretFormat::Base64 { prefix: "".into() },
        Word::Hex => SecretFormat::Hex,
        Word::IdAndSecret => SecretFormat::IdAndSecret,
        Word::Utf8 => SecretFormat::Utf8,
    })
}

/// The location of the event id in a request: a part of the request, or a claim of the JWT.
enum IdLocation {
    At(EventIdSource),
    Claim(Box<str>),
    None,
}

fn id_of(at: &Cursor<'_>, kind: Kind) -> Option<IdLocation> {
    let mut fields = at.fields()?;
    let mut parts = request_parts(&mut fields);
    let claim = match kind {
        Kind::Jwt => fields.optional("claim").map(|at| at.text().map(|name| IdLocation::Claim(name.into()))),
        _ => None,
    };
    fields.finish();
    match (claim, parts.pop(), parts.is_empty()) {
        (Some(claim), None, true) => claim,
        (None, Some(part), true) => Some(IdLocation::At(match part? {
            RequestPart::Body(pointer) => EventIdSource::Body(pointer),
            RequestPart::Form(name) => EventIdSource::Form(name),
            RequestPart::Header(name) => EventIdSource::Header(name),
            RequestPart::Query(name) => EventIdSource::Query(name),
        })),
        _ => at.error(
            "expected exactly one of header, body, form, query and claim",
            "{header: NAME} or {body: /pointer}",
        ),
    }
}

/// Reads `timestamp: {header: NAME, unit: s}` of a signature scheme. Returns the location and the format of the
/// timestamp. The location is `None` if the setting names no location. In this case, the signature header must contain
/// the timestamp.
fn timestamp(at: &Cursor<'_>) -> Option<(Option<TimestampSource>, TimestampUnit)> {
    let mut fields = at.fields()?;
    let mut parts = request_parts(&mut fields);
    let unit = fields.optional("unit").map_or(Some(TimestampUnit::UnixSeconds), |at| at.one_of(UNITS));
    fields.finish();
    let source = match (parts.pop(), parts.is_empty()) {
        (_, false) => return at.error("the timestamp has several locations", "keep one of them"),
        (None, true) => None,
        (Some(part), true) => Some(match part? {
            RequestPart::Body(pointer) => TimestampSource::Body(pointer),
            RequestPart::Form(name) => TimestampSource::Form(name),
            RequestPart::Header(name) => TimestampSource::Header(name),
            RequestPart::Query(name) => TimestampSource::Query(name),
        }),
    };
    Some((source, unit?))
}

/// Checks that the timestamp of a signature scheme has a location and is signed, and reads its tolerance. `in_format`
/// is true if the signature header contains the timestamp. `stated` is the setting `timestamp`.
fn timestamp_rule(
    at: &Cursor<'_>,
    in_format: bool,
    content: &ContentTemplate,
    stated: Option<Option<(Option<TimestampSource>, TimestampUnit)>>,
    tolerance: Option<Cursor<'_>>,
) -> Option<Option<TimestampRule>> {
    let (stated, unit) = stated.map_or(Some((None, TimestampUnit::UnixSeconds)), |read| read)?;
    let source = match (stated, in_format) {
        (Some(_), true) => {
            return at.error(
                "there are two timestamps: one in `format`, one in `timestamp`",
                "keep one of the two",
            );
        }
        (None, true) => Some(TimestampSource::SignatureHeader),
        (source, false) => source,
    };
    let signed = match &source {
        Some(TimestampSource::Body(pointer)) => {
            content.covers_body() || content.signs_member(pointer) || content.uses_timestamp()
        }
        Some(TimestampSource::Form(name)) => {
            content.covers_body() || content.signs_field(name) || content.uses_timestamp()
        }
        Some(TimestampSource::Query(name)) => content.signs_parameter(name) || content.uses_timestamp(),
        _ => content.uses_timestamp(),
    };
    match (source, signed, tolerance) {
        (None, true, _) => {
            let hint = "put {timestamp} into `format`, or add `timestamp: {header: NAME}`";
            at.error("{timestamp} is signed, but has no location", hint)
        }
        (Some(_), false, _) => at.error(
            "`content` does not contain the timestamp, so anybody can change it",
            "add it to `content`, or remove `timestamp`",
        ),
        (None, false, Some(tolerance)) => {
            tolerance.error("this scheme has no timestamp", "remove `tolerance`")
        }
        (None, false, None) => Some(None),
        (Some(source), true, tolerance) => {
            let (past, future) =
                tolerance.map_or(Some((TOLERANCE_DEFAULT, TOLERANCE_DEFAULT)), |at| tolerance_of(&at))?;
            Some(Some(TimestampRule { source, unit, past, future }))
        }
    }
}

/// Reads the tolerance for timestamps: one duration for both directions, or `{past, future}`. A tolerance of more than
/// an hour in the past causes a warning.
pub(super) fn tolerance_of(at: &Cursor<'_>) -> Option<(Duration, Duration)> {
    let (past, future) = if at.is_map() {
        let mut fields = at.fields()?;
        let past = fields.required("past").and_then(|at| at.duration());
        let future = fields.required("future").and_then(|at| at.duration_or_zero());
        fields.finish();
        (past?, future?)
    } else {
        let both = at.duration()?;
        (both, both)
    };
    if past > TOLERANCE_QUIET_MAX {
        at.warn("during this long tolerance, anybody who has seen a request can send it again");
    }
    Some((past, future))
}
