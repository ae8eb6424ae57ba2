//! The JSON view of one interaction.

use serde_json::{Value, json};

use crate::interaction::Interaction;

/// The keys that every JSON view of an interaction contains.
pub(super) const SHARED: [&str; 12] = [
    "interaction",
    "route",
    "provider",
    "captures",
    "state",
    "status",
    "progress",
    "deliveries",
    "undelivered",
    "created_at",
    "last_event_at",
    "deadline_at",
];

/// Returns an interaction as JSON: the keys of [`SHARED`] with their values, and the name/value pairs in `besides`. The
/// values of the keys of [`SHARED`] contain no token and no URL from a message.
pub(super) fn interaction<const N: usize>(
    id: &str,
    interaction: &Interaction,
    besides: [(&str, Value); N],
) -> Value {
    let captures: Value = interaction.captures().collect();
    let values = [
        json!(id),
        json!(&*interaction.route),
        json!(interaction.provider.as_deref()),
        captures,
        json!(interaction.state.name()),
        json!(interaction.status()),
        json!(interaction.progress()),
        json!(interaction.deliveries),
        json!(interaction.undelivered().map(|undelivered| undelivered.to_json())),
        json!(interaction.created().to_string()),
        json!(interaction.last_event().map(|at| at.to_string())),
        json!(interaction.deadline().to_string()),
    ];
    SHARED.into_iter().zip(values).chain(besides).collect()
}
