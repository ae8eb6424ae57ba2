//! The kinds of requests into which an egress rule inserts a callback, and the locations of the callback in each kind.

use super::place::{Insertion, InsertionPlace, Occupancy};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_one};
use crate::path::CanonicalPath;
use crate::request::RequestHead;

/// The kind of body that a request must have to get a callback. Only egress rules whose path ends with a remainder
/// (`{*name}`) check the kind of body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyKind {
    /// A JSON body or a form body.
    Any,
    /// A form body, `application/x-www-form-urlencoded`.
    Form,
    /// A JSON body.
    Json,
}

impl BodyKind {
    /// Returns the name of the body kind for error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "a JSON body or a form",
            Self::Form => "a form",
            Self::Json => "a JSON body",
        }
    }

    /// Reports whether the head of a request declares a body of this kind.
    pub(super) fn is_of(self, head: &RequestHead<'_>) -> bool {
        head.has_body()
            && match self {
                Self::Any => head.is_json() || head.is_form(),
                Self::Form => head.is_form(),
                Self::Json => head.is_json(),
            }
    }
}

/// The condition by which Callgate recognizes one kind of request. The default condition accepts every request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestCondition {
    /// A request gets a callback if its path ends with one of these texts, for example `/message:send`. An empty list
    /// accepts every path. An egress rule for a single path ignores this list.
    pub paths: Vec<Box<str>>,
    /// The location of a value in the JSON body, and the accepted values. For example, `/method` is the location of the
    /// method in a JSON-RPC request. `None` accepts every body.
    pub member: Option<(Pointer, Vec<Box<str>>)>,
}

/// A kind of request into which an egress rule inserts a callback.
#[derive(Clone, Debug, Default)]
pub struct CallbackRequest {
    /// The condition that a request must meet to be of this kind.
    pub condition: RequestCondition,
    /// The values that are inserted into the request, each with its location.
    pub insertions: Vec<Insertion>,
    /// The locations of the provider's task id in the JSON body of the provider's response. The first location that
    /// has a string or a number counts. In an event stream, the locations refer to the JSON data of an event. If the list is empty,
    /// Callgate does not read this id.
    pub response: Vec<Pointer>,
}

impl RequestCondition {
    /// Reports whether a request with this head can meet the condition. `is_prefix` is true if the path of the egress
    /// rule ends with a remainder (`{*name}`).
    pub(super) fn may_match(&self, head: &RequestHead<'_>, is_prefix: bool) -> bool {
        if !is_prefix || self.paths.is_empty() {
            return true;
        }
        let Ok(path) = CanonicalPath::parse(head.raw_path()) else { return false };
        self.paths.iter().any(|end| path.as_str().ends_with(&**end))
    }

    /// Reports whether the body of a request meets the condition.
    fn matches_body(&self, body: &[u8]) -> bool {
        self.member.as_ref().is_none_or(|(pointer, accepted)| has_member(body, pointer, accepted))
    }
}

/// Reports whether a JSON body has one of the accepted values at this location. Returns true if the JSON key occurs
/// twice, because some parsers could read an accepted value.
pub(super) fn has_member(body: &[u8], pointer: &Pointer, accepted: &[Box<str>]) -> bool {
    match find_one(body, pointer) {
        found @ Found::One(_) => found.word().is_some_and(|word| accepted.contains(&word)),
        Found::Missing => false,
        Found::Doubled => true,
    }
}

impl CallbackRequest {
    /// Reports whether a request is of this kind. `is_prefix` is true if the path of the egress rule ends with a
    /// remainder (`{*name}`).
    pub(super) fn matches(&self, head: &RequestHead<'_>, body: &[u8], is_prefix: bool) -> bool {
        self.condition.may_match(head, is_prefix) && self.condition.matches_body(body)
    }

    /// Returns the locations at which the agent's request must not have a value yet. Locations of constant values are
    /// left out, because the agent may set these values itself.
    pub fn places(&self) -> impl Iterator<Item = &InsertionPlace> {
        let moving = self.insertions.iter().filter(|insertion| !insertion.shape.is_constant());
        moving.map(|insertion| &insertion.place)
    }

    /// Returns the first location in [`Self::places`] at which the request already has a value.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if different programs could read different values at a location. Callgate must then
    /// neither change the request nor send it unchanged.
    pub(super) fn taken(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
    ) -> Result<Option<&InsertionPlace>, Refusal> {
        let mut taken = None;
        for place in self.places() {
            match place.occupancy(head, body)? {
                Occupancy::Free => {}
                Occupancy::Taken => taken = taken.or(Some(place)),
                Occupancy::Ambiguous => {
                    let detail =
                        format!("the request has several values at {place}, or another spelling of it");
                    return Err(Refusal::new(Denial::InjectionImpossible, detail));
                }
            }
        }
        Ok(taken)
    }

    /// Returns the values that must be inserted into a request. A constant value is left out if the request already has
    /// a value at the same location.
    pub(super) fn wanted<'i>(
        &'i self,
        head: &'i RequestHead<'_>,
        body: &'i [u8],
    ) -> impl Iterator<Item = &'i Insertion> {
        self.insertions
            .iter()
            .filter(move |insertion| !insertion.shape.is_constant() || !insertion.place.is_taken(head, body))
    }
}
