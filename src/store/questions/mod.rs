//! Reserves the questions of providers for the agent's answers.

use std::sync::Arc;

use super::ledger::{Store, durable};
use super::redis::SharedTaken;
use crate::denial::Refusal;
use crate::interaction::QuestionFault;
use crate::time::Timestamp;

/// A question that is reserved for the caller's answer. Dropping this value without [`Taken::answered`] releases the
/// question, so that another answer can be sent.
#[derive(Debug)]
pub struct Taken<'s> {
    store: &'s Store,
    now: Timestamp,
    id: Box<str>,
    number: u32,
    /// The reserved question in a shared ledger, if several processes share the ledger.
    shared: Option<SharedTaken>,
    /// The route of the interaction.
    pub route: Arc<str>,
    /// The provider's URL that receives the answer.
    pub endpoint: Box<str>,
    answered: bool,
}

impl Store {
    /// Reserves a question of an interaction, so that only the caller can answer the question. `number` selects the
    /// question. Without a number, the only open question is reserved.
    ///
    /// # Errors
    /// Returns [`QuestionFault`] if the question cannot be answered now.
    pub async fn take_question(
        &self,
        id: &str,
        number: Option<u32>,
        now: Timestamp,
    ) -> Result<Taken<'_>, QuestionFault> {
        if let Some(shared) = &self.shared {
            let (route, endpoint, taken) = shared.take_question(id, number).await?;
            let shared = Some(taken);
            return Ok(Taken {
                store: self,
                now,
                id: id.into(),
                number: 0,
                shared,
                route,
                endpoint,
                answered: true,
            });
        }
        // The question is not reserved if the store cannot record the answer. Otherwise, the answer might be sent
        // twice.
        self.check().map_err(|_| QuestionFault::Unavailable)?;
        let (route, number, endpoint) = self.memory.take_question(id, number, now)?;
        Ok(Taken { store: self, now, id: id.into(), number, shared: None, route, endpoint, answered: false })
    }
}

impl Taken<'_> {
    /// Records that the provider accepted the answer.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the change cannot be made durable.
    pub async fn answered(mut self) -> Result<(), Refusal> {
        if let Some(shared) = self.shared.take() {
            return shared.answered().await;
        }
        self.answered = true;
        let sequence = self.store.memory.answer(&self.id, self.number, true, self.now);
        durable(self.store.commit_queue.as_ref(), sequence).await
    }
}

impl Taken<'_> {
    /// Releases the question, because the answer did not reach the provider. Another answer can then be sent.
    pub async fn release(mut self) {
        if let Some(shared) = self.shared.take() {
            shared.release().await;
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.store.memory.answer(&self.id, self.number, false, self.now);
        }
    }
}
