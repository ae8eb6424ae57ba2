//! The trail of one request: the checks that ran, in order, each with its result and its duration.
//!
//! In production, a trail records the outcome and the duration of each check, and one sentence about the first check
//! that failed. For `callgate explain`, it records a sentence about every check.

use std::time::Instant;

use serde::Serialize;

use crate::denial::Denial;

/// The checks of a request, in the order in which they run. Cheap checks come first. The checks of the body follow the
/// checks of the head. The lookup in the ledger, which records the interactions, comes last.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Checks that the head of the request is valid HTTP. The trail contains this check only if it failed.
    Head,
    /// Checks that the path is in canonical form, for example without dot segments.
    Path,
    /// Checks that a route has the path of the request.
    Route,
    /// Checks that the route lists the method of the request.
    Method,
    /// Checks that the declared size of the body is within the limit of the route.
    Size,
    /// Checks that the client address is allowed.
    Address,
    /// Checks that the route accepts the client certificate of the connection.
    Certificate,
    /// Checks that the token is genuine, has not expired, and is bound to this path.
    Token,
    /// Checks that the signature headers are present, well-formed and fresh.
    SignatureHeaders,
    /// Checks that the client address and the route are within their rate limits.
    Rate,
    /// Checks that the body is complete and within the size limit.
    Body,
    /// Checks the signature over the raw bytes of the request.
    Signature,
    /// Recognizes a handshake, which is a request with which a provider tests the callback URL. Callgate itself replies
    /// to a handshake.
    Handshake,
    /// Checks that the action endpoint in the body, to which the agent's answer will be sent, is at a host that the
    /// route lists.
    Action,
    /// Checks that the event was not delivered before.
    Duplicate,
    /// Checks that the interaction to which the callback belongs is open.
    Interaction,
}

impl Check {
    /// The maximum number of checks that one trail records. The rate check can run twice, and every other check once.
    const STEPS_MAX: usize = 17;

    /// Reports whether the duration of this check is measured when the check passes. A check that is not measured takes
    /// less time than reading the clock. Its time is included in the duration of the next measured check.
    const fn is_timed(self) -> bool {
        !matches!(
            self,
            Self::Path
                | Self::Method
                | Self::Size
                | Self::Certificate
                | Self::Rate
                | Self::Body
                | Self::Action
                | Self::Handshake
                | Self::Duplicate
                | Self::Interaction
        )
    }

    /// Returns the stable snake_case name of the check. The name appears in the log and in the output of `callgate
    /// explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Path => "path",
            Self::Route => "route",
            Self::Method => "method",
            Self::Size => "size",
            Self::Address => "address",
            Self::Certificate => "certificate",
            Self::Rate => "rate",
            Self::Token => "token",
            Self::SignatureHeaders => "signature_headers",
            Self::Body => "body",
            Self::Signature => "signature",
            Self::Handshake => "handshake",
            Self::Action => "action",
            Self::Duplicate => "duplicate",
            Self::Interaction => "interaction",
        }
    }
}

/// The result of one check of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The check passed.
    Pass,
    /// The check did not run, because the route does not use it.
    Skip,
    /// The check failed, for this reason.
    Deny(Denial),
    /// The request is valid, but it is not delivered, for example because it is a duplicate. The caller receives a
    /// success status.
    Hold,
}

impl Outcome {
    /// Returns the name of the check result: `pass`, `skip`, `deny` or `hold`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Deny(_) => "deny",
            Self::Hold => "hold",
        }
    }
}

/// One check of a request that ran, with its result and duration.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The check that ran.
    pub check: Check,
    /// The result of the check.
    pub outcome: Outcome,
    /// The time from the end of the previous measured check to the end of this check, in nanoseconds. The time spent
    /// waiting for the network is not included. `None` if this check was not measured.
    pub nanos: Option<u32>,
}

/// The checks of a request that ran, in order. The unused entries at the end are `None`.
pub type Steps = [Option<Step>; Check::STEPS_MAX];

/// The checks of one request that ran, in order, with their results and durations.
#[derive(Debug)]
pub struct Trail {
    steps: Steps,
    len: usize,
    details: Option<Vec<String>>,
    refusal: Option<String>,
    clock: Option<fn() -> Instant>,
    last: Option<Instant>,
}

impl Trail {
    /// Creates a trail for `callgate explain`. The trail stores the sentence of every check and measures no durations.
    pub fn verbose() -> Self {
        Self {
            steps: [None; Check::STEPS_MAX],
            len: 0,
            details: Some(Vec::new()),
            refusal: None,
            clock: None,
            last: None,
        }
    }

    /// Creates a trail for production. The trail measures durations and stores only the sentence of the first denial.
    /// The first duration begins at `began`.
    pub fn timed(began: Instant, clock: fn() -> Instant) -> Self {
        Self {
            steps: [None; Check::STEPS_MAX],
            len: 0,
            details: None,
            refusal: None,
            clock: Some(clock),
            last: Some(began),
        }
    }

    /// Reports whether the trail stores a sentence about every check, as `callgate explain` needs it.
    pub fn is_verbose(&self) -> bool {
        self.details.is_some()
    }

    /// Starts the time measurement of the next check now. The caller calls this function after it has waited for the
    /// network, so that no check includes the waiting time.
    pub fn resume(&mut self) {
        self.last = self.clock.map(|clock| clock());
    }

    /// Records that `check` passed. `detail` returns a sentence about what the check found in the request.
    pub fn pass(&mut self, check: Check, detail: impl FnOnce() -> String) {
        if check.is_timed() {
            self.push(check, Outcome::Pass, detail);
        } else {
            self.record(Step { check, outcome: Outcome::Pass, nanos: None }, detail);
        }
    }

    /// Records that `check` did not run, because the route does not use it. `detail` is a sentence about the reason.
    pub fn skip(&mut self, check: Check, detail: &'static str) {
        self.record(Step { check, outcome: Outcome::Skip, nanos: None }, || detail.to_owned());
    }

    /// Records that `check` found a valid callback that must not be delivered, such as a duplicate. `detail` is a
    /// sentence about what the check found.
    pub fn hold(&mut self, check: Check, detail: &'static str) {
        self.push(check, Outcome::Hold, || detail.to_owned());
    }

    /// Records that `check` failed. `detail` returns a sentence about what the check found in the request. Returns
    /// `denial`, so that the caller can return it as an error.
    pub fn deny(&mut self, check: Check, denial: Denial, detail: impl FnOnce() -> String) -> Denial {
        self.push(check, Outcome::Deny(denial), detail);
        denial
    }

    fn push(&mut self, check: Check, outcome: Outcome, detail: impl FnOnce() -> String) {
        let now = self.clock.map(|clock| clock());
        let nanos = match (self.last, now) {
            (Some(last), Some(now)) => u32::try_from(now.saturating_duration_since(last).as_nanos()).ok(),
            _ => None,
        };
        self.last = now;
        self.record(Step { check, outcome, nanos }, detail);
    }

    fn record(&mut self, step: Step, detail: impl FnOnce() -> String) {
        if let Some(slot) = self.steps.get_mut(self.len) {
            *slot = Some(step);
            self.len += 1;
            match &mut self.details {
                Some(details) => details.push(detail()),
                None if matches!(step.outcome, Outcome::Deny(_)) => {
                    self.refusal.get_or_insert_with(detail);
                }
                None => {}
            }
        }
    }

    /// Returns the checks that have run so far, with their results.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// Returns the array of the checks that ran, including its unused `None` entries.
    pub fn all(&self) -> &Steps {
        &self.steps
    }

    /// Returns the checks that ran, each with its sentence. The sentences are empty unless the trail is verbose.
    pub fn details(&self) -> impl Iterator<Item = (&Step, &str)> {
        let details = self.details.as_deref().unwrap_or_default();
        self.steps().enumerate().map(|(i, step)| (step, details.get(i).map_or("", String::as_str)))
    }

    /// Returns the time at which the last measured check ended. Returns `None` if the trail measures no durations.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Returns the sentence about the first check that failed. Returns `None` if no check failed. Also returns `None`
    /// for a trail of `callgate explain`, which stores the sentences elsewhere.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Returns the time spent on all checks, in nanoseconds. The time spent waiting for the network is not included.
    pub fn nanos(&self) -> u64 {
        self.steps().filter_map(|step| step.nanos).map(u64::from).sum()
    }
}
