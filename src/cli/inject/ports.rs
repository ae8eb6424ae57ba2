//! The ports that a pod's containers declare, and the agent's among them.

use super::sidecar::{Sidecar, name};
use super::yaml::{self, Mapping, Value};

/// The lists of a pod in which containers are.
pub(super) const LISTS: [&str; 2] = ["containers", "initContainers"];

/// A declared port.
pub(super) struct Found {
    pub(super) container: String,
    /// The list, the container's place in it, and the port's place in that: two entries can be equal.
    pub(super) at: (&'static str, usize, usize),
    pub(super) number: u64,
    pub(super) entry: Mapping,
}

impl Found {
    fn name(&self) -> Option<&str> {
        self.entry.get("name").and_then(Value::as_str)
    }

    fn protocol(&self) -> &str {
        self.entry.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.protocol() == "TCP"
    }

    pub(super) fn words(&self) -> String {
        let number = match self.protocol() {
            "TCP" => self.number.to_string(),
            other => format!("{}/{other}", self.number),
        };
        match self.name() {
            Some(name) => format!("{name} ({number}) of {}", self.container),
            None => format!("{number} of {}", self.container),
        }
    }
}

/// All of them, in words.
pub(super) fn words(ports: &[Found]) -> String {
    ports.iter().map(Found::words).collect::<Vec<_>>().join(", ")
}

pub(super) fn containers<'a>(pod: &'a Mapping, list: &str) -> impl Iterator<Item = &'a Value> {
    pod.get(list).and_then(Value::as_sequence).into_iter().flatten()
}

/// The ports that the containers of a list declare, of every protocol.
pub(super) fn declared(pod: &Mapping, list: &'static str) -> Result<Vec<Found>, String> {
    let mut all = Vec::new();
    for (nth, container) in containers(pod, list).enumerate() {
        let owner = name(container).unwrap_or_default();
        let ports = match container.get("ports") {
            None | Some(Value::Null) => continue,
            Some(Value::Sequence(ports)) => ports,
            Some(_) => return Err(format!("`ports` of {owner} is not a list")),
        };
        for (at, port) in ports.iter().enumerate() {
            let number = port.get("containerPort").unwrap_or(&Value::Null);
            let (Some(entry), Some(number @ 1..=65535)) = (port.as_mapping(), number.as_u64()) else {
                let written = yaml::write(number)?;
                return Err(format!(
                    "a `containerPort` of {owner} is {}, which is no whole number from 1 to 65535",
                    written.trim_end()
                ));
            };
            let entry = entry.clone();
            all.push(Found { container: owner.to_owned(), at: (list, nth, at), number, entry });
        }
    }
    Ok(all)
}

/// The port that the sidecar is to stand before; `None`: none is declared.
pub(super) fn agents(pod: &Mapping, sidecar: &Sidecar) -> Result<Option<Found>, String> {
    if containers(pod, "containers").next().is_none() {
        return Err("it has no containers".to_owned());
    }
    if containers(pod, "containers").any(|container| name(container).is_none()) {
        return Err("one of its containers has no name".to_owned());
    }
    let mut all = declared(pod, "containers")?;
    all.retain(Found::is_tcp);
    match &sidecar.agent_port {
        None if all.len() > 1 => {
            Err(format!("which port is the agent's? Give --agent-port one of {}", words(&all)))
        }
        None => Ok(all.pop()),
        Some(wanted) => {
            let is_it = |found: &Found| {
                found.name() == Some(wanted) || wanted.parse().is_ok_and(|number: u64| number == found.number)
            };
            match all.iter().position(is_it) {
                Some(at) => Ok(Some(all.swap_remove(at))),
                None if all.is_empty() => Err(format!("no container declares port {wanted}, nor any other")),
                None => Err(format!("no container declares port {wanted}; there is {}", words(&all))),
            }
        }
    }
}
