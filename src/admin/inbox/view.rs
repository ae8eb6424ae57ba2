//! The JSON view of one message.

use data_encoding::BASE64;
use serde_json::{Map, Value, json};

use crate::admin::service::Admin;
use crate::inbox::MessageState;
use crate::store::MessageView;

/// How much of a message is shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Detail {
    /// What fits a line.
    Line,
    /// Also the head.
    Head,
    /// Also the body.
    Body,
}

impl Admin {
    /// Returns a message as JSON.
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
        let message = match inbox.read(found.number).await {
            Ok(Some(message)) => message,
            Ok(None) => return view,
            Err(error) => {
                insert(&mut view, "error", json!(error));
                return view;
            }
        };
        let kept = &message.kept;
        insert(&mut view, "interaction", json!(kept.interaction));
        insert(&mut view, "captures", self.captures_of(kept.interaction.as_deref()).await);
        insert(&mut view, "event_id", json!(kept.event_id));
        insert(&mut view, "received_at", json!(kept.received().to_string()));
        insert(&mut view, "last_result", json!(message.last_result()));
        if detail == Detail::Line {
            return view;
        }
        insert(&mut view, "method", json!(kept.method));
        insert(&mut view, "target", json!(kept.target));
        insert(&mut view, "headers", kept.headers_json());
        insert(&mut view, "body_bytes", json!(kept.body_bytes));
        if detail == Detail::Body {
            match std::str::from_utf8(&message.body) {
                Ok(text) => insert(&mut view, "body", json!(text)),
                Err(_) => insert(&mut view, "body_base64", json!(BASE64.encode(&message.body))),
            }
        }
        view
    }

    /// Returns the captures of an interaction. Returns `null` if the ledger does not have it any more.
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

/// Adds a member to a JSON object.
fn insert(value: &mut Value, name: &str, member: Value) {
    if let Some(members) = value.as_object_mut() {
        members.insert(name.to_owned(), member);
    }
}
