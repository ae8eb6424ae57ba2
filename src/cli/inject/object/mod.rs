//! One Kubernetes object: its kind, whether it gets the sidecar, and the change that the webhook makes in it.

pub(super) mod admission;
pub(super) mod choice;
pub(super) mod kinds;
mod settled;
