//! The pull API: the agent requests its callbacks, instead of being called. Each returned message is leased to the
//! agent. If the agent neither acknowledges nor returns the message before the lease ends, the agent receives the
//! message again.

mod event;
pub(super) mod url;

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::agent_exchange::AgentExchange;
use super::request_log::ExchangeEnd;
use crate::clock::instant;
use crate::denial::{Denial, Refusal};
use crate::http::{head_of, response};
use crate::ingress::Deliver;
use crate::interaction::State;
use crate::random::random_u64;
use crate::store::{Inbox, Leased, Settling};
use url::{Asked, PullQuery, PullUrl, SettleQuery};

/// The maximum size in bytes of the body of a request that acknowledges or returns a message. The body is ignored.
const BODY_BYTES_MAX: u64 = 64 << 10;
/// The interval between two checks of an interaction's state while a pull request waits. With a shared ledger, the
/// interval can double with each check, up to [`LOOK_SHARED`].
const LOOK: Duration = Duration::from_millis(250);
/// The maximum interval between two checks of an interaction's state in a shared ledger. Other processes can change a
/// shared ledger. Each check is two calls to the Redis server.
const LOOK_SHARED: Duration = Duration::from_secs(1);

/// The result of a wait for messages.
enum Found {
    /// Messages, and the final state of the interaction if the interaction has ended.
    Events(Vec<Value>, Option<&'static str>),
    /// No message arrived before the deadline.
    Nothing,
    /// The interaction is unknown.
    Unknown,
    /// The ledger or the inbox cannot be read at the moment.
    Unavailable(Refusal),
}

impl AgentExchange<'_> {
    fn inbox(&self) -> &Arc<Inbox> {
        self.context.store.inbox()
    }

    /// Serves a request of the pull API, whose path begins with `/callbacks`.
    pub(super) async fn pull(&mut self, url: PullUrl) -> ExchangeEnd {
        self.details.interaction.clone_from(&url.interaction);
        let method = head_of(self.session, self.caller).method.to_owned();
        let (allowed, number) = match url.asked {
            Asked::Events => (Method::GET, None),
            Asked::Taken(number) | Asked::Failed(number) => (Method::POST, Some(number)),
            Asked::Nothing => return self.unknown().await,
        };
        if method != allowed.as_str() {
            let refusal = Refusal::new(Denial::MethodNotAllowed, Denial::MethodNotAllowed.help());
            return self.deny(refusal, &[allowed]).await;
        }
        let Some(number) = number else { return self.events(url.interaction).await };
        if let Err(denial) = self.read_body(BODY_BYTES_MAX).await {
            return self.deny(Refusal::new(denial, denial.help()), &[]).await;
        }
        let query = head_of(self.session, self.caller).raw_query().unwrap_or_default().to_owned();
        let query = SettleQuery::parse(&query).map_err(str::to_owned);
        let asked =
            query.and_then(|query| Ok((query.attempt, self.pulled_routes(true, query.agent.as_deref())?)));
        let (attempt, routes) = match asked {
            Ok(asked) => asked,
            Err(fault) => return self.deny(Refusal::new(Denial::ParameterUnusable, fault), &[]).await,
        };
        let (inbox, now) = (Arc::clone(self.inbox()), self.context.clocks.ledger_now(instant()));
        let settling = Settling { interaction: url.interaction.as_deref(), routes: &routes, attempt };
        let settled = match url.asked {
            Asked::Taken(_) => inbox.taken(settling, number, now).await,
            _ => inbox.freed(settling, number, (now, random_u64())).await.map(|()| None),
        };
        if let Ok(Some(interaction)) = &settled {
            self.context.store.message_received(interaction, now);
        }
        match settled {
            Ok(_) => self.write_answer(204, String::new()).await,
            Err(refusal) => self.deny(refusal, &[]).await,
        }
    }

    async fn unknown(&mut self) -> ExchangeEnd {
        self.deny(Refusal::new(Denial::MessageUnknown, Denial::MessageUnknown.help()), &[]).await
    }

    async fn write_answer(&mut self, status: u16, body: String) -> ExchangeEnd {
        let was_written = response::own_json(self.session, status, body).await;
        ExchangeEnd { outcome: Ok("ok"), status: if was_written { status } else { 0 }, reusable: was_written }
    }

    /// Serves a request that pulls messages. Responds as soon as there are messages, or when the wait time is over.
    async fn events(&mut self, interaction: Option<String>) -> ExchangeEnd {
        let query = head_of(self.session, self.caller).raw_query().unwrap_or_default().to_owned();
        let query = PullQuery::parse(&query).map_err(str::to_owned);
        let asked = query.and_then(|query| {
            let routes = self.pulled_routes(interaction.is_some(), query.agent.as_deref())?;
            Ok((query, routes))
        });
        let (query, routes) = match asked {
            Ok(asked) => asked,
            Err(fault) => return self.deny(Refusal::new(Denial::ParameterUnusable, fault), &[]).await,
        };
        let (context, policy) = (self.context, self.policy);
        let source = event::Events { context, policy, interaction: interaction.as_deref(), routes: &routes };
        let wait = wait_for_events(&source, &query);
        // If the agent closes its connection, the wait ends, so that the agent gets no lease. If the agent does not
        // receive the leased messages, the leases end at once.
        let Some((found, leased)) = self.session.unless_closed(wait).await else {
            return ExchangeEnd { outcome: Ok("ok"), status: 0, reusable: false };
        };
        let end = match found {
            Found::Events(events, ended) => {
                let body = json!({ "events": events, "ended": ended }).to_string();
                self.write_answer(200, body).await
            }
            Found::Nothing => self.write_answer(204, String::new()).await,
            Found::Unknown => self.unknown().await,
            Found::Unavailable(refusal) => self.deny(refusal, &[]).await,
        };
        if end.status != 0 {
            leased.into_iter().for_each(Leased::received);
        }
        end
    }

    /// Returns the routes whose messages the request pulls: the pull routes of the named agent, or of all agents.
    ///
    /// # Errors
    /// Returns an explanation if the agent is unknown, or if the request names neither an agent nor an interaction
    /// although there are several agents.
    fn pulled_routes(&self, has_interaction: bool, agent: Option<&str>) -> Result<Vec<Arc<str>>, String> {
        let agents = &self.policy.agents;
        if let Some(name) = agent.filter(|name| !agents.iter().any(|agent| *agent.name == **name)) {
            return Err(format!("there is no agent {name}"));
        }
        if agent.is_none() && !has_interaction && agents.len() > 1 {
            return Err("there are several agents: add `?agent=NAME`".to_owned());
        }
        let routes = self.policy.ingress.routes().iter().filter(|route| route.deliver == Deliver::Pull);
        let routes = routes.filter(|route| agent.is_none_or(|name| *route.agent.name == *name));
        Ok(routes.map(|route| Arc::clone(&route.name)).collect())
    }
}

/// Waits until there are messages, the interaction ends, or the wait time of the query is over. Returns the result of
/// the wait, and the leases of the returned messages.
async fn wait_for_events(source: &event::Events<'_>, query: &PullQuery) -> (Found, Vec<Leased>) {
    let inbox = source.context.store.inbox();
    let deadline = instant() + query.wait;
    let mut pause = LOOK;
    loop {
        // The future is created before the ledger and the inbox are read, so that no message is missed.
        let pulled = inbox.pulled(source.interaction);
        let state = match source.interaction {
            Some(id) => match source.context.store.read(id).await {
                Ok(record) => Some(record.map(|record| record.state)),
                Err(refusal) => return (Found::Unavailable(refusal), Vec::new()),
            },
            None => None,
        };
        // The state was read before the messages are read, so that all messages that were accepted before the end of
        // the interaction are found.
        let elsewhere = match source.interaction.filter(|_| query.watched_after.is_none()) {
            Some(id) => match inbox.take_interaction(id, true).await {
                Ok(elsewhere) => elsewhere,
                Err(detail) => {
                    let refusal = Refusal::new(Denial::StoreUnavailable, detail);
                    return (Found::Unavailable(refusal), Vec::new());
                }
            },
            None => 0,
        };
        let waiting = || source.interaction.map_or((0, 0), |id| inbox.waiting_of(id));
        // A message that is not durable yet becomes visible later. A request that only watches must receive this
        // message before the response reports the end of the interaction.
        let (_, arriving) = waiting();
        let (events, leased, has_more) = match query.watched_after {
            None => {
                let (events, leased) = source.lease(query.max).await;
                (events, leased, false)
            }
            Some(after) => {
                let (events, has_more) = source.watch(after, query.max).await;
                (events, Vec::new(), has_more)
            }
        };
        let left = match query.watched_after {
            None => {
                let (waiting, arriving) = waiting();
                (waiting + arriving + elsewhere).saturating_sub(leased.len())
            }
            Some(_) => arriving + usize::from(has_more),
        };
        let ended = state.flatten().filter(|state| !state.is_open() && left == 0).map(State::name);
        if !events.is_empty() || ended.is_some() {
            return (Found::Events(events, ended), leased);
        }
        if matches!(state, Some(None)) && left == 0 {
            return (Found::Unknown, leased);
        }
        let rest = deadline.saturating_duration_since(instant());
        if rest.is_zero() || inbox.is_stopping() {
            return (Found::Nothing, leased);
        }
        let _ = timeout(rest.min(pause), pulled).await;
        // While a message of the interaction waits in this process, the interval stays short, because no notification
        // arrives when the delay of the message ends.
        let asks_only = source.interaction.is_some() && inbox.is_shared() && waiting().0 == 0;
        pause = if asks_only { (pause * 2).min(LOOK_SHARED) } else { LOOK };
    }
}
