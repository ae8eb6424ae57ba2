//! Verifies callback tokens. Each token is valid for one route, one set of path captures and one interaction, until it
//! expires.

use super::callback_claims::{CALLBACK_TYPE, CALLBACK_VERSION, CALLGATE_ISSUER, Claims, OWNED_VERSION};
use super::derive::Deriver;
use super::mint::header_text;
use super::opaque::{OpaqueKey, is_opaque};
use crate::denial::{Denial, Refusal};
use crate::jose::{Key, Unverified, is_object};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The rights that a verified callback token gives to the sender of a callback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The id of the interaction to which the token belongs.
    pub interaction: Box<str>,
    /// The time at which Callgate created the token.
    pub issued: Timestamp,
    /// The time at which the token expires.
    pub expires: Timestamp,
    /// The number of callbacks that the token allows. `None` means any number.
    pub uses: Option<u32>,
    /// The replica of Callgate that owns the interaction, in encrypted form (see
    /// [`OwnerSealer`](crate::replica::OwnerSealer)). `None` if the token names no owner.
    pub owner: Option<Box<str>>,
    /// True if the token is opaque. In this case, `issued`, `expires` and `uses` are placeholders, and only the ledger
    /// has the real values.
    pub is_opaque: bool,
}

/// Verifies callback tokens with the configured keys.
#[derive(Clone, Debug)]
pub struct CallbackVerifier {
    keys: Vec<Key>,
    /// For each key, the encoded header of the tokens that were signed with this key. `None` if the key has no id.
    headers: Vec<Option<Box<str>>>,
    /// One deriver for each key that can sign new tokens. A deriver computes the signing secrets of interactions.
    derivers: Vec<Deriver>,
    /// One key of opaque tokens for each key that can sign new tokens.
    opaque: Vec<OpaqueKey>,
    audience: Box<str>,
}

impl CallbackVerifier {
    /// Creates a verifier. `audience` is the public URL of this Callgate. The verifier accepts tokens that are signed
    /// with any of `keys`. New tokens are signed with the first key.
    pub fn new(keys: Vec<Key>, derivers: Vec<Deriver>, opaque: Vec<OpaqueKey>, audience: &str) -> Self {
        let header = |key: &Key| header_text(CALLBACK_TYPE, key.algorithm(), key.id()?);
        let headers = keys.iter().map(header).collect();
        Self { headers, keys, derivers, opaque, audience: audience.into() }
    }

    /// Returns the keys with which callback tokens are verified.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Returns the derived signing secrets of one interaction, one for each key that can sign tokens. The provider
    /// received one of these secrets with the request.
    pub fn derived(&self, interaction: &str) -> Vec<Secret> {
        self.derivers.iter().map(|deriver| deriver.secret(interaction)).collect()
    }

    /// Returns the decoded payload of a JWT callback token after checking its signature, `typ` and algorithm.
    fn payload(&self, token: &str) -> Result<Vec<u8>, Refusal> {
        // Most tokens begin with the encoded header that Callgate wrote for one of the keys. Comparing this text is
        // faster than parsing the header.
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

    /// Verifies a callback token for a route and exactly these path captures, at the time `now`.
    ///
    /// # Errors
    /// Returns a [`Refusal`] with one of the `token_*` reasons. The reason is `token_binding` if the token is valid,
    /// but was created for another route or other captures.
    pub fn verify<'c>(
        &self,
        token: &str,
        route: &str,
        captures: impl Iterator<Item = (&'c str, &'c str)>,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        if is_opaque(token) {
            return self.verify_opaque(token, route, captures);
        }
        let payload = self.payload(token)?;
        let claims = Some(&payload).filter(|payload| is_object(payload));
        let claims: Claims<'_> =
            claims.and_then(|payload| serde_json::from_slice(payload).ok()).ok_or_else(|| {
                Refusal::new(Denial::TokenClaim, "the claims are not those of a callback token")
            })?;
        let version = if claims.own.is_some() { OWNED_VERSION } else { CALLBACK_VERSION };
        if claims.v != version {
            return Err(Refusal::new(
                Denial::TokenClaim,
                format!("the claims have the unsupported version {}", claims.v),
            ));
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
            owner: claims.own.map(|own| own.into()),
            is_opaque: false,
        })
    }

    /// Returns the id of the interaction that a callback token names, if Callgate has signed the token. The token may
    /// be expired, or belong to another route. Returns `None` for opaque tokens, which name no interaction.
    pub fn named_interaction(&self, token: &str) -> Option<Box<str>> {
        if is_opaque(token) {
            return None;
        }
        let payload = self.payload(token).ok().filter(|payload| is_object(payload))?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).ok()?;
        (claims.iss == CALLGATE_ISSUER && *claims.aud == *self.audience).then(|| (*claims.sub).into())
    }

    /// Verifies an opaque callback token with every key.
    ///
    /// # Errors
    /// Returns `token_forged` if no key created the token for this route and these captures.
    fn verify_opaque<'c>(
        &self,
        token: &str,
        route: &str,
        captures: impl Iterator<Item = (&'c str, &'c str)>,
    ) -> Result<Granted, Refusal> {
        let captures: Vec<_> = captures.collect();
        let verify = |key: &OpaqueKey| key.verify(token, &self.audience, route, captures.iter().copied());
        let Some(interaction) = self.opaque.iter().find_map(verify) else {
            let detail = "no key minted this opaque token for this route and these captures";
            return Err(Refusal::new(Denial::TokenForged, detail));
        };
        Ok(Granted {
            interaction: interaction.into(),
            issued: Timestamp::from_unix_secs(0),
            expires: Timestamp::from_unix_ms(i64::MAX),
            uses: None,
            owner: None,
            is_opaque: true,
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
            return Err(Refusal::new(
                Denial::TokenBinding,
                format!("the token is bound to another value of the capture {name}"),
            ));
        }
        captured += 1;
    }
    if captured != claims.cap.len() {
        return Err(Refusal::new(
            Denial::TokenBinding,
            "the route lacks captures that the token is bound to",
        ));
    }
    Ok(())
}
