//! The JSON view of one message of the inbox.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::admin::service::Admin;
use crate::inbox::MessageState;
use crate::ingress::Route;
use crate::policy::Policy;
use crate::store::{MessageView, RouteOverview};

/// The parts of a message that its JSON view contains.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Detail {
    /// A summary without the head and the body of the callback.
    Line,
    /// The summary and the head of the callback.
    Head,
    /// The summary, the head and the body of the callback.
    Body,
}

impl Admin {
    /// Returns the state of the inbox as JSON. Lists each route that stores callbacks or has messages. The entry of a
    /// route contains its agent and counts its messages by state.
    pub(in crate::admin) fn inbox_state(&self, policy: &Policy) -> Value {
        let inbox = self.store.inbox();
        let ((known, bytes), settings) = (inbox.overview(), inbox.settings());
        let overview = |name: &str| known.iter().find(|one| *one.route == *name).cloned();
        let configured = policy.ingress.routes().iter().filter(|route| route.deliver.keeps());
        let mut routes: Vec<_> = configured
            .map(|route| route_state(&route.name, Some(route), overview(&route.name).as_ref()))
            .collect();
        let has_messages =
            |one: &&RouteOverview| one.counts.waiting + one.counts.dead + one.counts.delivered > 0;
        let is_configured = |name: &str| policy.route(name).is_some_and(|route| route.deliver.keeps());
        let removed = known.iter().filter(has_messages).filter(|one| !is_configured(&one.route));
        routes.extend(
            removed.map(|one| {
                route_state(&one.route, policy.route(&one.route).map(|route| &**route), Some(one))
            }),
        );
        json!({
            "routes": routes,
            "bytes": bytes,
            "bytes_max": settings.bytes_max,
            "messages_max": settings.messages_max,
            "paused": self.metrics.paused_agents(),
            "bodies": self.listener.load().bodies,
        })
    }

    /// Returns a message of the inbox as JSON.
    pub(super) async fn message(&self, found: &MessageView, detail: Detail) -> Value {
        let inbox = self.store.inbox();
        let at = found.at.to_string();
        let is = |state| (found.state == state).then_some(&at);
        let mut view = json!({
            "id": inbox.id(found.number),
            "n": found.number,
            "route": &*found.route,
            "state": found.state.name(),
            "cause": found.cause.map(|cause| cause.name()),
            "attempts": found.attempts,
            "bytes": found.bytes,
            "due_at": is(MessageState::Due),
            "settled_at": (!found.state.is_waiting()).then_some(&at),
        });
        // Only the head is read here, because a list has up to 1,000 messages, and the bodies of the messages may be
        // large.
        let head = match inbox.read_head(found.number).await {
            Ok(Some(head)) => head,
            Ok(None) => return view,
            Err(error) => {
                insert(&mut view, "error", json!(error));
                return view;
            }
        };
        let kept = &head.kept;
        insert(&mut view, "interaction", json!(kept.interaction));
        insert(&mut view, "captures", self.captures_of(kept.interaction.as_deref()).await);
        insert(&mut view, "event_id", json!(kept.event_id));
        insert(&mut view, "received_at", json!(kept.received().to_string()));
        insert(&mut view, "last_result", json!(head.last_result));
        if detail == Detail::Line {
            return view;
        }
        insert(&mut view, "method", json!(kept.method));
        insert(&mut view, "target", json!(kept.target));
        insert(&mut view, "headers", kept.headers_json());
        insert(&mut view, "body_bytes", json!(kept.body_bytes));
        if detail == Detail::Head {
            return view;
        }
        match inbox.read(found.number).await.map(|message| message.map(|message| message.body)) {
            Ok(Some(body)) => match std::str::from_utf8(&body) {
                Ok(text) => insert(&mut view, "body", json!(text)),
                Err(_) => insert(&mut view, "body_base64", json!(BASE64.encode(&body))),
            },
            Ok(None) => {}
            Err(error) => insert(&mut view, "error", json!(error)),
        }
        view
    }

    /// Returns the path captures of an interaction as JSON, or `null` if the ledger no longer contains the interaction.
    async fn captures_of(&self, interaction: Option<&str>) -> Value {
        let Some(id) = interaction else { return Value::Null };
        let Ok(Some(record)) = self.store.read(id).await else { return Value::Null };
        record
            .captures()
            .map(|(name, value)| (name.to_owned(), Value::from(value)))
            .collect::<Map<_, _>>()
            .into()
    }
}

fn route_state(name: &str, route: Option<&Route>, overview: Option<&RouteOverview>) -> Value {
    let counts = overview.map(|one| one.counts).unwrap_or_default();
    json!({
        "name": name,
        "deliver": route.map(|route| route.deliver.name()),
        "agent": route.map(|route| &*route.agent.name),
        "due": counts.waiting.saturating_sub(counts.leased),
        "leased": counts.leased,
        "dead": counts.dead,
        "delivered": counts.delivered,
        "oldest": overview.and_then(|one| one.oldest).map(|at| at.to_string()),
    })
}

/// Adds a name/value pair to a JSON object.
fn insert(value: &mut Value, name: &str, member: Value) {
    if let Some(members) = value.as_object_mut() {
        members.insert(name.to_owned(), member);
    }
}
