//! Checks whether a pod can have the sidecar: its node, its ports, its probes and hooks, and its resources.

pub(super) mod handlers;
pub(super) mod pod;
pub(super) mod resources;
