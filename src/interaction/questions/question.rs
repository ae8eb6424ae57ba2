//! A question that a callback asks and that the agent answers once.

use serde::{Deserialize, Serialize};

/// A question that a callback asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Question {
    /// The number of the question within its interaction, starting at 1.
    pub number: u32,
    /// The provider's URL that receives the answer.
    pub endpoint: Box<str>,
    /// Whether the provider has accepted an answer.
    pub answered: bool,
    /// Whether an answer is being sent to the provider.
    #[serde(skip)]
    pub(in crate::interaction) taken: bool,
    /// Whether the callback that asked the question was not delivered. The question is then removed if the answer
    /// fails.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::interaction) dropped: bool,
}

/// The reason why a question cannot be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuestionFault {
    /// The question was already answered, or an answer is being sent.
    Answered,
    /// No answer is possible any more: the interaction expired, its request was not sent, or its token has expired.
    Over,
    /// The interaction was revoked.
    Revoked,
    /// The ledger cannot store the answer.
    Unavailable,
    /// Several questions are open, and the agent's answer does not name one of them.
    Several,
    /// The question does not exist.
    Unknown,
}

/// The number of an interaction's first question.
pub const FIRST_QUESTION: u32 = 1;
