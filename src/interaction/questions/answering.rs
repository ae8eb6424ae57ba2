//! Records in an interaction the questions that callbacks ask, and the agent's answers.

use super::question::{Question, QuestionFault};
use crate::interaction::interaction::Interaction;
use crate::interaction::state::{Event, State};
use crate::time::Timestamp;

/// The maximum number of questions that the record of one interaction stores.
const QUESTIONS_MAX: usize = 8;

impl Interaction {
    /// Adds a question that a callback asks. Returns the number of the question, or `None` if the interaction already
    /// has the maximum number of open questions. The agent can answer the question immediately, even before it has
    /// accepted the callback.
    pub(in crate::interaction) fn ask(&mut self, endpoint: &str) -> Option<u32> {
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

    /// Reports whether at least one question is not answered yet.
    pub(in crate::interaction) fn has_open_question(&self) -> bool {
        self.questions().iter().any(|question| !question.answered)
    }

    /// Removes a question because its callback was not delivered. A question that was already answered is not removed.
    /// While an answer is being sent, the question is only marked. If the provider does not accept the answer,
    /// [`Self::answer`] removes the marked question.
    pub(in crate::interaction) fn unask(&mut self, number: u32) {
        let questions = &mut self.more().questions;
        questions.retain(|question| question.number != number || question.answered || question.taken);
        if let Some(question) = questions.iter_mut().find(|question| question.number == number) {
            question.dropped = true;
        }
    }

    /// Reserves a question for an answer: the question with this number, or the only open question if `number` is
    /// `None`. Returns the number of the question and the URL that receives the answer.
    ///
    /// # Errors
    /// Returns a [`QuestionFault`] if no question can be answered.
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
                // Callgate must not guess which question the answer belongs to.
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

    /// Marks a question as being answered. The caller has read the record from the shared store, and the record states
    /// that a process is sending the answer.
    pub(in crate::interaction) fn resume_answer(&mut self, number: u32) {
        if let Some(question) = self.questions_mut().iter_mut().find(|question| question.number == number) {
            question.taken = true;
        }
    }

    /// Records the result of an attempt to send an answer to the provider. `arrived` is true if the provider accepted
    /// the answer.
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

    /// Reports whether the question with this number was answered.
    pub(in crate::interaction) fn is_answered(&self, number: u32) -> bool {
        self.questions().iter().any(|question| question.number == number && question.answered)
    }

    fn questions_mut(&mut self) -> &mut [Question] {
        self.more.as_mut().map(|more| more.questions.as_mut_slice()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interaction::{Ask, Follow, Report};
    use crate::path::{CanonicalPath, Template};

    fn record() -> Interaction {
        let at = Timestamp::from_unix_secs;
        Interaction::new("r".into(), "".into(), at(1), at(1000))
    }

    #[test]
    fn an_answer_to_one_question_is_none_to_another_one() {
        let mut record = record();
        assert_eq!((record.ask("https://a/1"), record.ask("https://a/2")), (Some(1), Some(2)));
        assert!(!record.is_answered(1) && !record.is_answered(2));
        let (number, endpoint) = record.take_question(Some(1), Timestamp::from_unix_secs(2)).unwrap();
        assert_eq!((number, &*endpoint), (1, "https://a/1"));
        record.answer(1, true);
        assert!(record.is_answered(1) && !record.is_answered(2) && !record.is_answered(3));
        assert!(record.has_open_question());
    }

    #[test]
    fn a_question_can_be_answered_before_its_callback_is_delivered() {
        let at = Timestamp::from_unix_secs;
        let (route, follow) = ("r".into(), Follow::default());
        let report = Report { question: Some("https://a/".into()), ..Report::default() };
        let captures = Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap());
        for (is_answered, state) in [(false, State::Asking), (true, State::Progressing)] {
            let mut record = record();
            let claim = record.claim(&Ask::new(&route, &captures, &follow, &report), at(2), |_| false);
            let claim = claim.unwrap().unwrap();
            record.take_question(claim.question, at(2)).unwrap();
            record.answer(claim.question.unwrap(), is_answered);
            record.settle(&claim, &report, None, at(3), |_| 0);
            assert_eq!((record.state, record.has_open_question()), (state, !is_answered));
        }
    }

    #[test]
    fn a_later_callback_ends_the_state_asking_unless_a_question_is_open() {
        let asks = || Report { status: Some("asking".into()), asks: true, ..Report::default() };
        let question = |report: Report| Report { question: Some("https://a/".into()), ..report };
        let status = || Report { status: Some("working".into()), ..Report::default() };
        for (first, is_answered, second, state) in [
            // The provider received the answer without Callgate.
            (asks(), false, status(), State::Progressing),
            (asks(), false, Report { progress: Some(1.0), ..Report::default() }, State::Asking),
            (asks(), false, asks(), State::Asking),
            (question(asks()), false, status(), State::Asking),
            (question(asks()), true, status(), State::Progressing),
            (question(asks()), true, Report::default(), State::Progressing),
            (status(), false, asks(), State::Asking),
            (status(), false, status(), State::Progressing),
        ] {
            let mut record = record();
            deliver(&mut record, &first);
            if is_answered {
                record.answer(1, true);
            }
            deliver(&mut record, &second);
            assert_eq!(record.state, state, "{first:?} {is_answered} {second:?}");
        }
    }

    fn deliver(record: &mut Interaction, report: &Report) {
        let at = Timestamp::from_unix_secs;
        let (route, follow) = ("r".into(), Follow::default());
        let captures = Template::parse("/w").unwrap().capture(&CanonicalPath::parse("/w").unwrap());
        let claim = record.claim(&Ask::new(&route, &captures, &follow, report), at(2), |_| false);
        record.settle(&claim.unwrap().unwrap(), report, None, at(3), |_| 0);
    }

    #[test]
    fn an_answered_question_makes_room_for_the_ninth() {
        let mut record = record();
        for number in 1..=8 {
            assert_eq!(record.ask("https://a/"), Some(number));
        }
        assert_eq!(record.ask("https://a/"), None);
        record.answer(3, true);
        assert_eq!(record.ask("https://a/"), Some(9));
        assert!(!record.is_answered(3), "the answered question made room");
        assert_eq!(record.ask("https://a/"), None);
    }
}
