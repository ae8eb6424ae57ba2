//! The JSON view of one interaction.

use serde_json::{Value, json};

use crate::interaction::Interaction;

/// Returns an interaction as JSON. This function writes the members that all views share. They contain no token, and no
/// URL from a message. The caller passes the members of its own view in `besides`.
pub(super) fn interaction<const N: usize>(
    id: &str,
    interaction: &Interaction,
    besides: [(&str, Value); N],
) -> Value {
    let captures: Value = interaction.captures().collect();
    let status = [
        ("interaction", json!(id)),
        ("route", json!(&*interaction.route)),
        ("provider", json!(interaction.provider.as_deref())),
        ("captures", captures),
        ("state", json!(interaction.state.name())),
        ("status", json!(interaction.status())),
        ("progress", json!(interaction.progress())),
        ("deliveries", json!(interaction.deliveries)),
        ("undelivered", json!(interaction.undelivered().map(|undelivered| undelivered.to_json()))),
        ("created_at", json!(interaction.created().to_string())),
        ("last_event_at", json!(interaction.last_event().map(|at| at.to_string()))),
        ("deadline_at", json!(interaction.deadline().to_string())),
    ];
    status.into_iter().chain(besides).collect()
}
