//! The callbacks that the agent pulls: reads messages from the inbox and formats them as JSON.

use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::clock::instant;
use crate::ingress::Attempt;
use crate::policy::Policy;
use crate::proxy::egress::context::EgressContext;
use crate::store::{Leased, Message};
use crate::token::Stamp;

/// The maximum total size of the messages in one response to a pull request, in bytes. A single message that is larger
/// is returned alone. A request that only watches (`watch`) also receives the message that exceeds the maximum.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// The delay before Callgate reads a message again after a read error.
const UNREADABLE_DELAY: Duration = Duration::from_secs(5);

/// The messages that a pull request selects.
pub(super) struct Events<'e> {
    pub(super) context: &'e EgressContext,
    pub(super) policy: &'e Policy,
    pub(super) interaction: Option<&'e str>,
    /// The routes whose messages the agent pulls.
    pub(super) routes: &'e [Arc<str>],
}

impl Events<'_> {
    /// Leases up to `max` messages to the agent. Returns the messages as JSON, and the leases.
    pub(super) async fn lease(&self, max: usize) -> (Vec<Value>, Vec<Leased>) {
        let now = self.context.clocks.ledger_now(instant());
        let inbox = self.context.store.inbox();
        let leased = inbox.lease(self.interaction, self.routes, (max, ANSWER_BYTES_MAX), now);
        let (mut events, mut readable) = (Vec::with_capacity(leased.len()), Vec::new());
        for one in leased {
            match inbox.begin(one.number, Duration::ZERO).await {
                Ok(Some(message)) => {
                    events.extend(self.event(one.number, &message, Some(&one)));
                    readable.push(one);
                }
                read => {
                    // `Ok(None)` means that the message was erased in the meantime. Then nothing is logged, and
                    // `postpone` has no effect.
                    if let Err(error) = read {
                        log::error!("{}: the message cannot be read: {error}", inbox.id(one.number));
                    }
                    one.postpone(now.plus(UNREADABLE_DELAY));
                }
            }
        }
        (events, readable)
    }

    /// Returns the messages of the interaction that have a higher number than `after`. Does not lease the messages,
    /// because the request only watches. Also returns whether there are more messages.
    pub(super) async fn watch(&self, after: u64, max: usize) -> (Vec<Value>, bool) {
        let (Some(interaction), inbox) = (self.interaction, self.context.store.inbox()) else {
            return (Vec::new(), false);
        };
        let (mut events, mut bytes) = (Vec::new(), 0);
        // After an error, the client asks again with the same `after`, so that the client misses no message.
        let numbers = match inbox.messages_everywhere(interaction, after, max.saturating_add(1)).await {
            Ok(numbers) => numbers,
            Err(error) => {
                log::warn!("{interaction}: messages of other processes are not known now: {error}");
                return (events, true);
            }
        };
        for number in numbers {
            if events.len() >= max || bytes > ANSWER_BYTES_MAX {
                return (events, true);
            }
            match inbox.read_to_watch(number).await {
                Ok(Ok(Some(message))) => {
                    bytes += message.body.len() as u64;
                    events.extend(self.event(number, &message, None));
                }
                // The message was removed meanwhile.
                Ok(Ok(None)) => {}
                Ok(Err(error)) => log::error!("{}: the message cannot be read: {error}", inbox.id(number)),
                Err(error) => {
                    log::warn!("{}: the message cannot be read now: {error}", inbox.id(number));
                    return (events, true);
                }
            }
        }
        (events, false)
    }

    /// Returns one message as JSON. Returns `None` if the configuration no longer contains the route of the message.
    fn event(&self, number: u64, message: &Message, leased: Option<&Leased>) -> Option<Value> {
        let (kept, body) = (&message.kept, &message.body);
        let route = self.policy.route(&kept.route)?;
        let id = self.context.store.inbox().id(number);
        let attempt = leased.map_or(0, |leased| leased.attempt);
        let head = kept.pulled(
            &Attempt {
                route,
                edge: self.policy.ingress.edge(),
                id: &id,
                number: attempt,
                stamp: Stamp {
                    id: &self.context.recorder.request_ids.next(),
                    now: self.context.clocks.now(),
                },
            },
            body,
        );
        let mut event = json!({
            "n": number,
            "id": id,
            "interaction": kept.interaction,
            "received_at": kept.received().to_string(),
            "attempt": attempt,
            "lease_until": leased.map(|leased| leased.until.to_string()),
            "headers": head.headers,
            "assertion": head.assertion.filter(|_| leased.is_some()),
        });
        if let Some(members) = event.as_object_mut() {
            match std::str::from_utf8(body) {
                Ok(text) => drop(members.insert("body".to_owned(), Value::from(text))),
                Err(_) => drop(members.insert("body_base64".to_owned(), Value::from(BASE64.encode(body)))),
            }
        }
        Some(event)
    }
}
