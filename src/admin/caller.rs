//! Access control of the admin listener: checks `Host`, the peer address, the token, and the headers by which browsers
//! mark requests from web pages.

use http::header::{AUTHORIZATION, HOST, ORIGIN};

use super::responses::problem;
use super::server::{AdminRequest, AdminResponse};
use super::service::Admin;
use crate::browser::{self, SEC_FETCH_SITE, once};

/// Denies requests that a browser sends on behalf of a web page.
pub(super) fn from_no_page(request: &AdminRequest) -> Result<(), AdminResponse> {
    match browser::is_from_page(&request.headers) {
        true => Err(problem(403, "requests from web pages are not allowed")),
        false => Ok(()),
    }
}

/// Denies requests from web pages other than the admin page. Accepts clients that are not browsers, because they send
/// neither `Origin` nor `Sec-Fetch-Site`.
pub(super) fn from_our_page(request: &AdminRequest) -> Result<(), AdminResponse> {
    let site =
        once(&request.headers, &SEC_FETCH_SITE).is_none_or(|site| matches!(site, "same-origin" | "none"));
    let origin = !request.headers.contains_key(ORIGIN) || has_our_origin(request);
    if site && origin { Ok(()) } else { Err(problem(403, "requests from other web pages are not allowed")) }
}

/// Denies a request, unless its headers prove that the admin page sent the request.
pub(super) fn surely_from_our_page(request: &AdminRequest) -> Result<(), AdminResponse> {
    let site = once(&request.headers, &SEC_FETCH_SITE).is_none_or(|site| site == "same-origin");
    if site && has_our_origin(request) {
        Ok(())
    } else {
        Err(problem(403, "only the admin page may send this request"))
    }
}

/// Reports whether the `Origin` header names the same host and port as the `Host` header.
fn has_our_origin(request: &AdminRequest) -> bool {
    let host = once(&request.headers, &HOST).unwrap_or_default();
    let origin = once(&request.headers, &ORIGIN).and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && !host.is_empty() && authority.eq_ignore_ascii_case(host)
    })
}

/// Returns the part of a path below the prefix `api`: `42` for the path `/inbox/42` and the prefix `/inbox`, and an
/// empty text for the path `/inbox`. Returns `None` for all other paths.
pub(super) fn below<'p>(path: &'p str, api: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(api)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

impl Admin {
    /// Denies requests that must not use the APIs of the admin listener: requests from web pages, requests whose `Host`
    /// is not a configured name, and requests without the token.
    pub(super) fn may_use_apis(&self, request: &AdminRequest) -> Result<(), AdminResponse> {
        from_no_page(request)?;
        self.asked_as_ours(request)?;
        self.knows_the_token(request)
    }

    /// Denies requests whose `Host` is not a configured name of the admin listener. This protects against DNS
    /// rebinding: a request from an attacker's page contains the attacker's host name.
    pub(super) fn asked_as_ours(&self, request: &AdminRequest) -> Result<(), AdminResponse> {
        match browser::names_this_host(&request.headers, &self.listener.load().hosts) {
            true => Ok(()),
            false => Err(problem(403, "this host name is not allowed; add it to `listen.admin.hosts`")),
        }
    }

    /// Denies requests for metrics and health whose `Host` is neither a configured name nor a host name that is common
    /// within a cluster. The operator need not configure the names that are common within a cluster.
    pub(super) fn asked_as_scraped(&self, request: &AdminRequest) -> Result<(), AdminResponse> {
        let host = browser::host(&request.headers);
        let name = host.split(':').next().unwrap_or_default().trim_end_matches('.');
        if is_of_no_zone(name) { Ok(()) } else { self.asked_as_ours(request) }
    }

    /// Denies requests without the admin token. If no token is configured, denies requests from other hosts.
    pub(super) fn knows_the_token(&self, request: &AdminRequest) -> Result<(), AdminResponse> {
        match &self.listener.load().token {
            Some(token) => {
                let bearer = once(&request.headers, &AUTHORIZATION).and_then(|value| value.split_once(' '));
                let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                if bearer.is_some_and(|(_, candidate)| token.matches(candidate.trim().as_bytes())) {
                    Ok(())
                } else {
                    Err(problem(401, "the token of `listen.admin` is required"))
                }
            }
            None if request.peer.to_canonical().is_loopback() => Ok(()),
            None => Err(problem(
                403,
                "only callers on this host are allowed, unless `listen.admin` has a `token`",
            )),
        }
    }
}

/// Reports whether a host name cannot exist in public DNS, such as a name without a dot or a name that ends with
/// `.cluster.local`. An attacker who controls name resolution in the local network can still use these names. Therefore
/// a request with such a name has access to metrics and health only.
fn is_of_no_zone(name: &str) -> bool {
    let of_a_host =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    of_a_host || [".svc", ".cluster.local", ".internal"].iter().any(|zone| name.ends_with(zone))
}
