//! Reads `inject.when` of an egress rule: the conditions under which a request gets the callback.

use crate::config::yaml::Cursor;
use crate::egress::{CallbackRequest, InsertionPlace};
use crate::json::Pointer;

/// The conditions that the JSON body of a request must fulfill. Each condition consists of the JSON pointer to a value,
/// and the accepted values at this location.
type Conditions = Vec<(Pointer, Vec<Box<str>>)>;

/// Reads `when: { body: { /background: true } }` of an egress rule. Each JSON pointer has one accepted value or a list
/// of accepted values.
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

/// Reports an error if `when` has conditions, which require a JSON body, and the callback is inserted into a form.
pub(super) fn fits(at: &Cursor<'_>, when: &Conditions, requests: &[CallbackRequest]) -> Option<()> {
    let mut insertions = requests.iter().flat_map(|request| &request.insertions);
    if !when.is_empty() && insertions.any(|one| matches!(one.place, InsertionPlace::Form(_))) {
        return at
            .error("`when` reads a JSON body, and the callback is inserted into a form", "remove `when`");
    }
    Some(())
}
