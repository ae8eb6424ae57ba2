//! Checks the action endpoint of a callback. The action endpoint is the URL to which the agent sends its answer to the
//! provider's question. Callgate can replace this URL by a local URL in the body that the agent receives.

use super::decide::Admitted;
use super::permit::Permit;
use crate::denial::Denial;
use crate::interaction::FIRST_QUESTION;
use crate::json::{Found, NotJson, find_one, find_strict, quoted, replace};
use crate::trail::{Check, Trail};

impl Admitted {
    /// Returns the action endpoint (the URL for answers) from the body of the callback, or `None` if the body contains
    /// no action endpoint. Denies the callback if the route does not allow the host of the action endpoint.
    pub(super) fn check_action_endpoint(
        &mut self,
        body: &[u8],
        trail: &mut Trail,
    ) -> Result<Option<Box<str>>, Denial> {
        let Some(actions) = &self.route.actions else { return Ok(None) };
        let refuse = |trail: &mut Trail, detail: String| {
            Err(trail.deny(Check::Action, Denial::ActionNotAllowed, || detail))
        };
        let at = actions.pointer.as_str();
        // An agent may use a lenient JSON parser, or a parser that ignores the case of JSON keys. If two parsers could
        // find different action endpoints in the body, the callback is denied.
        let found = match find_strict(body, &actions.pointer) {
            Ok(found) => found,
            Err(NotJson) if body.is_empty() => Found::Missing,
            Err(NotJson) => {
                let detail = || "the body is not valid JSON".to_owned();
                return Err(trail.deny(Check::Action, Denial::BodyNotJson, detail));
            }
        };
        match found {
            Found::Missing => {}
            Found::One(raw) if raw.get() == "null" => {}
            Found::One(raw) if raw.get().starts_with('"') => {
                let url = found.word().unwrap_or_default();
                return match actions.guard.admit(&url) {
                    Ok(_) => {
                        trail.pass(Check::Action, || {
                            format!("the action endpoint at {at} is at a listed host")
                        });
                        Ok(Some(url))
                    }
                    Err(refused) => {
                        let refusal =
                            refuse(trail, format!("the action endpoint at {at} is not allowed: {refused}"));
                        self.found.guarded = Some(refused.class());
                        refusal
                    }
                };
            }
            Found::One(_) => return refuse(trail, format!("the action endpoint at {at} is not a string")),
            Found::Doubled => {
                return refuse(
                    trail,
                    format!("the member {at} occurs twice, or its name is in another case"),
                );
            }
        }
        trail.skip(Check::Action, "the callback has no action endpoint");
        Ok(None)
    }
}

impl Permit {
    /// Reports whether Callgate replaces the action endpoint in the body by a local URL before the agent receives the
    /// body.
    pub(super) fn replaces_endpoint(&self) -> bool {
        self.question().is_some() && self.route().actions.as_ref().is_some_and(|actions| actions.rewrite)
    }

    /// Returns the body of the callback with the action endpoint replaced by a local URL. The local URL begins with
    /// `local`. Returns `None` if the route does not replace action endpoints, or if the callback asks no question.
    pub fn body_with_local_endpoint(&self, body: &[u8], local: &str) -> Option<String> {
        let actions = self.route().actions.as_ref().filter(|actions| actions.rewrite)?;
        let number = self.question()?;
        let text = std::str::from_utf8(body).ok()?;
        let old = find_one(body, &actions.pointer).raw()?;
        let interaction = self.interaction()?;
        // The local URL identifies the question, because an interaction can have several open questions.
        let url = match number {
            FIRST_QUESTION => format!("{local}{interaction}"),
            _ => format!("{local}{interaction}/{number}"),
        };
        Some(replace(text, old, &quoted(&url)))
    }
}
