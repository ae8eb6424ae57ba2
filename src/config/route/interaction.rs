//! Reads `interaction` and `actions` of a route: how Callgate follows interactions, and how the agent answers
//! questions.

use std::collections::HashMap;

use super::forward;
use crate::config::outbound::{headers, timeouts};
use crate::config::provider::{CallbackConvention, callback_convention, locations, scheme_of};
use crate::config::yaml::{Cursor, Fields};
use crate::guard::{Entry, Guard};
use crate::ingress::{Actions, TokenRule};
use crate::interaction::{Follow, Stale, StatusAt, UnmatchedCallback};
use crate::path::Template;
use crate::signature::{Verifier, VerifierKeys};

/// Reads `interaction` of a route. Returns how Callgate follows interactions, and the internal path to which Callgate
/// sends notices about missing callbacks. `asked` is the callback convention of the preset that the egress rule for
/// this route names.
pub(super) fn interaction(
    at: &Cursor<'_>,
    path: Option<&Template>,
    asked: Option<&CallbackConvention>,
) -> Option<(Follow, Option<Template>)> {
    let mut fields = at.fields()?;
    let preset = fields.optional("preset").map(|at| callback_convention(&at));
    let mut locations = |key| fields.optional(key).map(|at| locations(&at));
    let (status, id) = (locations("status"), locations("id"));
    let matching = matching(&mut fields, id.is_some());
    let progress = fields.optional("progress").map(|at| at.pointer());
    let mut words = |key| fields.optional(key).map_or(Some(Vec::new()), |at| at.texts());
    let (asking, done, failed) = (words("asking"), words("done"), words("failed"));
    let mut duration = |key| fields.optional(key).map(|at| at.duration());
    let (deadline, stalled_after) = (duration("deadline"), duration("stalled_after"));
    let words = [("deliver", Stale::Deliver), ("drop", Stale::Drop)];
    let stale = fields.optional("stale").map(|at| at.one_of(&words));
    let notify = fields.optional("notify").map(|at| forward(&at, path));
    let (ends, tells) = (fields.has("done") || fields.has("failed"), fields.has("notify"));
    fields.finish();
    let (done, failed, asking) = (done?, failed?, asking?);
    let preset = preset.map_or(Some(None), |read| read.map(Some))?;
    let known = preset.as_ref().or(asked);
    if (ends || !asking.is_empty()) && status.is_none() {
        return at.error(
            "`done`, `failed` and `asking` are values of the status",
            "add the location of the status, such as `status: /status`",
        );
    }
    // A route that sets `done`, `failed` or `asking` must also set `status`. If a route sets `status`, Callgate ignores
    // `status`, `done`, `failed` and `asking` of the preset.
    let own_states = status.is_some();
    distinct([&done, &failed, &asking], at)?;
    let ends_by_preset = known.is_some_and(|known| !known.done.is_empty() || !known.failed.is_empty());
    if !ends && (own_states || !ends_by_preset) {
        at.warn("no value of the status ends an interaction, so each one stays open until its deadline");
    }
    let (matched_at, unmatched) = matching?.unzip();
    if unmatched.is_some() && deadline.is_none() {
        return at.error(
            "`match` needs a `deadline`: no token limits how long its interactions last",
            "such as `deadline: 24h`",
        );
    }
    if stalled_after.is_some() && !tells {
        return at
            .error("`stalled_after` has no effect without `notify`", "add `notify`, a path of the agent");
    }
    let mut follow = Follow {
        status: status.unwrap_or_else(|| Some(Vec::new()))?,
        progress: progress.map_or(Some(None), |read| read.map(Some))?,
        id: matched_at.map(Some).or(id).unwrap_or_else(|| Some(Vec::new()))?,
        asking,
        done,
        failed,
        deadline: deadline.map_or(Some(None), |read| read.map(Some))?,
        stalled_after: stalled_after.map_or(Some(None), |read| read.map(Some))?,
        matching: unmatched,
        stale: stale.map_or(Some(None), |read| read.map(Some))?,
    };
    if let Some(known) = known {
        known.complete(&mut follow, own_states);
    }
    Some((follow, notify.map_or(Some(None), |read| read.map(Some))?))
}

/// Reports an error if two of the lists `done`, `failed` and `asking` contain the same status value.
fn distinct(lists: [&Vec<Box<str>>; 3], at: &Cursor<'_>) -> Option<()> {
    let mut states = HashMap::new();
    for (i, list) in lists.into_iter().enumerate() {
        if let Some(word) = list.iter().find(|word| *states.entry(*word).or_insert(i) != i) {
            let message = format!("`{word}` is in two of `done`, `failed` and `asking`");
            return at.error(message, "keep one of the two");
        }
    }
    Some(())
}

/// Reads `match: {provider_id}` and `unmatched` of `interaction`. Returns the locations of the provider's id in a
/// callback, and the handling of callbacks that belong to no interaction. Returns `Some(None)` if the key `match` is
/// missing. `has_id` is true if `interaction` has the key `id`.
fn matching(fields: &mut Fields<'_>, has_id: bool) -> Option<Option<(Vec<StatusAt>, UnmatchedCallback)>> {
    let (matching, unmatched_at) = (fields.optional("match"), fields.optional("unmatched"));
    let words = [("deliver", UnmatchedCallback::Deliver), ("refuse", UnmatchedCallback::Refuse)];
    let unmatched = unmatched_at.as_ref().map_or(Some(UnmatchedCallback::Deliver), |at| at.one_of(&words));
    let Some(at) = matching else {
        return match unmatched_at {
            Some(at) => at.error("`unmatched` has no effect without `match`", "add `match`"),
            None => Some(None),
        };
    };
    let mut fields = at.fields()?;
    let places = fields.required("provider_id").and_then(|at| locations(&at));
    fields.finish();
    if has_id {
        return at.error("`match.provider_id` and `id` are the same place", "remove `id`");
    }
    Some(Some((places?, unmatched?)))
}

/// Reports an error for the sections `interaction` and `actions` if the route has no callback token. Both sections
/// apply to interactions, and only a callback token names the interaction of a callback. `asks` contains the sections
/// of the route: `interaction`, `actions`, or both.
fn interactive<'a, 'n: 'a>(asks: impl Iterator<Item = &'a Cursor<'n>>, token: Option<&TokenRule>) {
    if !matches!(token, Some(TokenRule::Callback { .. })) {
        for at in asks {
            let _: Option<()> = at
                .error("only a token of kind callback names an interaction", "remove it, or change `token`");
        }
    }
}

/// Reports an error if a route has `interaction` or `actions`, but Callgate cannot find the interaction of a callback.
/// `is_matched` is true if `interaction` has the setting `match`. `has_replicas` is true if each replica has its own
/// ledger.
pub(super) fn named(
    (interaction, actions): (Option<&Cursor<'_>>, Option<&Cursor<'_>>),
    (is_matched, token, has_replicas): (bool, Option<&TokenRule>, bool),
) -> Option<()> {
    match interaction.filter(|_| is_matched) {
        Some(at) => matched(at, token, has_replicas),
        None => {
            interactive(interaction.into_iter().chain(actions), token);
            Some(())
        }
    }
}

/// Checks the setting `match` of a route. Reports an error if the route has a callback token, which already names the
/// interaction. Also reports an error if each replica has its own ledger, because the provider's id is only in the
/// ledger of one replica.
fn matched(at: &Cursor<'_>, token: Option<&TokenRule>, has_replicas: bool) -> Option<()> {
    if matches!(token, Some(TokenRule::Callback { .. })) {
        return at
            .error("a token of kind callback already names the interaction", "remove `match`, or `token`");
    }
    if has_replicas {
        return at.error(
            "only the ledger of the replica that sent the request knows the provider's id",
            "use `store: { kind: redis }`, a callback token, or one replica",
        );
    }
    Some(())
}

/// Reads `actions` of a route: how Callgate sends the agent's answers to the questions of the provider.
pub(super) fn actions(at: &Cursor<'_>) -> Option<Actions> {
    let mut fields = at.fields()?;
    let pointer = fields.required("pointer").and_then(|at| at.pointer());
    let hosts = fields.required("hosts").and_then(|at| hosts(&at));
    let rewrite = fields.optional("rewrite").map_or(Some(false), |at| at.boolean());
    let headers = fields.optional("headers").map_or(Some(Vec::new()), |at| headers(&at));
    let signer = fields.optional("sign").map(|at| signer(&at));
    let timeouts = timeouts(&mut fields);
    fields.finish();
    let (connect_timeout, response_timeout) = timeouts?;
    Some(Actions {
        pointer: pointer?,
        guard: Guard::new(hosts?),
        rewrite: rewrite?,
        headers: headers?,
        signer: signer.map_or(Some(None), |read| read.map(Some))?,
        connect_timeout,
        response_timeout,
    })
}

fn hosts(at: &Cursor<'_>) -> Option<Vec<Entry>> {
    let host = |at: &Cursor<'_>| {
        let text = at.text()?;
        match Entry::parse(text) {
            Some(entry) => Some(entry),
            None => at.error(
                format!("`{text}` is not a host"),
                "a name (booking-service.com), name:port, http://name for a host without TLS, an address or a network",
            ),
        }
    };
    let read: Vec<_> = at.list()?.iter().map(host).collect();
    read.into_iter().collect()
}

/// Reads `sign: {secrets: [...]}` of `actions`. Callgate signs the agent's answers in the format of Standard Webhooks.
fn signer(at: &Cursor<'_>) -> Option<Verifier> {
    let mut fields = at.fields()?;
    let secrets = fields.required("secrets").and_then(|at| Some((at.clone(), at.secrets()?)));
    fields.finish();
    let (secrets_at, secrets) = secrets?;
    match Verifier::new(scheme_of("standard-webhooks")?, VerifierKeys::Shared, &secrets) {
        Ok(verifier) => Some(verifier),
        Err((_, fault)) => secrets_at.error(format!("a secret {fault}"), ""),
    }
}
