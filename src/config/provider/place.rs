//! Reads the settings that several kinds of schemes have: the place of the signature, its algorithm and its encoding.

use std::time::Duration;

use crate::config::yaml::{Cursor, Fields};
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

/// Reads the place of a signature: `header` and `format`, or `signature_at: {body: /pointer}`.
pub(super) fn place(fields: &mut Fields<'_>) -> Option<SignaturePlace> {
    let within = fields.optional("signature_at");
    let separator = fields.optional("separator").map(|at| separator(&at));
    let format_at = fields.optional("format");
    if let Some(at) = within {
        let mut inner = at.fields()?;
        let pointer = inner.required("body").and_then(|at| at.pointer());
        inner.finish();
        if let Some(header) = fields.optional("header") {
            return header.error("`signature_at` and `header` exclude each other", "keep one of the two");
        }
        return pointer.map(SignaturePlace::Body);
    }
    let names = fields.required("header").and_then(|at| match at.list_or_one() {
        Some(list) => list.iter().map(Cursor::header_name).collect::<Option<Vec<_>>>(),
        None => None,
    });
    let separator = separator.flatten();
    let format = match format_at {
        None => HeaderFormat::parse("{signature}", separator).ok(),
        Some(at) => at.text().and_then(|text| match HeaderFormat::parse(text, separator) {
            Ok(format) => Some(format),
            Err(fault) => at.error(format!("`{text}` {fault}"), "such as t={timestamp},v1={signature}"),
        }),
    };
    Some(SignaturePlace::Headers { names: names?, format: format? })
}

fn separator(at: &Cursor<'_>) -> Option<char> {
    let text = at.text()?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c @ (',' | ';' | '&' | ' ')), None) => Some(c),
        _ => at.error("a separator is one of `,` `;` `&` and a space", ""),
    }
}
