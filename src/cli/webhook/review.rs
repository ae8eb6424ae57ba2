//! Answers an AdmissionReview, the request of Kubernetes to the webhook. The response depends only on the request and
//! the settings, so a dry run and a repeated request have no side effects.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::head::GroupVersionKind;
use super::outcomes::Outcome;
use super::{head, message, patch, size};
use crate::cli::inject::{Operation, Rewritten, Sidecar, inject_object, is_left, shortened, template};

/// The version of the admission API of Kubernetes that the webhook supports.
const VERSION: &str = "admission.k8s.io/v1";
/// The key of the annotation of a mirror pod. A mirror pod represents a pod that the kubelet has started from a file of
/// its node.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The settings by which the webhook decides about workloads.
pub struct Policy {
    /// The settings of the sidecar that the webhook adds.
    pub sidecar: Sidecar,
    /// Whether a workload to which the sidecar cannot be added is admitted with a warning. Otherwise it is denied.
    pub admits_unusable: bool,
}

/// The parts of an AdmissionReview that the webhook reads. An AdmissionReview is the request of Kubernetes to the
/// webhook.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    request: Request<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: String,
    operation: String,
    #[serde(default)]
    kind: Option<GroupVersionKind>,
    #[serde(default)]
    sub_resource: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    dry_run: Option<bool>,
    /// The object to admit.
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    /// The object before an update.
    #[serde(borrow, default)]
    old_object: Option<&'a RawValue>,
}

/// Returns the response to an AdmissionReview of Kubernetes, as JSON.
///
/// # Errors
/// Returns an explanation if the body is not an AdmissionReview of version v1 with a request.
pub fn answer(policy: &Policy, body: &[u8]) -> Result<Value, &'static str> {
    decide(policy, body).map(|decision| decision.answer)
}

/// The response to an AdmissionReview of Kubernetes, the outcome to count, and the line to log.
pub(super) struct Decision {
    pub(super) outcome: Outcome,
    /// The response as JSON.
    pub(super) answer: Value,
    /// The line for the event log. `None` if the object did not change.
    pub(super) line: Option<(log::Level, String)>,
}

/// Returns the response to an AdmissionReview of Kubernetes, its outcome for the metrics, and its line for the event
/// log.
pub(super) fn decide(policy: &Policy, body: &[u8]) -> Result<Decision, &'static str> {
    let wrong = "the body is not an AdmissionReview of admission.k8s.io/v1 with a request";
    let review: Review = serde_json::from_slice(body).map_err(|_| wrong)?;
    let Review { api_version, kind, request } = review;
    if api_version != VERSION || kind != "AdmissionReview" || request.uid.is_empty() {
        return Err(wrong);
    }
    let (outcome, response, line) = match rewritten(policy, &request) {
        Ok(None) => (Outcome::Unchanged, json!({ "uid": request.uid, "allowed": true }), None),
        Ok(Some((operations, notes))) => {
            let patch = BASE64.encode(Value::from(operations).to_string().as_bytes());
            let response = json!({
                "uid": request.uid,
                "allowed": true,
                "patchType": "JSONPatch",
                "patch": patch,
                "warnings": message::warnings(notes.iter().map(String::as_str)),
            });
            let dry = if request.dry_run == Some(true) { " (dry run)" } else { "" };
            let line = format!("{}: added the sidecar{dry}", request.described());
            (Outcome::Patched, response, Some((log::Level::Info, line)))
        }
        Err(error) => {
            let text = message::denial(&format!("callgate cannot add the sidecar: {error}"));
            let (outcome, response) = refused(policy, &request, &text);
            (outcome, response, Some((log::Level::Warn, format!("{}: {text}", request.described()))))
        }
    };
    let answer = json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response });
    Ok(Decision { outcome, answer, line })
}

/// Returns the response about an object to which the sidecar cannot be added. `text` is the reason. An update is always
/// admitted if the sidecar could not be added to the old object either, so that the author can scale, repair or delete
/// the object.
fn refused(policy: &Policy, request: &Request<'_>, text: &str) -> (Outcome, Value) {
    let was_unusable = || {
        let old = request.old_object.filter(|_| request.operation == "UPDATE");
        old.is_some_and(|old| attempt(policy, request, old).is_err())
    };
    if policy.admits_unusable || was_unusable() {
        let warnings = message::warnings(std::iter::once(text));
        let response = json!({ "uid": request.uid, "allowed": true, "warnings": warnings });
        return (Outcome::Unusable, response);
    }
    let status = json!({ "code": 422, "reason": "Invalid", "message": text });
    (Outcome::Denied, json!({ "uid": request.uid, "allowed": false, "status": status }))
}

/// The JSON Patch operations that add the sidecar, and hints for the author of the object.
type Rewrite = (Vec<Value>, Vec<String>);

/// Returns the JSON Patch operations that add the sidecar, and hints for the author of the object. Returns `None` if
/// the object must not change.
fn rewritten(policy: &Policy, request: &Request<'_>) -> Result<Option<Rewrite>, String> {
    if !["CREATE", "UPDATE"].contains(&request.operation.as_str()) || !request.sub_resource.is_empty() {
        return Ok(None);
    }
    let Some(object) = request.object else { return Ok(None) };
    attempt(policy, request, object)
}

/// Returns the same as [`rewritten`], for `object`. It is the new or the old object of the request.
fn attempt(policy: &Policy, request: &Request<'_>, object: &RawValue) -> Result<Option<Rewrite>, String> {
    let operation = match request.operation.as_str() {
        "CREATE" => Operation::Create,
        _ => {
            Operation::Update { service_name: request.old_object.map(head::service_name).unwrap_or_default() }
        }
    };
    let too_large = || format!("the object has more than {} values, or is nested too deep", size::VALUES_MAX);
    if !object.get().starts_with('{') {
        return Ok(None);
    }
    let mut head = head::read(object, request.kind.as_ref()).ok_or_else(too_large)?;
    if stays(&head, &operation) {
        return Ok(None);
    }
    let text = |key: &str| head.get(key).and_then(Value::as_str).unwrap_or_default();
    if let Some(path) = template(text("apiVersion"), text("kind"), &policy.sidecar.custom) {
        head::add_template(&mut head, object, &path).ok_or_else(too_large)?;
    }
    if is_left(&head, &policy.sidecar, &operation) {
        return Ok(None);
    }
    let mut before = size::limited(object).ok_or_else(too_large)?;
    if let Some(kind) = &request.kind {
        kind.complete(&mut before);
    }
    let Rewritten::Changed(after, notes) = inject_object(&before, &policy.sidecar, &operation)? else {
        return Ok(None);
    };
    let operations = patch::between(&before, &after);
    Ok((!operations.is_empty()).then_some((operations, notes)))
}

/// Reports whether the webhook must leave an object unchanged because of its kind and its state.
fn stays(head: &Value, operation: &Operation) -> bool {
    let text = |key: &str| head.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let metadata = |key: &str| head.get("metadata").and_then(|metadata| metadata.get(key));
    let is_update = matches!(operation, Operation::Update { .. });
    // An object that is being deleted needs no sidecar, because its pods end. The webhook must not deny the update that
    // removes its finalizers. A new object with a `deletionTimestamp` needs the sidecar, because the API server removes
    // this key.
    let is_deleted = is_update && metadata("deletionTimestamp").is_some_and(|time| !time.is_null());
    let is_pod = kind == "Pod" && version == "v1";
    // The kubelet has made this pod from a file of the node, and refuses changes of it. The annotation does not help to
    // start another pod without the sidecar, because the kubelet never starts such a pod.
    let is_mirror = is_pod && metadata("annotations").is_some_and(|all| all.get(MIRROR).is_some());
    // Kubernetes does not allow containers to be added to an existing pod, or to the template of an existing Job.
    let is_fixed = is_pod || kind == "Job" && version.starts_with("batch/");
    is_deleted || is_mirror || is_fixed && is_update
}

impl Request<'_> {
    /// Returns the kind, the namespace and the name of the object in the request, as text.
    fn described(&self) -> String {
        let object =
            self.object.and_then(|object| head::read(object, self.kind.as_ref())).unwrap_or_default();
        let metadata = object.get("metadata");
        let text = |key: &str| metadata.and_then(|metadata| metadata.get(key)).and_then(Value::as_str);
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("an object");
        let names = [self.name.as_deref(), text("name"), text("generateName")];
        let name = names.into_iter().flatten().find(|name| !name.is_empty()).unwrap_or("without a name");
        let namespace = self.namespace.as_deref().unwrap_or_default();
        format!("{} {}/{}", shortened(kind), shortened(namespace), shortened(name))
    }
}
