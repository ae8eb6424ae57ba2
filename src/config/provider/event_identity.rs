//! Reads `duplicates` and `identity` of a provider: the parts of a message by which Callgate recognizes repeated
//! messages about the same event.

use crate::config::yaml::Cursor;
use crate::signature::{DuplicateRule, IdentityPart, Scheme};

/// The maximum number of parts in the setting `identity` of a provider.
const PARTS_MAX: usize = 8;

/// Reads `duplicates` and `identity` of a signature scheme, and returns the scheme with these settings.
pub(super) fn with_identity(
    mut scheme: Scheme,
    duplicates: Option<&Cursor<'_>>,
    identity: Option<&Cursor<'_>>,
) -> Option<Scheme> {
    scheme.identity = scheme.default_identity();
    let parts = identity.map(|at| parts(at, &scheme));
    let rule = duplicates.map_or(Some(()), |at| apply_rule(at, &mut scheme));
    if let (Some(at), true) = (identity, duplicates.is_some_and(|at| !at.is_word("identity"))) {
        return at.error("`identity` is used with `duplicates: identity` only", "remove one of the two");
    }
    if let Some(parts) = parts {
        scheme.identity = parts?;
    }
    rule.map(|()| scheme)
}

/// Reads `duplicates`, a field of a signature scheme or of a provider with a preset. Stores the rule in `scheme`.
pub(super) fn apply_rule(at: &Cursor<'_>, scheme: &mut Scheme) -> Option<()> {
    #[derive(Clone, Copy)]
    enum Word {
        Rule(DuplicateRule),
        /// The value `none`: Callgate recognizes duplicates only by the event id. Configurations for earlier versions
        /// of Callgate contain this value.
        IdOnly,
    }
    let words = [
        ("identity", Word::Rule(DuplicateRule::Identity)),
        ("signature", Word::Rule(DuplicateRule::Signature)),
        ("deliver", Word::Rule(DuplicateRule::Deliver)),
        ("none", Word::IdOnly),
    ];
    match at.one_of(&words)? {
        Word::Rule(rule) => scheme.duplicates = rule,
        Word::IdOnly => {
            if scheme.has_id() && !scheme.signs_id() {
                at.warn(
                    "`none` compares the id only, and the signature does not cover the id: somebody who knows an id can \
                     suppress its event; write `identity`, `signature` or `deliver`",
                );
            }
            scheme.duplicates = DuplicateRule::Identity;
            scheme.identity = if scheme.has_id() { vec![IdentityPart::Id] } else { Vec::new() };
        }
    }
    Some(())
}

/// Warns if the scheme cannot distinguish two messages of a provider, so that repeated messages are delivered again.
pub(super) fn warn_if_indistinguishable(at: &Cursor<'_>, scheme: &Scheme) {
    if scheme.has_proof() && !scheme.tells_events_apart() {
        at.warn(
            "two messages of this provider cannot be told apart, so a repeated message is delivered again; add `id` or \
             `identity`, or choose `duplicates: signature` or `duplicates: deliver`",
        );
    }
}

/// Reads `identity` of a signature scheme: one part of a message or a list of parts. A part is `id`, `signature`,
/// `body`, `{header: NAME}` or `{body: /pointer}`.
fn parts(at: &Cursor<'_>, scheme: &Scheme) -> Option<Vec<IdentityPart>> {
    let list = at.list_or_one()?;
    if list.len() > PARTS_MAX {
        return at.error(format!("there are more than {PARTS_MAX} parts"), "name fewer");
    }
    let read: Vec<_> = list.iter().map(|at| part(at, scheme)).collect();
    let parts: Vec<_> = read.into_iter().collect::<Option<_>>()?;
    match parts.iter().enumerate().find(|(i, part)| parts.iter().take(*i).any(|other| other == *part)) {
        Some((_, part)) => at.error(format!("{} is named twice", part.describe()), "name it once"),
        None => Some(parts),
    }
}

fn part(at: &Cursor<'_>, scheme: &Scheme) -> Option<IdentityPart> {
    #[derive(Clone, Copy)]
    enum Word {
        Body,
        Id,
        Signature,
    }
    if !at.is_map() {
        let words = [("body", Word::Body), ("id", Word::Id), ("signature", Word::Signature)];
        return match at.one_of(&words)? {
            Word::Id if !scheme.has_id() => {
                at.error("the scheme has no event id", "add `id: {header: NAME}` or `id: {body: /pointer}`")
            }
            Word::Signature if !scheme.signature_is_per_message() => at.error(
                "many messages can have the same signature or secret",
                "name `id`, `body`, or a header",
            ),
            Word::Body => Some(IdentityPart::Body),
            Word::Id => Some(IdentityPart::Id),
            Word::Signature => Some(IdentityPart::Signature),
        };
    }
    let mut fields = at.fields()?;
    let header = fields.optional("header").map(|at| at.header_name());
    let body = fields.optional("body").map(|at| at.pointer());
    fields.finish();
    match (header, body) {
        (Some(header), None) => header.map(IdentityPart::Header),
        (None, Some(pointer)) => pointer.map(IdentityPart::Member),
        _ => at.error("expected exactly one of header and body", "{header: NAME} or {body: /pointer}"),
    }
}
