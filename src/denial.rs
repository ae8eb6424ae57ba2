//! Why a callback was refused: one closed list, from which the status, the problem text, the metric
//! label, the log field and the documentation anchor all come.
//!
//! A reason never says anything that an attacker could use as an oracle beyond its own name, and its name
//! only leaves the process on the caller's side when `explain_denials` is on.

use std::borrow::Cow;

/// What kind of "no" a [`Denial`] is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// The gate refused the request: nothing reached the agent.
    Deny,
    /// The gate permitted the request, but it could not be delivered or answered.
    Fail,
}

/// Declares the closed list: variant, code, class, status, public title, and what the operator should know.
macro_rules! denials {
    ($($variant:ident, $code:literal, $class:ident, $status:literal, $title:literal, $help:literal;)+) => {
        /// Why a request was not delivered, or not answered. Alphabetical; the codes are stable.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Denial {
            $(#[doc = $help] $variant,)+
        }

        impl Denial {
            /// Every reason there is, in the order of declaration.
            pub const ALL: &'static [Denial] = &[$(Denial::$variant),+];

            /// The stable snake_case code: metric label, log field and documentation anchor.
            pub const fn code(self) -> &'static str {
                match self { $(Denial::$variant => $code,)+ }
            }

            /// Whether the gate refused, or the delivery failed.
            pub const fn class(self) -> Class {
                match self { $(Denial::$variant => Class::$class,)+ }
            }

            /// The HTTP status for the caller.
            pub const fn status(self) -> u16 {
                match self { $(Denial::$variant => $status,)+ }
            }

            /// The text for the caller: says what class of thing is wrong, never which check found it.
            pub const fn title(self) -> &'static str {
                match self { $(Denial::$variant => $title,)+ }
            }

            /// One sentence for the operator.
            pub const fn help(self) -> &'static str {
                match self { $(Denial::$variant => $help,)+ }
            }
        }
    };
}

denials! {
    AddressNotAllowed, "address_not_allowed", Deny, 403, "Forbidden",
        "The client address is in none of the provider's `allow` networks.";
    AddressUnreadable, "address_unreadable", Deny, 403, "Forbidden",
        "A trusted proxy sent an address header that is empty, doubled or not an address.";
    AgentGarbled, "agent_garbled", Fail, 502, "Bad Gateway",
        "The agent answered with something that is not HTTP/1.1.";
    AgentReset, "agent_reset", Fail, 502, "Bad Gateway",
        "The agent closed the connection before it answered; the callback may have reached it.";
    AgentTimeout, "agent_timeout", Fail, 504, "Gateway Timeout",
        "The agent did not answer within `agent.timeouts.response`; the callback may have reached it.";
    AgentUnreachable, "agent_unreachable", Fail, 503, "Service Unavailable",
        "No connection to the agent within `agent.timeouts.connect`; the callback did not reach it.";
    BodyIncomplete, "body_incomplete", Deny, 400, "Bad Request",
        "The body broke off or its framing is invalid.";
    BodyTimeout, "body_timeout", Deny, 408, "Request Timeout",
        "The body was not complete within `limits.body_deadline`.";
    BodyTooLarge, "body_too_large", Deny, 413, "Content Too Large",
        "The body is larger than the route's `body_max`.";
    HeadTimeout, "head_timeout", Deny, 408, "Request Timeout",
        "The head of a connection's first request was not complete within `limits.idle_timeout`.";
    HeaderDuplicated, "header_duplicated", Deny, 400, "Bad Request",
        "A header that decides about access occurs more than once.";
    MethodNotAllowed, "method_not_allowed", Deny, 405, "Method Not Allowed",
        "The route does not list this method.";
    PathMalformed, "path_malformed", Deny, 400, "Bad Request",
        "The path or query is not in the one canonical form: dot segments, encoded separators and the like.";
    RequestMalformed, "request_malformed", Deny, 400, "Bad Request",
        "The request head is not valid HTTP, is too large, has no `Host`, or its framing is ambiguous.";
    RouteUnknown, "route_unknown", Deny, 404, "Not Found",
        "No route has this path.";
    SignatureMalformed, "signature_malformed", Deny, 401, "Unauthorized",
        "A signature header is not in the scheme's format.";
    SignatureMismatch, "signature_mismatch", Deny, 401, "Unauthorized",
        "No signature matches the body under any of the provider's secrets.";
    SignatureMissing, "signature_missing", Deny, 401, "Unauthorized",
        "A header that the provider's signature scheme needs is missing.";
    SignatureTooNew, "signature_too_new", Deny, 401, "Unauthorized",
        "The signature's timestamp is further ahead than the tolerance.";
    SignatureTooOld, "signature_too_old", Deny, 401, "Unauthorized",
        "The signature's timestamp is older than the tolerance.";
    TokenAlgorithm, "token_algorithm", Deny, 401, "Unauthorized",
        "The token names an algorithm that is not the one of its key.";
    TokenAudience, "token_audience", Deny, 401, "Unauthorized",
        "The token is for another audience, or names none.";
    TokenBinding, "token_binding", Deny, 401, "Unauthorized",
        "The token is genuine but was made for another route or other captures.";
    TokenClaim, "token_claim", Deny, 401, "Unauthorized",
        "A required claim is missing, or a claim has the wrong type.";
    TokenDuplicated, "token_duplicated", Deny, 400, "Bad Request",
        "More than one token came with the request.";
    TokenExpired, "token_expired", Deny, 401, "Unauthorized",
        "The token's `exp` has passed.";
    TokenForged, "token_forged", Deny, 401, "Unauthorized",
        "The token's signature does not verify under its key.";
    TokenIssuer, "token_issuer", Deny, 401, "Unauthorized",
        "The token is from another issuer, or names none.";
    TokenKeyUnknown, "token_key_unknown", Deny, 401, "Unauthorized",
        "The token names a key that is not configured.";
    TokenMalformed, "token_malformed", Deny, 401, "Unauthorized",
        "The token is not a compact JWS of the plain kind: crit, embedded keys, encryption and oversize included.";
    TokenMismatch, "token_mismatch", Deny, 401, "Unauthorized",
        "The header equals none of the route's static secrets.";
    TokenMissing, "token_missing", Deny, 401, "Unauthorized",
        "No token where the route expects one.";
    TokenNotYetValid, "token_not_yet_valid", Deny, 401, "Unauthorized",
        "The token's `nbf` or `iat` lies in the future.";
    TokenType, "token_type", Deny, 401, "Unauthorized",
        "The token's `typ` is not the expected one.";
}

impl Denial {
    /// The metric label and log field of the outcome this denial leads to.
    pub const fn verdict(self) -> &'static str {
        match self.class() {
            Class::Deny => "deny",
            Class::Fail => "fail",
        }
    }

    /// Seconds for `Retry-After`, for faults of our side that pass.
    pub const fn retry_after_secs(self) -> Option<u32> {
        match self.class() {
            Class::Deny => None,
            Class::Fail => Some(5),
        }
    }
}

/// A denial together with the sentence for the trail. The sentence holds no secret, no token and no
/// expected value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The reason.
    pub denial: Denial,
    /// What was seen.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with its sentence.
    pub fn new(denial: Denial, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { denial, detail: detail.into() }
    }
}

impl std::fmt::Display for Denial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let mut codes: Vec<_> = Denial::ALL.iter().map(|d| d.code()).collect();
        assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        assert!(codes.is_sorted(), "keep the list alphabetical");
        codes.dedup();
        assert_eq!(codes.len(), Denial::ALL.len());
    }

    #[test]
    fn our_own_faults_are_temporary_and_never_blamed_on_the_caller() {
        for denial in Denial::ALL {
            match denial.class() {
                Class::Deny => assert!((400..500).contains(&denial.status()), "{denial}"),
                Class::Fail => assert!((502..505).contains(&denial.status()), "{denial}"),
            }
        }
    }
}
