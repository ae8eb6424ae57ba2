//! The ports that the containers of a pod declare, and the port of the agent.

use std::collections::BTreeSet;

use super::sidecar::{Sidecar, name};
use super::yaml::{self, Mapping, Sequence, Value, shortened};

/// The key of the annotation that contains the agent's port, by name or number.
pub(super) const AGENT_PORT: &str = "callgate.dev/agent-port";
/// The key of the annotation that contains the name of the agent's container.
pub(super) const AGENT_CONTAINER: &str = "callgate.dev/agent-container";
/// The key of the annotation that contains the container that `kubectl` uses by default.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// The key of the annotation that contains the port on which the sidecar of a workload receives callbacks.
pub(super) const PORT: &str = "callgate.dev/port";
/// The YAML keys of the lists of containers in a pod.
pub(super) const LISTS: [&str; 2] = ["containers", "initContainers"];

/// A port that a container of a pod declares.
pub(super) struct DeclaredPort {
    pub(super) container: String,
    /// The position of the port in the pod: the key of the list of containers, the index of the container in the list,
    /// and the index of the port in the container. The position identifies the port, because two ports can have equal
    /// entries.
    pub(super) at: (&'static str, usize, usize),
    pub(super) number: u64,
    pub(super) entry: Mapping,
}

impl DeclaredPort {
    pub(super) fn name(&self) -> Option<&str> {
        self.entry.get("name").and_then(Value::as_str)
    }

    pub(super) fn protocol(&self) -> &str {
        self.entry.get("protocol").and_then(Value::as_str).unwrap_or("TCP")
    }

    pub(super) fn is_tcp(&self) -> bool {
        self.protocol() == "TCP"
    }

    pub(super) fn words(&self) -> String {
        let number = match self.protocol() {
            "TCP" => self.number.to_string(),
            other => format!("{}/{}", self.number, shortened(other)),
        };
        let container = shortened(&self.container);
        match self.name() {
            Some(name) => format!("{} ({number}) of {container}", shortened(name)),
            None => format!("{number} of {container}"),
        }
    }
}

/// Returns a rule of a NetworkPolicy that opens the ports to everybody. Returns `None` if `ports` is empty.
pub(super) fn open(ports: &[DeclaredPort]) -> Option<Mapping> {
    let mut listed = Sequence::new();
    let mut known = BTreeSet::new();
    for port in ports {
        if known.insert((port.number, port.protocol())) {
            let mut one = Mapping::new();
            one.insert("port".into(), port.number.into());
            one.insert("protocol".into(), port.protocol().into());
            listed.push(one.into());
        }
    }
    let mut rule = Mapping::new();
    let is_empty = listed.is_empty();
    rule.insert("ports".into(), listed.into());
    (!is_empty).then_some(rule)
}

/// The maximum number of ports that a message lists.
const WORDS_MAX: usize = 20;

/// Returns the ports as text for a message.
pub(super) fn words(ports: &[DeclaredPort]) -> String {
    let mut words: Vec<_> = ports.iter().take(WORDS_MAX).map(DeclaredPort::words).collect();
    let more = ports.len().saturating_sub(WORDS_MAX);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(", ")
}

pub(super) fn containers<'a>(pod: &'a Mapping, list: &str) -> impl Iterator<Item = &'a Value> {
    pod.get(list).and_then(Value::as_sequence).into_iter().flatten()
}

/// Returns the ports that the containers in one list of a pod declare, for all protocols. `list` is one of [`LISTS`].
pub(super) fn declared(pod: &Mapping, list: &'static str) -> Result<Vec<DeclaredPort>, String> {
    let mut all = Vec::new();
    for (nth, container) in containers(pod, list).enumerate() {
        let owner = name(container).unwrap_or_default();
        let ports = match container.get("ports") {
            None | Some(Value::Null) => continue,
            Some(Value::Sequence(ports)) => ports,
            Some(_) => return Err(format!("`ports` of {} is not a list", shortened(owner))),
        };
        for (at, port) in ports.iter().enumerate() {
            let number = port.get("containerPort").unwrap_or(&Value::Null);
            let (Some(entry), Some(number @ 1..=65535)) = (port.as_mapping(), number.as_u64()) else {
                return Err(format!(
                    "a `containerPort` of {} is {}, which is not a whole number from 1 to 65535",
                    shortened(owner),
                    shown(number)?
                ));
            };
            let entry = entry.clone();
            all.push(DeclaredPort { container: owner.to_owned(), at: (list, nth, at), number, entry });
        }
    }
    Ok(all)
}

/// Returns the ports that all containers of a pod declare.
pub(super) fn all(pod: &Mapping) -> Result<Vec<DeclaredPort>, String> {
    let lists = LISTS.into_iter().map(|list| declared(pod, list));
    Ok(lists.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Returns a value as text for a message. A long text is shortened. The contents of a list or a mapping are not shown.
fn shown(value: &Value) -> Result<String, String> {
    match value {
        Value::Sequence(_) => Ok("a list".to_owned()),
        Value::Mapping(_) => Ok("a mapping".to_owned()),
        Value::String(text) => Ok(yaml::write(&shortened(text).into())?.trim_end().to_owned()),
        other => Ok(yaml::write(other)?.trim_end().to_owned()),
    }
}

fn has_container(pod: &Mapping, wanted: &str) -> bool {
    containers(pod, "containers").any(|container| name(container) == Some(wanted))
}

/// Returns the names of the pod's containers as text for a message.
fn container_names(pod: &Mapping) -> String {
    let all = containers(pod, "containers").filter_map(name).take(WORDS_MAX).map(shortened);
    all.collect::<Vec<_>>().join(", ")
}

/// Returns the name of the agent's container in a pod where this container declares no port.
///
/// # Errors
/// Returns a message if the pod has several containers, and no annotation names the agent's container.
pub(super) fn agents_container(pod: &Mapping, sidecar: &Sidecar) -> Result<String, String> {
    let mut all = containers(pod, "containers").filter_map(name);
    let only = match (all.next(), all.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    };
    let default = sidecar.default_container.as_deref().filter(|wanted| has_container(pod, wanted));
    let found = sidecar.agent_container.as_deref().or(only).or(default);
    found.map(str::to_owned).ok_or_else(|| {
        format!(
            "which container is the agent's? None declares a port. Set the annotation {AGENT_CONTAINER} to one of {}",
            container_names(pod)
        )
    })
}

/// Parses the value of the annotation [`PORT`].
pub(super) fn parsed(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("the annotation {PORT} is not a port: write a whole number from 1 to 65535"))
}

/// Returns the port of the agent in a pod. Returns `None` if the containers declare no port. Returns an error if the
/// containers declare several ports and the settings select none of them.
pub(super) fn agents(pod: &Mapping, sidecar: &Sidecar) -> Result<Option<DeclaredPort>, String> {
    if containers(pod, "containers").next().is_none() {
        return Err("it has no containers".to_owned());
    }
    if containers(pod, "containers").any(|container| name(container).is_none()) {
        return Err("one of its containers has no name".to_owned());
    }
    let mut all = declared(pod, "containers")?;
    all.retain(DeclaredPort::is_tcp);
    match (&sidecar.agent_container, &sidecar.default_container) {
        (Some(wanted), _) if !has_container(pod, wanted) => {
            let names = container_names(pod);
            return Err(format!(
                "the annotation {AGENT_CONTAINER} names no container; the containers are {names}"
            ));
        }
        (Some(wanted), _) => all.retain(|port| port.container == *wanted),
        // Like `kubectl`, ignores a default container that does not exist in the pod.
        (None, Some(wanted))
            if sidecar.agent_port.is_none() && all.len() > 1 && has_container(pod, wanted) =>
        {
            all.retain(|port| port.container == *wanted);
        }
        _ => {}
    }
    chosen(all, sidecar)
}

/// Selects the port of the agent. `all` contains the ports that could be the agent's.
fn chosen(mut all: Vec<DeclaredPort>, sidecar: &Sidecar) -> Result<Option<DeclaredPort>, String> {
    match &sidecar.agent_port {
        None if all.len() > 1 => {
            let is_same =
                all.iter().all(|port| all.first().is_some_and(|first| first.container == port.container));
            let container = match is_same {
                true => String::new(),
                false => format!(", or the annotation {AGENT_CONTAINER} to the agent's container"),
            };
            Err(format!(
                "which port is the agent's? Set the annotation {AGENT_PORT}, or for all workloads --agent-port, to one of \
                 {}{container}",
                words(&all)
            ))
        }
        None => Ok(all.pop()),
        Some(wanted) => {
            let is_it = |found: &DeclaredPort| {
                found.name() == Some(wanted) || wanted.parse().is_ok_and(|number: u64| number == found.number)
            };
            match all.iter().position(is_it) {
                Some(at) => Ok(Some(all.swap_remove(at))),
                None => {
                    let declares = match &sidecar.agent_container {
                        Some(container) => {
                            format!("the agent's container {} does not declare", shortened(container))
                        }
                        None => "no container declares".to_owned(),
                    };
                    let wanted = shortened(wanted);
                    Err(match all.is_empty() {
                        true => format!("{declares} port {wanted} or any other port"),
                        false => {
                            format!("{declares} port {wanted}; the declared ports are {}", words(&all))
                        }
                    })
                }
            }
        }
    }
}
