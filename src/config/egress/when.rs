//! `inject.when`: which requests of a rule get the callback.

use crate::config::yaml::Cursor;
use crate::egress::{CallbackRequest, InsertionPlace};
use crate::json::Pointer;

/// The members of the JSON body that a request must have, each with its accepted values.
type Conditions = Vec<(Pointer, Vec<Box<str>>)>;

/// Reads `when: { body: { /background: true } }`. A member has one accepted value or a list of them.
pub(super) fn when(at: &Cursor<'_>) -> Option<Conditions> {
    let mut fields = at.fields()?;
    let conditions = fields.required("body").and_then(|at| {
        let members = at.named()?;
        if members.is_empty() {
            return at.error("expected at least one member and its accepted values", "{ /background: true }");
        }
        let read: Vec<_> = members.iter().map(|(name, values)| condition(name, values)).collect();
        read.into_iter().collect()
    });
    fields.finish();
    conditions
}

fn condition(name: &str, values: &Cursor<'_>) -> Option<(Pointer, Vec<Box<str>>)> {
    let Some(pointer) = Pointer::parse(name) else {
        return values.error(format!("`{name}` is not a JSON pointer"), "such as /background");
    };
    let accepted: Vec<_> = values.list_or_one()?.iter().map(Cursor::scalar_text).collect();
    Some((pointer, accepted.into_iter().collect::<Option<_>>()?))
}

/// Reports an error if the callback is inserted into a form, because the conditions require a JSON body.
pub(super) fn fits(at: &Cursor<'_>, when: &Conditions, requests: &[CallbackRequest]) -> Option<()> {
    let mut insertions = requests.iter().flat_map(|request| &request.insertions);
    if !when.is_empty() && insertions.any(|one| matches!(one.place, InsertionPlace::Form(_))) {
        return at
            .error("`when` reads a JSON body, and the callback is inserted into a form", "remove `when`");
    }
    Some(())
}
