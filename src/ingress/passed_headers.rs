//! Decides which headers of a caller reach the agent.

use http::HeaderName;

use crate::request::HOP_BY_HOP;

/// The names of request headers that Callgate always removes, sorted. Agents and their frameworks trust these headers,
/// because a proxy, a content delivery network or an application server usually sets them. They contain the client
/// address, the path, the host, the method, or the identity of a user. A caller must not choose these values.
const REMOVED: [&str; 82] = [
    "ali-cdn-real-ip",
    "cdn-real-ip",
    "cdn-src-ip",
    "cf-ipcountry",
    "cf-visitor",
    // Defined by RFC 9440.
    "client-cert",
    "client-cert-chain",
    "client-dn",
    "client-ip",
    "client-verify",
    "disguised-host",
    "do-connecting-ip",
    "eo-client-ip",
    "eo-connecting-ip",
    "fastly-client",
    "fastly-client-ip",
    "fastly-ff",
    "fastly-ssl",
    "fly-client-ip",
    "forwarded",
    "forwarded-for",
    "front-end-https",
    "impersonate-group",
    "impersonate-user",
    "incap-client-ip",
    "iv-creds",
    "iv-groups",
    "iv-user",
    "path-info",
    // CGI gateways put this header into the environment variable `HTTP_PROXY` (httpoxy).
    "proxy",
    "proxy-client-ip",
    "script-name",
    "sm-user",
    "ssl-cert",
    "ssl-verified",
    "true-client-ip",
    "via",
    "x-anonymous-consumer",
    "x-apigateway-api-userinfo",
    "x-auth-user",
    "x-client-ip",
    "x-client-real-ip",
    "x-client-verify",
    "x-cluster-client-ip",
    "x-custom-ip-authorization",
    "x-edge-client-ip",
    "x-endpoint-api-userinfo",
    "x-forward-for",
    "x-forwarded",
    "x-forwarder-for",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-https",
    "x-jwt-assertion",
    "x-matched-path",
    "x-method-override",
    "x-ms-forwarded-client-cert",
    "x-nf-client-connection-ip",
    "x-now-route-matches",
    "x-originating-ip",
    "x-override-url",
    "x-proxyuser-ip",
    "x-real-host",
    "x-real-ip",
    "x-real-port",
    "x-real-proto",
    "x-real-scheme",
    "x-replaced-path",
    "x-request-uri",
    "x-rewrite-url",
    "x-scheme",
    "x-script-name",
    "x-sendfile-type",
    "x-source-ip",
    "x-sucuri-clientip",
    "x-url",
    "x-url-scheme",
    "x-userinfo",
    "x-vercel-proxied-for",
    "x-waws-unencoded-url",
];

/// The prefixes of header names that Callgate always removes, sorted. Agents and their frameworks trust the headers
/// with these prefixes.
const REMOVED_PREFIXES: [&str; 48] = [
    "callgate-",
    // Set by Cloudflare.
    "cf-access-",
    "cf-connecting-",
    "cf-pseudo-",
    "cloudfront-",
    "fly-forwarded-",
    "oidc-claim-",
    // Set by Authelia. CGI also uses `REMOTE_USER`.
    "remote-",
    // Set by nginx.
    "ssl-client-",
    "tailscale-user-",
    // Set by WebLogic.
    "wl-proxy-",
    "x-accel-",
    "x-akamai-",
    "x-amzn-lambda-",
    "x-amzn-mtls-",
    "x-amzn-oidc-",
    "x-amzn-remapped-",
    "x-amzn-request-context",
    "x-amzn-tls-",
    "x-apisix-",
    "x-appengine-",
    // Set by Azure App Service.
    "x-arr-",
    // Set by oauth2-proxy.
    "x-auth-request-",
    "x-authenticated-",
    "x-authentik-",
    "x-azure-",
    "x-client-cert",
    "x-client-dn",
    // Set by Kong.
    "x-consumer-",
    "x-credential-",
    "x-envoy-",
    "x-forwarded-",
    "x-goog-authenticated-",
    "x-goog-iap-",
    // Used by Next.js.
    "x-invoke-",
    "x-middleware-",
    // Set by Azure App Service.
    "x-ms-client-principal",
    "x-ms-original-",
    "x-ms-token-",
    "x-original-",
    "x-pomerium-",
    "x-remote-",
    "x-ssl-",
    "x-tls-client-",
    "x-vercel-forwarded-",
    "x-vercel-ip-",
    "x-vercel-oidc-",
    "x-webauth-",
];

/// The headers that every allowlist contains. The first three headers describe the body. `traceparent` identifies the
/// trace of the request.
const ALWAYS_PASSED: [&str; 4] = ["content-encoding", "content-language", "content-type", "traceparent"];

/// Reports whether Callgate always removes this header of a caller, whatever the configuration says. This is the case
/// for hop-by-hop headers, headers that only a proxy is allowed to set, `Callgate-*` headers, and headers whose name
/// has a character other than letters, digits and `-`.
pub fn is_always_removed(name: &HeaderName) -> bool {
    let text = name.as_str();
    is_listed(text)
        || HOP_BY_HOP.contains(name)
        // CGI gateways and WSGI servers treat `callgate_route` as the header `callgate-route`. Some of them treat
        // `callgate.route` in the same way.
        || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Reports whether [`REMOVED`] contains the name, or [`REMOVED_PREFIXES`] a prefix of the name.
fn is_listed(text: &str) -> bool {
    // The first three bytes of many names, such as `content-type`, show that the name is not listed.
    let Some([first, second, third]) = text.as_bytes().first_chunk() else { return false };
    let beginning = beginning(*first, *second, *third);
    if !BEGINNINGS.get(beginning).is_some_and(|is_used| *is_used) {
        return false;
    }
    // The list is sorted, and no prefix begins with another prefix of the list. Therefore, only the last prefix that is
    // not greater than the name can match.
    let prefixes = REMOVED_PREFIXES.partition_point(|prefix| *prefix <= text);
    let prefix = prefixes.checked_sub(1).and_then(|last| REMOVED_PREFIXES.get(last));
    REMOVED.binary_search(&text).is_ok() || prefix.is_some_and(|prefix| text.starts_with(prefix))
}

/// The value at the index `n` is true if [`beginning`] returns `n` for a name in [`REMOVED`] or [`REMOVED_PREFIXES`].
static BEGINNINGS: [bool; 1024] = {
    let mut used = [false; 1024];
    mark(&REMOVED, &mut used);
    mark(&REMOVED_PREFIXES, &mut used);
    used
};

#[expect(
    clippy::indexing_slicing,
    reason = "the compiler runs this function, so an index out of range is an error"
)]
const fn mark(names: &[&str], used: &mut [bool; 1024]) {
    let mut at = 0;
    while at < names.len() {
        let name = names[at].as_bytes();
        used[beginning(name[0], name[1], name[2])] = true;
        at += 1;
    }
}

/// Returns a number below 1024 for the first three bytes of a name. Different beginnings can have the same number.
const fn beginning(first: u8, second: u8, third: u8) -> usize {
    (((first & 31) as usize) << 5 | (second & 31) as usize) ^ ((third & 31) as usize * 33)
}

/// The names of the headers of callers that reach the agent. Callgate removes all other headers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderAllowlist(Vec<HeaderName>);

impl HeaderAllowlist {
    /// Creates an allowlist that contains `names` and the headers that every allowlist contains.
    pub fn new(mut names: Vec<HeaderName>) -> Self {
        names.extend(ALWAYS_PASSED.map(HeaderName::from_static));
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        names.dedup();
        Self(names)
    }

    /// Returns all names in the allowlist, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(HeaderName::as_str)
    }

    pub(super) fn contains(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_sorted_and_no_prefix_begins_with_another() {
        assert!(REMOVED.is_sorted() && REMOVED_PREFIXES.is_sorted());
        for prefix in REMOVED_PREFIXES {
            let others = REMOVED_PREFIXES.iter().filter(|other| **other != prefix);
            assert!(others.clone().all(|other| !prefix.starts_with(other)), "{prefix}");
            assert!(REMOVED.iter().all(|name| !name.starts_with(prefix)), "{prefix}");
        }
    }

    #[test]
    fn the_beginning_of_a_name_hides_no_listed_name() {
        let slow = |name: &str| {
            REMOVED.contains(&name) || REMOVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        for name in REMOVED.iter().chain(&REMOVED_PREFIXES) {
            assert!(is_listed(name), "{name}");
            for at in 0..name.len() {
                let (before, after) = name.split_at(at);
                let others =
                    [format!("{before}{}", &after[1..]), format!("{before}q{after}"), before.to_owned()];
                for other in others {
                    assert_eq!(is_listed(&other), slow(&other), "{other}");
                }
            }
        }
        for prefix in REMOVED_PREFIXES {
            assert!(is_listed(&format!("{prefix}name")), "{prefix}");
        }
        assert!(!["accept", "content-type", "te", "x-request-id"].iter().any(|name| is_listed(name)));
    }

    #[test]
    fn headers_that_proxies_set_are_removed() {
        for name in [
            "X-Forwarded",
            "X-Original-URI",
            "X-Original-Host",
            "X-Original-URL",
            "X-Host",
            "X-Original-Forwarded-For",
            "X-Envoy-Original-Path",
            "X-Envoy-External-Address",
            "Fly-Client-IP",
            "X-Azure-ClientIP",
            "X-Appengine-User-Ip",
            "CloudFront-Viewer-Address",
            "X-ProxyUser-Ip",
            "WL-Proxy-Client-IP",
            "Ali-Cdn-Real-Ip",
            "Remote-User",
            "X-Client-Cert",
            "Via",
            "True-Client-IP",
            "CF-Connecting-IP",
            "CF-Connecting-IPv6",
            "X-Cluster-Client-IP",
            "X-Rewrite-URL",
            "X-HTTP-Method-Override",
            "X-Forwarded-Client-Cert",
            "Forwarded",
            "X-SSL-Client-Verify",
            "SSL-Client-Cert",
            "SSL_CLIENT_CERT",
            "X-Client-Verify",
            "X-Amzn-Oidc-Data",
            "X-Amzn-Mtls-Clientcert",
            "X-Remote-User",
            "X-Remote-Group",
            "X-Authenticated-User",
            "Proxy",
            "X_Forwarded_For",
            "x_forwarded-for",
            "X.Forwarded.For",
            "REMOTE_USER",
            "X-Auth-Request-Email",
            "X-Goog-IAP-JWT-Assertion",
            "X-Ms-Client-Principal",
            "X-Middleware-Subrequest",
            "X-Accel-Mapping",
            "X-Sendfile-Type",
            "Callgate-Route",
            "Connection",
            "Host",
            "Content-Length",
        ] {
            assert!(is_always_removed(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn headers_of_applications_pass() {
        for name in [
            "content-type",
            "content-encoding",
            "user-agent",
            "accept",
            "accept-encoding",
            "traceparent",
            "tracestate",
            "baggage",
            "b3",
            "x-b3-traceid",
            "x-request-id",
            "x-correlation-id",
            "x-amzn-trace-id",
            "cf-ray",
            "cf-webhook-auth",
            "x-github-event",
            "x-hub-signature-256",
            "webhook-id",
            "ce-type",
            "ce-originaltime",
            "idempotency-key",
            "x-amz-sns-message-type",
            "x-goog-channel-id",
            "x-vercel-signature",
            "aeg-event-type",
            "tailscale-webhook-signature",
            "x-real-estate",
            "x-hostname",
            "origin",
            "cookie",
            "x-clientele",
        ] {
            assert!(!is_always_removed(&name.parse().unwrap()), "{name}");
        }
        assert!(ALWAYS_PASSED.iter().all(|name| !is_always_removed(&HeaderName::from_static(name))));
    }
}
