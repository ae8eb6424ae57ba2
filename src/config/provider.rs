//! `providers`: where callbacks may come from and how they are signed.

use std::time::Duration;

use super::presets;
use super::reader::{Cursor, Fields};
use super::words::{did_you_mean, is_name, shown};
use crate::ingress::Provider;
use crate::secret::Secret;
use crate::signature::{
    Algorithm, Content, Encoding, Format, IdSource, KeyForm, Part, Scheme, TimestampRule, TimestampSource,
    TimestampUnit, Verifier,
};
use crate::source::Networks;

/// How far a timestamp may be off, both ways, unless said otherwise.
const TOLERANCE_DEFAULT: Duration = Duration::from_secs(300);

/// From here on a tolerance is worth a warning.
const TOLERANCE_QUIET_MAX: Duration = Duration::from_secs(3600);

const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("sha1", Algorithm::HmacSha1),
    ("sha256", Algorithm::HmacSha256),
    ("sha384", Algorithm::HmacSha384),
    ("sha512", Algorithm::HmacSha512),
];

const ENCODINGS: &[(&str, Encoding)] =
    &[("base64", Encoding::Base64), ("base64url", Encoding::Base64Url), ("hex", Encoding::Hex)];

const UNITS: &[(&str, TimestampUnit)] = &[
    ("ms", TimestampUnit::UnixMilliseconds),
    ("rfc3339", TimestampUnit::Rfc3339),
    ("s", TimestampUnit::UnixSeconds),
];

/// Reads one provider.
pub(super) fn provider(name: &str, at: &Cursor<'_>, has_public_url: bool) -> Option<Provider> {
    if !is_name(name) {
        return at.bad_name(name);
    }
    let mut fields = at.fields()?;
    let allow = fields.optional("allow").map(|at| {
        let networks = Networks::new(at.networks()?);
        if networks.is_everything() {
            at.warn("every address is allowed");
        }
        Some(networks)
    });
    let preset = fields.optional("preset");
    let signature = fields.optional("signature");
    let verifier = match (preset, signature) {
        (Some(preset), signature) => {
            let verifier = with_preset(&preset, &mut fields);
            match signature {
                Some(at) => Some(at.error("the preset brings its signature", "keep one of the two")),
                None => Some(verifier),
            }
        }
        (None, Some(signature)) => Some(verifier(&signature, has_public_url)),
        (None, None) => {
            if let Some(at) = fields.optional("secrets") {
                let hint = "name a `preset`, or put them under `signature`";
                let _: Option<()> = at.error("secrets of which scheme?", hint);
            }
            None
        }
    };
    fields.finish();
    Some(Provider {
        name: name.into(),
        allow: allow.map_or(Some(None), |read| read.map(Some))?,
        verifier: verifier.map_or(Some(None), |read| read.map(Some))?,
    })
}

fn with_preset(at: &Cursor<'_>, fields: &mut Fields<'_>) -> Option<Verifier> {
    let secrets_at = fields.required("secrets");
    let tolerance = fields.optional("tolerance").map(|at| tolerance_of(&at));
    let scheme = preset_scheme(at)?;
    let secrets_at = secrets_at?;
    build(&secrets_at, with_tolerance(at, scheme, tolerance)?)
}

fn preset_scheme(at: &Cursor<'_>) -> Option<Scheme> {
    let name = at.text()?;
    match presets::scheme(name) {
        Some(scheme) => Some(scheme),
        None => at.error(format!("{} is not a preset", shown(name)), did_you_mean(name, &presets::names())),
    }
}

/// Reads `signature`: the generic `hmac` scheme, field by field, or a named one.
fn verifier(at: &Cursor<'_>, has_public_url: bool) -> Option<Verifier> {
    let mut fields = at.fields()?;
    let scheme_at = fields.required("scheme")?;
    let name = scheme_at.text()?;
    let scheme = if name == "hmac" {
        let scheme = scheme(&mut fields);
        if let Some(scheme) = &scheme
            && scheme.content.parts().contains(&Part::Url)
            && !has_public_url
        {
            let _: Option<()> =
                at.error("{url} is signed, but there is no `public_url` to compare it with", "");
        }
        scheme
    } else {
        let tolerance = fields.optional("tolerance").map(|at| tolerance_of(&at));
        match presets::scheme(name) {
            Some(scheme) => with_tolerance(&scheme_at, scheme, tolerance),
            None => {
                let mut known = presets::names();
                known.push("hmac");
                scheme_at.error(format!("{} is not a scheme", shown(name)), did_you_mean(name, &known))
            }
        }
    };
    let secrets = fields.required("secrets");
    if scheme.is_some() || name == "hmac" {
        fields.finish();
    }
    build(&secrets?, scheme?)
}

fn build(secrets_at: &Cursor<'_>, scheme: Scheme) -> Option<Verifier> {
    let secrets: Vec<Secret> = secrets_at.secrets()?;
    match Verifier::new(scheme, &secrets) {
        Ok(verifier) => Some(verifier),
        Err((index, fault)) => {
            let list = secrets_at.list()?;
            list.get(index).unwrap_or(secrets_at).error(format!("the secret {fault}"), "")
        }
    }
}

/// How far a timestamp may be off. Longer than an hour is allowed, but said aloud: a captured request can be
/// sent again for as long.
fn tolerance_of(at: &Cursor<'_>) -> Option<Duration> {
    let tolerance = at.duration()?;
    if tolerance > TOLERANCE_QUIET_MAX {
        at.warn("a captured request can be sent again for this long");
    }
    Some(tolerance)
}

fn with_tolerance(
    at: &Cursor<'_>,
    mut scheme: Scheme,
    tolerance: Option<Option<Duration>>,
) -> Option<Scheme> {
    let Some(tolerance) = tolerance else { return Some(scheme) };
    let tolerance = tolerance?;
    match &mut scheme.timestamp {
        Some(rule) => {
            (rule.past, rule.future) = (tolerance, tolerance);
            Some(scheme)
        }
        None => {
            at.error("this scheme has no timestamp, so there is nothing to tolerate", "take `tolerance` out")
        }
    }
}

/// Reads the fields of the generic `hmac` scheme: a user's, or a preset's.
pub(super) fn scheme(fields: &mut Fields<'_>) -> Option<Scheme> {
    let algorithm = fields.required("algorithm").and_then(|at| at.one_of(ALGORITHMS));
    let headers = fields.required("header").and_then(|at| match at.list_or_one() {
        Some(list) => list.iter().map(Cursor::header_name).collect::<Option<Vec<_>>>(),
        None => None,
    });
    let separator = fields.optional("separator").map(|at| separator(&at));
    let format = match fields.optional("format") {
        None => Format::parse("{signature}", separator.flatten()).ok(),
        Some(at) => {
            let separator = separator.flatten();
            at.text().and_then(|text| match Format::parse(text, separator) {
                Ok(format) => Some(format),
                Err(fault) => at.error(format!("`{text}` {fault}"), "such as t={timestamp},v1={signature}"),
            })
        }
    };
    let content = fields.required("content").and_then(|at| {
        at.text().and_then(|text| match Content::parse(text) {
            Ok(content) => Some(content),
            Err(fault) => at.error(format!("`{text}` {fault}"), "such as {timestamp}.{body}"),
        })
    });
    let encoding = fields.required("encoding").and_then(|at| at.one_of(ENCODINGS));
    let key_form = fields.optional("key").map_or(Some(KeyForm::Utf8), |at| key_form(&at));
    let id = fields.optional("id").map(|at| id_of(&at));
    let tolerance = fields.optional("tolerance");
    let stated = fields.optional("timestamp");
    let header = stated.as_ref().map(timestamp);
    let (format, content) = (format?, content?);
    let nowhere = matches!(header, Some(Some((None, _)))) && !format.has_timestamp();
    if let (Some(at), true) = (stated, nowhere) {
        return at
            .error("there is no timestamp to be in this unit", "add `header`, or {timestamp} to `format`");
    }
    let timestamp = timestamp_rule(fields.at(), &format, &content, header, tolerance)?;
    let id = id.map_or(Some(None), |read| read.map(Some))?;
    if content.uses_id() && !matches!(id, Some(IdSource::Header(_))) {
        return fields.at().error("{id} is signed, but nothing says where it is", "add `id: {header: NAME}`");
    }
    let (algorithm, encoding, headers, key_form) = (algorithm?, encoding?, headers?, key_form?);
    Some(Scheme { algorithm, content, encoding, format, headers, id, key_form, timestamp })
}

fn separator(at: &Cursor<'_>) -> Option<char> {
    let text = at.text()?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c @ (',' | ';' | '&' | ' ')), None) => Some(c),
        _ => at.error("a separator is one of `,` `;` `&` and a space", ""),
    }
}

fn key_form(at: &Cursor<'_>) -> Option<KeyForm> {
    if at.is_map() {
        let mut fields = at.fields()?;
        let prefix = fields.required("base64_after").and_then(|at| at.text());
        fields.finish();
        return Some(KeyForm::Base64 { prefix: prefix?.into() });
    }
    #[derive(Clone, Copy)]
    enum Word {
        Base64,
        Hex,
        Utf8,
    }
    Some(match at.one_of(&[("base64", Word::Base64), ("hex", Word::Hex), ("utf8", Word::Utf8)])? {
        Word::Base64 => KeyForm::Base64 { prefix: "".into() },
        Word::Hex => KeyForm::Hex,
        Word::Utf8 => KeyForm::Utf8,
    })
}

fn id_of(at: &Cursor<'_>) -> Option<IdSource> {
    let mut fields = at.fields()?;
    let header = fields.optional("header").map(|at| at.header_name());
    let body = fields.optional("body").map(|at| at.pointer());
    fields.finish();
    match (header, body) {
        (Some(header), None) => header.map(IdSource::Header),
        (None, Some(pointer)) => pointer.map(IdSource::Body),
        _ => at.error("expected exactly one of header and body", "{header: NAME} or {body: /pointer}"),
    }
}

/// `timestamp: {header: NAME, unit: s}`; without a header it is the field of the signature header.
fn timestamp(at: &Cursor<'_>) -> Option<(Option<http::HeaderName>, TimestampUnit)> {
    let mut fields = at.fields()?;
    let header = fields.optional("header").map(|at| at.header_name());
    let unit = fields.optional("unit").map_or(Some(TimestampUnit::UnixSeconds), |at| at.one_of(UNITS));
    fields.finish();
    Some((header.map_or(Some(None), |read| read.map(Some))?, unit?))
}

/// Holds together where the timestamp comes from, whether it is signed, and how old it may be.
fn timestamp_rule(
    at: &Cursor<'_>,
    format: &Format,
    content: &Content,
    stated: Option<Option<(Option<http::HeaderName>, TimestampUnit)>>,
    tolerance: Option<Cursor<'_>>,
) -> Option<Option<TimestampRule>> {
    let (header, unit) = stated.map_or(Some((None, TimestampUnit::UnixSeconds)), |read| read)?;
    let source = match (header, format.has_timestamp()) {
        (Some(_), true) => return at.error("two timestamps: one in `format`, one in a header", "keep one"),
        (Some(name), false) => Some(TimestampSource::Header(name)),
        (None, true) => Some(TimestampSource::SignatureHeader),
        (None, false) => None,
    };
    match (source, content.uses_timestamp(), tolerance) {
        (None, true, _) => {
            let hint = "put {timestamp} into `format`, or add `timestamp: {header: NAME}`";
            at.error("{timestamp} is signed, but nothing says where it is", hint)
        }
        (Some(_), false, _) => at.error(
            "there is a timestamp, but `content` does not sign it",
            "anyone could renew it: sign it or leave it out",
        ),
        (None, false, Some(tolerance)) => tolerance
            .error("this scheme has no timestamp, so there is nothing to tolerate", "take `tolerance` out"),
        (None, false, None) => Some(None),
        (Some(source), true, tolerance) => {
            let tolerance = tolerance.map_or(Some(TOLERANCE_DEFAULT), |at| tolerance_of(&at))?;
            Some(Some(TimestampRule { source, unit, past: tolerance, future: tolerance }))
        }
    }
}
