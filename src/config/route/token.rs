//! Reads the configuration section `callback_tokens`, and the setting `token` of a route.

use std::sync::Arc;
use std::time::Duration;

use crate::config::repeated::repeated;
use crate::config::yaml::{Cursor, Fields, did_you_mean};
use crate::ingress::{Carrier, TokenRule};
use crate::path::{TOKEN_CAPTURE, Template};
use crate::policy::{Minting, TTL_MAX};
use crate::secret::Secret;
use crate::token::{
    Algorithm, CallbackVerifier, Deriver, Family, Form, JwtRules, JwtVerifier, Key, KeyMaterial, Minter,
    OpaqueKey, SHARED_KEY_BYTES_MIN,
};

/// The compiled configuration section `callback_tokens`.
#[derive(Clone)]
pub(crate) struct CallbackTokens {
    pub(crate) minting: Minting,
    pub(crate) verifier: Arc<CallbackVerifier>,
    secrets: Vec<Secret>,
}

impl CallbackTokens {
    /// Reports whether `material` is also a configured key of callback tokens.
    pub(crate) fn are_minted_with(&self, material: &Secret) -> bool {
        self.secrets.iter().any(|secret| secret.matches(material.expose()))
    }
}

/// The name of the query parameter that contains a static token on a route with `from: query`.
const STATIC_PARAMETER: &str = "token";

/// The default of `callback_tokens.ttl`, the lifetime of a callback token.
const TTL_DEFAULT: Duration = Duration::from_secs(3600);

/// Reads the configuration section `callback_tokens`.
///
/// `public_url` is `None` if this setting is missing, and `Some(None)` if it has a mistake. `has_replicas` is true if
/// each replica has its own ledger.
pub(crate) fn callback_tokens(
    at: &Cursor<'_>,
    public_url: Option<Option<&str>>,
    has_replicas: bool,
) -> Option<CallbackTokens> {
    let mut fields = at.fields()?;
    let ttl = fields.optional("ttl").map_or(Some(TTL_DEFAULT), |at| match at.duration()? {
        ttl if ttl < Duration::from_secs(1) || ttl > TTL_MAX => at.error("must be between 1s and 366d", ""),
        ttl => Some(ttl),
    });
    let keys = fields.required("keys").and_then(|at| minting_keys(&at));
    let form = fields.optional("form").map_or(Some(Form::Jwt), |at| {
        let form = at.one_of(&[("jwt", Form::Jwt), ("opaque", Form::Opaque)])?;
        if form == Form::Opaque && has_replicas {
            return at.error(
                "only the ledger of the replica that minted an opaque token knows its rights",
                "use `store: { kind: redis }`, `form: jwt`, or one replica",
            );
        }
        Some(form)
    });
    fields.finish();
    let Some(public_url) = public_url else {
        return at.error("callback tokens need a `public_url`", "their URLs begin with it");
    };
    let (keys, public_url) = (keys?, public_url?);
    let (id, algorithm, secret) = keys.first()?;
    let minter = Minter::new(id, *algorithm, secret, public_url).ok()?;
    let verifying = keys
        .iter()
        .map(|(id, algorithm, secret)| Key::new(Some(id), *algorithm, KeyMaterial::Shared(secret)).ok())
        .collect::<Option<Vec<_>>>()?;
    let derivers = keys.iter().map(|(_, _, secret)| Deriver::new(secret)).collect::<Option<Vec<_>>>()?;
    let opaque = keys.iter().map(|(_, _, secret)| OpaqueKey::new(secret)).collect::<Option<Vec<_>>>()?;
    let verifier = CallbackVerifier::new(verifying, derivers, opaque, public_url);
    let minter = minter.with_form(form?);
    let secrets = keys.into_iter().map(|(_, _, secret)| secret).collect();
    Some(CallbackTokens { minting: Minting { minter, ttl: ttl? }, verifier: Arc::new(verifier), secrets })
}

fn minting_keys(at: &Cursor<'_>) -> Option<Vec<(String, Algorithm, Secret)>> {
    let list = at.list()?;
    let read: Vec<_> = list.iter().map(minting_key).collect();
    let keys = read.into_iter().collect::<Option<Vec<_>>>()?;
    unique_ids(at, &list, keys.iter().map(|(id, _, _)| Some(id.as_str())))?;
    Some(keys)
}

fn minting_key(at: &Cursor<'_>) -> Option<(String, Algorithm, Secret)> {
    let mut fields = at.fields()?;
    let id = fields.required("id").and_then(|at| at.name());
    let algorithm = fields.required("algorithm").and_then(|at| {
        let algorithm = algorithm(&at)?;
        if algorithm.family() != Family::Hmac {
            return at.error("callback tokens need HS256, HS384 or HS512", "only Callgate has the key");
        }
        Some(algorithm)
    });
    let secret = fields.required("secret").and_then(|at| shared(&at));
    fields.finish();
    Some((id?.to_owned(), algorithm?, secret?))
}

pub(crate) fn algorithm(at: &Cursor<'_>) -> Option<Algorithm> {
    let name = at.text()?;
    if let Some(algorithm) = Algorithm::from_name(name) {
        return Some(algorithm);
    }
    let known: Vec<_> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
    at.error(format!("`{name}` is not an algorithm"), did_you_mean(name, &known))
}

pub(crate) fn shared(at: &Cursor<'_>) -> Option<Secret> {
    let secret = at.secret()?;
    if secret.len() < SHARED_KEY_BYTES_MIN {
        let message =
            format!("the secret has {} bytes; at least {SHARED_KEY_BYTES_MIN} are needed", secret.len());
        return at.error(message, "openssl rand -base64 32");
    }
    Some(secret)
}

fn unique_ids<'k>(
    at: &Cursor<'_>,
    list: &[Cursor<'_>],
    ids: impl Iterator<Item = Option<&'k str>>,
) -> Option<()> {
    let ids: Vec<_> = ids.enumerate().filter_map(|(i, id)| Some((i, id?))).collect();
    match repeated(&ids, |(_, a), (_, b)| a.cmp(b)).first().and_then(|(later, _)| ids.get(*later)) {
        Some((i, id)) => list.get(*i).unwrap_or(at).error(format!("the key id {id} is used twice"), ""),
        None => Some(()),
    }
}

// === The token of a route ===

#[derive(Clone, Copy)]
enum Kind {
    Callback,
    Jwt,
    Static,
}

/// Reads the setting `token` of a route. `path` is the external path of the route. `tokens` is the compiled section
/// `callback_tokens`. `tokens_failed` is true if this section has mistakes.
pub(crate) fn token(
    at: &Cursor<'_>,
    path: Option<&Template>,
    tokens: Option<&CallbackTokens>,
    tokens_failed: bool,
) -> Option<TokenRule> {
    let mut fields = at.fields()?;
    let kinds = [("callback", Kind::Callback), ("jwt", Kind::Jwt), ("static", Kind::Static)];
    let kind = fields.required("kind").and_then(|at| at.one_of(&kinds))?;
    let rule = match kind {
        Kind::Callback => {
            let carriers = carriers(&mut fields, path, TOKEN_CAPTURE);
            match tokens {
                Some(tokens) => carriers
                    .map(|carriers| TokenRule::Callback { carriers, verifier: Arc::clone(&tokens.verifier) }),
                None if tokens_failed => None,
                None => {
                    at.error("kind callback needs `callback_tokens`", "add the section with at least one key")
                }
            }
        }
        Kind::Jwt => {
            let carriers = carriers(&mut fields, path, "access_token");
            let verifier = jwt(&mut fields, path);
            carriers
                .zip(verifier)
                .map(|(carriers, verifier)| TokenRule::Jwt { carriers, verifier: verifier.into() })
        }
        Kind::Static => {
            let carriers = static_carriers(&mut fields);
            let secrets = fields.required("secrets").and_then(|at| at.secrets());
            if path.is_some_and(|path| path.has(TOKEN_CAPTURE)) {
                let hint =
                    "a static token is in a header or in the query; choose another name for the capture";
                let _: Option<()> = at.error("{callback_token} has no meaning for this kind of token", hint);
            }
            carriers.zip(secrets).map(|(carriers, secrets)| TokenRule::Static { carriers, secrets })
        }
    };
    fields.finish();
    rule
}

/// Reads the location of a static token: `header`, or `from` with `bearer`, `{header: NAME}` or `{query: NAME}`.
fn static_carriers(fields: &mut Fields<'_>) -> Option<Vec<Carrier>> {
    let Some(from) = fields.optional("from") else {
        return fields.required("header")?.header_name().map(|name| vec![Carrier::Header(name)]);
    };
    if let Some(at) = fields.optional("header") {
        return at.error("`header` and `from` exclude each other", "keep one of the two");
    }
    // The path is `None`, because this function reports its own error if the path contains `{callback_token}`.
    let carriers = carriers(fields, None, STATIC_PARAMETER)?;
    match carriers.contains(&Carrier::Path) {
        true => from.error("a static token is not in the path", "use `{query: NAME}` or `{header: NAME}`"),
        false => Some(carriers),
    }
}

/// Reads the setting `from`, one or more locations of a token: `bearer`, `query`, `path`, `{header: NAME}` or
/// `{query: NAME}`. The default is `bearer`. `parameter` is the name of the query parameter for `query`.
fn carriers(fields: &mut Fields<'_>, path: Option<&Template>, parameter: &str) -> Option<Vec<Carrier>> {
    let from = fields.optional("from");
    let carriers = match &from {
        None => vec![Carrier::Bearer],
        Some(at) => {
            let read: Vec<_> = at.list_or_one()?.iter().map(|at| carrier(at, parameter)).collect();
            read.into_iter().collect::<Option<Vec<_>>>()?
        }
    };
    let at = from.as_ref().unwrap_or(fields.at());
    if carriers
        .iter()
        .enumerate()
        .any(|(i, carrier)| carriers.iter().take(i).any(|earlier| earlier == carrier))
    {
        return at.error("a location occurs twice", "");
    }
    let in_path = path.is_some_and(|path| path.has(TOKEN_CAPTURE));
    match (carriers.contains(&Carrier::Path), in_path) {
        (true, false) if path.is_some() => at.error(
            "the token comes from the path, but the path has no {callback_token}",
            "add it as a segment",
        ),
        (false, true) => at.error("the path has {callback_token}, but `from` does not list `path`", ""),
        _ => Some(carriers),
    }
}

fn carrier(at: &Cursor<'_>, parameter: &str) -> Option<Carrier> {
    if at.is_map() {
        let mut fields = at.fields()?;
        let header = fields.optional("header").map(|at| at.header_name());
        let query = fields.optional("query").map(|at| at.text().filter(|name| plain_parameter(name)));
        fields.finish();
        return match (header, query) {
            (Some(header), None) => header.map(Carrier::Header),
            (None, Some(Some(name))) => Some(Carrier::Query(name.into())),
            (None, Some(None)) => {
                at.error("the name of a parameter can contain only letters, digits, `-` and `_`", "")
            }
            _ => at.error("expected exactly one of header and query", ""),
        };
    }
    #[derive(Clone, Copy)]
    enum Word {
        Bearer,
        Path,
        Query,
    }
    Some(match at.one_of(&[("bearer", Word::Bearer), ("path", Word::Path), ("query", Word::Query)])? {
        Word::Bearer => Carrier::Bearer,
        Word::Path => Carrier::Path,
        Word::Query => Carrier::Query(parameter.into()),
    })
}

fn plain_parameter(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn jwt(fields: &mut Fields<'_>, path: Option<&Template>) -> Option<JwtVerifier> {
    let keys = fields.required("keys").and_then(|at| jwt_keys(&at));
    let texts = |at: Option<Cursor<'_>>| match at {
        None => Some(Vec::new()),
        Some(at) => {
            at.list_or_one()?.iter().map(|at| at.text().map(str::to_owned)).collect::<Option<Vec<_>>>()
        }
    };
    let issuer = texts(fields.optional("issuer"));
    let audience = texts(fields.optional("audience"));
    let required = texts(fields.optional("required"));
    let leeway =
        fields.optional("leeway").map_or(Some(Duration::ZERO), |at| match at.duration_or_zero()? {
            leeway if leeway > Duration::from_secs(300) => at.error("must be at most 5m", ""),
            leeway => Some(leeway),
        });
    let typ = fields.optional("typ").map(|at| at.text().map(str::to_ascii_lowercase));
    let bind = fields.optional("bind").map_or(Some(Vec::new()), |at| bind(&at, path));
    if matches!(&audience, Some(list) if list.is_empty()) {
        fields.at().warn("no audience: the route accepts tokens that the issuer made for other services");
    }
    if matches!(&bind, Some(list) if list.is_empty()) {
        fields.at().warn("no claim is bound to a capture: one token is valid for every path of this route");
    }
    let typ = typ.map_or(Some(None), |read| read.map(Some))?;
    let rules = JwtRules {
        audience: audience?,
        bind: bind?,
        issuer: issuer?,
        leeway: leeway?,
        required: required?,
        typ: typ.map(|typ| typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ)),
    };
    Some(JwtVerifier { keys: keys?, rules })
}

fn bind(at: &Cursor<'_>, path: Option<&Template>) -> Option<Vec<(String, String)>> {
    let mut bound = Vec::new();
    for (capture, claim) in at.named()? {
        if path.is_some_and(|path| !path.has(capture) || capture == TOKEN_CAPTURE) {
            let _: Option<()> = claim.error(format!("the path has no capture {capture}"), "");
        }
        bound.push((capture.to_owned(), claim.text()?.to_owned()));
    }
    Some(bound)
}

fn jwt_keys(at: &Cursor<'_>) -> Option<Vec<Key>> {
    let list = at.list()?;
    let read: Vec<_> = list.iter().map(jwt_key).collect();
    let keys = read.into_iter().collect::<Option<Vec<_>>>()?;
    unique_ids(at, &list, keys.iter().map(Key::id))?;
    Some(keys)
}

fn jwt_key(at: &Cursor<'_>) -> Option<Key> {
    let mut fields = at.fields()?;
    let id = fields.optional("id").map(|at| at.text());
    let algorithm_at = fields.required("algorithm");
    let algorithm = algorithm_at.as_ref().and_then(algorithm);
    let secret = fields.optional("secret");
    let public = fields.optional("public_key");
    fields.finish();
    let id = id.map_or(Some(None), |read| read.map(Some))?;
    let (material_at, material) = match (secret, public) {
        (Some(at), None) => (at.clone(), shared(&at)?),
        (None, Some(at)) => (at.clone(), at.secret()?),
        _ => {
            return at.error(
                "expected exactly one of secret and public_key",
                "HS algorithms need a secret; all others need a PEM public key",
            );
        }
    };
    let algorithm = algorithm?;
    let material = match algorithm.family() {
        Family::Hmac => KeyMaterial::Shared(&material),
        _ => KeyMaterial::PublicPem(&material),
    };
    match Key::new(id, algorithm, material) {
        Ok(key) => Some(key),
        Err(fault) => material_at.error(format!("{} key {fault}", algorithm.name()), ""),
    }
}
