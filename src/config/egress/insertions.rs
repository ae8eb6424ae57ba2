//! Reads the values that egress rules and presets insert into a request, and the location of each value in the request.

use http::HeaderValue;

use crate::config::outbound::{CANNOT_BE_SET, can_be_set};
use crate::config::yaml::{Cursor, Node};
use crate::egress::{CallbackRequest, Insertion, InsertionPlace, Shape, Slot};
use crate::ingress::Route;
use crate::json::Pointer;
use crate::signature::VerifierKeys;

/// Reads an insertion, which is a value and its location in a request: `{body: /webhook, value: "{url}"}`.
pub(in crate::config) fn insertion(at: &Cursor<'_>) -> Option<Insertion> {
    read(at, None)
}

/// Reads the locations in a request at which Callgate inserts one part of the callback, such as the callback URL.
/// `slot` names the part. The setting is one location or a list. A location is a JSON pointer such as `/webhook`, or a
/// mapping such as `{header: x-callback-url}`. The mapping may have a `value` that contains the part, such as `Bearer
/// {token}`.
pub(super) fn places(at: &Cursor<'_>, slot: Slot) -> Option<Vec<Insertion>> {
    let read: Vec<_> = at.list_or_one()?.iter().map(|at| read(at, Some(slot))).collect();
    read.into_iter().collect()
}

/// Reads an insertion, which is a value and its location in a request. `slot` names the part of the callback that the
/// value must contain, or is `None` if the value is arbitrary. If the settings `value` and `base64` are missing,
/// Callgate inserts this part alone.
fn read(at: &Cursor<'_>, slot: Option<Slot>) -> Option<Insertion> {
    if let (Some(slot), false) = (slot, at.is_map()) {
        let place = InsertionPlace::Body(at.pointer()?);
        return Some(Insertion { place, shape: Shape::slot(slot) });
    }
    let mut fields = at.fields()?;
    let body = fields.optional("body").map(|at| at.pointer().map(InsertionPlace::Body));
    let form = fields.optional("form").map(|at| at.text().map(|name| InsertionPlace::Form(name.into())));
    let header = fields.optional("header").map(|at| header(&at));
    let query = fields.optional("query").map(|at| at.text().map(|name| InsertionPlace::Query(name.into())));
    let value = fields.optional("value").map(|at| (shape(at.node()), at));
    let base64 = fields.optional("base64").map(|at| (Shape::Base64(Box::new(shape(at.node()))), at));
    let known_keys = fields.all_asked();
    fields.finish();
    if !known_keys {
        return None;
    }
    let mut places = [body, form, header, query].into_iter().flatten();
    let mut values = [value, base64].into_iter().flatten();
    let (place, shape) = match (places.next(), places.next(), values.next(), values.next(), slot) {
        (Some(place), None, Some((shape, value)), None, _) => {
            let place = place?;
            fits(&value, &place, &shape, slot)?;
            (place, shape)
        }
        (Some(place), None, None, _, Some(slot)) => (place?, Shape::slot(slot)),
        _ => {
            return at.error(
                "expected one location and one value",
                "{body: /webhook, value: \"{url}\"}; the locations are body, form, header and query",
            );
        }
    };
    Some(Insertion { place, shape })
}

/// Checks a configured value that Callgate inserts into a request. Reports an error if the value does not contain the
/// part of the callback that `slot` names. Also reports an error if the location is a header, and the value has
/// characters that a header cannot contain.
fn fits(at: &Cursor<'_>, place: &InsertionPlace, shape: &Shape, slot: Option<Slot>) -> Option<()> {
    if let Some(slot) = slot.filter(|slot| !shape.holds(*slot)) {
        return at.error(format!("the value does not contain {}", slot.placeholder()), "");
    }
    let is_valid = match at.node() {
        Node::Text(text) => HeaderValue::from_str(text).is_ok(),
        _ => true,
    };
    match place {
        InsertionPlace::Header(_) if !is_valid => {
            at.error("the value has characters that a header cannot contain", "")
        }
        _ => Some(()),
    }
}

fn header(at: &Cursor<'_>) -> Option<InsertionPlace> {
    let name = at.header_name()?;
    if can_be_set(&name) {
        Some(InsertionPlace::Header(name))
    } else {
        at.error(CANNOT_BE_SET, "such as x-callback-url")
    }
}

/// Returns the template for a configured value. Texts in the value may contain placeholders for parts of the callback,
/// such as `{url}`.
fn shape(node: &Node) -> Shape {
    match node {
        Node::Bool(value) => Shape::Raw(value.to_string().into()),
        Node::List(items) => Shape::List(items.iter().map(shape).collect()),
        Node::Map(members) => {
            Shape::Object(members.iter().map(|(name, value)| (name.as_str().into(), shape(value))).collect())
        }
        Node::Null => Shape::Raw("null".into()),
        Node::Number(number) => Shape::Raw(number.as_str().into()),
        Node::Text(text) => Shape::text(text),
    }
}

/// Reports an error if two values have the same location in the request, or if some values need a JSON body and other
/// values need a form.
pub(super) fn compatible(at: &Cursor<'_>, insertions: &[Insertion]) -> Option<()> {
    let overlap = |a: &Insertion, b: &Insertion| match (&a.place, &b.place) {
        (InsertionPlace::Body(a), InsertionPlace::Body(b)) => a.overlaps(b),
        (a, b) => a == b,
    };
    let mut rest = insertions;
    while let Some((first, others)) = rest.split_first() {
        if others.iter().any(|other| overlap(first, other)) {
            return at.error(format!("two values have the same location, {}", first.place), "");
        }
        rest = others;
    }
    let is_json = |one: &Insertion| matches!(one.place, InsertionPlace::Body(_));
    let is_form = |one: &Insertion| matches!(one.place, InsertionPlace::Form(_));
    if insertions.iter().any(is_json) && insertions.iter().any(is_form) {
        return at.error("a body cannot be both JSON and a form", "use JSON pointers or `form`, not both");
    }
    Some(())
}

/// Returns the kinds of requests of an egress rule. The route of the rule finds interactions by the provider's id, so
/// Callgate inserts nothing into these requests. The result is a single kind, which includes every request. `response`
/// lists the locations of the provider's id in the provider's response. Reports an error if the rule has a preset or
/// its own insertions (`own`), or if `response` is empty.
pub(in crate::config) fn matched_request(
    at: &Cursor<'_>,
    has_preset: bool,
    own: &[Insertion],
    response: Vec<Pointer>,
) -> Option<Vec<CallbackRequest>> {
    if has_preset || !own.is_empty() {
        return at.error(
            "the route finds its interactions by the provider's id, so the request needs no callback",
            "keep only `route` and `response`",
        );
    }
    if response.is_empty() {
        return at.error(
            "the route finds its interactions by the provider's id, and the rule does not read it",
            "add `response`, the location of the id in the provider's response",
        );
    }
    Some(vec![CallbackRequest { response, ..CallbackRequest::default() }])
}

/// Reports an error if the egress rule inserts a secret into requests to the provider, but the route does not verify
/// callbacks with this secret.
pub(super) fn secret_is_verified(at: &Cursor<'_>, route: &Route, requests: &[CallbackRequest]) -> Option<()> {
    let mut insertions = requests.iter().flat_map(|request| &request.insertions);
    let verifies =
        || route.verifier().is_some_and(|verifier| matches!(verifier.keys(), VerifierKeys::Derived));
    if insertions.any(|insertion| insertion.shape.holds(Slot::Secret)) && !verifies() {
        return at.error(
            format!(
                "`inject` sends a secret to the provider, but the route {} does not verify it",
                route.name
            ),
            "add `secrets: derived` to the provider of the route",
        );
    }
    Some(())
}
