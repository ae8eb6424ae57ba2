//! The state of all processes and of the simulated Redis server, and all possible next states.

use super::records::{Records, Text};
use super::scene::{Held, Job, Kind, Scene, TICKS, Then};
use crate::interaction::State;

/// The version of the record in the store, or 0 if the store has no record.
type Version = u32;
/// A state of the search: all processes, the simulated Redis server, and the failures that may still happen.
#[derive(Clone)]
pub(super) struct World {
    pub(super) tick: i64,
    pub(super) engine: Engine,
    /// The calls that got no response and that the Redis server may still execute.
    late: Vec<Change>,
    tasks: Vec<Task>,
    /// The version that was generated last.
    drawn: Version,
    crashes: u8,
    faults: u8,
    refusals: u8,
    pub(super) seen: Seen,
}

/// The simulated Redis server, which stores one record and its version.
#[derive(Clone, Copy)]
pub(super) struct Engine {
    version: Version,
    pub(super) text: Text,
    /// The time at which a process must check the stored record, in Unix milliseconds.
    pub(super) due: i64,
}

/// The responses that callers and agents have received. The search checks the invariants with these values. The
/// processes do not use the values.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub(super) struct Seen {
    /// For each event: the number of times that an agent accepted it.
    pub(super) accepted: [u8; 2],
    /// For each event: whether a caller received status 200.
    pub(super) acknowledged: [bool; 2],
    pub(super) is_revoked: bool,
    /// The number of times that an agent accepted the notice.
    pub(super) reported: u8,
    /// Whether the agent is allowed to receive the notice twice. True if the agent's response may not have been
    /// recorded because of a crash, a lost call or the end of the lease.
    pub(super) may_report_again: bool,
    /// The invariant that the last step violated. `None` if the step violated no invariant.
    pub(super) wrong: Option<&'static str>,
}

#[derive(Clone, Copy)]
struct Task {
    member: u8,
    job: Job,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The next step reads the record. If an earlier call got no response, `written` is the version that this call may
    /// have written.
    Read {
        kind: Kind,
        is_repeat: bool,
        written: Option<(Version, Then)>,
    },
    /// The next step writes the record.
    Write {
        kind: Kind,
        is_repeat: bool,
        change: Change,
        then: Then,
    },
    /// The agent processes a callback or a notice.
    Work {
        then: Then,
        version: Version,
        held: Held,
    },
    Over,
}

/// A compare-and-set call to the store: it writes the record only if the version of the stored record is still
/// `expected`.
#[derive(Clone, Copy, Debug)]
struct Change {
    expected: Version,
    new: Version,
    /// The number of the record that the call writes, or 0 if the call removes the record.
    held: Held,
    due: i64,
}

impl Change {
    /// Returns the version of the stored record after the call.
    fn version(&self) -> Version {
        if self.held == 0 { 0 } else { self.new }
    }
}

impl World {
    pub(super) fn new((text, due): (Text, i64), jobs: Vec<(u8, Job)>, scene: Scene) -> Self {
        let task = |(member, job)| {
            let kind = match job {
                Job::Callback(event) => Kind::Claim(event),
                Job::Look => Kind::Pass,
                Job::Revoke => Kind::Revoke,
            };
            Task { member, job, phase: Phase::Read { kind, is_repeat: false, written: None } }
        };
        Self {
            tick: 0,
            engine: Engine { version: 1, text, due },
            late: Vec::new(),
            tasks: jobs.into_iter().map(task).collect(),
            drawn: 1,
            crashes: scene.crashes,
            faults: scene.faults,
            refusals: scene.refusals,
            seen: Seen::default(),
        }
    }

    /// Returns a fingerprint of the state. States with different possible successors have different fingerprints. A
    /// pending call for an older version of the record has no effect, so its content is not part of the fingerprint.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut digest = Digest(0);
        let seen = &self.seen;
        for flag in [seen.acknowledged[0], seen.acknowledged[1], seen.is_revoked, seen.may_report_again] {
            digest.add(u64::from(flag));
        }
        for count in [self.crashes, self.faults, self.refusals, seen.accepted[0], seen.accepted[1]] {
            digest.add(u64::from(count));
        }
        digest.add(self.tick as u64 ^ (u64::from(seen.reported) << 8));
        digest.add(u64::from(seen.wrong.is_some()) ^ (u64::from(self.engine.version == 0) << 8));
        digest.add(u64::from(self.engine.text));
        digest.add(self.engine.due as u64);
        self.late.iter().for_each(|change| digest.add(u64::from(change.held)));
        self.tasks.iter().for_each(|task| self.add(&task.phase, &mut digest));
        digest.0
    }

    fn add(&self, phase: &Phase, digest: &mut Digest) {
        let current = self.engine.version;
        match phase {
            Phase::Read { kind, is_repeat, written } => {
                digest.add(0x10 + u64::from(*is_repeat));
                digest.add(kind.number());
                let (version, then) = written.unwrap_or((Version::MAX, Then::Failed));
                let late = self.late.iter().position(|change| change.new == version);
                if version == current || late.is_some() {
                    digest.add(then.number());
                    digest.add(late.map_or(0, |late| 1 + late as u64));
                }
            }
            Phase::Write { kind, is_repeat, change, then } => {
                digest.add(0x20 + u64::from(*is_repeat));
                digest.add(kind.number());
                if change.expected == current {
                    digest.add(then.number());
                    digest.add(u64::from(change.held));
                }
            }
            Phase::Work { then, version, held } => {
                digest.add(0x30);
                digest.add(then.number());
                if *version == current {
                    digest.add(u64::from(*held));
                }
            }
            Phase::Over => digest.add(0x40),
        }
    }

    /// Adds every possible next state to `all`.
    pub(super) fn successors(&self, records: &mut Records, all: &mut Vec<Self>) {
        for (number, task) in self.tasks.iter().enumerate() {
            match task.phase {
                Phase::Read { .. } => all.push(self.read(number, records)),
                Phase::Write { .. } => self.written(number, records, all),
                Phase::Work { then, .. } => {
                    all.push(self.accepted(number, records));
                    if self.refusals > 0 && matches!(then, Then::Deliver(..)) {
                        all.push(self.refused(number, records));
                    }
                }
                Phase::Over => {}
            }
        }
        for number in 0..self.late.len() {
            let mut next = self.clone();
            let change = next.late.remove(number);
            next.execute(&change, records);
            all.push(next);
        }
        for member in (0..3).filter(|_| self.crashes > 0) {
            all.extend(self.crashed(member));
        }
        if self.tick < TICKS {
            all.push(Self { tick: self.tick + 1, ..self.clone() });
        }
    }

    /// Describes the step from this state to the state `next`.
    pub(super) fn difference(&self, next: &Self) -> String {
        let tasks = self.tasks.iter().zip(&next.tasks).filter_map(|(before, after)| {
            let (was, is) = (format!("{:?}", before.phase), format!("{:?}", after.phase));
            (was != is).then(|| format!("{:?} at member {}: {was} -> {is}", before.job, before.member))
        });
        let engine =
            format!("tick {}, version {}, {} late calls", next.tick, next.engine.version, next.late.len());
        tasks.chain([engine]).collect::<Vec<_>>().join("; ")
    }

    fn read(&self, number: usize, records: &mut Records) -> Self {
        let mut next = self.clone();
        let Phase::Read { kind, is_repeat, written } = self.tasks[number].phase else { return next };
        let version = self.engine.version;
        let held = if version == 0 { 0 } else { records.read(self.engine.text, self.tick) };
        match written {
            Some((written, then)) if written == version => next.follow(number, then, version, held, records),
            _ if version == 0 => next.follow(number, Then::Failed, 0, 0, records),
            _ => next.decide(number, (kind, is_repeat), version, held, records),
        }
        next
    }

    fn decide(
        &mut self,
        number: usize,
        (kind, is_repeat): (Kind, bool),
        version: Version,
        held: Held,
        records: &mut Records,
    ) {
        let decided = records.decide(kind, number as u64, held, self.tick, is_repeat);
        match decided.due {
            None => self.follow(number, decided.then, version, decided.held, records),
            Some(due) => {
                self.drawn += 1;
                let change = Change { expected: version, new: self.drawn, held: decided.held, due };
                self.tasks[number].phase = Phase::Write { kind, is_repeat, change, then: decided.then };
            }
        }
    }

    /// Adds every possible next state after a process has sent a call that writes the record. Either the call succeeds,
    /// or another process has changed the record before, or the call gets no response.
    fn written(&self, number: usize, records: &mut Records, all: &mut Vec<Self>) {
        let Phase::Write { kind, is_repeat, change, then } = self.tasks[number].phase else { return };
        let mut next = self.clone();
        if next.execute(&change, records) {
            next.follow(number, then, change.version(), change.held, records);
        } else {
            next.tasks[number].phase = Phase::Read { kind, is_repeat, written: None };
        }
        all.push(next);
        if self.faults == 0 {
            return;
        }
        // The call gets no response. The Redis server executes it at once, later or never.
        let mut unknown = self.clone();
        unknown.faults -= 1;
        unknown.late.push(change);
        let mut given_up = unknown.clone();
        let written = Some((change.version(), then));
        unknown.tasks[number].phase = Phase::Read { kind, is_repeat: true, written };
        all.push(unknown);
        // The process repeats the call, and gets no response again.
        given_up.gives_up(number);
        all.push(given_up);
    }

    /// Executes a call, which writes the record only if the version of the stored record is the expected one. Returns
    /// whether the call changed the stored record.
    fn execute(&mut self, change: &Change, records: &mut Records) -> bool {
        if self.engine.version != change.expected {
            return false;
        }
        let text = if change.held == 0 { 0 } else { records.text(change.held) };
        self.engine = Engine { version: change.version(), text, due: change.due };
        // No version occurs twice. If a pending call expects another version than the new one, it can therefore never
        // have an effect.
        self.late.retain(|late| late.expected == change.version());
        true
    }

    /// Ends a task with an error.
    fn gives_up(&mut self, number: usize) {
        let phase = std::mem::replace(&mut self.tasks[number].phase, Phase::Over);
        self.seen.may_report_again |= match phase {
            Phase::Read { kind, .. } | Phase::Write { kind, .. } => matches!(kind, Kind::Noticed(..)),
            Phase::Work { .. } | Phase::Over => false,
        };
    }

    fn follow(&mut self, number: usize, then: Then, version: Version, held: Held, records: &Records) {
        self.tasks[number].phase = match then {
            Then::Deliver(event, _) => {
                if self.seen.acknowledged[event] {
                    self.seen.wrong = Some("an acknowledged event is delivered again");
                }
                if self.seen.is_revoked && records.state(held) != State::Revoked {
                    self.seen.wrong = Some("an event is delivered after the revocation");
                }
                self.check_alone(|other| matches!(other, Then::Deliver(of, _) if of == event));
                Phase::Work { then, version, held }
            }
            Then::Send(..) => {
                self.check_alone(|other| matches!(other, Then::Send(..)));
                Phase::Work { then, version, held }
            }
            Then::Poll(event) => Phase::Read { kind: Kind::Claim(event), is_repeat: false, written: None },
            Then::Duplicate(event) | Then::Settled(event) => {
                self.seen.acknowledged[event] = true;
                Phase::Over
            }
            Then::Revoked => {
                self.seen.is_revoked = true;
                Phase::Over
            }
            Then::Noticed | Then::Failed => Phase::Over,
        };
    }

    /// Records a violated invariant if another process does the same work and its lease has not ended. `is_same`
    /// recognizes the work.
    fn check_alone(&mut self, is_same: impl Fn(Then) -> bool) {
        let works = |task: &Task| match task.phase {
            Phase::Work { then: then @ (Then::Deliver(_, until) | Then::Send(_, until)), .. } => {
                is_same(then) && until > self.tick
            }
            _ => false,
        };
        if self.tasks.iter().any(works) {
            self.seen.wrong = Some("two members do the same work at the same time");
        }
    }

    fn accepted(&self, number: usize, records: &mut Records) -> Self {
        let mut next = self.clone();
        let Phase::Work { then, version, held } = self.tasks[number].phase else { return next };
        match then {
            Then::Deliver(event, _) => {
                next.seen.accepted[event] += 1;
                next.decide(number, (Kind::Settle(event), false), version, held, records);
            }
            Then::Send(since, until) => {
                next.seen.reported += 1;
                let kind = Kind::Noticed(since, until);
                next.tasks[number].phase = Phase::Read { kind, is_repeat: false, written: None };
            }
            _ => {}
        }
        next.note_ended_leases();
        next
    }

    /// Records that the notice may be sent again, if the agent has accepted a notice and its lease has ended before the
    /// acceptance was recorded.
    fn note_ended_leases(&mut self) {
        let has_ended = |task: &Task| match task.phase {
            Phase::Read { kind, .. } | Phase::Write { kind, .. } => {
                matches!(kind, Kind::Noticed(_, until) if until <= self.tick)
            }
            Phase::Work { .. } | Phase::Over => false,
        };
        self.seen.may_report_again |= self.tasks.iter().any(has_ended);
    }

    fn refused(&self, number: usize, records: &mut Records) -> Self {
        let mut next = self.clone();
        let Phase::Work { version, held, .. } = self.tasks[number].phase else { return next };
        next.refusals -= 1;
        next.decide(number, (Kind::Fail, false), version, held, records);
        next
    }

    fn crashed(&self, member: u8) -> Option<Self> {
        let mut next = self.clone();
        next.crashes -= 1;
        let is_hit = |task: &Task| task.member == member && !matches!(task.phase, Phase::Over);
        let hit: Vec<_> = (0..self.tasks.len()).filter(|number| is_hit(&self.tasks[*number])).collect();
        hit.iter().for_each(|number| next.gives_up(*number));
        (!hit.is_empty()).then_some(next)
    }
}

/// A hash of 64 bits.
struct Digest(u64);

impl Digest {
    fn add(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.0 = mixed ^ (mixed >> 27);
    }
}
