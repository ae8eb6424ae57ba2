//! Counts the entries of an access log.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// The maximum number of routes, and of callers of each route, that are counted one by one.
const NAMES_MAX: usize = 10_000;
/// The name under which further routes and callers are counted.
const OTHERS: &str = "others";

/// What was counted in an access log.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) lines: u64,
    /// Lines that are not JSON.
    pub(super) not_json: u64,
    /// Lines that are JSON, but not an entry of the access log.
    pub(super) other_json: u64,
    /// Requests of the agent.
    pub(super) egress: u64,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    /// The requests of each route. `none` contains the requests to no route.
    pub(super) routes: BTreeMap<String, Route>,
}

/// The requests of one route.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) requests: u64,
    /// Requests that passed all checks: delivered, or answered because they were duplicates or handshakes.
    pub(super) accepted: u64,
    /// Requests that Callgate denied.
    pub(super) denied: u64,
    /// Requests that were accepted by Callgate, but not by the agent or because of a fault.
    pub(super) failed: u64,
    /// Requests that were delivered because the route was in observe mode.
    pub(super) observed: u64,
    /// Requests among them that would be rejected in enforce mode.
    pub(super) would_reject: u64,
    /// The checks that these requests failed.
    pub(super) would_reject_reasons: BTreeMap<String, u64>,
    /// Number of requests of each verdict and reason.
    pub(super) reasons: BTreeMap<(String, String), u64>,
    pub(super) providers: BTreeMap<String, u64>,
    pub(super) callers: HashMap<String, Caller>,
    /// Whether the route was in observe mode at its last accepted request.
    pub(super) observes: bool,
}

/// The requests of one caller to one route.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller {
    pub(super) requests: u64,
    /// Requests that were denied, or would be in enforce mode.
    pub(super) rejected: u64,
}

/// An entry of the access log.
#[derive(Deserialize)]
struct Entry {
    time: Option<String>,
    route: Option<String>,
    egress: Option<String>,
    provider: Option<String>,
    verdict: Option<String>,
    reason: Option<String>,
    mode: Option<String>,
    #[serde(default)]
    observed: Vec<String>,
    client: Option<String>,
    peer: Option<String>,
}

impl Log {
    /// Counts one line.
    pub(super) fn add(&mut self, line: &[u8]) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        self.lines += 1;
        let entry = match parse(line) {
            Some(Ok(entry)) => entry,
            Some(Err(())) => return self.other_json += 1,
            None => return self.not_json += 1,
        };
        match entry {
            Entry { egress: Some(_), .. } => self.egress += 1,
            Entry { route: Some(ref route), verdict: Some(ref verdict), .. } => {
                let reason = entry.reason.as_deref().unwrap_or("-");
                named(&mut self.routes, route).count(&entry, verdict, reason);
            }
            _ => return self.other_json += 1,
        }
        if let Some(time) = entry.time {
            if self.first.as_ref().is_none_or(|first| time < *first) {
                self.first = Some(time.clone());
            }
            if self.last.as_ref().is_none_or(|last| time > *last) {
                self.last = Some(time);
            }
        }
    }

    /// Returns the number of entries.
    pub(super) fn entries(&self) -> u64 {
        self.egress + self.routes.values().map(|route| route.requests).sum::<u64>()
    }

    /// Reports whether the log has lines, but no entry.
    pub(super) fn is_foreign(&self) -> bool {
        self.lines > 0 && self.entries() == 0
    }
}

impl Route {
    fn count(&mut self, entry: &Entry, verdict: &str, reason: &str) {
        self.requests += 1;
        let (group, is_rejected) = match verdict {
            "observe" => (&mut self.observed, !entry.observed.is_empty()),
            "deny" => (&mut self.denied, true),
            "fail" => (&mut self.failed, false),
            _ => (&mut self.accepted, false),
        };
        // A route can change its mode, so the last request shows it. Logs of older versions have no `mode`.
        if verdict == "observe" || entry.mode.is_some() {
            self.observes = verdict == "observe" || entry.mode.as_deref() == Some("observe");
        } else if verdict != "deny" && verdict != "fail" {
            self.observes = false;
        }
        *group += 1;
        if verdict == "observe" && is_rejected {
            self.would_reject += 1;
            for denial in &entry.observed {
                *named(&mut self.would_reject_reasons, denial) += 1;
            }
        }
        *self.reasons.entry((verdict.to_owned(), reason.to_owned())).or_default() += 1;
        if let Some(provider) = entry.provider.as_deref().filter(|provider| *provider != "none") {
            *named(&mut self.providers, provider) += 1;
        }
        let caller = entry.client.as_ref().or(entry.peer.as_ref()).map_or("unknown", String::as_str);
        let is_new = !self.callers.contains_key(caller);
        let caller = if is_new && self.callers.len() >= NAMES_MAX { OTHERS } else { caller };
        let caller = self.callers.entry(caller.to_owned()).or_default();
        caller.requests += 1;
        caller.rejected += u64::from(is_rejected);
    }

    /// Returns the callers, those with the most requests first.
    pub(super) fn callers(&self) -> Vec<(&str, Caller)> {
        let mut callers: Vec<_> = self.callers.iter().map(|(name, caller)| (&**name, *caller)).collect();
        callers.sort_by(|a, b| b.1.requests.cmp(&a.1.requests).then(a.0.cmp(b.0)));
        callers
    }

    /// Returns the number of requests that were accepted or delivered.
    pub(super) fn let_in(&self) -> u64 {
        self.accepted + self.observed
    }

    /// Reports whether enforce mode would have rejected none of the requests that were let in.
    pub(super) fn can_be_enforced(&self) -> bool {
        self.let_in() > 0 && self.would_reject == 0
    }

    /// Reports whether no request to the route was accepted.
    pub(super) fn is_unused(&self) -> bool {
        self.let_in() + self.failed == 0
    }
}

/// Parses a line. Returns `None` if it is not JSON, and an error if it is not an object.
fn parse(line: &[u8]) -> Option<Result<Entry, ()>> {
    let direct = serde_json::from_slice::<serde_json::Value>(line).ok();
    // `docker compose logs` and `kubectl logs --prefix` write a name before each line.
    let value = direct.or_else(|| {
        let start = line.windows(9).position(|bytes| bytes == b"{\"time\":\"")?;
        serde_json::from_slice(line.get(start..)?).ok()
    })?;
    Some(Entry::deserialize(value).map_err(|_| ()))
}

/// Returns the value of a name. The value of a new name is `others` if there are too many names.
fn named<'m, T: Default>(map: &'m mut BTreeMap<String, T>, name: &str) -> &'m mut T {
    let name = if map.len() >= NAMES_MAX && !map.contains_key(name) { OTHERS } else { name };
    map.entry(name.to_owned()).or_default()
}
