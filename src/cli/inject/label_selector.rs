//! Selects the workloads that get the sidecar: by a label selector, and by kinds of custom resources.

use super::yaml::{Mapping, Value};

/// A Kubernetes label selector in the syntax of `kubectl`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Requirement {
    key: String,
    rule: Rule,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Rule {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Selector {
    /// Parses a label selector, such as `app=agent,tier in (a, b),!legacy`.
    ///
    /// # Errors
    /// Returns an explanation if the text is not a label selector.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut depth = 0_usize;
        for c in text.chars() {
            depth = match c {
                '(' => depth + 1,
                ')' => depth.checked_sub(1).ok_or("a `)` without `(`")?,
                _ => depth,
            };
            match (c, parts.last_mut()) {
                (',', _) if depth == 0 => parts.push(String::new()),
                (_, Some(part)) => part.push(c),
                (_, None) => {}
            }
        }
        if depth > 0 {
            return Err("a `(` without `)`".to_owned());
        }
        parts.iter().map(|part| requirement(part.trim())).collect::<Result<_, _>>().map(Self)
    }

    /// Reports whether the label selector selects an object. `label` returns the value of a label of the object.
    pub(super) fn matches(&self, label: impl Fn(&str) -> Option<String>) -> bool {
        self.0.iter().all(|Requirement { key, rule }| match (rule, label(key)) {
            (Rule::Exists, found) => found.is_some(),
            (Rule::Missing, found) => found.is_none(),
            (Rule::In(values), found) => found.is_some_and(|found| values.contains(&found)),
            // As in Kubernetes, `notin` also selects an object that does not have the label.
            (Rule::NotIn(values), found) => found.is_none_or(|found| !values.contains(&found)),
        })
    }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let make = |key: &str, rule: Rule| match key.trim() {
        key if !key.is_empty() && key.chars().all(is_key) => Ok(Requirement { key: key.to_owned(), rule }),
        key => Err(format!("`{key}` is not the key of a label")),
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(key) = part.strip_prefix('!') {
        return make(key, Rule::Missing);
    }
    if let Some((head, values)) = part.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
            [key, "in"] => make(key, Rule::In(values)),
            [key, "notin"] => make(key, Rule::NotIn(values)),
            _ => Err(format!("`{part}`: expected KEY in (A, B) or KEY notin (A, B)")),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return make(key, Rule::NotIn(one(value)));
    }
    match part.split_once("==").or_else(|| part.split_once('=')) {
        Some((key, value)) => make(key, Rule::In(one(value))),
        None => make(part, Rule::Exists),
    }
}

/// A kind of custom resource that has a pod template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CustomKind {
    /// The kind of the custom resource, such as `Rollout`.
    pub kind: String,
    /// The API group of the custom resource, such as `argoproj.io`.
    pub group: String,
    /// The path of the pod template in the custom resource, such as `spec` and `template`.
    pub template: Vec<String>,
}

impl CustomKind {
    /// Parses a kind of custom resource in the form `KIND.GROUP=PATH`, such as `Rollout.argoproj.io=spec.template`.
    ///
    /// # Errors
    /// Returns an explanation if the text has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            let (kind, path) = text.split_once('=')?;
            let (kind, group) = kind.split_once('.')?;
            let template: Vec<_> = path.split('.').map(str::to_owned).collect();
            let is_whole =
                !kind.is_empty() && group.contains('.') && template.iter().all(|key| !key.is_empty());
            is_whole.then(|| Self { kind: kind.to_owned(), group: group.to_owned(), template })
        };
        read().ok_or_else(|| "expected KIND.GROUP=PATH, such as Rollout.argoproj.io=spec.template".to_owned())
    }

    /// Reports whether `kind` is the kind of this custom resource, and `version` (an `apiVersion`) contains its API
    /// group. Every version of the API group is accepted.
    pub(super) fn is(&self, version: &str, kind: &str) -> bool {
        kind == self.kind && version.split_once('/').is_some_and(|(group, _)| group == self.group)
    }
}

/// The maximum depth at which a pod template is searched for in an object.
const TEMPLATE_DEPTH_MAX: usize = 16;

/// Returns the path of the first pod template in an object, or `None` if there is none. A custom resource can have a
/// pod template anywhere, such as at `spec.podTemplate`. The returned path is empty if a value of `--pod-template`
/// cannot express it.
pub(super) fn pod_template(object: &Mapping) -> Option<Vec<String>> {
    object.iter().find_map(|(key, value)| {
        let mut path = find_containers(value, TEMPLATE_DEPTH_MAX)?;
        path.insert(0, key.as_str()?.to_owned());
        // The value of `--pod-template` is the path of the object that contains the pod under `spec`.
        let is_named = path.pop().as_deref() == Some("spec") && !path.iter().any(String::is_empty);
        Some(if is_named { path } else { Vec::new() })
    })
}

/// Returns the path of the first mapping with a list `containers`. The list must contain an element with a name or an
/// image. If the path leads through an element of another list, the path contains an empty text for this element.
fn find_containers(value: &Value, depth: usize) -> Option<Vec<String>> {
    let depth = depth.checked_sub(1)?;
    let inner = |key: &str, value: &Value| {
        let mut path = find_containers(value, depth)?;
        path.insert(0, key.to_owned());
        Some(path)
    };
    match value {
        Value::Mapping(members) => {
            let listed = members.get("containers").and_then(Value::as_sequence);
            let is_container = |one: &Value| one.get("image").is_some() || one.get("name").is_some();
            if listed.is_some_and(|list| list.iter().any(is_container)) {
                return Some(Vec::new());
            }
            members.iter().find_map(|(key, member)| inner(key.as_str().unwrap_or_default(), member))
        }
        Value::Sequence(list) => list.iter().find_map(|element| inner("", element)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_kubectl_does() {
        let labels = |key: &str| match key {
            "app" => Some("agent".to_owned()),
            "tier" => Some("a".to_owned()),
            _ => None,
        };
        for (text, expected) in [
            ("app=agent", true),
            ("app == agent", true),
            ("app=redis", false),
            ("app!=redis", true),
            ("app!=agent", false),
            ("other!=x", true),
            ("app", true),
            ("other", false),
            ("!other,app", true),
            ("!app", false),
            ("tier in (a, b)", true),
            ("tier in (b),app", false),
            ("tier notin (b,c),app=agent", true),
            ("tier notin (a)", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(labels), expected, "{text}");
        }
        assert!(Selector::default().matches(labels));
        for text in ["", "a b", "app in b", "app in (b", "app)", "=x", "app within (a)", "a=b,,c"] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn custom_kinds_have_a_group_and_a_path() {
        let rollout = CustomKind::parse("Rollout.argoproj.io=spec.template").unwrap();
        assert!(rollout.is("argoproj.io/v1alpha1", "Rollout"));
        assert!(!rollout.is("apps/v1", "Rollout") && !rollout.is("argoproj.io/v1alpha1", "Workflow"));
        for text in [
            "Rollout=spec",
            "Rollout.argoproj.io",
            "Rollout.argoproj.io=",
            "Rollout.argoproj.io=a..b",
            ".x.y=a",
        ] {
            assert!(CustomKind::parse(text).is_err(), "{text}");
        }
    }
}
