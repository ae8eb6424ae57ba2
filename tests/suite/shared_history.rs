//! The history of processes that share a ledger, and the checker that reads it. Each call has its start, its end and its
//! answer. The checker must report each kind of fault that it promises to find, and the tests below show that it does.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use callgate::clock::instant;

/// The time after an answer of an agent in which the answer to the provider is sent.
const UNDER_WAY: Duration = Duration::from_secs(2);
/// How long calls can fail after a trouble has ended: connections, replicas and leases need this time.
const AFTERMATH: Duration = Duration::from_secs(30);

/// A call with its start, its end and its answer. `None` if there was no answer.
#[derive(Clone, Debug)]
pub struct Call {
    pub began: Instant,
    pub ended: Instant,
    /// Empty for a trouble.
    pub interaction: String,
    pub what: What,
    pub status: Option<u16>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Mint {
        uses: Option<u64>,
        is_silent: bool,
    },
    Event {
        body: String,
        /// Whether it reports that the work is done.
        is_final: bool,
    },
    Revoke,
    /// A request to an agent, with its body.
    Delivery(String),
    /// A notice to an agent.
    Notice,
    /// Somebody has read the record. The status is 404 if there is none.
    Read {
        state: String,
        deliveries: u64,
    },
    /// A process or a node was killed, suspended or separated.
    Trouble(String),
}

/// What must not happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// An event was acknowledged, and no agent has received it.
    NotDelivered,
    /// An event was delivered after it was acknowledged, more often than it was sent, or again although nothing had failed.
    DeliveredAgain,
    /// A token was used more often than it allows.
    UsedTooOften,
    /// An event was delivered after the acknowledged end of its interaction.
    DeliveredAfterEnd,
    /// The acknowledged end of an interaction is not its state.
    StateChanged,
    /// The record of an interaction does not exist, or nobody has looked.
    RecordMissing,
    /// A record knows fewer deliveries than were acknowledged.
    DeliveriesForgotten,
    /// The deadline of an interaction was not reported.
    NotReported,
    /// The deadline of an interaction was reported again although nothing had failed.
    ReportedAgain,
}

#[derive(Default)]
pub struct History(Mutex<Vec<Call>>);

impl History {
    /// Records a call that ends now.
    pub fn add(&self, began: Instant, interaction: &str, what: What, status: Option<u16>) {
        let call = Call { began, ended: instant(), interaction: interaction.to_owned(), what, status };
        self.0.lock().unwrap().push(call);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }
}

/// Returns the history as text: a line for each call, with milliseconds since the first call.
pub fn lines(calls: &[Call]) -> String {
    let (mut text, first) = (String::new(), calls.iter().map(|call| call.began).min());
    let mut calls: Vec<_> = calls.iter().collect();
    calls.sort_by_key(|call| call.began);
    for call in calls {
        let since = |at: Instant| first.map_or(0, |first| (at - first).as_millis());
        let status = call.status.map_or("-".to_owned(), |status| status.to_string());
        let (began, ended, id) = (since(call.began), since(call.ended), &call.interaction);
        writeln!(text, "{began} {ended} {status} {id} {:?}", call.what).unwrap();
    }
    text
}

/// Returns the number of silent interactions whose deadline was not reported yet.
pub fn unreported(calls: &[Call]) -> usize {
    let reported = calls.iter().filter(|call| call.what == What::Notice).map(|call| &*call.interaction);
    let reported: std::collections::HashSet<_> = reported.collect();
    let silent = calls.iter().filter(|call| matches!(call.what, What::Mint { is_silent: true, .. }));
    silent.filter(|call| !reported.contains(&*call.interaction)).count()
}

/// What a checker has found.
pub struct Verdict {
    /// Each fault with its interaction.
    pub faults: Vec<(Fault, String)>,
    pub acknowledged_events: usize,
}

/// Looks for everything that must not happen.
pub fn check(calls: &[Call]) -> Verdict {
    let mut by_interaction: HashMap<&str, Vec<&Call>> = HashMap::new();
    let mut troubles = Vec::new();
    for call in calls {
        match call.what {
            What::Trouble(_) => troubles.push((call.began, call.ended + AFTERMATH)),
            _ => by_interaction.entry(&call.interaction).or_default().push(call),
        }
    }
    let mut verdict = Verdict { faults: Vec::new(), acknowledged_events: 0 };
    for (id, mut calls) in by_interaction {
        calls.sort_by_key(|call| call.began);
        let Some(story) = Story::new(&calls, &troubles) else { continue };
        verdict.acknowledged_events += story.acknowledged.len();
        verdict.faults.extend(story.faults().into_iter().map(|fault| (fault, id.to_owned())));
    }
    verdict
}

/// What happened to one interaction.
struct Story<'c> {
    calls: &'c [&'c Call],
    troubles: &'c [(Instant, Instant)],
    uses: Option<u64>,
    is_silent: bool,
    /// Each acknowledged event with the end of its first acknowledged call.
    acknowledged: HashMap<&'c str, Instant>,
}

impl<'c> Story<'c> {
    /// Returns `None` if the agent does not know the interaction.
    fn new(calls: &'c [&'c Call], troubles: &'c [(Instant, Instant)]) -> Option<Self> {
        let (uses, is_silent) = calls.iter().find_map(|call| match call.what {
            What::Mint { uses, is_silent } => Some((uses, is_silent)),
            _ => None,
        })?;
        let mut acknowledged: HashMap<&str, Instant> = HashMap::new();
        for call in calls {
            if let (What::Event { body, .. }, Some(200)) = (&call.what, call.status) {
                let at = acknowledged.entry(body).or_insert(call.ended);
                *at = call.ended.min(*at);
            }
        }
        Some(Self { calls, troubles, uses, is_silent, acknowledged })
    }

    fn times(&self, wanted: impl Fn(&What) -> bool) -> Vec<Instant> {
        self.calls.iter().filter(|call| wanted(&call.what)).map(|call| call.began).collect()
    }

    /// Reports whether anything had failed between two times.
    fn is_excused(&self, from: Instant, to: Instant) -> bool {
        self.troubles.iter().any(|(began, over)| *began <= to && *over >= from)
    }

    /// Reports whether something happened again although nothing had failed since the last time.
    fn is_repeated(&self, times: &[Instant]) -> bool {
        times.windows(2).any(|pair| !self.is_excused(pair[0], pair[1]))
    }

    /// Returns the states that the interaction may have, and since when. `None` if it has no acknowledged end.
    fn end(&self) -> Option<(Vec<&'static str>, Instant)> {
        let revocations = || self.calls.iter().filter(|call| call.what == What::Revoke);
        let revoked = revocations().filter(|call| call.status == Some(204)).map(|call| call.ended).min();
        let is_done = |call: &&&Call| {
            matches!(call.what, What::Event { is_final: true, .. }) && call.status == Some(200)
        };
        let done = self.calls.iter().filter(is_done).map(|call| call.ended).min();
        match (revoked, done) {
            (Some(revoked), done) => Some((vec!["revoked"], done.map_or(revoked, |done| done.min(revoked)))),
            // What is over can still be revoked.
            (None, Some(done)) if revocations().next().is_some() => Some((vec!["done", "revoked"], done)),
            (None, Some(done)) => Some((vec!["done"], done)),
            (None, None) => None,
        }
    }

    fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut require = |holds: bool, fault: Fault| {
            if !holds && !faults.contains(&fault) {
                faults.push(fault);
            }
        };
        let mut sent: HashMap<&str, usize> = HashMap::new();
        for call in self.calls {
            if let What::Event { body, .. } = &call.what {
                *sent.entry(body).or_default() += 1;
            }
        }
        for (event, sent) in sent {
            let deliveries = self.times(|what| matches!(what, What::Delivery(body) if body == event));
            let acknowledged = self.acknowledged.get(event);
            require(acknowledged.is_none() || !deliveries.is_empty(), Fault::NotDelivered);
            let is_late = |at: &Instant| acknowledged.is_some_and(|acknowledged| at > acknowledged);
            require(!deliveries.iter().any(is_late), Fault::DeliveredAgain);
            require(deliveries.len() <= sent && !self.is_repeated(&deliveries), Fault::DeliveredAgain);
        }
        let deliveries = self.times(|what| matches!(what, What::Delivery(_)));
        if let Some(uses) = self.uses {
            require(self.acknowledged.len() as u64 <= uses, Fault::UsedTooOften);
            let excess = deliveries.len() as u64 > uses;
            let excused = deliveries.first().zip(deliveries.last());
            let excused = excused.is_some_and(|(first, last)| self.is_excused(*first, *last));
            require(!excess || excused, Fault::UsedTooOften);
        }
        let end = self.end();
        if let Some((_, at)) = &end {
            require(!deliveries.iter().any(|delivery| *delivery > *at + UNDER_WAY), Fault::DeliveredAfterEnd);
        }
        let notices = self.times(|what| *what == What::Notice);
        require(!self.is_silent || !notices.is_empty(), Fault::NotReported);
        require(!self.is_repeated(&notices), Fault::ReportedAgain);
        let mut was_read = false;
        for call in self.calls {
            let What::Read { state, deliveries } = &call.what else { continue };
            was_read = true;
            require(call.status == Some(200), Fault::RecordMissing);
            if call.status != Some(200) {
                continue;
            }
            let known = self.acknowledged.values().filter(|at| **at <= call.began).count();
            require(*deliveries >= known as u64, Fault::DeliveriesForgotten);
            let end = end.as_ref().filter(|(_, at)| *at <= call.began);
            require(end.is_none_or(|(states, _)| states.contains(&&**state)), Fault::StateChanged);
            let is_reported = notices.first().is_some_and(|at| *at <= call.began);
            require(!self.is_silent || !is_reported || state == "expired", Fault::StateChanged);
        }
        require(was_read, Fault::RecordMissing);
        faults
    }
}

// === What the checker finds ===

mod tests {
    use super::*;

    const BODY: &str = "{\"event\":\"1\"}";
    const FINAL: &str = "{\"event\":\"2\",\"status\":\"done\"}";

    /// A history that is made up. Times are in milliseconds.
    struct MadeUp {
        begin: Instant,
        calls: Vec<Call>,
    }

    impl MadeUp {
        fn new() -> Self {
            Self { begin: instant(), calls: Vec::new() }
        }

        fn call(mut self, id: &str, (began, ended): (u64, u64), what: What, status: Option<u16>) -> Self {
            let at = |ms| self.begin + Duration::from_millis(ms);
            let (began, ended, interaction) = (at(began), at(ended), id.to_owned());
            self.calls.push(Call { began, ended, interaction, what, status });
            self
        }

        fn mint(self, uses: Option<u64>) -> Self {
            self.call("int_a", (0, 10), What::Mint { uses, is_silent: false }, Some(201))
        }

        fn silent(self) -> Self {
            self.call("int_a", (0, 10), What::Mint { uses: None, is_silent: true }, Some(201))
        }

        fn event(self, time: (u64, u64), body: &str, status: impl Into<Option<u16>>) -> Self {
            let what = What::Event { body: body.to_owned(), is_final: body.contains("done") };
            self.call("int_a", time, what, status.into())
        }

        fn delivery(self, at: u64, body: &str) -> Self {
            self.call("int_a", (at, at), What::Delivery(body.to_owned()), Some(200))
        }

        /// An event that is delivered once and acknowledged.
        fn delivered(self, at: u64, body: &str) -> Self {
            self.delivery(at + 5, body).event((at, at + 10), body, 200)
        }

        fn notice(self, at: u64) -> Self {
            self.call("int_a", (at, at), What::Notice, Some(200))
        }

        fn revoke(self, time: (u64, u64), status: impl Into<Option<u16>>) -> Self {
            self.call("int_a", time, What::Revoke, status.into())
        }

        fn trouble(self, time: (u64, u64)) -> Self {
            self.call("", time, What::Trouble("a member was killed".to_owned()), None)
        }

        fn read(self, state: &str, deliveries: u64) -> Self {
            let what = What::Read { state: state.to_owned(), deliveries };
            self.call("int_a", (500_000, 500_010), what, Some(200))
        }

        fn faults(&self) -> Vec<Fault> {
            check(&self.calls).faults.into_iter().map(|(fault, _)| fault).collect()
        }
    }

    /// A history of several correct interactions, with repetitions that are allowed.
    fn correct() -> Vec<MadeUp> {
        let made_up = MadeUp::new;
        vec![
            made_up().mint(None).delivered(100, BODY).delivered(200, FINAL).read("done", 2),
            // A repetition of an acknowledged event is answered, and not delivered.
            made_up().mint(None).delivered(100, BODY).event((200, 210), BODY, 200).read("progressing", 1),
            // The process that delivered was killed.
            made_up()
                .mint(None)
                .delivery(105, BODY)
                .event((100, 110), BODY, None)
                .trouble((106, 900))
                .delivered(8200, BODY)
                .read("progressing", 1),
            // The same with a token for one event.
            made_up()
                .mint(Some(1))
                .delivery(105, BODY)
                .event((100, 110), BODY, 503)
                .trouble((50, 900))
                .delivered(8200, BODY)
                .event((8300, 8310), FINAL, 410)
                .read("progressing", 1),
            made_up().mint(None).revoke((100, 110), 204).event((200, 210), BODY, 410).read("revoked", 0),
            // The delivery had begun before the revocation.
            made_up()
                .mint(None)
                .revoke((100, 110), 204)
                .delivery(200, BODY)
                .event((90, 220), BODY, 200)
                .read("revoked", 1),
            // A revocation without an answer has happened, or it has not.
            made_up().mint(None).delivered(100, FINAL).revoke((200, 210), 503).read("revoked", 1),
            made_up().mint(None).delivered(100, FINAL).revoke((200, 210), 503).read("done", 1),
            made_up().mint(None).delivered(100, FINAL).revoke((200, 210), 204).read("revoked", 1),
            made_up().silent().notice(2010).read("expired", 0),
            made_up().silent().notice(2010).trouble((2011, 2500)).notice(122_000).read("expired", 0),
            // An event that nobody acknowledged may be lost.
            made_up().mint(None).event((100, 110), BODY, 503).read("open", 0),
        ]
    }

    #[test]
    fn a_correct_history_has_no_fault() {
        for (number, history) in correct().iter().enumerate() {
            assert_eq!(history.faults(), [], "{number}: {}", lines(&history.calls));
        }
    }

    type Faulty = (&'static str, Fault, MadeUp);

    /// Histories with one fault, which concerns a delivery.
    fn faulty_deliveries() -> Vec<Faulty> {
        let made_up = MadeUp::new;
        vec![
            ("an acknowledged event is lost", Fault::NotDelivered, {
                made_up().mint(None).event((100, 110), BODY, 200).read("progressing", 1)
            }),
            ("an event is delivered after it was acknowledged", Fault::DeliveredAgain, {
                let history = made_up().mint(None).delivered(100, BODY).trouble((111, 900));
                history.delivery(8205, BODY).event((8200, 8210), BODY, 200).read("progressing", 1)
            }),
            ("an event is delivered twice although nothing has failed", Fault::DeliveredAgain, {
                let history = made_up().mint(None).delivery(105, BODY).event((100, 110), BODY, 503);
                history.delivered(8200, BODY).read("progressing", 2)
            }),
            ("an event is delivered more often than it was sent", Fault::DeliveredAgain, {
                let history = made_up().mint(None).trouble((100, 900)).delivery(104, BODY);
                history.delivered(100, BODY).read("progressing", 1)
            }),
            ("a token for one event is used for two", Fault::UsedTooOften, {
                made_up().mint(Some(1)).delivered(100, BODY).delivered(200, FINAL).read("done", 2)
            }),
            ("a token for one event is used for two, and one has no answer", Fault::UsedTooOften, {
                let history = made_up().mint(Some(1)).delivered(100, BODY);
                history.delivery(205, FINAL).event((200, 210), FINAL, 503).read("progressing", 1)
            }),
            ("an event is delivered after a revocation", Fault::DeliveredAfterEnd, {
                made_up().mint(None).revoke((100, 110), 204).delivered(3000, BODY).read("revoked", 1)
            }),
            ("an event is delivered after the end of the work", Fault::DeliveredAfterEnd, {
                made_up().mint(None).delivered(100, FINAL).delivered(3000, BODY).read("done", 2)
            }),
        ]
    }

    /// Histories with one fault, which concerns a record or a notice.
    fn faulty_records() -> Vec<Faulty> {
        let made_up = MadeUp::new;
        vec![
            ("a revoked interaction is open", Fault::StateChanged, {
                made_up().mint(None).revoke((100, 110), 204).read("open", 0)
            }),
            ("a revoked interaction is done", Fault::StateChanged, {
                made_up().mint(None).delivered(50, FINAL).revoke((100, 110), 204).read("done", 1)
            }),
            ("work that was done goes on", Fault::StateChanged, {
                made_up().mint(None).delivered(100, FINAL).read("progressing", 1)
            }),
            ("work that was done has expired", Fault::StateChanged, {
                made_up().mint(None).delivered(100, FINAL).read("expired", 1)
            }),
            ("a deadline was reported, and the interaction is open", Fault::StateChanged, {
                made_up().silent().notice(2010).read("open", 0)
            }),
            ("a record is missing", Fault::RecordMissing, {
                let what = What::Read { state: String::new(), deliveries: 0 };
                made_up().mint(None).call("int_a", (900, 910), what, Some(404))
            }),
            ("nobody has read the record", Fault::RecordMissing, made_up().mint(None).delivered(100, BODY)),
            ("a record has forgotten an acknowledged event", Fault::DeliveriesForgotten, {
                made_up().mint(None).delivered(100, BODY).delivered(200, FINAL).read("done", 1)
            }),
            ("a deadline is not reported", Fault::NotReported, made_up().silent().read("expired", 0)),
            ("a deadline is reported twice although nothing has failed", Fault::ReportedAgain, {
                made_up().silent().notice(2010).notice(2020).read("expired", 0)
            }),
        ]
    }

    #[test]
    fn each_kind_of_fault_is_found() {
        let faulty: Vec<_> = faulty_deliveries().into_iter().chain(faulty_records()).collect();
        for (name, fault, history) in &faulty {
            assert_eq!(history.faults(), [*fault], "{name}: {}", lines(&history.calls));
        }
        // Among correct interactions, the checker finds exactly the faulty one. A trouble would excuse repetitions.
        let is_quiet =
            |history: &MadeUp| history.calls.iter().all(|call| !matches!(call.what, What::Trouble(_)));
        let quiet = correct().into_iter().filter(is_quiet).enumerate().flat_map(|(number, history)| {
            let rename = move |call| Call { interaction: format!("int_{number}"), ..call };
            history.calls.into_iter().map(rename)
        });
        let quiet: Vec<_> = quiet.collect();
        assert_eq!(check(&quiet).faults, []);
        for (name, fault, history) in faulty {
            let calls = [&quiet[..], &history.calls].concat();
            assert_eq!(check(&calls).faults, [(fault, "int_a".to_owned())], "{name}");
        }
    }
}
