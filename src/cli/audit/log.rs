//! Counts the entries of an access log.

use std::collections::{BTreeMap, HashMap};

use super::entry::Entry;

/// The maximum number of routes that are counted separately. The same maximum applies to the callers of each route.
const NAMES_MAX: usize = 10_000;
/// The maximum number of denial reasons that are counted separately for each caller.
const REASONS_MAX: usize = 100;
/// The maximum number of pairs of a verdict and a reason that are counted separately for each route. Callgate itself
/// writes fewer different pairs.
const VERDICTS_MAX: usize = 1000;
/// The name under which routes, callers and reasons above the maximum numbers are counted together.
const OTHERS: &str = "others";

/// The counts of the entries of access logs.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) lines: u64,
    /// The number of lines that are not JSON.
    pub(super) not_json: u64,
    /// The number of lines that are JSON, but not an entry of the access log.
    pub(super) other_json: u64,
    /// The number of access-log entries that the option `--since` excluded: older entries, and entries without a valid
    /// time.
    pub(super) older: u64,
    /// The number of requests that the agent sent (egress requests).
    pub(super) egress: u64,
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
    /// The counts of the requests to each route, by its name. The name `none` is for requests whose path matches no
    /// route.
    pub(super) routes: BTreeMap<String, Route>,
}

/// The counts of the requests to one route.
#[derive(Debug, Default)]
pub(super) struct Route {
    pub(super) requests: u64,
    /// The number of requests that passed all checks. These requests were delivered, or Callgate answered them because
    /// they were duplicates or handshakes.
    pub(super) accepted: u64,
    /// The number of requests that Callgate denied.
    pub(super) denied: u64,
    /// The number of requests that passed all checks but could not be delivered.
    pub(super) failed: u64,
    /// The number of requests that were delivered while the route was in observe mode.
    pub(super) observed: u64,
    /// The number of requests that the agent received and answered.
    pub(super) delivered: u64,
    /// The number of requests that the agent answered with an error, by HTTP status.
    pub(super) agent_rejections: BTreeMap<u16, u64>,
    /// The number of requests in observe mode that would be rejected in enforce mode.
    pub(super) would_reject: u64,
    /// The number of requests in observe mode that failed a check, by the code of the denial. A request can fail
    /// several checks.
    pub(super) would_reject_reasons: BTreeMap<String, u64>,
    /// The time of the last request in observe mode that would be rejected in enforce mode.
    pub(super) would_reject_last: Option<String>,
    /// The number of requests by verdict and reason.
    pub(super) reasons: BTreeMap<(String, String), u64>,
    pub(super) providers: BTreeMap<String, u64>,
    pub(super) callers: HashMap<String, Caller>,
    /// Whether the route was in observe mode at the time of its newest request.
    pub(super) observes: bool,
    /// The time of the newest request to the route.
    newest: Option<String>,
}

/// The counts of the requests of one caller to one route.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    pub(super) requests: u64,
    /// The number of requests of this caller that were denied, or that would be denied in enforce mode.
    pub(super) rejected: u64,
    /// The number of rejected requests of this caller, by reason. A request that failed several checks counts under the
    /// reason of the first failed check.
    pub(super) reasons: BTreeMap<String, u64>,
}

impl Log {
    /// Counts one entry of an access log.
    pub(super) fn add(&mut self, entry: Entry) {
        match (&entry.egress, &entry.route, &entry.verdict) {
            (Some(_), ..) => self.egress += 1,
            (None, Some(route), Some(verdict)) => {
                named(&mut self.routes, route, NAMES_MAX).count(&entry, verdict);
            }
            _ => {}
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

    /// Returns the number of access-log entries that were counted.
    pub(super) fn entries(&self) -> u64 {
        self.egress + self.routes.values().map(|route| route.requests).sum::<u64>()
    }

    /// Reports whether the log has lines, but no entry of Callgate's access log.
    pub(super) fn is_foreign(&self) -> bool {
        self.lines > 0 && self.entries() + self.older == 0
    }
}

impl Route {
    fn count(&mut self, entry: &Entry, verdict: &str) {
        self.requests += 1;
        let reason = entry.reason.as_deref().unwrap_or("-");
        let (group, is_rejected) = match verdict {
            "observe" => (&mut self.observed, !entry.observed.is_empty()),
            "deny" => (&mut self.denied, true),
            "fail" => (&mut self.failed, false),
            _ => (&mut self.accepted, false),
        };
        *group += 1;
        // The newest entry determines `observes`: a route can change its mode, and the log files can be read in any
        // order.
        if entry.time >= self.newest {
            self.newest.clone_from(&entry.time);
            self.observes = verdict == "observe" || entry.mode.as_deref() == Some("observe");
        }
        self.delivered += u64::from(entry.was_delivered());
        if let Some(status) = entry.agent_rejection() {
            *self.agent_rejections.entry(status).or_default() += 1;
        }
        if verdict == "observe" && is_rejected {
            self.would_reject += 1;
            self.would_reject_last = self.would_reject_last.take().max(entry.time.clone());
            for denial in &entry.observed {
                *named(&mut self.would_reject_reasons, denial, NAMES_MAX) += 1;
            }
        }
        let key = (verdict.to_owned(), reason.to_owned());
        let is_new = !self.reasons.contains_key(&key);
        let key =
            if is_new && self.reasons.len() >= VERDICTS_MAX { (OTHERS.into(), OTHERS.into()) } else { key };
        *self.reasons.entry(key).or_default() += 1;
        if let Some(provider) = entry.provider.as_deref().filter(|provider| *provider != "none") {
            *named(&mut self.providers, provider, NAMES_MAX) += 1;
        }
        self.count_caller(entry.caller(), is_rejected.then_some(reason));
    }

    fn count_caller(&mut self, caller: &str, rejected: Option<&str>) {
        let is_new = !self.callers.contains_key(caller);
        let caller = if is_new && self.callers.len() >= NAMES_MAX { OTHERS } else { caller };
        let caller = self.callers.entry(caller.to_owned()).or_default();
        caller.requests += 1;
        if let Some(reason) = rejected {
            caller.rejected += 1;
            *named(&mut caller.reasons, reason, REASONS_MAX) += 1;
        }
    }

    /// Returns the callers of the route, sorted by the number of their requests, highest number first.
    pub(super) fn callers(&self) -> Vec<(&str, &Caller)> {
        let mut callers: Vec<_> = self.callers.iter().map(|(name, caller)| (&**name, caller)).collect();
        callers.sort_by(|a, b| b.1.requests.cmp(&a.1.requests).then(a.0.cmp(b.0)));
        callers
    }

    /// Returns the number of requests to the route that were accepted, or delivered in observe mode.
    pub(super) fn let_in(&self) -> u64 {
        self.accepted + self.observed
    }

    /// Returns the number of delivered requests that the agent answered with an error.
    pub(super) fn agent_rejected(&self) -> u64 {
        self.agent_rejections.values().sum()
    }

    /// Reports whether the route let requests in and can be in enforce mode. The route can be in enforce mode if it is
    /// in this mode already, or if enforce mode would reject none of its requests.
    pub(super) fn can_be_enforced(&self) -> bool {
        self.let_in() > 0 && (!self.observes || self.would_reject == 0)
    }

    /// Reports whether the route is in observe mode and would reject some of its requests in enforce mode.
    pub(super) fn cannot_be_enforced(&self) -> bool {
        self.observes && self.would_reject > 0
    }

    /// Reports whether no request to the route passed all checks.
    pub(super) fn is_unused(&self) -> bool {
        self.let_in() + self.failed == 0
    }
}

/// Returns the count in `map` for `name`. A new name is added with an empty count. If the map already has `names_max`
/// names, a new name is not added, and the count for [`OTHERS`] is returned.
fn named<'m, T: Default>(map: &'m mut BTreeMap<String, T>, name: &str, names_max: usize) -> &'m mut T {
    let name = if map.len() >= names_max && !map.contains_key(name) { OTHERS } else { name };
    map.entry(name.to_owned()).or_default()
}
