//! Answers an AdmissionReview, the request of Kubernetes to the webhook. The response depends only on the request and
//! the settings, so a dry run and a repeated request have no side effects.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use super::outcomes::Outcome;
use super::{patch, size};
use crate::cli::inject::{Rewritten, Sidecar, inject_object};

/// The version of the admission API of Kubernetes that the webhook supports.
const VERSION: &str = "admission.k8s.io/v1";
/// The maximum length of a message or a warning of the webhook, in characters. Kubernetes cuts longer warnings.
const MESSAGE_CHARS_MAX: usize = 250;

/// The maximum number of warnings in a response of the webhook. Kubernetes shows at most 4096 characters of all
/// warnings.
const WARNINGS_MAX: usize = 16;

/// The settings by which the webhook decides about workloads.
pub struct Policy {
    /// The settings of the sidecar that the webhook adds.
    pub sidecar: Sidecar,
    /// Whether a workload to which the sidecar cannot be added is admitted with a warning. Otherwise it is denied.
    pub admits_unusable: bool,
}

/// The parts of an AdmissionReview, the request of Kubernetes, that the webhook reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    operation: String,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    dry_run: Option<bool>,
    /// The object to admit. `None` if it has more than [`size::VALUES_MAX`] values.
    #[serde(default = "no_object", deserialize_with = "size::limited")]
    object: Option<Value>,
}

fn no_object() -> Option<Value> {
    Some(Value::Null)
}

/// Returns the response to an AdmissionReview of Kubernetes, as JSON.
///
/// # Errors
/// Returns an explanation if the body is not an AdmissionReview of version v1 with a request.
pub fn answer(policy: &Policy, body: &[u8]) -> Result<Value, &'static str> {
    decide(policy, body).map(|(_, answer)| answer)
}

/// Returns the response to an AdmissionReview of Kubernetes, and its outcome for the metrics.
pub(super) fn decide(policy: &Policy, body: &[u8]) -> Result<(Outcome, Value), &'static str> {
    let wrong = "the body is not an AdmissionReview of admission.k8s.io/v1 with a request";
    let review: Review = serde_json::from_slice(body).map_err(|_| wrong)?;
    let Review { api_version, kind, request } = review;
    if api_version != VERSION || kind != "AdmissionReview" || request.uid.is_empty() {
        return Err(wrong);
    }
    let (outcome, response) = match rewritten(policy, &request) {
        Ok(None) => (Outcome::Unchanged, json!({ "uid": request.uid, "allowed": true })),
        Ok(Some((operations, notes))) => {
            let patch = BASE64.encode(Value::from(operations).to_string().as_bytes());
            let warnings: Vec<_> = notes.iter().take(WARNINGS_MAX).map(|note| shortened(note)).collect();
            let response = json!({
                "uid": request.uid,
                "allowed": true,
                "patchType": "JSONPatch",
                "patch": patch,
                "warnings": warnings,
            });
            (Outcome::Patched, response)
        }
        Err(error) => {
            let message = format!("callgate cannot add the sidecar: {error}");
            let message = shortened(&message);
            log::warn!("{}: {message}", request.described());
            if policy.admits_unusable {
                let response = json!({ "uid": request.uid, "allowed": true, "warnings": [message] });
                (Outcome::Unusable, response)
            } else {
                let status = json!({ "code": 422, "reason": "Invalid", "message": message });
                (Outcome::Denied, json!({ "uid": request.uid, "allowed": false, "status": status }))
            }
        }
    };
    Ok((outcome, json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response })))
}

/// Returns the beginning of a message or a warning, so that Kubernetes need not cut it.
fn shortened(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// The JSON Patch operations that add the sidecar, and hints for the author of the object.
type Rewrite = (Vec<Value>, Vec<String>);

/// Returns the JSON Patch operations that add the sidecar, and hints for the author of the object. Returns `None` if
/// the object must not change.
fn rewritten(policy: &Policy, request: &Request) -> Result<Option<Rewrite>, String> {
    let is_new = request.operation == "CREATE";
    if !(is_new || request.operation == "UPDATE") || !request.sub_resource.is_empty() {
        return Ok(None);
    }
    let too_large = || format!("the object has more than {} values", size::VALUES_MAX);
    let before = request.object.as_ref().ok_or_else(too_large)?;
    if !before.is_object() {
        return Ok(None);
    }
    // Kubernetes does not allow containers to be added to an existing pod.
    if before.get("kind").and_then(Value::as_str) == Some("Pod") && !is_new {
        return Ok(None);
    }
    let Rewritten::Changed(after, notes) = inject_object(before.clone(), &policy.sidecar, is_new)? else {
        return Ok(None);
    };
    let operations = patch::between(before, &after);
    if operations.is_empty() {
        return Ok(None);
    }
    let dry = if request.dry_run == Some(true) { " (dry run)" } else { "" };
    log::info!("{}: added the sidecar{dry}", request.described());
    Ok(Some((operations, notes)))
}

impl Request {
    /// Returns the kind, the namespace and the name of the object in the request, as text.
    fn described(&self) -> String {
        let object = self.object.as_ref().unwrap_or(&Value::Null);
        let metadata = object.get("metadata");
        let text = |key: &str| metadata.and_then(|metadata| metadata.get(key)).and_then(Value::as_str);
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("an object");
        let names = [self.name.as_deref(), text("name"), text("generateName")];
        let name = names.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or("without a name");
        let namespace = self.namespace.as_deref().unwrap_or_default();
        format!("{kind} {namespace}/{name}")
    }
}
