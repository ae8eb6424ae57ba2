//! Sends the agent's answer to a question of a provider. The answer goes to the action endpoint that a callback of the
//! same interaction contained, if the route's guard allows the address of this endpoint. Each question can be answered
//! only once, and redirects are not followed.

use bytes::Bytes;
use http::Method;

use super::action_url::ActionUrl;
use super::agent_exchange::AgentExchange;
use super::provider_client::{Guarded, ProviderResponse, SendError, Timeouts};
use super::request_log::ExchangeEnd;
use crate::clock::instant;
use crate::denial::{Denial, Refusal};
use crate::egress::answer_head;
use crate::guard::Url;
use crate::http::client::{Message, ResponseFault};
use crate::http::head_of;
use crate::ingress::Actions;
use crate::interaction::{FIRST_QUESTION, QuestionFault};
use crate::random::new_id;
use crate::signature::SignatureContext;
use crate::store::Taken;

/// The maximum size of the body of an agent's answer, in bytes.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// The HTTP methods with which the agent can answer a question.
const METHODS: [Method; 3] = [Method::POST, Method::PUT, Method::PATCH];

impl AgentExchange<'_> {
    /// Returns the number of the question that a URL names. For a URL without a number, returns [`FIRST_QUESTION`] if
    /// the route of the interaction has `rewrite`, and `None` otherwise.
    async fn question_number(&self, url: &ActionUrl) -> Option<u32> {
        if url.number.is_some() {
            return url.number;
        }
        let record = self.context.store.read(&url.interaction).await.ok()??;
        self.policy.route(&record.route)?.actions.as_ref()?.rewrite.then_some(FIRST_QUESTION)
    }

    /// Sends the agent's answer to the provider that asked the question, and relays the provider's response.
    pub(crate) async fn answer_question(&mut self, url: ActionUrl) -> ExchangeEnd {
        let head = head_of(self.session, self.caller);
        if METHODS.iter().all(|method| method.as_str() != head.method) {
            let refusal = Refusal::new(Denial::MethodNotAllowed, "an answer must be a POST, PUT or PATCH");
            return self.deny(refusal, &METHODS).await;
        }
        if head.body_bytes_declared.is_some_and(|declared| declared > BODY_BYTES_MAX) {
            return self.deny(Refusal::new(Denial::BodyTooLarge, Denial::BodyTooLarge.help()), &[]).await;
        }
        // The body is read before the question is reserved for this answer, so that a slow body does not block other
        // answers.
        let body = match self.read_body(BODY_BYTES_MAX).await {
            Ok(body) => body,
            Err(denial) => return self.deny(Refusal::new(denial, denial.help()), &[]).await,
        };
        let now = self.context.clocks.ledger_now(instant());
        let number = self.question_number(&url).await;
        let taken = match self.context.store.take_question(&url.interaction, number, now).await {
            Ok(taken) => taken,
            Err(fault) => return self.deny(refusal(fault), &[]).await,
        };
        self.details.interaction = Some(url.interaction);
        let policy = self.policy;
        let Some(actions) = policy.route(&taken.route).and_then(|route| route.actions.as_ref()) else {
            let refusal = Refusal::new(Denial::ActionUnknown, "the route no longer has `actions`");
            return self.deny(refusal, &[]).await;
        };
        let sent = self.send(actions, &taken, body).await;
        let endpoint = taken.endpoint.clone();
        // The ledger marks the question as answered or as open again before the agent receives the response, because
        // the agent may send the next answer immediately.
        let settled = match &sent {
            Ok(provider_response) if provider_response.response.is_success() => taken.answered().await,
            _ => {
                taken.release().await;
                Ok(())
            }
        };
        match sent {
            Ok(mut provider_response) => {
                let status = provider_response.response.status().as_u16();
                if (300..400).contains(&status) {
                    let refusal = Refusal::new(
                        Denial::ProviderRedirected,
                        format!("the response was a redirect, status {status}"),
                    );
                    return self.deny(refusal, &[]).await;
                }
                if let Err(refusal) = settled {
                    return self.deny(refusal, &[]).await;
                }
                // The agent would resolve a relative `Location` of a 201 or 202 against the egress listener.
                if let Ok(url) = Url::parse(&endpoint) {
                    self.keep_location_local(&mut provider_response, &url, |_| None);
                }
                self.relay(provider_response, Bytes::new(), "ok").await
            }
            Err(failed) => {
                if let SendError::Guarded(refused) = failed {
                    self.context.recorder.metrics.guard_refusal(refused.class());
                }
                self.deny(failed.refusal(), &[]).await
            }
        }
    }

    async fn send(
        &mut self,
        actions: &Actions,
        taken: &Taken<'_>,
        body: Bytes,
    ) -> Result<ProviderResponse, SendError> {
        // The URL of the action endpoint is checked again, because the guard of the route may have changed since the
        // callback with the question arrived.
        let url: Url = actions.guard.admit(&taken.endpoint).map_err(SendError::Guarded)?;
        let head = head_of(self.session, self.caller);
        let signature = match &actions.signer {
            None => Vec::new(),
            Some(signer) => {
                let public_url = &self.policy.ingress.edge().public_url;
                let signed = SignatureContext::new(head, public_url, self.context.clocks.now());
                let signature = new_id("msg_").and_then(|id| Some(signer.sign(&signed, &body, &id)?.headers));
                signature.ok_or(SendError::ResponseFault(ResponseFault::Unreachable))?
            }
        };
        let head = answer_head(&head, &url, &actions.headers, &signature, body.len());
        let message = Message::new(head, body, true);
        let timeouts = Timeouts { connect: actions.connect_timeout, response: actions.response_timeout };
        let guarded = Guarded { guard: &actions.guard, agents: &self.policy.agents };
        self.context.providers.load_full().send(&url, Some(guarded), message, timeouts).await
    }
}

fn refusal(fault: QuestionFault) -> Refusal {
    let denial = match fault {
        QuestionFault::Answered => Denial::ActionAlreadyAnswered,
        QuestionFault::Over => Denial::InteractionOver,
        QuestionFault::Revoked => Denial::InteractionRevoked,
        QuestionFault::Several => Denial::ActionAmbiguous,
        QuestionFault::Unavailable => Denial::StoreUnavailable,
        QuestionFault::Unknown => Denial::ActionUnknown,
    };
    Refusal::new(denial, denial.help())
}
