//! The trail: which checks ran for one request, in order, what each said and how long it took.
//!
//! Production fills in outcomes and times only; the sentences are made when somebody will read them, which
//! is `explain` and a denial.

use std::time::Instant;

use serde::Serialize;

use crate::denial::Denial;

/// The checks, in the order in which they run: cheap first, the body behind the head, the ledger last.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The head is one; noted only where it is not.
    Head,
    /// The path is in its one canonical form.
    Path,
    /// A route has this path.
    Route,
    /// The route lists the method.
    Method,
    /// The declared size fits.
    Size,
    /// The client address is allowed.
    Address,
    /// The client certificate is one that the route takes.
    Certificate,
    /// The token is genuine, current, and bound to this very path.
    Token,
    /// The signature headers are present, readable and fresh.
    SignatureHeaders,
    /// The address, and in the end the route, has not had more requests than it may.
    Rate,
    /// The body is complete and fits.
    Body,
    /// The MAC over the raw bytes matches.
    Signature,
    /// The request is a provider's handshake.
    Handshake,
    /// Where the body says to answer is a host that the route lists.
    Action,
    /// The event was not delivered before.
    Duplicate,
    /// The interaction is open.
    Interaction,
}

impl Check {
    /// Each of them, and the rate once more.
    const STEPS_MAX: usize = 17;

    /// Whether the clock is read when the check passes. Reading it costs more than the others take; their time
    /// is counted with the next check's.
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

    /// The stable snake_case name: log field and `explain` output.
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

/// What a check said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Passed.
    Pass,
    /// The route does not ask for this check.
    Skip,
    /// Refused, and why.
    Deny(Denial),
    /// Genuine, but not delivered: the caller is told that all is well.
    Hold,
}

impl Outcome {
    /// `pass`, `skip`, `deny` or `hold`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Deny(_) => "deny",
            Self::Hold => "hold",
        }
    }
}

/// One check that ran.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Which.
    pub check: Check,
    /// What it said.
    pub outcome: Outcome,
    /// Nanoseconds since the timed step before it; `None` where the clock was not read.
    pub nanos: Option<u32>,
}

/// The checks that ran, in order, `None` behind the last.
pub type Steps = [Option<Step>; Check::STEPS_MAX];

/// The checks of one request.
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
    /// A trail for a reader: every step keeps its sentence, nothing is timed.
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

    /// A trail for production: outcomes and times.
    pub fn timed(clock: fn() -> Instant) -> Self {
        let last = Some(clock());
        Self {
            steps: [None; Check::STEPS_MAX],
            len: 0,
            details: None,
            refusal: None,
            clock: Some(clock),
            last,
        }
    }

    /// Restarts the clock, so that waiting for the network is not counted as deciding.
    pub fn resume(&mut self) {
        self.last = self.clock.map(|clock| clock());
    }

    /// The check passed; `detail` says what it saw.
    pub fn pass(&mut self, check: Check, detail: impl FnOnce() -> String) {
        if check.is_timed() {
            self.push(check, Outcome::Pass, detail);
        } else {
            self.record(Step { check, outcome: Outcome::Pass, nanos: None }, detail);
        }
    }

    /// The route does not ask for this check.
    pub fn skip(&mut self, check: Check, detail: &'static str) {
        self.record(Step { check, outcome: Outcome::Skip, nanos: None }, || detail.to_owned());
    }

    /// The check found that the callback is not to be delivered, though nothing is wrong with it.
    pub fn hold(&mut self, check: Check, detail: &'static str) {
        self.push(check, Outcome::Hold, || detail.to_owned());
    }

    /// The check refused; `detail` says what it saw. Hands the denial back for `Err`.
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

    /// The steps so far.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().flatten()
    }

    /// The same, as they are kept.
    pub fn all(&self) -> &Steps {
        &self.steps
    }

    /// The steps with their sentences; the sentences are empty unless the trail is verbose.
    pub fn details(&self) -> impl Iterator<Item = (&Step, &str)> {
        let details = self.details.as_deref().unwrap_or_default();
        self.steps().enumerate().map(|(i, step)| (step, details.get(i).map_or("", String::as_str)))
    }

    /// When the last timed check ended; `None` without a clock.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// The sentence of the check that refused first, in production.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// Nanoseconds spent deciding, waiting not counted.
    pub fn nanos(&self) -> u64 {
        self.steps().filter_map(|step| step.nanos).map(u64::from).sum()
    }
}
