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
        /// Why a callback was not delivered, or a request of the agent not sent, or either not answered. Alphabetical; the
        /// codes are stable.
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
    ActionAlreadyAnswered, "action_already_answered", Deny, 409, "Conflict",
        "The question was answered already, or an answer to it is on its way.";
    ActionAmbiguous, "action_ambiguous", Deny, 409, "Conflict",
        "Several questions of the interaction are open, and the answer does not say to which it belongs.";
    ActionNotAllowed, "action_not_allowed", Deny, 403, "Forbidden",
        "The action endpoint is not at a host that the route lists, or its address may not be dialled.";
    ActionUnknown, "action_unknown", Deny, 404, "Not Found",
        "No callback of this interaction asked such a question.";
    AddressNotAllowed, "address_not_allowed", Deny, 403, "Forbidden",
        "The client address is in none of the provider's `allow` networks.";
    AddressUnreadable, "address_unreadable", Deny, 403, "Forbidden",
        "A trusted proxy sent an address header that is empty, doubled or not an address.";
    AgentGarbled, "agent_garbled", Fail, 502, "Bad Gateway",
        "The agent's answer is not HTTP/1.1, or it reports success before the agent was sent the whole callback.";
    AgentReset, "agent_reset", Fail, 502, "Bad Gateway",
        "The agent closed the connection before it answered; the callback may have reached it.";
    AgentTimeout, "agent_timeout", Fail, 504, "Gateway Timeout",
        "The agent did not answer within `agent.timeouts.response`; the callback may have reached it.";
    AgentUnreachable, "agent_unreachable", Fail, 503, "Service Unavailable",
        "No connection to the agent within `agent.timeouts.connect`; the callback did not reach it.";
    BodyIncomplete, "body_incomplete", Deny, 400, "Bad Request",
        "The body broke off or its framing is invalid.";
    BodyNotJson, "body_not_json", Deny, 400, "Bad Request",
        "The route guards what a body asks (`actions`), and this body cannot be read as JSON.";
    BodyTimeout, "body_timeout", Deny, 408, "Request Timeout",
        "The body was not complete within `limits.body_deadline`, or came slower than `limits.throughput_min`.";
    BodyTooLarge, "body_too_large", Deny, 413, "Content Too Large",
        "The body is larger than the route's `body_max`.";
    CallbackPresent, "callback_present", Deny, 409, "Conflict",
        "The agent's request has something where the callback's URL or token goes, and the rule does not keep it.";
    ClientCertificateMissing, "client_certificate_missing", Deny, 403, "Forbidden",
        "The route asks for a client certificate, and none of a trusted authority came with the connection.";
    ClientCertificateOther, "client_certificate_other", Deny, 403, "Forbidden",
        "The client certificate is genuine, but its names are none that the route lists.";
    EventInFlight, "event_in_flight", Fail, 503, "Service Unavailable",
        "The same event, or the one that has the last use, is being delivered and took too long; a retry will tell.";
    HandshakeRefused, "handshake_refused", Deny, 403, "Forbidden",
        "The request is a provider's handshake, but does not prove itself: another token, nothing that is in `subscriptions`, or no challenge.";
    HeadTimeout, "head_timeout", Deny, 408, "Request Timeout",
        "The head of a request was not complete within `limits.head_deadline`.";
    HeadTooLarge, "head_too_large", Deny, 431, "Request Header Fields Too Large",
        "The head is larger than `limits.head_max`, or has more lines than `limits.headers_max`.";
    HeaderDuplicated, "header_duplicated", Deny, 400, "Bad Request",
        "A header that decides about access occurs more than once.";
    HostNotAllowed, "host_not_allowed", Deny, 403, "Forbidden",
        "The egress listener was asked under a name that is neither an address, nor `localhost`, nor in `listen.egress.hosts`.";
    InjectionImpossible, "injection_impossible", Deny, 400, "Bad Request",
        "The place for the callback's URL or token is within a value that has no members, or is there twice.";
    InteractionMismatch, "interaction_mismatch", Deny, 403, "Forbidden",
        "The callback names other work than the one that the provider named in its answer to the request.";
    InteractionOver, "interaction_over", Deny, 410, "Gone",
        "The interaction is over: it ended by a final callback, by its last use, by its deadline, or was never sent.";
    InteractionRevoked, "interaction_revoked", Deny, 410, "Gone",
        "The interaction was revoked.";
    InteractionUnknown, "interaction_unknown", Deny, 410, "Gone",
        "The token is genuine, but the ledger does not know its interaction, and `store.unknown` is `refuse`.";
    KeysUnavailable, "keys_unavailable", Fail, 503, "Service Unavailable",
        "The provider's public keys could not be fetched so far, and there are none of before that may still be used.";
    ListUnavailable, "list_unavailable", Fail, 503, "Service Unavailable",
        "The provider's published addresses could not be fetched so far, and there are none of before.";
    MethodNotAllowed, "method_not_allowed", Deny, 405, "Method Not Allowed",
        "The route does not list this method.";
    Overloaded, "overloaded", Fail, 503, "Service Unavailable",
        "The bodies that are held already take all of `limits.body_memory_max`, or the agent's of `listen.egress.body_memory_max`; a retry will find room.";
    PageNotAllowed, "page_not_allowed", Deny, 403, "Forbidden",
        "The egress listener was asked by a web page: with `Origin`, or with another `Sec-Fetch-Site` than `none`.";
    ParameterUnusable, "parameter_unusable", Deny, 400, "Bad Request",
        "A value for a capture is missing from the agent's request, or is no path segment of [A-Za-z0-9._~-].";
    PathMalformed, "path_malformed", Deny, 400, "Bad Request",
        "The path or query is not in the one canonical form: dot segments, encoded separators and the like.";
    ProviderGarbled, "provider_garbled", Fail, 502, "Bad Gateway",
        "The provider's answer is not HTTP/1.1, or it reports success before the provider was sent the whole request.";
    ProviderRedirected, "provider_redirected", Fail, 502, "Bad Gateway",
        "The provider answered a question's answer with a redirect, which is neither followed nor passed on.";
    ProviderReset, "provider_reset", Fail, 502, "Bad Gateway",
        "The provider closed the connection before it answered; the request may have reached it.";
    ProviderTimeout, "provider_timeout", Fail, 504, "Gateway Timeout",
        "The provider did not answer within the rule's `timeouts.response`; the request may have reached it.";
    ProviderUnreachable, "provider_unreachable", Fail, 502, "Bad Gateway",
        "No connection to the provider: name, address, TLS, or `timeouts.connect`; nothing was sent.";
    QuestionsTooMany, "questions_too_many", Deny, 429, "Too Many Requests",
        "The interaction has as many open questions as are remembered; the agent has to answer one first.";
    RateLimited, "rate_limited", Deny, 429, "Too Many Requests",
        "More requests than `limits.rate_per_address` lets one address make.";
    RequestMalformed, "request_malformed", Deny, 400, "Bad Request",
        "The request head is not valid HTTP, has no `Host`, or its framing is ambiguous.";
    RequestNotForm, "request_not_form", Deny, 400, "Bad Request",
        "The callback goes into a form, but the agent's request has no form as its body.";
    RequestNotJson, "request_not_json", Deny, 400, "Bad Request",
        "The callback goes into the body, but the agent's request has no JSON body.";
    RouteBusy, "route_busy", Fail, 503, "Service Unavailable",
        "The route's `rate` lets no more callbacks through now; the provider's retry will find room.";
    RouteUnknown, "route_unknown", Deny, 404, "Not Found",
        "No route has this path.";
    RuleUnknown, "rule_unknown", Deny, 404, "Not Found",
        "No egress rule has this path.";
    SignatureClaim, "signature_claim", Deny, 401, "Unauthorized",
        "The signature is genuine, but what it states is not what it must: issuer, audience, address, topic, lifetime.";
    SignatureKeyUnknown, "signature_key_unknown", Deny, 401, "Unauthorized",
        "The signature names a key that is none of the provider's, or one for another purpose.";
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
    StoreFull, "store_full", Fail, 503, "Service Unavailable",
        "The ledger is full: it holds `store.interactions_max` interactions, or `store.events_max` events of interactions.";
    StoreUnavailable, "store_unavailable", Fail, 503, "Service Unavailable",
        "The store could not write; nothing is acknowledged that is not safe.";
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

    /// Seconds for `Retry-After`, for what passes.
    pub const fn retry_after_secs(self) -> Option<u32> {
        match (self, self.class()) {
            (_, Class::Fail) | (Self::RateLimited, _) => Some(5),
            (_, Class::Deny) => None,
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
