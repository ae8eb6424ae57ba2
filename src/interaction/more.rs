//! The parts of an interaction's record that few open interactions have.

use std::num::NonZeroI64;

use serde::{Deserialize, Serialize};

use super::events::{Events, FailedEvent};
use super::notice::{Informed, Notice, Undelivered};
use super::questions::Question;

/// Data that few open interactions have. It is boxed, so that the records of the other interactions stay small.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct More {
    /// The last reported status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Box<str>>,
    /// The highest reported progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) progress: Option<f64>,
    /// The time at which the interaction ended, if it is not the deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ended: Option<NonZeroI64>,
    #[serde(skip)]
    pub(super) events: Events,
    /// Whether the ledger has forgotten the delivered events because the interaction is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) events_forgotten: bool,
    #[serde(default)]
    pub(super) event_ids: Vec<Box<str>>,
    #[serde(default)]
    pub(super) questions: Vec<Question>,
    #[serde(default)]
    pub(super) questions_asked: u32,
    #[serde(default)]
    pub(super) provider_id: Option<Box<str>>,
    #[serde(default)]
    pub(super) notice: Option<Notice>,
    /// The verified callbacks that the agent did not accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) undelivered: Option<Undelivered>,
    /// The callbacks among them that were not accepted later. A restart forgets them.
    #[serde(skip)]
    pub(super) failed: Vec<FailedEvent>,
    /// Whether the agent received an error that does not say whether the provider accepted the request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_doubtful: bool,
    /// What the agent has accepted, for display.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) informed: Vec<Informed>,
    /// Whether callbacks find the interaction by the provider's id, and not by a token.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_matched: bool,
    /// The member that minted the token, if it has handed over the interaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) origin: Option<Box<str>>,
    /// The events that other members have delivered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) inherited: Vec<Inherited>,
}

/// The events that another member has delivered before it handed the interaction over.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Inherited {
    /// The key of that member's fingerprints.
    pub key: [u64; 2],
    /// The fingerprints of the events.
    pub events: Vec<u64>,
}
