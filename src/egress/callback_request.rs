//! The kinds of requests that get a callback from an egress rule, and the places of the callback in each kind.

use super::place::{Insertion, InsertionPlace, Occupancy};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_one};
use crate::path::CanonicalPath;
use crate::request::RequestHead;

/// The kind of body that a request must have to get a callback from a rule whose path ends with a remainder.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyKind {
    /// JSON or a form.
    Any,
    /// A form, `application/x-www-form-urlencoded`.
    Form,
    /// JSON.
    Json,
}

impl BodyKind {
    /// Returns the name of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "a JSON body or a form",
            Self::Form => "a form",
            Self::Json => "a JSON body",
        }
    }

    /// Reports whether a request has a body of this kind, according to its head.
    pub(super) fn is_of(self, head: &RequestHead<'_>) -> bool {
        head.has_body()
            && match self {
                Self::Any => head.is_json() || head.is_form(),
                Self::Form => head.is_form(),
                Self::Json => head.is_json(),
            }
    }
}

/// The condition for a kind of request. Without any condition, every request is of this kind.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RequestCondition {
    /// The ends of the paths of such requests, such as `/message:send`. An empty list accepts every path. Rules for one
    /// path ignore this list, because the path of the rule already says which requests get a callback.
    pub paths: Vec<Box<str>>,
    /// A member of the JSON body and its accepted values, for protocols in which the body names the method.
    pub member: Option<(Pointer, Vec<Box<str>>)>,
}

/// A kind of request that gets a callback.
#[derive(Clone, Debug, Default)]
pub struct CallbackRequest {
    /// The condition for such a request.
    pub condition: RequestCondition,
    /// The values to insert, each with its place.
    pub insertions: Vec<Insertion>,
    /// The members of the provider's response that can contain the provider's id of the work. The first member that is
    /// present applies. In a stream of events, it is a member of an event. If the list is empty, Callgate does not read
    /// this id.
    pub response: Vec<Pointer>,
}

impl RequestCondition {
    /// Reports whether a request may meet the condition, according to its head.
    pub(super) fn may_match(&self, head: &RequestHead<'_>, is_prefix: bool) -> bool {
        if !is_prefix || self.paths.is_empty() {
            return true;
        }
        let Ok(path) = CanonicalPath::parse(head.raw_path()) else { return false };
        self.paths.iter().any(|end| path.as_str().ends_with(&**end))
    }

    /// Reports whether a body meets the condition.
    fn matches_body(&self, body: &[u8]) -> bool {
        self.member.as_ref().is_none_or(|(pointer, accepted)| has_member(body, pointer, accepted))
    }
}

/// Reports whether a member of a JSON body has one of the accepted values. A body in which the member occurs twice has it:
/// some parsers could read the accepted value.
pub(super) fn has_member(body: &[u8], pointer: &Pointer, accepted: &[Box<str>]) -> bool {
    match find_one(body, pointer) {
        found @ Found::One(_) => found.word().is_some_and(|word| accepted.contains(&word)),
        Found::Missing => false,
        Found::Doubled => true,
    }
}

impl CallbackRequest {
    /// Reports whether a request is of this kind. `is_prefix` reports whether the rule applies to a whole API.
    pub(super) fn matches(&self, head: &RequestHead<'_>, body: &[u8], is_prefix: bool) -> bool {
        self.condition.may_match(head, is_prefix) && self.condition.matches_body(body)
    }

    /// Returns the places at which the agent's request must not have a value yet. Places of constant values are not
    /// included, because the agent may set these values itself.
    pub fn places(&self) -> impl Iterator<Item = &InsertionPlace> {
        let moving = self.insertions.iter().filter(|insertion| !insertion.shape.is_constant());
        moving.map(|insertion| &insertion.place)
    }

    /// Returns the first place at which the request already has a value.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if a place is ambiguous. Such a request can neither be changed nor be sent unchanged.
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

    /// Returns the values to insert into a request. Omits a constant value if the request already has a value at its
    /// place.
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
