//! The local URL at which the agent answers a question: `/actions/{interaction}`.

use crate::config::ACTIONS;
use crate::request::RequestHead;

/// The value of the label `rule` in metrics and the log for requests that answer a provider's question.
pub(crate) const RULE: &str = "actions";

/// The parsed URL at which the agent answers a provider's question: the interaction and the number of the question.
pub(crate) struct ActionUrl {
    pub(super) interaction: String,
    /// The number of the question, or `None` if the URL has no number. A URL without a number means the first question
    /// on a route with `rewrite`, and the only open question on any other route.
    pub(super) number: Option<u32>,
}

impl ActionUrl {
    /// Parses `/actions/{interaction}` and `/actions/{interaction}/{number}`. Returns `None` for any other path.
    pub(crate) fn parse(head: &RequestHead<'_>) -> Option<Self> {
        let rest = head.raw_path().strip_prefix('/')?.strip_prefix(ACTIONS)?.strip_prefix('/')?;
        let (interaction, number) = match rest.split_once('/') {
            Some((interaction, number)) => (interaction, Some(number.parse().ok()?)),
            None => (rest, None),
        };
        Some(Self { interaction: interaction.to_owned(), number })
    }
}
