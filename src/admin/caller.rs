//! Who may ask for what on the admin listener: under which name, from where, with which token, and for which page of a
//! browser.

use http::header::{AUTHORIZATION, HOST, ORIGIN};

use super::Admin;
use super::responses::problem;
use super::server::{AdminRequest, AdminResponse};
use crate::browser::{self, SEC_FETCH_SITE, once};

/// Refuses what a page in somebody's browser asks for.
pub(super) fn from_no_page(request: &AdminRequest) -> Result<(), AdminResponse> {
    match browser::is_from_page(&request.headers) {
        true => Err(problem(403, "not for pages of a browser")),
        false => Ok(()),
    }
}

/// Refuses what another page than ours asks for. What no browser sends has neither of these headers.
pub(super) fn from_our_page(request: &AdminRequest) -> Result<(), AdminResponse> {
    let site =
        once(&request.headers, &SEC_FETCH_SITE).is_none_or(|site| matches!(site, "same-origin" | "none"));
    let origin = !request.headers.contains_key(ORIGIN) || has_our_origin(request);
    if site && origin { Ok(()) } else { Err(problem(403, "not for pages from elsewhere")) }
}

/// Refuses whatever is not known to be asked for by our page.
pub(super) fn surely_from_our_page(request: &AdminRequest) -> Result<(), AdminResponse> {
    let site = once(&request.headers, &SEC_FETCH_SITE).is_none_or(|site| site == "same-origin");
    if site && has_our_origin(request) { Ok(()) } else { Err(problem(403, "only for the page itself")) }
}

/// Whether the page that asks is from where it asks.
fn has_our_origin(request: &AdminRequest) -> bool {
    let host = once(&request.headers, &HOST).unwrap_or_default();
    let origin = once(&request.headers, &ORIGIN).and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(scheme, authority)| {
        matches!(scheme, "http" | "https") && !host.is_empty() && authority.eq_ignore_ascii_case(host)
    })
}

impl Admin {
    /// Refuses what is asked for under a name that is none of ours: a page whose name was made to point here asks
    /// for its own name.
    pub(super) fn asked_as_ours(&self, request: &AdminRequest) -> Result<(), AdminResponse> {
        match browser::names_this_host(&request.headers, &self.listener.load().hosts) {
            true => Ok(()),
            false => Err(problem(403, "not under this name; list it under `listen.admin.hosts`")),
        }
    }

    /// The same for what scrapers ask for, which within a cluster use names that need not be listed.
    pub(super) fn asked_as_scraped(&self, request: &AdminRequest) -> Result<(), AdminResponse> {
        let host = browser::host(&request.headers);
        let name = host.split(':').next().unwrap_or_default().trim_end_matches('.');
        if is_of_no_zone(name) { Ok(()) } else { self.asked_as_ours(request) }
    }

    /// Refuses who does not know the token; where there is none, who is on another host.
    pub(super) fn knows_the_token(&self, request: &AdminRequest) -> Result<(), AdminResponse> {
        match &self.listener.load().token {
            Some(token) => {
                let bearer = once(&request.headers, &AUTHORIZATION).and_then(|value| value.split_once(' '));
                let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                if bearer.is_some_and(|(_, candidate)| token.matches(candidate.trim().as_bytes())) {
                    Ok(())
                } else {
                    Err(problem(401, "the token of `listen.admin` is needed"))
                }
            }
            None if request.peer.to_canonical().is_loopback() => Ok(()),
            None => Err(problem(403, "only for callers on this host, unless `listen.admin` has a `token`")),
        }
    }
}

/// Whether it is a name that no zone of the public DNS has, as scrapers within a cluster use. Whoever answers for names
/// in a local network can have one of them: it is enough for counts, and for nothing else.
fn is_of_no_zone(name: &str) -> bool {
    let of_a_host =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    of_a_host || [".svc", ".cluster.local", ".internal"].iter().any(|zone| name.ends_with(zone))
}
