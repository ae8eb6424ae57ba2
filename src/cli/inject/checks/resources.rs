//! The resources of a pod: whether the sidecar fits into the limits of the pod, and its QoS class.

use crate::cli::inject::ports::{LISTS, containers};
use crate::cli::inject::yaml::{Mapping, Value};

/// The resources that the pod as a whole can limit, and that determine its QoS class.
const RESOURCES: [&str; 2] = ["cpu", "memory"];
/// The suffixes of quantities in Kubernetes, each with its factor.
const SUFFIXES: [(&str, f64); 15] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
];

/// Returns a quantity as text, as it is written in the manifest. Returns `None` if the value is neither a text nor a
/// number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns a Kubernetes quantity as a number: `1Ki` becomes 1024, and `50m` becomes 0.05. Returns `None` if the value
/// is not a quantity.
fn quantity(value: &Value) -> Option<f64> {
    let text = text(value)?;
    let suffix = SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (number, factor) = suffix.unwrap_or((&text, 1.0));
    number.trim().parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * factor)
}

/// Returns the quantity of a resource in the section `resources` of a pod or container. `kind` is `limits` or
/// `requests`.
fn written<'a>(of: &'a Mapping, kind: &str, resource: &str) -> Option<&'a Value> {
    of.get("resources")?.get(kind)?.get(resource)
}

fn amount(of: &Mapping, kind: &str, resource: &str) -> Option<f64> {
    quantity(written(of, kind, resource)?)
}

/// Reports whether an amount is above a maximum. Ignores rounding errors.
fn exceeds(amount: f64, max: f64) -> bool {
    amount > max * (1.0 + 1e-9)
}

/// Returns the amount of a resource that a container requests. If the container has no request, Kubernetes uses its
/// limit. Returns 0 if the container has neither.
fn request(container: &Mapping, resource: &str) -> f64 {
    let requested = amount(container, "requests", resource);
    requested.or_else(|| amount(container, "limits", resource)).unwrap_or_default()
}

/// Returns the amount of a resource that the containers of a pod and the sidecar request together, computed in the same
/// way as by the API server. An init container runs only together with the sidecars that started before it.
fn total(pod: &Mapping, sidecar: &Mapping, resource: &str) -> f64 {
    let (mut running, mut first) = (request(sidecar, resource), 0_f64);
    for container in containers(pod, "initContainers").filter_map(Value::as_mapping) {
        let own = request(container, resource);
        match container.get("restartPolicy").and_then(Value::as_str) {
            Some("Always") => running += own,
            _ => first = first.max(running + own),
        }
    }
    let all = containers(pod, "containers").filter_map(Value::as_mapping);
    (running + all.map(|container| request(container, resource)).sum::<f64>()).max(first)
}

/// Returns an error if the resources of the pod as a whole (`resources` in its `spec`) are too small for the sidecar.
/// The API server would not admit such a pod.
pub(in crate::cli::inject) fn refuse(pod: &Mapping, sidecar: &Mapping) -> Result<(), String> {
    let text = |value: Option<&Value>| value.and_then(text).unwrap_or_default();
    for resource in RESOURCES {
        let limits = [pod, sidecar].map(|of| amount(of, "limits", resource));
        if let [Some(all), Some(own)] = limits
            && exceeds(own, all)
        {
            return Err(format!(
                "`resources.limits.{resource}` of the pod is {}, and the sidecar alone has the limit {}; raise the limit of the pod",
                text(written(pod, "limits", resource)),
                text(written(sidecar, "limits", resource))
            ));
        }
        // If the pod as a whole has no request, its containers together can request as much as its limit.
        let kind = ["requests", "limits"].into_iter().find(|kind| amount(pod, kind, resource).is_some());
        if let Some(kind) = kind
            && amount(pod, kind, resource).is_some_and(|all| exceeds(total(pod, sidecar, resource), all))
        {
            return Err(format!(
                "`resources.{kind}.{resource}` of the pod is {}, and its containers with the sidecar request more: the sidecar \
                 requests {}; raise the value of the pod",
                text(written(pod, kind, resource)),
                text(written(sidecar, "requests", resource))
            ));
        }
    }
    Ok(())
}

/// Reports whether the resources of the containers give the pod the QoS class Guaranteed. A sidecar without a CPU limit
/// would change this class to Burstable. Returns false if the pod as a whole has resources (`resources` in its `spec`),
/// because these determine the class, and the sidecar does not change it.
pub(in crate::cli::inject) fn is_guaranteed(pod: &Mapping) -> bool {
    let has_own = pod.get("resources").is_some_and(|own| {
        ["limits", "requests"]
            .iter()
            .any(|kind| own.get(*kind).and_then(Value::as_mapping).is_some_and(|of| !of.is_empty()))
    });
    let is_fixed = |container: &Value| {
        let Some(container) = container.as_mapping() else { return false };
        RESOURCES.iter().all(|resource| {
            amount(container, "limits", resource)
                .is_some_and(|limit| limit > 0.0 && !exceeds(limit, request(container, resource)))
        })
    };
    let mut all = LISTS.iter().flat_map(|list| containers(pod, list));
    !has_own && containers(pod, "containers").next().is_some() && all.all(is_fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers_with_a_suffix() {
        for (text, expected) in [
            ("1", Some(1.0)),
            ("50m", Some(0.05)),
            ("1.5Gi", Some(1_610_612_736.0)),
            ("1e3", Some(1000.0)),
            ("1E", Some(1e18)),
            ("2k", Some(2000.0)),
            ("", None),
            ("Mi", None),
            ("inf", None),
        ] {
            assert_eq!(quantity(&text.into()), expected, "{text}");
        }
        assert_eq!(quantity(&2.into()), Some(2.0));
    }
}
