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
}

/// Why a question cannot be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum QuestionFault {
    /// It was answered, or an answer is on its way.
    Answered,
    /// The interaction ended other than by its final callback.
    Over,
    /// No such question was asked.
    Unknown,
}

impl Interaction {
    /// Takes a question to answer it: the one of this number, or the latest that is open.
    ///
    /// # Errors
    /// [`QuestionFault`].
    pub fn take_question(
        &mut self,
        number: Option<u32>,
        now: Timestamp,
    ) -> Result<(u32, Box<str>), QuestionFault> {
        let expired = now >= self.expires();
        if expired || matches!(self.state, State::Revoked | State::Expired | State::NotSent) {
            return Err(QuestionFault::Over);
        }
        let questions = self.more.as_mut().map(|more| more.questions.as_mut_slice()).unwrap_or_default();
        let question = match number {
            Some(number) => questions.iter_mut().find(|question| question.number == number),
            None => match questions.iter().rposition(|question| !question.answered && !question.taken) {
                Some(at) => questions.get_mut(at),
                None => questions.last_mut(),
            },
        };
        let question = question.ok_or(QuestionFault::Unknown)?;
        if question.answered || question.taken {
            return Err(QuestionFault::Answered);
        }
        question.taken = true;
        Ok((question.number, question.endpoint.clone()))
    }

    /// The answer to a question arrived, or did not.
    pub fn answer(&mut self, number: u32, arrived: bool) {
        let questions = self.more.as_mut().map(|more| more.questions.as_mut_slice()).unwrap_or_default();
        if let Some(question) = questions.iter_mut().find(|question| question.number == number) {
            question.taken = false;
            question.answered |= arrived;
        }
        if arrived && questions.iter().all(|question| question.answered) {
            self.go(Event::Answered);
        }
    }
}
