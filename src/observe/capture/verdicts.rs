//! The verdicts of the checks of a captured request. The `.http` file of the captured request contains the verdicts as
//! headers, and `callgate explain` reads them.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

use crate::denial::Denial;
use crate::time::Timestamp;
use crate::trail::{Outcome, Trail};

/// The header that contains the time, the source address and the denial reason of a captured request.
pub const FACTS_HEADER: HeaderName = HeaderName::from_static("callgate-captured");
/// The header that contains the verdict of each check of a captured request.
pub const CHECKS_HEADER: HeaderName = HeaderName::from_static("callgate-captured-checks");
/// The header that contains the reason why the body of a captured request was left out.
pub const BODY_HEADER: HeaderName = HeaderName::from_static("callgate-captured-body");

/// The verdicts of the checks of a captured request, with its time, its source address and its denial reason.
#[derive(Clone, Debug)]
pub struct Verdicts {
    /// The time at which the captured request arrived.
    pub time: Timestamp,
    /// The source address of the connection of the captured request.
    pub peer: IpAddr,
    /// The code of the denial of the captured request.
    pub reason: Box<str>,
    /// The name of each check of the captured request, with its verdict: `pass`, `skip`, `hold` or the code of a
    /// denial.
    pub checks: Vec<(Box<str>, Box<str>)>,
    /// Whether the `.http` file of the captured request contains the body.
    pub has_body: bool,
}

impl Verdicts {
    /// Collects the verdict of each check from two trails (lists of checks that ran) of the same request. `real`
    /// contains the checks that decided about the request. `all` contains every check that could run without the
    /// ledger. If a check is in both trails, the verdict from `all` is used.
    pub fn of(time: Timestamp, peer: IpAddr, reason: &str, all: &Trail, real: &Trail) -> Self {
        let mut checks: Vec<(Box<str>, Box<str>)> = Vec::new();
        for step in all.steps().chain(real.steps()) {
            if !checks.iter().any(|(check, _)| **check == *step.check.name()) {
                let verdict = match step.outcome {
                    Outcome::Deny(denial) => denial.code(),
                    other => other.name(),
                };
                checks.push((step.check.name().into(), verdict.into()));
            }
        }
        Self { time, peer, reason: reason.into(), checks, has_body: false }
    }

    /// Reads the verdicts from the headers of the `.http` file of a captured request. Returns `None` if Callgate did
    /// not capture the request.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
        let facts: Vec<_> =
            text(&FACTS_HEADER)?.split("; ").filter_map(|pair| pair.split_once('=')).collect();
        let fact = |name: &str| facts.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        let checks = text(&CHECKS_HEADER).unwrap_or_default();
        let checks = checks.split(", ").filter_map(|pair| pair.split_once('='));
        Some(Self {
            time: Timestamp::parse(fact("time")?)?,
            peer: fact("peer")?.parse().ok()?,
            reason: fact("reason")?.into(),
            checks: checks.map(|(check, verdict)| (check.into(), verdict.into())).collect(),
            has_body: !headers.contains_key(BODY_HEADER),
        })
    }

    /// Returns the verdict of the check with the name `check`. Returns `None` if the captured request has no such
    /// check.
    pub fn verdict(&self, check: &str) -> Option<&str> {
        self.checks.iter().find(|(name, _)| **name == *check).map(|(_, verdict)| &**verdict)
    }

    /// Returns the denial of a check of the captured request. Returns `None` if the check did not fail.
    pub fn denial(&self, check: &str) -> Option<Denial> {
        let verdict = self.verdict(check)?;
        Denial::ALL.iter().copied().find(|denial| denial.code() == verdict)
    }

    /// Returns the headers [`FACTS_HEADER`] and [`CHECKS_HEADER`] with their values, for the `.http` file of the
    /// request.
    pub(super) fn headers(&self) -> [(HeaderName, String); 2] {
        let facts = format!("time={}; peer={}; reason={}", self.time, self.peer.to_canonical(), self.reason);
        let checks = self.checks.iter().map(|(check, verdict)| format!("{check}={verdict}"));
        [(FACTS_HEADER, facts), (CHECKS_HEADER, checks.collect::<Vec<_>>().join(", "))]
    }
}
