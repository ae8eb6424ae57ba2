//! The questions of an interaction: asked by callbacks, answered once each.

use serde::{Deserialize, Serialize};

use super::record::Interaction;
use super::state::{Event, State};
use crate::time::Timestamp;

/// A question that a callback asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Question {
    /// Counted from 1 within the interaction.
    pub number: u32,
    /// Where the answer goes.
    pub endpoint: Box<str>,
    /// Whether the provider took the answer.
    pub answered: bool,
    /// Whether an answer is on its way.
    #[serde(skip)]
    pub(super) taken: bool,
    /// The callback that asked it was not delivered after all.
    #[serde(skip)]
    dropped: bool,
}

/// Why a question cannot be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuestionFault {
    /// It was answered, or an answer is on its way.
    Answered,
    /// The interaction ended other than by its final callback.
    Over,
    /// The interaction was revoked.
    Revoked,
    /// The ledger cannot keep what would be answered.
    Unavailable,
    /// Several are open, and the answer does not say to which it belongs.
    Several,
    /// No such question was asked.
    Unknown,
}

/// The number of an interaction's first question.
pub const FIRST_QUESTION: u32 = 1;
/// Most questions of one interaction that are remembered.
const QUESTIONS_MAX: usize = 8;

impl Interaction {
    /// A callback asks a question; it can be answered from now on, even before the agent has taken the callback.
    /// `None`: as many questions as are remembered are open.
    pub(super) fn ask(&mut self, endpoint: &str) -> Option<u32> {
        let more = self.more();
        if more.questions.len() >= QUESTIONS_MAX {
            let answered = more.questions.iter().position(|question| question.answered)?;
            more.questions.remove(answered);
        }
        more.questions_asked = more.questions_asked.saturating_add(1);
        let number = more.questions_asked;
        more.questions.push(Question {
            number,
            endpoint: endpoint.into(),
            answered: false,
            taken: false,
            dropped: false,
        });
        Some(number)
    }

    /// Whether a question waits for its answer.
    pub(super) fn has_open_question(&self) -> bool {
        self.questions().iter().any(|question| !question.answered)
    }

    /// The callback that asked it was not delivered after all. What was answered meanwhile was asked.
    pub(super) fn unask(&mut self, number: u32) {
        let questions = &mut self.more().questions;
        questions.retain(|question| question.number != number || question.answered || question.taken);
        if let Some(question) = questions.iter_mut().find(|question| question.number == number) {
            question.dropped = true;
        }
    }

    /// Takes a question to answer it: the one of this number, or the only one that is open.
    ///
    /// # Errors
    /// [`QuestionFault`].
    pub fn take_question(
        &mut self,
        number: Option<u32>,
        now: Timestamp,
    ) -> Result<(u32, Box<str>), QuestionFault> {
        let expired = now >= self.expires();
        if self.state == State::Revoked {
            return Err(QuestionFault::Revoked);
        }
        if expired || matches!(self.state, State::Expired | State::NotSent) {
            return Err(QuestionFault::Over);
        }
        let questions = self.questions_mut();
        let is_open = |question: &Question| !question.answered && !question.taken;
        let question = match number {
            Some(number) => questions.iter_mut().find(|question| question.number == number),
            None => match questions.iter().filter(|question| is_open(question)).count() {
                0 => questions.last_mut(),
                1 => questions.iter_mut().find(|question| is_open(question)),
                // To which of them this is an answer is not for us to guess.
                _ => return Err(QuestionFault::Several),
            },
        };
        let question = question.ok_or(QuestionFault::Unknown)?;
        if !is_open(question) {
            return Err(QuestionFault::Answered);
        }
        question.taken = true;
        Ok((question.number, question.endpoint.clone()))
    }

    /// The answer to a question arrived, or did not.
    pub fn answer(&mut self, number: u32, arrived: bool) {
        let questions = self.questions_mut();
        if let Some(question) = questions.iter_mut().find(|question| question.number == number) {
            question.taken = false;
            question.answered |= arrived;
        }
        if let Some(more) = &mut self.more {
            more.questions.retain(|question| question.answered || question.taken || !question.dropped);
        }
        if arrived && self.questions().iter().all(|question| question.answered) {
            self.go(Event::Answered);
        }
    }

    /// Whether the question of this number was answered.
    pub(super) fn is_answered(&self, number: u32) -> bool {
        self.questions().iter().any(|question| question.number == number && question.answered)
    }

    fn questions_mut(&mut self) -> &mut [Question] {
        self.more.as_mut().map(|more| more.questions.as_mut_slice()).unwrap_or_default()
    }
}
