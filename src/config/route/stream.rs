//! Reads the setting `stream` of a route: whether Callgate passes requests on while they arrive.

use crate::config::yaml::Cursor;
use crate::ingress::{Mode, Provider, TokenRule};

/// Reads the setting `stream: true | false` of a route. The value `true` causes an error if another setting of the
/// route needs the whole body or an interaction, and a warning if no setting needs them.
pub(super) fn stream(
    at: Option<Cursor<'_>>,
    provider: Option<&Provider>,
    token: Option<&TokenRule>,
    mode: Option<Mode>,
    states_duplicates: bool,
) -> Option<bool> {
    let Some(at) = at else { return Some(false) };
    if !at.boolean()? {
        return Some(false);
    }
    if matches!(token, Some(TokenRule::Callback { .. })) {
        return at.error(
            "a callback token belongs to an interaction, and a stream has none",
            "use a `token` of kind jwt or static, or `open: true`",
        );
    }
    if provider.is_some_and(|provider| provider.verifier.is_some()) {
        return at.error(
            "a signature can be verified only over the whole body, and a stream is not read as a whole",
            "use a `provider` without `signature`, or remove `stream`",
        );
    }
    if provider.is_some_and(|provider| !provider.decode.is_empty()) {
        return at.error(
            "a stream is passed on without decoding",
            "use a `provider` without `decode`, or remove `stream`",
        );
    }
    if mode == Some(Mode::Observe) {
        return at.error("a stream cannot be in observe mode", "write `mode: enforce` in the route");
    }
    if states_duplicates {
        return at.error("`duplicates` has no effect on a stream", "remove it");
    }
    at.warn("stream: the agent receives requests while they arrive, without a check of the body and without the ledger");
    Some(true)
}
