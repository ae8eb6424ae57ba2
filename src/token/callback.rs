//! Verifying the tokens minted here: one route, one set of captures, one interaction, until one moment.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::derive::Deriver;
use super::mint::header_text;
use super::{CALLBACK_TYPE, CALLBACK_VERSION, CALLGATE_ISSUER};
use crate::denial::{Denial, Refusal};
use crate::jose::{Key, Unverified, is_object};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The claims of a callback token. Unknown members are refused: nobody but us writes them.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims<'a> {
    /// Version of these claims.
    pub(super) v: u8,
    #[serde(borrow)]
    pub(super) iss: Cow<'a, str>,
    /// The public URL of the Callgate it was minted for.
    #[serde(borrow)]
    pub(super) aud: Cow<'a, str>,
    /// The interaction.
    #[serde(borrow)]
    pub(super) sub: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) route: Cow<'a, str>,
    /// The captures, by name.
    #[serde(borrow)]
    pub(super) cap: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Unix seconds.
    pub(super) iat: i64,
    /// Unix seconds.
    pub(super) exp: i64,
    /// How many callbacks it is good for; absent: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uses: Option<u32>,
}

/// What a callback token grants, once it is verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The interaction the token belongs to.
    pub interaction: Box<str>,
    /// When it was made.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// How many callbacks it is good for; `None`: any number.
    pub uses: Option<u32>,
}

/// Verifies callback tokens.
#[derive(Clone, Debug)]
pub struct CallbackVerifier {
    keys: Vec<Key>,
    /// For each key, the header of the tokens minted under it.
    headers: Vec<Option<Box<str>>>,
    /// For each key, what makes the secrets of single interactions.
    derivers: Vec<Deriver>,
    audience: Box<str>,
}

impl CallbackVerifier {
    /// A verifier for the Callgate at `audience`, its public URL. Every key verifies; the first one mints.
    pub fn new(keys: Vec<Key>, derivers: Vec<Deriver>, audience: &str) -> Self {
        let header = |key: &Key| header_text(CALLBACK_TYPE, key.algorithm(), key.id()?);
        Self { headers: keys.iter().map(header).collect(), keys, derivers, audience: audience.into() }
    }

    /// The keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The secrets made for one interaction, under each of the keys that mint: the provider was given one of them.
    pub fn derived(&self, interaction: &str) -> Vec<Secret> {
        self.derivers.iter().map(|deriver| deriver.secret(interaction)).collect()
    }

    /// The payload of a token whose signature, type and algorithm are right.
    fn payload(&self, token: &str) -> Result<Vec<u8>, Refusal> {
        // Nearly every token begins with the very header it was minted with: then there is nothing to read.
        for (key, header) in self.keys.iter().zip(&self.headers) {
            if let Some(rest) = header.as_deref().and_then(|header| token.strip_prefix(header)) {
                return key.verify(token, rest);
            }
        }
        let unverified = Unverified::parse(token)?;
        if unverified.media_type().as_deref() != Some(CALLBACK_TYPE) {
            return Err(Refusal::new(Denial::TokenType, "the token's typ is not callback+jwt"));
        }
        unverified.verify(&self.keys)
    }

    /// Verifies `token` for a route and exactly these captures at the moment `now`.
    ///
    /// # Errors
    /// A `token_*` reason; genuine tokens of another route, or for other captures, are `token_binding`.
    pub fn verify<'c>(
        &self,
        token: &str,
        route: &str,
        captures: impl Iterator<Item = (&'c str, &'c str)>,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        let payload = self.payload(token)?;
        let claims = Some(&payload).filter(|payload| is_object(payload));
        let claims: Claims<'_> =
            claims.and_then(|payload| serde_json::from_slice(payload).ok()).ok_or_else(|| {
                Refusal::new(Denial::TokenClaim, "the claims are not those of a callback token")
            })?;
        if claims.v != CALLBACK_VERSION {
            return Err(Refusal::new(Denial::TokenClaim, format!("claims of version {}", claims.v)));
        }
        if claims.iss != CALLGATE_ISSUER {
            return Err(Refusal::new(Denial::TokenIssuer, "the token was not minted by Callgate"));
        }
        if *claims.aud != *self.audience {
            return Err(Refusal::new(Denial::TokenAudience, "the token is for another public_url"));
        }
        if now.unix_secs() >= claims.exp {
            let detail = format!("expired {} s ago", now.unix_secs().saturating_sub(claims.exp));
            return Err(Refusal::new(Denial::TokenExpired, detail));
        }
        check_binding(&claims, route, captures)?;
        Ok(Granted {
            interaction: (*claims.sub).into(),
            issued: Timestamp::from_unix_secs(claims.iat),
            expires: Timestamp::from_unix_secs(claims.exp),
            uses: claims.uses,
        })
    }
}

fn check_binding<'c>(
    claims: &Claims<'_>,
    route: &str,
    captures: impl Iterator<Item = (&'c str, &'c str)>,
) -> Result<(), Refusal> {
    if claims.route != route {
        return Err(Refusal::new(Denial::TokenBinding, "the token was minted for another route"));
    }
    let mut captured = 0;
    for (name, value) in captures {
        if claims.cap.get(name).is_none_or(|bound| bound != value) {
            return Err(Refusal::new(Denial::TokenBinding, format!("the token is bound to another {name}")));
        }
        captured += 1;
    }
    if captured != claims.cap.len() {
        return Err(Refusal::new(
            Denial::TokenBinding,
            "the token is bound to captures the route does not have",
        ));
    }
    Ok(())
}
