//! The steps of an explanation: the checks that ran, and the checks whose verdicts are copied from a captured request.

use serde_json::{Value, json};

use crate::denial::Denial;
use crate::observe::capture::Verdicts;
use crate::trail::{Outcome, Trail};

/// The names of the checks that `callgate explain` cannot repeat for a captured request. The captured request contains
/// no token, signature or certificate, and only the running Callgate has the ledger and the rates. The verdicts of
/// these checks are therefore copied from the captured request.
const TAKEN_OVER: [&str; 7] =
    ["certificate", "token", "signature_headers", "rate", "signature", "duplicate", "interaction"];
/// The names of the checks that need the body of the request.
const OF_THE_BODY: [&str; 3] = ["body", "handshake", "action"];

/// The result of a check in the output of `callgate explain`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mark {
    Pass,
    Skip,
    Deny(Denial),
    Hold,
    /// The check needs a key set or address list that `explain` does not have. Contains the denial with which a running
    /// Callgate rejects a request while this key set or address list is missing.
    NotFetched(Denial),
    /// The captured request contains no verdict of this check.
    Unknown,
}

/// A check of a request, with its result, in the output of `callgate explain`.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) check: Box<str>,
    pub(super) mark: Mark,
    pub(super) detail: String,
    /// Whether the result was copied from the captured request, because `explain` cannot repeat the check.
    pub(super) is_taken_over: bool,
}

impl Mark {
    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Pass => Self::Pass,
            Outcome::Skip => Self::Skip,
            Outcome::Deny(denial @ (Denial::ListUnavailable | Denial::KeysUnavailable)) => {
                Self::NotFetched(denial)
            }
            Outcome::Deny(denial) => Self::Deny(denial),
            Outcome::Hold => Self::Hold,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "skip",
            Self::Deny(_) => "deny",
            Self::Hold => "hold",
            Self::Unknown | Self::NotFetched(_) => "unknown",
        }
    }

    /// Returns the name of the result for the text output of `callgate explain`. All names have the same width.
    pub(super) fn printed(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Skip => "  - ",
            Self::Deny(_) => "DENY",
            Self::Hold => "hold",
            Self::Unknown | Self::NotFetched(_) => "  ? ",
        }
    }
}

impl Step {
    pub(super) fn to_json(&self) -> Value {
        let mut step = json!({ "check": self.check, "outcome": self.mark.name(), "detail": self.detail });
        if let (true, Some(members)) = (self.is_taken_over, step.as_object_mut()) {
            members.insert("taken_over".to_owned(), true.into());
        }
        step
    }
}

/// Returns the steps of the explanation. `trail` is the record of the checks that `explain` ran. If the request was
/// captured, the verdicts of the checks that `explain` cannot repeat are copied from the captured request.
pub(super) fn steps(trail: &Trail, captured: Option<&Verdicts>) -> Vec<Step> {
    let ran = trail.details().map(|(step, detail)| Step {
        check: step.check.name().into(),
        mark: Mark::of(step.outcome),
        detail: detail.to_owned(),
        is_taken_over: false,
    });
    let mut steps: Vec<Step> = ran.collect();
    let Some(captured) = captured else { return steps };
    for step in &mut steps {
        // The captured request has a verdict if the running Callgate had the key set or address list that `explain`
        // lacks.
        let is_known_there =
            matches!(step.mark, Mark::NotFetched(_)) && captured.verdict(&step.check).is_some();
        // A check that the configuration no longer requires stays skipped.
        if is_known_there || TAKEN_OVER.contains(&&*step.check) && step.mark != Mark::Skip {
            (step.mark, step.detail) = taken_over(captured, &step.check);
            step.is_taken_over = step.mark != Mark::Unknown;
        }
    }
    // The captured request also contains verdicts of checks that `explain` does not run: the checks that need the
    // ledger, and the checks of a body that was not captured.
    let others = captured.checks.iter().filter(|(check, verdict)| {
        let is_from_there =
            TAKEN_OVER.contains(&&**check) || (!captured.has_body && OF_THE_BODY.contains(&&**check));
        is_from_there && **verdict != *"skip" && !trail.steps().any(|step| *step.check.name() == **check)
    });
    let others: Vec<_> = others.map(|(check, _)| check.clone()).collect();
    for check in others {
        let (mark, detail) = taken_over(captured, &check);
        steps.push(Step { check, mark, detail, is_taken_over: true });
    }
    steps
}

fn taken_over(captured: &Verdicts, check: &str) -> (Mark, String) {
    let mark = match captured.verdict(check) {
        Some("pass") => Mark::Pass,
        Some("hold") => Mark::Hold,
        _ => captured.denial(check).map_or(Mark::Unknown, Mark::Deny),
    };
    let detail = match mark {
        Mark::Deny(denial) => format!("{} (taken over from the capture)", denial.code()),
        Mark::Unknown | Mark::NotFetched(_) => {
            "not known: the capture has no verdict of this check".to_owned()
        }
        Mark::Pass | Mark::Skip | Mark::Hold => "taken over from the capture".to_owned(),
    };
    (mark, detail)
}
