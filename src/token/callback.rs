//! Verifies callback tokens. Each token is valid for one route, one set of captures and one interaction, until it
//! expires.

use super::callback_claims::{CALLBACK_TYPE, CALLBACK_VERSION, CALLGATE_ISSUER, Claims, OWNED_VERSION};
use super::derive::Deriver;
use super::mint::header_text;
use super::opaque::{OpaqueKey, is_opaque};
use crate::denial::{Denial, Refusal};
use crate::jose::{Key, Unverified, is_object};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The rights of a verified callback token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Granted {
    /// The interaction that the token belongs to.
    pub interaction: Box<str>,
    /// The time at which the token was minted.
    pub issued: Timestamp,
    /// The time at which the token expires.
    pub expires: Timestamp,
    /// Number of callbacks that the token allows. `None` means any number.
    pub uses: Option<u32>,
    /// The encrypted owner of the interaction (see [`OwnerSealer`](crate::replica::OwnerSealer)). `None` if the token
    /// names no owner.
    pub owner: Option<Box<str>>,
    /// Whether the token is opaque. Only the ledger then knows when the token was minted, when it expires, and how many
    /// callbacks it allows.
    pub is_opaque: bool,
}

/// A verifier for callback tokens.
#[derive(Clone, Debug)]
pub struct CallbackVerifier {
    keys: Vec<Key>,
    /// For each key, the encoded header of the tokens that were minted with this key.
    headers: Vec<Option<Box<str>>>,
    /// The derivers of signing secrets: one for each key that can mint.
    derivers: Vec<Deriver>,
    /// The keys of opaque tokens: one for each key that can mint.
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

    /// Returns the keys.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Returns the derived signing secrets of one interaction, one for each minting key. The provider received one of
    /// these secrets with the request.
    pub fn derived(&self, interaction: &str) -> Vec<Secret> {
        self.derivers.iter().map(|deriver| deriver.secret(interaction)).collect()
    }

    /// Returns the payload of a token after checking its signature, `typ` and algorithm.
    fn payload(&self, token: &str) -> Result<Vec<u8>, Refusal> {
        // Nearly every token begins with the encoded header of one of the keys. For such a token, the header need not
        // be parsed.
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

    /// Verifies `token` for a route and exactly these captures, at the time `now`.
    ///
    /// # Errors
    /// Returns a [`Refusal`] with one of the `token_*` reasons. The reason is `token_binding` if the token is valid,
    /// but was minted for another route or other captures.
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

    /// Returns the interaction that a token names, if Callgate has signed it. The token may be expired, or belong to another
    /// route. Returns `None` for opaque tokens, which name no interaction.
    pub fn named_interaction(&self, token: &str) -> Option<Box<str>> {
        if is_opaque(token) {
            return None;
        }
        let payload = self.payload(token).ok().filter(|payload| is_object(payload))?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).ok()?;
        (claims.iss == CALLGATE_ISSUER && *claims.aud == *self.audience).then(|| (*claims.sub).into())
    }

    /// Verifies an opaque token. Tries every key.
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
