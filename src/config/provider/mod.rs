//! Reads the configuration section `providers`: the addresses from which providers call, and their signatures.

mod allow;
mod convention;
mod definition;
mod event_identity;
mod fetched_documents;
mod handshake_rules;
mod keys;
mod own_scheme;
mod place;
mod presets;
mod proof;
mod published_paths;
mod signature_scheme;

use crate::body::content_coding::ContentCoding;
use crate::config::yaml::{Cursor, Fields, did_you_mean, is_name, shown};
use crate::ingress::Provider;
use crate::signature::{ExpectedClaim, Proof, Scheme, SharedSecretPlace, SignaturePlace, Verifier};
use allow::allow;
use event_identity::{apply_rule, warn_if_indistinguishable};
use handshake_rules::own_handshakes;
use keys::keyed;
use own_scheme::check;
use proof::leeway_of;
use signature_scheme::{KINDS, Kind, MACS, keys_at, require, scheme, tolerance_of};

pub use convention::{CallbackConvention, TokenReturn};
pub use definition::{Addresses, Evidence, PresetDefinition};
pub use presets::{EDGES, PRESETS, Preset, preset};

pub(super) use convention::locations;
pub(super) use fetched_documents::{fetching, list as address_list};
pub(super) use presets::{callback_convention, edge, scheme_of};
pub(super) use published_paths::documents;

/// Reads the settings of one provider. `has_public_url` is true if the configuration has the setting `public_url`.
pub(super) fn provider(name: &str, at: &Cursor<'_>, has_public_url: bool) -> Option<Provider> {
    if !is_name(name) {
        return at.bad_name(name);
    }
    let mut fields = at.fields()?;
    let preset_at = fields.optional("preset");
    let entry = match &preset_at {
        None => Some(None),
        Some(at) => at.text().and_then(|name| match presets::preset(name) {
            Some((preset, entry)) => Some(Some((preset.name, entry))),
            None => {
                at.error(format!("{} is not a preset", shown(name)), did_you_mean(name, &presets::names()))
            }
        }),
    };
    let known = entry.as_ref().and_then(|entry| entry.as_ref());
    let own_url_at = fields.optional("public_url");
    let own_url = own_url_at.as_ref().map(|at| at.public_url(false));
    let has_public_url = has_public_url || own_url_at.is_some();
    let decode = fields.optional("decode").map_or(Some(Vec::new()), |at| codings(&at));
    let allow = fields.optional("allow").map(|at| allow(&at, known.map(|(_, entry)| entry)));
    let signature = fields.optional("signature");
    let verifier = match (known, signature) {
        (Some((_, preset)), signature) => {
            let verifier = with_preset(preset, &mut fields, has_public_url);
            match signature {
                Some(at) => Some(at.error("the preset defines the signature", "keep one of the two")),
                None => verifier,
            }
        }
        (None, Some(signature)) => Some(verifier(&signature, has_public_url)),
        (None, None) => {
            if let Some(at) = fields.optional("secrets").filter(|_| preset_at.is_none()) {
                let hint = "add a `preset`, or move the secrets to `signature`";
                let _: Option<()> = at.error("the secrets have no scheme", hint);
            }
            None
        }
    };
    let preset = known.map(|(_, preset)| preset);
    let reads_answer = answer(fields.optional("answer"), preset);
    let published = fields.optional("well_known").map_or(Some(None), |at| well_known(&at, preset));
    if entry.is_some() {
        fields.finish();
    }
    let verifier = verifier.map_or(Some(None), |read| read.map(Some))?;
    if let (Some(at), false) =
        (own_url_at, verifier.as_ref().is_some_and(|verifier| verifier.scheme().uses_url()))
    {
        return at.error("no signature of this provider covers the URL", "remove `public_url`");
    }
    Some(Provider {
        published: published?,
        name: name.into(),
        preset: entry?.map(|(name, _)| name),
        allow: allow.map_or(Some(None), |read| read.map(Some))?,
        decode: decode?,
        reads_answer: reads_answer?,
        public_url: own_url.map_or(Some(None), |read| read.map(|url| Some(url.into())))?,
        verifier,
    })
}

/// Reads the setting `answer` of a provider: whether the provider reads the response to its callbacks.
fn answer(at: Option<Cursor<'_>>, preset: Option<&PresetDefinition>) -> Option<bool> {
    let default = preset.is_some_and(|preset| preset.reads_answer);
    at.map_or(Some(default), |at| at.one_of(&[("read", true), ("ignored", false)]))
}

/// Reads the setting `well_known` of a provider. Returns the path of the document in which the provider looks up the
/// paths that accept its messages. Returns `Some(None)` if Callgate does not publish the document.
fn well_known(at: &Cursor<'_>, preset: Option<&PresetDefinition>) -> Option<Option<Box<str>>> {
    match preset.and_then(|preset| preset.well_known.clone()) {
        Some(path) => at.one_of(&[("publish", true), ("none", false)]).map(|publish| publish.then_some(path)),
        None => at.error("this provider does not read such a document", "remove `well_known`"),
    }
}

/// Reads the setting `decode` of a provider: the content codings that Callgate decodes.
fn codings(at: &Cursor<'_>) -> Option<Vec<ContentCoding>> {
    let words = [ContentCoding::Brotli, ContentCoding::Deflate, ContentCoding::Gzip];
    let words = words.map(|coding| (coding.name(), coding));
    let read: Vec<_> = at.list_or_one()?.iter().map(|at| at.one_of(&words)).collect();
    read.into_iter().collect()
}

/// Reads the settings of a provider with a preset, such as `secrets` and `tolerance`. Returns the verifier of the
/// provider's signatures. Returns `None` if the preset has no signature scheme, and `Some(None)` if the settings have
/// mistakes.
fn with_preset(
    preset: &PresetDefinition,
    fields: &mut Fields<'_>,
    has_public_url: bool,
) -> Option<Option<Verifier>> {
    let Some(scheme) = preset.scheme.clone() else {
        if let Some(at) = fields.optional("secrets") {
            return Some(at.error(
                format!("{} does not sign, so it has no secret", preset.title),
                "the callback URL and its token protect the route",
            ));
        }
        return None;
    };
    Some(preset_verifier(preset, scheme, fields, has_public_url))
}

fn preset_verifier(
    preset: &PresetDefinition,
    mut scheme: Scheme,
    fields: &mut Fields<'_>,
    has_public_url: bool,
) -> Option<Verifier> {
    let tolerance = fields.optional("tolerance").map(|at| tolerance(&at, &mut scheme));
    let leeway = fields.optional("leeway").map(|at| leeway(&at, &mut scheme));
    let header = fields.optional("header").map(|at| header(&at, preset, &mut scheme));
    let algorithm = fields.optional("algorithm").map(|at| algorithm(&at, preset, &mut scheme));
    let expect = expect(fields, preset, &mut scheme);
    let keys = fields.optional("keys").map(|at| own_keys(&at, preset, &mut scheme));
    let require = fields.optional("require").map(|at| {
        scheme.require.extend(require(&at)?);
        Some(())
    });
    let duplicates = fields.optional("duplicates").map(|at| apply_rule(&at, &mut scheme));
    warn_if_indistinguishable(fields.at(), &scheme);
    if !fields.has("secrets") && preset.sends_token_as_secret(&scheme) {
        // The header contains the token of the interaction instead of a fixed secret. The route verifies this token, so
        // the signature scheme verifies nothing.
        scheme.proof = Proof::None;
    }
    let verifier = keyed(fields, scheme, has_public_url);
    duplicates.unwrap_or(Some(()))?;
    keys.unwrap_or(Some(()))?;
    require.unwrap_or(Some(()))?;
    tolerance.unwrap_or(Some(()))?;
    leeway.unwrap_or(Some(()))?;
    header.unwrap_or(Some(()))?;
    algorithm.unwrap_or(Some(()))?;
    expect?;
    verifier
}

fn tolerance(at: &Cursor<'_>, scheme: &mut Scheme) -> Option<()> {
    let (past, future) = tolerance_of(at)?;
    match scheme.timestamp_mut() {
        Some(rule) => {
            (rule.past, rule.future) = (past, future);
            Some(())
        }
        None => at.error("this scheme has no timestamp", "remove `tolerance`"),
    }
}

/// Reads the setting `leeway` of a provider: the accepted clock difference for the times in a JWT.
fn leeway(at: &Cursor<'_>, scheme: &mut Scheme) -> Option<()> {
    let leeway = leeway_of(at)?;
    match &mut scheme.proof {
        Proof::Jwt(jwt) => {
            jwt.leeway = leeway;
            Some(())
        }
        _ => at.error("this provider sends no JWT", "remove `leeway`, or use `tolerance` for a timestamp"),
    }
}

/// Reads the setting `algorithm` of a provider whose preset lets the user choose the MAC algorithm.
fn algorithm(at: &Cursor<'_>, preset: &PresetDefinition, scheme: &mut Scheme) -> Option<()> {
    if preset.algorithms.is_empty() {
        return at.error(format!("{} has a fixed algorithm", preset.title), "remove `algorithm`");
    }
    let accepted: Vec<_> =
        MACS.iter().filter(|(_, known)| preset.algorithms.contains(known)).copied().collect();
    let algorithm = at.one_of(&accepted)?;
    let name = |algorithm| MACS.iter().find(|(_, known)| *known == algorithm).map(|(name, _)| *name);
    let names = (name(scheme.mac_algorithm()?)?, name(algorithm)?);
    scheme.set_mac_algorithm(algorithm, names);
    Some(())
}

/// Reads the setting `header` of a provider whose preset lets the user choose the header that contains the secret.
fn header(at: &Cursor<'_>, preset: &PresetDefinition, scheme: &mut Scheme) -> Option<()> {
    let name = at.header_name()?;
    match &mut scheme.proof {
        Proof::SharedSecret(SharedSecretPlace::At(SignaturePlace::Headers { names, .. }))
            if preset.header_is_yours =>
        {
            *names = vec![name];
            Some(())
        }
        _ => at.error(format!("{} has a fixed header", preset.title), "remove `header`"),
    }
}

/// Reads the setting `keys` of a provider with a preset: a source of public keys. It replaces the source in the preset.
fn own_keys(at: &Cursor<'_>, preset: &PresetDefinition, scheme: &mut Scheme) -> Option<()> {
    if !scheme.uses_public_keys() || matches!(scheme.proof, Proof::Sns) {
        return at.error(format!("{} publishes no keys", preset.title), "remove `keys`");
    }
    let kind = match &scheme.proof {
        Proof::Content(_) => Kind::Asymmetric,
        Proof::MessageSignature(_) => Kind::Message,
        _ => Kind::Jwt,
    };
    scheme.keys = Some(keys_at(at, kind)?);
    Some(())
}

/// Reads the setting `expect` of a provider: the required values of JWT claims. Reports an error if `expect` lacks a
/// claim for which the preset requires a value from the user.
fn expect(fields: &mut Fields<'_>, preset: &PresetDefinition, scheme: &mut Scheme) -> Option<()> {
    let at = fields.optional("expect");
    let Proof::Jwt(jwt) = &mut scheme.proof else {
        return match at {
            Some(at) => at.error("this provider sends no claims", "remove `expect`"),
            None => Some(()),
        };
    };
    let given = match &at {
        None => Vec::new(),
        Some(at) => at.named()?,
    };
    for name in &preset.expect {
        if given.iter().all(|(given, _)| *given != &**name) {
            let hint =
                "otherwise everybody with a token of the same issuer has access: `expect: {NAME: VALUE}`";
            return at.as_ref().unwrap_or(fields.at()).error(format!("`expect` must contain {name}"), hint);
        }
    }
    for (name, at) in given {
        let texts =
            at.list_or_one()?.iter().map(|at| at.text().map(Into::into)).collect::<Option<Vec<_>>>()?;
        let claim = match name {
            "audience" => "aud",
            "issuer" => "iss",
            "subject" => "sub",
            other => other,
        };
        jwt.claims.retain(|(known, _)| **known != *claim);
        jwt.claims.push((claim.into(), ExpectedClaim::OneOf(texts)));
        // An email address identifies the sender only if the issuer has verified the address.
        if claim == "email" {
            jwt.claims.push(("email_verified".into(), ExpectedClaim::OneOf(vec!["true".into()])));
        }
    }
    Some(())
}

/// Reads the setting `signature` of a provider: the fields of a signature scheme, or the name of a preset in `scheme`.
/// Returns the verifier of the provider's signatures.
fn verifier(at: &Cursor<'_>, has_public_url: bool) -> Option<Verifier> {
    let mut fields = at.fields()?;
    let scheme_at = fields.required("scheme")?;
    let name = scheme_at.text()?;
    let kind = KINDS.iter().find(|(word, _)| *word == name).map(|(_, kind)| *kind);
    let (scheme, entry) = match kind {
        Some(kind) => {
            let accepted = fields
                .optional("unsigned_body")
                .map_or(Some(false), |at| at.one_of(&[("accept", true), ("refuse", false)]));
            let handshakes = fields.optional("handshakes").map(|at| own_handshakes(&at, kind != Kind::None));
            let scheme = scheme(kind, &mut fields);
            let scheme = handshakes
                .map_or(Some(Vec::new()), |read| read)
                .and_then(|handshakes| Some(Scheme { handshakes, ..scheme? }));
            if let (Some(scheme), Some(accepted)) = (&scheme, accepted) {
                check(at, &mut fields, scheme, accepted);
                warn_if_indistinguishable(at, scheme);
            }
            (scheme, None)
        }
        None => match presets::preset(name).and_then(|(_, entry)| Some((entry.scheme.clone()?, entry))) {
            Some((scheme, entry)) => (Some(scheme), Some(entry)),
            None => {
                let mut known = presets::names();
                known.extend(KINDS.iter().map(|(word, _)| *word));
                return scheme_at
                    .error(format!("{} is not a scheme", shown(name)), did_you_mean(name, &known));
            }
        },
    };
    let verifier = match (scheme, entry) {
        (Some(scheme), Some(entry)) => preset_verifier(&entry, scheme, &mut fields, has_public_url),
        (Some(scheme), None) => keyed(&mut fields, scheme, has_public_url),
        (None, _) => {
            for key in ["secrets", "verify_token", "subscriptions", "registration", "certificates"] {
                let _ = fields.optional(key);
            }
            None
        }
    };
    fields.finish();
    verifier
}

#[cfg(test)]
mod tests;
