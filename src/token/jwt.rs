//! Verifies JWTs from issuers other than Callgate, with configured keys (RFC 7519, RFC 8725).

use std::time::Duration;

use serde_json::Value;

use crate::denial::{Denial, Refusal};
use crate::jose::{Claims, Key, Unverified};
use crate::time::Timestamp;

/// The required claims and the required `typ` of a JWT from an issuer other than Callgate.
#[derive(Clone, Debug, Default)]
pub struct JwtRules {
    /// The accepted audiences. The claim `aud` must contain one of them. If the list is empty, `aud` is not checked.
    pub audience: Vec<String>,
    /// Pairs of the name of a path capture and the name of a claim. The claim must be equal to the value of the
    /// capture.
    pub bind: Vec<(String, String)>,
    /// The accepted issuers. The claim `iss` must be one of them. If the list is empty, `iss` is not checked.
    pub issuer: Vec<String>,
    /// The accepted clock difference for the claims `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// The names of claims that must exist and must not be null. The claim `exp` is always required.
    pub required: Vec<String>,
    /// The required `typ` in the JWT header, in lower case. If it is `None`, `typ` must be `JWT` or missing.
    pub typ: Option<String>,
}

/// Verifies JWTs from issuers other than Callgate.
#[derive(Clone, Debug)]
pub struct JwtVerifier {
    /// The keys with which JWTs are verified. Each key has exactly one algorithm.
    pub keys: Vec<Key>,
    /// The required claims and the required `typ` of a JWT.
    pub rules: JwtRules,
}

impl JwtVerifier {
    /// Verifies a JWT at the time `now`. The function `capture` returns the value of the path capture with the given
    /// name.
    ///
    /// # Errors
    /// Returns a [`Refusal`] with one of the `token_*` reasons.
    pub fn verify<'c>(
        &self,
        token: &str,
        capture: impl Fn(&str) -> Option<&'c str>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let unverified = Unverified::parse(token)?;
        let typ = unverified.media_type();
        let expected = self.rules.typ.as_deref();
        let right = match expected {
            Some(_) => typ.as_deref() == expected,
            None => matches!(typ.as_deref(), None | Some("jwt")),
        };
        if !right {
            let detail = format!("the token's typ is not {}", expected.unwrap_or("JWT"));
            return Err(Refusal::new(Denial::TokenType, detail));
        }
        let payload = unverified.verify(&self.keys)?;
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| {
            Refusal::new(Denial::TokenClaim, "the claims are not a JSON object, or a member occurs twice")
        })?;
        self.rules.check_times(&claims, now)?;
        self.rules.check_parties(&claims)?;
        self.rules.check_claims(&claims, capture)
    }
}

impl JwtRules {
    fn check_times(&self, claims: &Claims, now: Timestamp) -> Result<(), Refusal> {
        let expires =
            claims.moment("exp")?.ok_or_else(|| Refusal::new(Denial::TokenClaim, "the token has no exp"))?;
        if now >= expires.plus(self.leeway) {
            return Err(Refusal::new(Denial::TokenExpired, format!("expired at {expires}")));
        }
        for name in ["nbf", "iat"] {
            if let Some(from) = claims.moment(name)?
                && from > now.plus(self.leeway)
            {
                return Err(Refusal::new(Denial::TokenNotYetValid, format!("{name} is {from}")));
            }
        }
        Ok(())
    }

    fn check_parties(&self, claims: &Claims) -> Result<(), Refusal> {
        let issuer = claims.text("iss")?;
        if !self.issuer.is_empty() && !issuer.is_some_and(|iss| self.issuer.iter().any(|i| i == iss)) {
            return Err(Refusal::new(Denial::TokenIssuer, "iss is not a configured issuer"));
        }
        let audience = claims.audience()?;
        if !self.audience.is_empty() && !audience.iter().any(|aud| self.audience.iter().any(|a| a == aud)) {
            return Err(Refusal::new(Denial::TokenAudience, "aud does not contain a configured audience"));
        }
        Ok(())
    }

    fn check_claims<'c>(
        &self,
        claims: &Claims,
        capture: impl Fn(&str) -> Option<&'c str>,
    ) -> Result<(), Refusal> {
        for name in &self.required {
            if claims.get(name).is_none_or(Value::is_null) {
                return Err(Refusal::new(Denial::TokenClaim, format!("the claim {name} is missing")));
            }
        }
        for (name, claim) in &self.bind {
            let bound = match claims.get(claim) {
                Some(Value::String(text)) => capture(name) == Some(text),
                Some(Value::Number(number)) if number.is_u64() => capture(name) == Some(&number.to_string()),
                _ => {
                    return Err(Refusal::new(
                        Denial::TokenClaim,
                        format!("the claim {claim} is neither text nor a whole number"),
                    ));
                }
            };
            if !bound {
                let detail = format!("the claim {claim} does not equal the capture {name} of the path");
                return Err(Refusal::new(Denial::TokenBinding, detail));
            }
        }
        Ok(())
    }
}
