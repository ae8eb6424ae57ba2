//! Which question of which interaction a request of the agent answers.

use crate::config::ACTIONS;
use crate::request::RequestHead;

/// What stands for a rule in the metrics and the log.
pub(crate) const RULE: &str = "actions";

/// The question a request answers.
pub(crate) struct Question {
    pub(super) interaction: String,
    /// `None`: the only one that is open; where the agent finds addresses in the body, the first.
    pub(super) number: Option<u32>,
}

impl Question {
    /// The question that a request to `/actions/{interaction}` or `/actions/{interaction}/{number}` answers; `None`
    /// for any other path.
    pub(crate) fn of(head: &RequestHead<'_>) -> Option<Self> {
        let rest = head.raw_path().strip_prefix('/')?.strip_prefix(ACTIONS)?.strip_prefix('/')?;
        let (interaction, number) = match rest.split_once('/') {
            Some((interaction, number)) => (interaction, Some(number.parse().ok()?)),
            None => (rest, None),
        };
        Some(Self { interaction: interaction.to_owned(), number })
    }
}
