//! The state of all replicas as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::liveness::{About, Member};
use super::member_client::Identity;
use super::replication::Replication;
use crate::replica::Owner;
use crate::time::Timestamp;

impl Replication {
    /// Returns this process and the other replicas as JSON.
    pub fn to_json(&self) -> Value {
        let gone_after = self.settings().map_or(Duration::ZERO, |replicas| replicas.gone_after);
        let own = self.about();
        let shown = |member: &Member| {
            let unknown = || {
                let Owner { incarnation, address } = &member.owner;
                json!({ "incarnation": incarnation.to_string(), "address": &**address })
            };
            let mut shown = member.about.as_ref().map_or_else(unknown, about_json);
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("presence".to_owned(), json!(member.presence(gone_after).name()));
            }
            shown
        };
        let members: Vec<_> = self.members.all().iter().map(shown).collect();
        json!({ "own": about_json(&own), "members": members })
    }
}

fn about_json(about: &About) -> Value {
    json!({
        "incarnation": about.incarnation,
        "address": &*about.address,
        "group": &*about.group,
        "started_at": Timestamp::from_unix_ms(about.started).to_string(),
        "inherits": about.inherits,
        "stopping": about.stopping,
    })
}
