//! The closed list of reasons why Callgate denies a request or cannot process it. The HTTP status, the problem
//! document, the metric label, the log field and the documentation anchor of a reason all come from this list.
//!
//! The caller sees the code of the reason only with `explain_denials: true`. The caller never sees the details that the
//! check found, because an attacker could use this information.

use std::borrow::Cow;

/// The two classes of a [`Denial`]: a failed check, or a failure of Callgate after all checks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// The request failed a check. Nothing was delivered or sent.
    Deny,
    /// The request passed all checks, but Callgate could not deliver, send, store or answer the request.
    Fail,
}

/// Declares the enum [`Denial`] from one table. The columns of the table are: variant, code, class, HTTP status, public
/// title, and help text for the operator.
macro_rules! denials {
    ($($variant:ident, $code:literal, $class:ident, $status:literal, $title:literal, $help:literal;)+) => {
        /// The reason why Callgate denied a callback or a request of the agent, or could not process it. Processing
        /// means to deliver, to send, to store or to answer. The variants are sorted alphabetically. Their codes are
        /// stable.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Denial {
            $(#[doc = $help] $variant,)+
        }

        impl Denial {
            /// Every denial reason, in the order of declaration.
            pub const ALL: &'static [Denial] = &[$(Denial::$variant),+];

            /// Returns the stable snake_case code of the denial. The code is used as metric label, log field and
            /// documentation anchor.
            pub const fn code(self) -> &'static str {
                match self { $(Denial::$variant => $code,)+ }
            }

            /// Returns the class of the denial: a failed check, or a failure of Callgate after all checks had passed.
            pub const fn class(self) -> Class {
                match self { $(Denial::$variant => Class::$class,)+ }
            }

            /// Returns the HTTP status that the caller receives for this denial.
            pub const fn status(self) -> u16 {
                match self { $(Denial::$variant => $status,)+ }
            }

            /// Returns the title that the caller receives, such as `Forbidden`. The title does not name the check that
            /// failed.
            pub const fn title(self) -> &'static str {
                match self { $(Denial::$variant => $title,)+ }
            }

            /// Returns the help text about this denial for the operator. The text has one or two sentences.
            pub const fn help(self) -> &'static str {
                match self { $(Denial::$variant => $help,)+ }
            }
        }
    };
}

denials! {
    ActionAlreadyAnswered, "action_already_answered", Deny, 409, "Conflict",
        "The agent already answered this question, or its answer is being sent to the provider.";
    ActionAmbiguous, "action_ambiguous", Deny, 409, "Conflict",
        "The interaction has several open questions, and the agent's answer does not say which one it belongs to.";
    ActionNotAllowed, "action_not_allowed", Deny, 403, "Forbidden",
        "The host of the action endpoint (the URL for the answer) is not in `actions.hosts` of the route, or \
         Callgate may not connect to its address.";
    ActionUnknown, "action_unknown", Deny, 404, "Not Found",
        "No callback of this interaction asked this question, or the route no longer has `actions`.";
    AddressNotAllowed, "address_not_allowed", Deny, 403, "Forbidden",
        "The client address is in none of the provider's `allow` networks.";
    AddressUnreadable, "address_unreadable", Deny, 403, "Forbidden",
        "A trusted proxy sent an address header that is empty, occurs twice, or does not contain an address.";
    AgentGarbled, "agent_garbled", Fail, 502, "Bad Gateway",
        "The agent's response is not HTTP/1.1, or the agent reported success before it had received the whole \
         callback.";
    AgentRedirected, "agent_redirected", Fail, 502, "Bad Gateway",
        "The agent answered with a redirect (3xx). Callgate does not forward it, because the provider would \
         then call the internal address.";
    AgentReset, "agent_reset", Fail, 502, "Bad Gateway",
        "The agent closed the connection before it sent a response. The callback may have reached the agent.";
    AgentTimeout, "agent_timeout", Fail, 504, "Gateway Timeout",
        "The agent did not respond within `agent.timeouts.response`. The callback may have reached the agent.";
    AgentUnreachable, "agent_unreachable", Fail, 503, "Service Unavailable",
        "Callgate could not connect to the agent within `agent.timeouts.connect`. The callback did not reach the \
         agent.";
    BodyIncomplete, "body_incomplete", Deny, 400, "Bad Request",
        "The request ended before its body was complete, or the framing of the body is invalid.";
    BodyNotJson, "body_not_json", Deny, 400, "Bad Request",
        "The route checks the action endpoint in the body (`actions`), and this body is not valid JSON.";
    BodyTimeout, "body_timeout", Deny, 408, "Request Timeout",
        "The body was not complete within `limits.body_deadline`, or it arrived more slowly than \
         `limits.throughput_min`.";
    BodyTooLarge, "body_too_large", Deny, 413, "Content Too Large",
        "The body is larger than `body_max` of the route or of the egress rule, or than `inbox.body_store_max`, or it \
         decodes to more than 64 KiB and more than 256 times its size.";
    BodyUndecodable, "body_undecodable", Deny, 400, "Bad Request",
        "The provider's `decode` lists the content coding of the body, and the body is not valid in this coding.";
    CallbackPresent, "callback_present", Deny, 409, "Conflict",
        "The agent's request already has a value at the place where the callback URL or token belongs, and the \
         rule does not keep this value.";
    ClientCertificateMissing, "client_certificate_missing", Deny, 403, "Forbidden",
        "The route requires a client certificate, and the client sent none that a trusted authority issued.";
    ClientCertificateOther, "client_certificate_other", Deny, 403, "Forbidden",
        "The client certificate is valid, but the route lists none of its names.";
    EventInFlight, "event_in_flight", Fail, 503, "Service Unavailable",
        "Callgate is still delivering another request with the same event, or the request that uses the last \
         callback that the token allows. The provider should try again.";
    HandshakeRefused, "handshake_refused", Deny, 403, "Forbidden",
        "The request is a provider's handshake, but it fails its check. Examples are a wrong token, a topic that \
         is not in `subscriptions`, or a missing challenge.";
    HeadTimeout, "head_timeout", Deny, 408, "Request Timeout",
        "The head of the request was not complete within `limits.head_deadline`.";
    HeadTooLarge, "head_too_large", Deny, 431, "Request Header Fields Too Large",
        "The head is larger than `limits.head_max`, or it has more header lines than `limits.headers_max`.";
    HeaderDuplicated, "header_duplicated", Deny, 400, "Bad Request",
        "A header that an access check reads occurs more than once.";
    HostNotAllowed, "host_not_allowed", Deny, 403, "Forbidden",
        "The request to the egress listener names a host that is not an IP address, `localhost` or listed in \
         `listen.egress.hosts`.";
    InboxFull, "inbox_full", Fail, 503, "Service Unavailable",
        "The inbox contains `inbox.messages_max` messages, or `inbox.bytes_max` bytes. The provider should try again.";
    InjectionImpossible, "injection_impossible", Deny, 400, "Bad Request",
        "Callgate cannot add the callback URL or token to the request: a value on the path of the JSON \
         pointer is not the object or list that the next step needs, a list has no such element, or the place \
         or a name on the path occurs twice or in another spelling.";
    InteractionMismatch, "interaction_mismatch", Deny, 403, "Forbidden",
        "The provider's task id in the callback differs from the id that the provider returned when it \
         accepted the request.";
    InteractionOver, "interaction_over", Deny, 410, "Gone",
        "The interaction is over: a final callback arrived, the allowed number of callbacks has been used up, \
         the deadline passed, or the provider never accepted the request.";
    InteractionRevoked, "interaction_revoked", Deny, 410, "Gone",
        "The interaction was revoked.";
    InteractionUnknown, "interaction_unknown", Deny, 410, "Gone",
        "The token is valid, but the ledger has no record of its interaction, and `store.unknown` is `refuse`.";
    KeysUnavailable, "keys_unavailable", Fail, 503, "Service Unavailable",
        "Callgate could not fetch the keys or certificates that verify the provider's signatures, and it has no \
         earlier ones that are still usable.";
    ListUnavailable, "list_unavailable", Fail, 503, "Service Unavailable",
        "Callgate could not fetch a published list of addresses yet, and it has no earlier copy.";
    MessageUnknown, "message_unknown", Deny, 404, "Not Found",
        "The interaction or the message in a request of the agent below `/callbacks` does not exist, or the message is \
         not waiting for the agent.";
    MethodNotAllowed, "method_not_allowed", Deny, 405, "Method Not Allowed",
        "The route or the egress rule does not list this method.";
    OutboundProxyFailed, "outbound_proxy_failed", Fail, 502, "Bad Gateway",
        "The outbound proxy did not open a tunnel to the provider: it was not reachable, it refused, or its answer was \
         not HTTP. Nothing was sent to the provider.";
    OutboundProxyTimeout, "outbound_proxy_timeout", Fail, 504, "Gateway Timeout",
        "The outbound proxy did not open a tunnel to the provider within `timeouts.connect`. Nothing was sent to the \
         provider.";
    Overloaded, "overloaded", Fail, 503, "Service Unavailable",
        "The request bodies in memory already use all of `limits.body_memory_max`, or of \
         `listen.egress.body_memory_max`. With several agents: the agent of the route already uses its share of \
         `limits.body_memory_max` or of `limits.connections_max`. The caller should try again.";
    OwnerGone, "owner_gone", Deny, 410, "Gone",
        "The process that minted the token is gone, and `replicas.gone` is `refuse`.";
    OwnerUnreachable, "owner_unreachable", Fail, 503, "Service Unavailable",
        "The replica that minted the token cannot be reached, did not answer, or is stopping. If Callgate had \
         already sent the callback to this replica, the agent may have received it. The provider should try \
         again.";
    PageNotAllowed, "page_not_allowed", Deny, 403, "Forbidden",
        "A web page sent the request to the egress listener: it has an `Origin` header, or a `Sec-Fetch-Site` other \
         than `none`.";
    ParameterUnusable, "parameter_unusable", Deny, 400, "Bad Request",
        "The agent's request has no value for a capture, or the value does not fit the path. Below `/callbacks`: a \
         parameter is not valid.";
    PathMalformed, "path_malformed", Deny, 400, "Bad Request",
        "The path or query is not in canonical form. Examples are dot segments and percent-encoded slashes.";
    ProviderGarbled, "provider_garbled", Fail, 502, "Bad Gateway",
        "The provider's response is not HTTP/1.1, or the provider reported success before it had received the \
         whole request.";
    ProviderRedirected, "provider_redirected", Fail, 502, "Bad Gateway",
        "The provider responded to the agent's answer with a redirect. Callgate neither follows nor forwards \
         the redirect.";
    ProviderReset, "provider_reset", Fail, 502, "Bad Gateway",
        "The provider closed the connection before it sent a response. The request may have reached the provider.";
    ProviderTimeout, "provider_timeout", Fail, 504, "Gateway Timeout",
        "The provider did not respond within the rule's `timeouts.response`. The request may have reached the \
         provider.";
    ProviderUnreachable, "provider_unreachable", Fail, 502, "Bad Gateway",
        "Callgate could not connect to the provider: check its name, its address, its TLS certificate and \
         `timeouts.connect`. Nothing was sent.";
    ProxyAddressRefused, "proxy_address_refused", Deny, 403, "Forbidden",
        "The forward proxy may not connect to the address of the host: it is not public, it is not in \
         `allow_private`, or it belongs to Callgate or to the agent.";
    ProxyAuthorization, "proxy_authorization", Deny, 407, "Proxy Authentication Required",
        "The request to the forward proxy has no `Proxy-Authorization` with the password of \
         `listen.egress.proxy`.";
    ProxyFull, "proxy_full", Fail, 503, "Service Unavailable",
        "`listen.egress.proxy.tunnels_max` tunnels are already open.";
    ProxyHostRefused, "proxy_host_refused", Deny, 403, "Forbidden",
        "The forward proxy may not connect to the host: no rule names it and `others` is `refuse`, or `ports` \
         does not list the port.";
    ProxyMisdirected, "proxy_misdirected", Deny, 421, "Misdirected Request",
        "The host in the request, or the server name of the TLS handshake, differs from the host of the CONNECT \
         request, or the request inside a tunnel is a CONNECT request.";
    QuestionsTooMany, "questions_too_many", Deny, 429, "Too Many Requests",
        "The interaction has the maximum number of open questions. The agent has to answer one first.";
    RateLimited, "rate_limited", Deny, 429, "Too Many Requests",
        "One client address sent more requests than `limits.rate_per_address` allows.";
    ReplicaMistaken, "replica_mistaken", Deny, 421, "Misdirected Request",
        "Another replica sent this request, but it is for another process: the address was reused, or the \
         interaction was handed over to another process.";
    ReplicaProof, "replica_proof", Deny, 401, "Unauthorized",
        "A request to the replica listener has no valid proof of another replica.";
    RequestMalformed, "request_malformed", Deny, 400, "Bad Request",
        "The request head is not valid HTTP, has no `Host`, or has ambiguous framing.";
    RequestNotForm, "request_not_form", Deny, 400, "Bad Request",
        "The rule adds the callback URL or token to a form, but the body of the agent's request is not a form.";
    RequestNotJson, "request_not_json", Deny, 400, "Bad Request",
        "The rule reads or changes the JSON body, but the body of the agent's request is not JSON.";
    RouteBusy, "route_busy", Fail, 503, "Service Unavailable",
        "More callbacks arrived than the route's `rate` allows. The provider should try again.";
    RouteUnknown, "route_unknown", Deny, 404, "Not Found",
        "No route has this path.";
    RuleUnknown, "rule_unknown", Deny, 404, "Not Found",
        "No egress rule has this path.";
    SignatureClaim, "signature_claim", Deny, 401, "Unauthorized",
        "The signature is valid, but a signed value is wrong: issuer, audience, address, topic or lifetime.";
    SignatureKeyUnknown, "signature_key_unknown", Deny, 401, "Unauthorized",
        "The signature names a key that is not one of the provider's keys, or a key that is meant for another \
         purpose.";
    SignatureMalformed, "signature_malformed", Deny, 401, "Unauthorized",
        "The signature, or a value that belongs to it, is not in the scheme's format. Examples are the timestamp and the \
         event id.";
    SignatureMismatch, "signature_mismatch", Deny, 401, "Unauthorized",
        "No signature matches the body under any of the provider's secrets.";
    SignatureMissing, "signature_missing", Deny, 401, "Unauthorized",
        "The request has no signature, or lacks another value that the provider's scheme needs.";
    SignatureTooNew, "signature_too_new", Deny, 401, "Unauthorized",
        "The signature's timestamp is further in the future than the tolerance.";
    SignatureTooOld, "signature_too_old", Deny, 401, "Unauthorized",
        "The signature's timestamp is older than the tolerance.";
    StoreFull, "store_full", Fail, 503, "Service Unavailable",
        "The ledger is full: it contains `store.interactions_max` interactions.";
    StoreUnavailable, "store_unavailable", Fail, 503, "Service Unavailable",
        "The store could not write. Callgate acknowledges nothing that is not stored safely.";
    TokenAlgorithm, "token_algorithm", Deny, 401, "Unauthorized",
        "The token's `alg` is not the algorithm of its key.";
    TokenAudience, "token_audience", Deny, 401, "Unauthorized",
        "The token's `aud` names another audience, or is missing.";
    TokenBinding, "token_binding", Deny, 401, "Unauthorized",
        "The token is valid, but it was minted for another route or for other captures.";
    TokenClaim, "token_claim", Deny, 401, "Unauthorized",
        "A required claim is missing, or a claim has the wrong type.";
    TokenDuplicated, "token_duplicated", Deny, 400, "Bad Request",
        "The request has more than one token.";
    TokenExpired, "token_expired", Deny, 401, "Unauthorized",
        "The token's `exp` has passed.";
    TokenForged, "token_forged", Deny, 401, "Unauthorized",
        "The token's signature does not verify under its key.";
    TokenIssuer, "token_issuer", Deny, 401, "Unauthorized",
        "The token's `iss` names another issuer, or is missing.";
    TokenKeyUnknown, "token_key_unknown", Deny, 401, "Unauthorized",
        "The token's `kid` names a key that is not configured.";
    TokenMalformed, "token_malformed", Deny, 401, "Unauthorized",
        "The token is not a plain compact JWS. It may be too long, be encrypted, contain a key, or use `crit`.";
    TokenMismatch, "token_mismatch", Deny, 401, "Unauthorized",
        "The header or query parameter equals none of the route's static secrets.";
    TokenMissing, "token_missing", Deny, 401, "Unauthorized",
        "The request has no token where the route expects one.";
    TokenNotYetValid, "token_not_yet_valid", Deny, 401, "Unauthorized",
        "The token's `nbf` or `iat` is in the future.";
    TokenType, "token_type", Deny, 401, "Unauthorized",
        "The token's `typ` is not the expected one.";
}

impl Denial {
    /// Returns the verdict of the denial, `deny` or `fail`. The verdict is used as metric label and log field.
    pub const fn verdict(self) -> &'static str {
        match self.class() {
            Class::Deny => "deny",
            Class::Fail => "fail",
        }
    }

    /// Returns the seconds for the header `Retry-After`. Returns `None` if sending the same request again cannot help.
    pub const fn retry_after_secs(self) -> Option<u32> {
        match (self, self.class()) {
            (_, Class::Fail) | (Self::RateLimited, _) => Some(5),
            (_, Class::Deny) => None,
        }
    }
}

/// The reason for denying a request, and a sentence about what the check found in the request. The sentence contains no
/// secret, no token and no expected value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The reason of the denial.
    pub denial: Denial,
    /// A sentence about what the check found in the request.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// Creates a refusal from a denial reason and a sentence about what the check found in the request.
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
