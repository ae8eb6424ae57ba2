//! Reads the settings that several kinds of signature schemes have in common: the location of the signature, its
//! algorithm and its encoding.

use std::time::Duration;

use http::HeaderName;

use crate::config::yaml::{Cursor, Fields};
use crate::json::Pointer;
use crate::signature::{Encoding, HeaderFormat, PublicKeyAlgorithm, SignaturePlace};

/// The default tolerance for timestamps, both in the past and in the future.
pub(super) const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);

pub(super) const PUBLIC: &[(&str, PublicKeyAlgorithm)] = &[
    ("ecdsa-p256-sha256", PublicKeyAlgorithm::EcdsaP256Der),
    ("ecdsa-p384-sha384", PublicKeyAlgorithm::EcdsaP384Der),
    ("ed25519", PublicKeyAlgorithm::Ed25519),
    ("rsa-pkcs1-sha1", PublicKeyAlgorithm::RsaPkcs1Sha1),
    ("rsa-pkcs1-sha256", PublicKeyAlgorithm::RsaPkcs1Sha256),
    ("rsa-pss-sha256", PublicKeyAlgorithm::RsaPssSha256),
];

pub(super) const ENCODINGS: &[(&str, Encoding)] =
    &[("base64", Encoding::Base64), ("base64url", Encoding::Base64Url), ("hex", Encoding::Hex)];

/// A part of a request that a setting names, such as the location of the event id.
pub(super) enum RequestPart {
    /// The part is the value at this JSON pointer in the JSON body.
    Body(Pointer),
    /// The part is the form field of this name in the body.
    Form(Box<str>),
    /// The part is the request header of this name.
    Header(HeaderName),
    /// The part is the query parameter of this name.
    Query(Box<str>),
}

/// Reads the keys `body`, `form`, `header` and `query` of a mapping. The result has an element for each key that is
/// present: the part of the request, or `None` if the value of the key has a mistake.
pub(super) fn request_parts(fields: &mut Fields<'_>) -> Vec<Option<RequestPart>> {
    let body = fields.optional("body").map(|at| at.pointer().map(RequestPart::Body));
    let form = fields.optional("form").map(|at| at.field_name().map(|name| RequestPart::Form(name.into())));
    let header = fields.optional("header").map(|at| at.header_name().map(RequestPart::Header));
    let query =
        fields.optional("query").map(|at| at.field_name().map(|name| RequestPart::Query(name.into())));
    [body, form, header, query].into_iter().flatten().collect()
}

/// Reads the location of a signature: `header` and `format`, or `signature_at` with one of `body`, `form` and `query`.
pub(super) fn place(fields: &mut Fields<'_>) -> Option<SignaturePlace> {
    let within = fields.optional("signature_at");
    let separator_at = fields.optional("separator");
    let separator = separator_at.as_ref().map(separator);
    let format_at = fields.optional("format");
    if let Some(at) = within {
        if let Some(header) = fields.optional("header") {
            return header.error("`signature_at` and `header` exclude each other", "keep one of the two");
        }
        if let Some(format) = format_at.or(separator_at) {
            return format.error("only a signature in a header has a format", "remove it");
        }
        return signature_at(&at);
    }
    let names = fields.required("header").and_then(|at| match at.list_or_one() {
        Some(list) => list.iter().map(Cursor::header_name).collect::<Option<Vec<_>>>(),
        None => None,
    });
    let (separator, commas) = separator.flatten().map_or((None, false), |(c, commas)| (Some(c), commas));
    let complete = |format: HeaderFormat| if commas { format.with_commas() } else { format };
    let format = match format_at {
        None => HeaderFormat::parse("{signature}", separator).ok().map(complete),
        Some(at) => at.text().and_then(|text| match HeaderFormat::parse(text, separator) {
            Ok(format) => Some(complete(format)),
            Err(fault) => at.error(format!("`{text}` {fault}"), "such as t={timestamp},v1={signature}"),
        }),
    };
    Some(SignaturePlace::Headers { names: names?, format: format? })
}

fn signature_at(at: &Cursor<'_>) -> Option<SignaturePlace> {
    let mut inner = at.fields()?;
    let mut parts = request_parts(&mut inner);
    inner.finish();
    match (parts.pop(), parts.is_empty()) {
        (Some(part), true) => match part? {
            RequestPart::Body(pointer) => Some(SignaturePlace::Body(pointer)),
            RequestPart::Form(name) => Some(SignaturePlace::Form(name)),
            RequestPart::Query(name) => Some(SignaturePlace::Query(name)),
            RequestPart::Header(_) => {
                at.error("a signature in a header is described by `header` and `format`", "header: NAME")
            }
        },
        _ => at.error(
            "expected exactly one of body, form and query",
            "{body: /pointer}, {form: NAME} or {query: NAME}",
        ),
    }
}

/// Reads the separator of a list in a header: `,`, `;`, `&`, a space, or a comma with a space. Returns the character
/// that separates the elements, and false. For a comma with a space, returns the space, and true. The value true means
/// that an element may end with a comma.
fn separator(at: &Cursor<'_>) -> Option<(char, bool)> {
    match at.text()? {
        "," => Some((',', false)),
        ";" => Some((';', false)),
        "&" => Some(('&', false)),
        " " => Some((' ', false)),
        ", " => Some((' ', true)),
        _ => at.error("a separator is one of `,` `;` `&`, a space, and a comma with a space", ""),
    }
}
