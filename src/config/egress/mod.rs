//! Reads the configuration section `egress`: the rules for the agent's requests to providers. A rule has a target, and
//! can insert a callback into its requests.

pub(super) mod insertions;
mod proxied;
mod when;

use std::sync::Arc;
use std::time::Duration;

use super::outbound::{headers, timeouts};
use super::provider::{CallbackConvention, TokenReturn, callback_convention, preset};
use super::repeated::repeated;
use super::route::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX, CONTRADICTION_HINT, methods};
use super::yaml::{Cursor, Fields, Node, filled_hint};
use insertions::{compatible, insertion, matched_request, places, secret_is_verified};
use proxied::{distinct_urls, proxied};
use when::{fits, when};

use crate::egress::{
    CallbackRequest, Egress, Inject, Insertion, InsertionPlace, Rule, Slot, Target, ValueSource,
};
use crate::framing::is_same_header;
use crate::guard::Url;
use crate::ingress::{Carrier, Route, TokenRule};
use crate::json::Pointer;
use crate::path::{TOKEN_CAPTURE, Template};
use crate::policy::TTL_MAX;

/// The largest accepted `body_max` of an egress rule without `inject`, in bytes. The limit can be high, because
/// Callgate never holds the complete bodies of these requests in memory.
const STREAMED_BYTES_MAX: u64 = 1 << 40;

/// The first segment of the paths to which the agent sends its answers to questions.
pub const ACTIONS: &str = "actions";
/// The first segment of the paths from which the agent pulls its callbacks.
pub const CALLBACKS: &str = "callbacks";

/// Returns, for each egress rule with a preset, the name of the rule's route and the callback convention of the preset.
/// Ignores mistakes in the rules. The function that reads the rules reports them.
pub(super) fn conventions(at: Option<&Cursor<'_>>) -> Vec<(String, CallbackConvention)> {
    let rules = at.map(Cursor::nodes).unwrap_or_default();
    let find = |rule: &Node| {
        let inject = rule.member("inject")?;
        let (route, name) = (inject.member("route")?.as_text()?, inject.member("preset")?.as_text()?);
        Some((route.to_owned(), preset(name)?.1.callback?))
    };
    rules.iter().filter_map(find).collect()
}

/// Reads the configuration section `egress`. `routes` is `None` if the routes have mistakes.
pub(super) fn egress(at: Option<Cursor<'_>>, routes: Option<&[Arc<Route>]>) -> Option<Egress> {
    let Some(at) = at else { return Some(Egress::default()) };
    let list = at.list()?;
    let read: Vec<_> = list.iter().map(|at| Some((at.clone(), rule(at, routes)?))).collect();
    let rules: Vec<_> = read.iter().flatten().collect();
    distinct(&rules);
    distinct_urls(&rules);
    let rules: Option<Vec<_>> = read.into_iter().map(|read| read.map(|(_, rule)| Arc::new(rule))).collect();
    Some(Egress::new(rules?))
}

/// Reports an error for each egress rule that has the same name or matches the same paths as an earlier rule.
fn distinct(rules: &[&(Cursor<'_>, Rule)]) {
    for (i, _) in repeated(rules, |(_, a), (_, b)| a.name.cmp(&b.name)) {
        let Some((at, rule)) = rules.get(i) else { continue };
        let _: Option<()> = at.error(format!("the name {} is used twice", rule.name), "");
    }
    for (i, earlier) in repeated(rules, |(_, a), (_, b)| a.path.precedence(&b.path)) {
        let (Some((at, _)), Some((_, earlier))) = (rules.get(i), rules.get(earlier)) else { continue };
        let _: Option<()> = at.error(format!("matches the same paths as the rule {}", earlier.name), "");
    }
}

fn rule(at: &Cursor<'_>, routes: Option<&[Arc<Route>]>) -> Option<Rule> {
    let mut fields = at.fields()?;
    let name = fields.required("name").and_then(|at| at.name());
    let path = fields.required("path").and_then(|at| path(&at));
    let methods = fields.optional("methods").map_or(Some(vec![http::Method::POST]), |at| methods(&at));
    let target = fields.required("target").and_then(|at| target(&at, path.as_ref()));
    let response = fields.optional("response");
    let inject = fields.optional("inject").map(|at| inject(&at, routes, path.as_ref(), response.as_ref()));
    if let (Some(at), None) = (&response, &inject) {
        let _: Option<()> = at.error("a rule without `inject` has no callback", "add `inject`");
    }
    let headers = fields.optional("headers").map_or(Some(Vec::new()), |at| headers(&at));
    let bytes_max = if inject.is_some() { BODY_BYTES_MAX } else { STREAMED_BYTES_MAX };
    let body_max = fields.optional("body_max").map_or(Some(BODY_BYTES_DEFAULT), |at| at.size(bytes_max));
    let timeouts = timeouts(&mut fields);
    let proxied = proxied(&mut fields, path.as_ref(), target.as_ref());
    fields.finish();
    if let (Some(Some(inject)), Some(headers)) = (&inject, &headers) {
        let set = |place: &InsertionPlace| {
            let InsertionPlace::Header(place) = place else { return false };
            headers.iter().any(|(name, _)| is_same_header(name.as_str(), place.as_str()))
        };
        if inject.insertions().any(|insertion| set(&insertion.place)) {
            return at.error("`inject` uses a header that `headers` sets", "keep one of the two");
        }
    }
    let (connect_timeout, response_timeout) = timeouts?;
    Some(Rule {
        name: name?.into(),
        path: path?,
        methods: methods?,
        target: target?,
        inject: inject.map_or(Some(None), |read| read.map(Some))?,
        headers: headers?,
        body_bytes_max: body_max?,
        connect_timeout,
        response_timeout,
        proxied: proxied?,
        is_by_url: false,
    })
}

fn path(at: &Cursor<'_>) -> Option<Template> {
    let template = at.template()?;
    let first = template.as_str().split('/').nth(1).unwrap_or_default();
    let used_for = match first {
        CALLBACKS => "callbacks that the agent asks for",
        _ if first == ACTIONS || first.starts_with('{') => "the agent's answers to questions",
        _ => return Some(template),
    };
    let reserved = if first == CALLBACKS { CALLBACKS } else { ACTIONS };
    let message = format!("paths below /{reserved} are reserved for {used_for}");
    at.error(message, "begin the path with another segment")
}

fn target(at: &Cursor<'_>, path: Option<&Template>) -> Option<Target> {
    let text = at.text()?;
    let hint = "such as https://service.example.com/analyze";
    let bad = |fault: &str| at.error(format!("`{text}` is not a valid target: {fault}"), hint);
    let start = text.find("://").map_or(0, |at| at + 3);
    let slash = text.get(start..).and_then(|rest| rest.find('/')).map_or(text.len(), |at| start + at);
    let (origin, template) = match text.contains(['{', '*']) {
        false => (text, None),
        true => {
            let (origin, rest) = text.split_at_checked(slash)?;
            let template = Template::parse(rest).and_then(|template| match path {
                Some(path) if template.names().all(|name| path.has(name)) => template.filled_from(path),
                _ => Ok(template),
            });
            match template {
                Ok(template) => (origin, Some(template)),
                Err(fault) => {
                    let message = format!("`{text}` is not a valid target: {fault}");
                    return at.error(message, filled_hint(&fault));
                }
            }
        }
    };
    if let (Some(template), Some(path)) = (&template, path)
        && let Some(name) = template.names().find(|name| !path.has(name))
    {
        return at.error(format!("the path has no capture {name}"), "");
    }
    if let Some(name) = path.and_then(Template::remainder)
        && template.as_ref().is_none_or(|template| !template.has(name))
    {
        at.warn(&format!(
            "the target does not contain {{{name}}}: all requests below the path go to one URL"
        ));
    }
    match Url::parse(origin) {
        Ok(url) => Some(Target { url, path: template }),
        Err(fault) => bad(fault.name()),
    }
}

fn inject(
    at: &Cursor<'_>,
    routes: Option<&[Arc<Route>]>,
    path: Option<&Template>,
    response: Option<&Cursor<'_>>,
) -> Option<Inject> {
    let mut fields = at.fields()?;
    let route = fields.required("route").and_then(|at| route(&at, routes));
    let params = params(&mut fields, route, path);
    let preset = fields.optional("preset").map(|at| Some((at.clone(), callback_convention(&at)?)));
    let is_matched = route.is_some_and(|route| route.follow.matching.is_some());
    let needs_url = preset.is_none() && !is_matched;
    let url = if needs_url { fields.required("url") } else { fields.optional("url") };
    let own = placed(url, fields.optional("token"), fields.optional("values"));
    let keep = fields.optional("if_present");
    let keep = keep.map_or(Some(false), |at| at.one_of(&[("keep", true), ("refuse", false)]));
    let when = fields.optional("when").map_or(Some(Vec::new()), |at| when(&at));
    let ttl = fields.optional("ttl").map(|at| ttl(&at));
    let uses = fields.optional("uses").map(|at| at.whole_number(1..=u64::from(u32::MAX)));
    let own_response = fields.optional("response");
    if let (Some(at), Some(_)) = (&own_response, response) {
        let _: Option<()> = at.error("`response` occurs in the rule and in `inject`", "keep one of the two");
    }
    let response = own_response.as_ref().or(response).map(|at| at.pointer());
    fields.finish();
    let route = route?;
    let response = response.map_or(Some(Vec::new()), |read| read.map(|pointer| vec![pointer]))?;
    let requests = match is_matched {
        true => matched_request(at, preset.is_some(), &own?, response)?,
        false => requests(at, preset, route, own, response)?,
    };
    secret_is_verified(at, route, &requests)?;
    let when = when?;
    fits(at, &when, &requests)?;
    Some(Inject {
        route: Arc::clone(&route.name),
        remainder: route.path.remainder().map(Into::into),
        params: params?,
        requests,
        when,
        keep: keep?,
        ttl: ttl.map_or(Some(None), |read| read.map(Some))?,
        uses: uses.map_or(Some(None), |read| read.map(|uses| u32::try_from(uses).ok()))?,
    })
}

/// Returns the kinds of requests into which an egress rule inserts a callback. With a preset, these are the kinds of
/// requests that the preset defines. Without a preset, there is one kind, which includes every request and has the
/// insertions `own`. `response` lists the locations of the provider's id in the provider's response. If `response` is
/// not empty, it replaces the locations in the preset.
fn requests(
    at: &Cursor<'_>,
    preset: Option<Option<(Cursor<'_>, CallbackConvention)>>,
    route: &Route,
    own: Option<Vec<Insertion>>,
    response: Vec<Pointer>,
) -> Option<Vec<CallbackRequest>> {
    let Some(preset) = preset else {
        let own = own?;
        carried(at, route, &own)?;
        compatible(at, &own)?;
        return Some(vec![CallbackRequest { insertions: own, response, ..CallbackRequest::default() }]);
    };
    let (preset_at, callback) = preset?;
    if !own?.is_empty() {
        return at.error(
            "the preset defines the locations of the URL and the token",
            "remove `url`, `token` and `values`",
        );
    }
    comes_back(&preset_at, route, &callback)?;
    not_fixed(&preset_at, route, &callback)?;
    let stated = |request: CallbackRequest| match response.is_empty() {
        true => request,
        false => CallbackRequest { response: response.clone(), ..request },
    };
    Some(callback.requests.into_iter().map(stated).collect())
}

fn ttl(at: &Cursor<'_>) -> Option<Duration> {
    match at.duration()? {
        ttl if ttl > TTL_MAX => at.error("must be at most 366d", ""),
        ttl => Some(ttl),
    }
}

/// Reads the insertions of an egress rule without a preset: the callback URL, the token if it has its own location in
/// the request, and other values.
fn placed(
    url: Option<Cursor<'_>>,
    token: Option<Cursor<'_>>,
    values: Option<Cursor<'_>>,
) -> Option<Vec<Insertion>> {
    let url = url.map_or(Some(Vec::new()), |at| places(&at, Slot::Url));
    let token = token.map_or(Some(Vec::new()), |at| places(&at, Slot::Token));
    let values = values.map_or(Some(Vec::new()), |at| {
        let read: Vec<_> = at.list()?.iter().map(insertion).collect();
        read.into_iter().collect()
    });
    Some([url?, token?, values?].concat())
}

/// Reports an error if the provider does not send the token back in the first location in which the route looks for the
/// token.
fn comes_back(at: &Cursor<'_>, route: &Route, callback: &CallbackConvention) -> Option<()> {
    let Some(TokenRule::Callback { carriers, .. }) = &route.token else { return None };
    let first = carriers.first();
    let (fits, from) = match &callback.token {
        TokenReturn::Url => (matches!(first, Some(Carrier::Query(_) | Carrier::Path)), "[query]".to_owned()),
        TokenReturn::Bearer => (matches!(first, Some(Carrier::Bearer)), "[bearer]".to_owned()),
        TokenReturn::Header(name) => {
            (matches!(first, Some(Carrier::Header(ours)) if ours == name), format!("[{{header: {name}}}]"))
        }
    };
    // If the URL contains the token, the provider sends the token whenever it calls the URL.
    if fits || matches!(first, Some(Carrier::Query(_) | Carrier::Path)) {
        return Some(());
    }
    at.error(
        format!("the provider does not send the token where the route {} looks for it", route.name),
        format!("add `from: {from}` to the token of the route"),
    )
}

/// Reports an error if the provider sends the token of the interaction in a header in which the route expects another
/// value, such as a fixed secret.
fn not_fixed(at: &Cursor<'_>, route: &Route, callback: &CallbackConvention) -> Option<()> {
    let Some(verifier) = route.verifier() else { return Some(()) };
    match callback.token_header(verifier.scheme().proof_headers()) {
        None => Some(()),
        Some(name) => at.error(
            format!(
                "the provider sends the token of the interaction in the header {name}, where the route {} expects {}",
                route.name,
                verifier.scheme().proof_name()
            ),
            CONTRADICTION_HINT,
        ),
    }
}

fn route<'r>(at: &Cursor<'_>, routes: Option<&'r [Arc<Route>]>) -> Option<&'r Arc<Route>> {
    let name = at.text()?;
    match routes?.iter().find(|route| *route.name == *name) {
        None => at.error(format!("there is no route {name}"), ""),
        Some(route) if route.follow.matching.is_some() => Some(route),
        Some(route) if !matches!(route.token, Some(TokenRule::Callback { .. })) => {
            at.error(format!("the route {name} has no token of kind callback"), "")
        }
        Some(route) => Some(route),
    }
}

/// Reports an error if the token is not part of the URL and has no location in the request. The provider would then
/// not receive the token.
fn carried(at: &Cursor<'_>, route: &Route, insertions: &[Insertion]) -> Option<()> {
    let Some(TokenRule::Callback { carriers, .. }) = &route.token else { return None };
    let sends_token = insertions.iter().any(|insertion| insertion.shape.holds(Slot::Token));
    match carriers.first() {
        Some(Carrier::Bearer | Carrier::Header(_)) if !sends_token => at.error(
            format!(
                "the route {} expects its token in a header, but the request does not contain the token",
                route.name
            ),
            "add `token`, a location in the request, or set `from: [query]` in the token of the route",
        ),
        _ => Some(()),
    }
}

fn params(
    fields: &mut Fields<'_>,
    route: Option<&Arc<Route>>,
    path: Option<&Template>,
) -> Option<Vec<(Box<str>, ValueSource)>> {
    let at = fields.at().clone();
    let given = fields.optional("params").map_or(Some(Vec::new()), |at| at.named())?;
    let read: Vec<_> = given.iter().map(|(name, at)| Some(((*name).into(), source(at, path)?))).collect();
    for (name, at) in &given {
        if route.is_some_and(|route| !route.path.has(name) || *name == TOKEN_CAPTURE) {
            let _: Option<()> = at.error(format!("the route has no capture {name}"), "");
        }
    }
    let captures = route.iter().flat_map(|route| route.path.names()).filter(|name| *name != TOKEN_CAPTURE);
    let missing = captures.filter(|capture| given.iter().all(|(name, _)| name != capture));
    for capture in missing {
        let hint = "a JSON pointer, or one of {new: uuid}, {header: NAME}, {query: NAME}, {path: CAPTURE}";
        let _: Option<()> = at.error(format!("`params` has no {capture}"), hint);
    }
    read.into_iter().collect()
}

fn source(at: &Cursor<'_>, path: Option<&Template>) -> Option<ValueSource> {
    if !at.is_map() {
        return at.pointer().map(ValueSource::Body);
    }
    let mut fields = at.fields()?;
    let new = fields.optional("new").map(|at| at.one_of(&[("uuid", ())]));
    let header = fields.optional("header").map(|at| at.header_name().map(ValueSource::Header));
    let query = fields.optional("query").map(|at| at.text().map(|name| ValueSource::Query(name.into())));
    let capture = fields.optional("path").map(|at| {
        let name = at.text()?;
        if path.is_some_and(|path| !path.has(name)) {
            return at.error(format!("the path has no capture {name}"), "");
        }
        Some(ValueSource::Path(name.into()))
    });
    let new = new.map(|read| read.map(|()| ValueSource::New));
    one_of(
        fields,
        [new, header, query, capture],
        "{new: uuid}, {header: NAME}, {query: NAME}, {path: CAPTURE}",
    )
}

fn one_of<T, const N: usize>(fields: Fields<'_>, read: [Option<Option<T>>; N], known: &str) -> Option<T> {
    let (at, known_keys) = (fields.at().clone(), fields.all_asked());
    fields.finish();
    if !known_keys {
        return None;
    }
    let mut given = read.into_iter().flatten();
    match (given.next(), given.next()) {
        (Some(one), None) => one,
        _ => at.error(format!("expected exactly one of {known}"), "or a JSON pointer, such as /callback_url"),
    }
}
