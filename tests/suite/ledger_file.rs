//! The file of the ledger: damage, compaction, and its size in memory at start.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use callgate::clock::instant;
use callgate::config::Config;
use callgate::denial::Denial;
use callgate::interaction::{Ask, ClaimError, EventKey, Follow, NoticeResult, Report, Scope};
use callgate::observe::Metrics;
use callgate::path::CanonicalPath;
use callgate::policy::{MintRequest, Minted};
use callgate::store::{DueNotice, Health, Store};
use callgate::time::{Steady, Timestamp};
use callgate::token::Granted;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::harness::{eventually, parse};

pub const START: Timestamp = Timestamp::from_unix_secs(1_767_225_600);
const HOUR: Duration = Duration::from_secs(3600);

/// A ledger in a file, without a server.
pub struct Ledger {
    pub path: PathBuf,
    pub config: Config,
    pub runtime: Runtime,
}

impl Ledger {
    pub fn at(path: &Path) -> Self {
        let path_text = path.display();
        let store =
            format!("{{ kind: file, path: {path_text}, interactions_max: 10000000, keep_ended: 0s }}");
        let config = parse(&crate::ledger::config("127.0.0.1:1", &store));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { path: path.to_owned(), config, runtime }
    }

    pub fn try_open(&self) -> Result<Arc<Store>, String> {
        let metrics = Arc::new(Metrics::new().unwrap());
        Store::start(&self.config.startup.store, metrics, instant, START)
            .map(Arc::new)
            .map_err(|error| error.to_string())
    }

    pub fn open(&self) -> Arc<Store> {
        self.try_open().unwrap()
    }

    /// Mints interactions whose capture has this many characters.
    pub fn mint(&self, store: &Arc<Store>, ids: &[String], width: usize, ttl: Duration, now: Timestamp) {
        let wide = "a".repeat(width);
        let request = MintRequest { route: "doc", parameters: &[("id", &wide)], ttl: Some(ttl), uses: None };
        let minted = self.config.policy.mint(&request, "int_any", now).unwrap();
        self.runtime.block_on(async {
            let mut opening = JoinSet::new();
            for id in ids {
                // Nobody uses the token.
                let minted = Minted { interaction: id.clone(), ..minted.clone() };
                let store = Arc::clone(store);
                opening.spawn(async move { store.open(&minted, now).await });
            }
            while let Some(opened) = opening.join_next().await {
                opened.unwrap().unwrap();
            }
        });
    }

    /// Delivers an event for an interaction. An event with an empty interaction belongs to none.
    pub async fn deliver(
        &self,
        store: &Store,
        id: &str,
        event: &str,
        now: Timestamp,
    ) -> Result<(), ClaimError> {
        let route = Arc::clone(&self.config.policy.route("doc").unwrap().name);
        let path = CanonicalPath::parse("/doc/a").unwrap();
        let captures = self.config.policy.route("doc").unwrap().path.capture(&path);
        let granted = Granted {
            interaction: id.into(),
            issued: now,
            expires: now.plus(HOUR),
            uses: None,
            owner: None,
            is_opaque: false,
        };
        let has_interaction = !id.is_empty();
        let scope = if has_interaction { Scope::Interaction(id) } else { Scope::Captures(&captures) };
        let events = [EventKey::of_id(&route, scope, event.as_bytes())];
        let (follow, report) = (Follow::default(), Report::default());
        let ask = Ask {
            granted: has_interaction.then_some(&granted),
            events: &events,
            event_id: Some(event),
            ..Ask::new(&route, &captures, &follow, &report)
        };
        let claimed = store.claim(&ask, now, Duration::from_secs(60)).await?;
        claimed.settle(&report, Some(event), now).await.map_err(ClaimError::Refused)
    }
}

pub fn ids(prefix: char, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("int_{prefix}{n:025}")).collect()
}

/// The result of opening a ledger whose file is damaged: either all records are there, or the error names the file.
fn is_whole_or_says_so(ledger: &Ledger, ids: &[String], what: &str) -> bool {
    match ledger.try_open() {
        Ok(store) => {
            assert_eq!(store.counts(), (ids.len(), ids.len()), "{what}");
            for id in ids {
                let record = ledger.runtime.block_on(store.read(id)).unwrap();
                let record = record.unwrap_or_else(|| panic!("{what}: {id} is lost"));
                assert_eq!((record.deliveries, record.event_ids()), (1, &["e".into()][..]), "{what}: {id}");
            }
            true
        }
        Err(said) => {
            assert!(said.contains(ledger.path.to_str().unwrap()), "{what}: {said}");
            false
        }
    }
}

#[test]
fn damage_to_any_page_is_reported_or_harmless() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(&folder.path().join("ledger"));
    let ids = ids('a', 400);
    let store = ledger.open();
    ledger.mint(&store, &ids, 100, HOUR, START);
    for id in &ids {
        ledger.runtime.block_on(ledger.deliver(&store, id, "e", START)).unwrap();
    }
    store.close();
    drop(store);
    let whole = fs::read(&ledger.path).unwrap();
    let mut damaged = Vec::new();
    let pages: Vec<_> = (0..whole.len() / 4096)
        .filter(|page| whole[page * 4096..(page + 1) * 4096].iter().any(|byte| *byte != 0))
        .collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for page in &pages {
        let wiped = (0..4096).map(|at| (page * 4096 + at, 0xff_u8, true)).collect::<Vec<_>>();
        let mut kinds = vec![("wiped", wiped)];
        for _ in 0..4 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The beginning of a page has its kind, its lengths and its offsets.
            let within = usize::try_from(random % if random & 1 == 0 { 64 } else { 4096 }).unwrap();
            kinds.push(("flipped", vec![(page * 4096 + within, 1 << (random >> 61), false)]));
        }
        for (kind, changes) in kinds {
            let mut bytes = whole.clone();
            for (at, bits, wipes) in &changes {
                bytes[*at] = if *wipes { 0 } else { bytes[*at] ^ bits };
            }
            fs::write(&ledger.path, &bytes).unwrap();
            let what = format!("page {page} {kind} at {}", changes[0].0 % 4096);
            if !is_whole_or_says_so(&ledger, &ids, &what) && kind == "wiped" {
                damaged.push(*page);
            }
        }
    }
    println!("{} pages, {} of which are needed", pages.len(), damaged.len());
    assert!(damaged.len() > 10);
    // The header decides which commit is the last one.
    for at in (0..512).filter(|at| whole[*at] != 0) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&ledger.path, &bytes).unwrap();
        is_whole_or_says_so(&ledger, &ids, &format!("header flipped at {at}"));
    }
    the_process_exits_with_an_error(folder.path(), &ledger.path, &whole, &damaged);
}

/// Damages pages of the file, and runs the real process.
fn the_process_exits_with_an_error(
    folder: &std::path::Path,
    path: &std::path::Path,
    whole: &[u8],
    damaged: &[usize],
) {
    let config = folder.join("callgate.yaml");
    let text = crate::ledger::config("127.0.0.1:1", &format!("{{ kind: file, path: {} }}", path.display()));
    fs::write(&config, text).unwrap();
    for page in [damaged[0], damaged[damaged.len() / 2], damaged[damaged.len() - 1]] {
        let mut bytes = whole.to_vec();
        bytes[page * 4096..(page + 1) * 4096].fill(0);
        fs::write(path, &bytes).unwrap();
        let mut run = Command::new(env!("CARGO_BIN_EXE_callgate"));
        run.args(["run", "-c"]).arg(&config).env("TOKEN_KEY", "0123456789abcdef0123456789abcdef");
        let run = run.env("WHSEC", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=").output().unwrap();
        let said = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(69), "{said}");
        assert!(said.contains(path.to_str().unwrap()), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

/// Applies all deadlines up to `now`, as the server does. Returns the notices.
async fn pass(store: &Store, now: Timestamp) -> Vec<DueNotice> {
    let mut notices = Vec::new();
    loop {
        let mut passed = store.pass(now).await;
        notices.append(&mut passed.notices);
        if !passed.has_more {
            return notices;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends the interactions whose deadline has passed. The agent acknowledges the notices, so that the interactions are
/// removed.
fn expire(ledger: &Ledger, store: &Arc<Store>, now: Timestamp) {
    ledger.runtime.block_on(async {
        let mut acknowledged = JoinSet::new();
        for notice in pass(store, now).await {
            let store = Arc::clone(store);
            acknowledged.spawn(async move { store.noticed(&notice, NoticeResult::Accepted, now).await });
        }
        while let Some(result) = acknowledged.join_next().await {
            result.unwrap().unwrap();
        }
        assert!(pass(store, now).await.is_empty());
    });
}

#[test]
fn a_file_that_is_mostly_free_becomes_smaller_while_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(&folder.path().join("ledger"));
    let store = ledger.open();
    let size = || fs::metadata(&ledger.path).unwrap().len();
    let (short, long) = (ids('a', 16_000), ids('b', 300));
    // More events without an interaction than one step of the compaction copies.
    let alone = ids('d', 600);
    ledger.mint(&store, &short, 255, HOUR, START);
    ledger.mint(&store, &long, 255, 10 * HOUR, START);
    ledger.runtime.block_on(async {
        for id in &long {
            ledger.deliver(&store, id, "e", START).await.unwrap();
        }
        for event in &alone {
            ledger.deliver(&store, "", event, START).await.unwrap();
        }
    });
    let full = size();
    assert!(full > 16 << 20, "the file has {full} bytes");
    let later = START.plus(2 * HOUR);
    let mut round = 0;
    std::thread::scope(|scope| {
        let expiry = scope.spawn(|| expire(&ledger, &store, later));
        let mut call = || {
            round += 1;
            let new = format!("int_c{round:025}");
            ledger.mint(&store, std::slice::from_ref(&new), 20, 10 * HOUR, later);
            ledger.runtime.block_on(ledger.deliver(&store, &new, "e", later)).unwrap();
        };
        // Callbacks are acknowledged meanwhile, also while the smaller file is being written.
        while !expiry.is_finished() {
            call();
        }
        eventually(|| {
            call();
            (size() < 16 << 20).then_some(())
        });
    });
    assert_eq!(store.counts().0, long.len() + round);
    println!("{full} bytes became {} during {round} callbacks", size());
    store.close();
    assert!(!ledger.path.with_extension("new").exists());
    drop(store);
    let store = ledger.open();
    let expected = long.len() + round;
    assert_eq!(store.counts(), (expected, expected + alone.len()));
    for event in &alone {
        let again = ledger.runtime.block_on(ledger.deliver(&store, "", event, later));
        assert_eq!(again, Err(ClaimError::Duplicate), "{event}");
    }
    for id in long.iter().cloned().chain((1..=round).map(|n| format!("int_c{n:025}"))) {
        assert_eq!(ledger.runtime.block_on(store.read(&id)).unwrap().unwrap().deliveries, 1, "{id}");
        let again = ledger.runtime.block_on(ledger.deliver(&store, &id, "e", later));
        assert_eq!(again, Err(ClaimError::Duplicate), "{id}");
    }
}

/// The compaction finds that another process has replaced the file. The next start would not find anything that is
/// written to the former file.
#[test]
fn a_replaced_file_is_not_compacted_and_nothing_more_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(&folder.path().join("ledger"));
    let store = ledger.open();
    ledger.mint(&store, &ids('a', 16_000), 255, HOUR, START);
    assert!(fs::metadata(&ledger.path).unwrap().len() > 16 << 20);
    let other = folder.path().join("other");
    fs::write(&other, "the file of another process").unwrap();
    fs::rename(&other, &ledger.path).unwrap();
    // The file becomes mostly free.
    let later = START.plus(2 * HOUR);
    ledger.runtime.block_on(async {
        let mut acknowledged = JoinSet::new();
        for notice in pass(&store, later).await {
            let store = Arc::clone(&store);
            acknowledged.spawn(async move { store.noticed(&notice, NoticeResult::Accepted, later).await });
        }
        // The writer may end before all of them are written.
        while acknowledged.join_next().await.is_some() {}
    });
    eventually(|| {
        ledger.runtime.block_on(store.pass(later));
        (store.health() == Health::Gone).then_some(())
    });
    let denied = ledger.runtime.block_on(ledger.deliver(&store, "", "e", later));
    assert!(
        matches!(&denied, Err(ClaimError::Refused(refusal)) if refusal.denial == Denial::StoreUnavailable)
    );
    store.close();
    assert_eq!(fs::read(&ledger.path).unwrap(), b"the file of another process");
    assert!(!ledger.path.with_extension("new").exists());
}

#[test]
fn every_waiting_duplicate_gets_its_turn_when_deliveries_fail() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(&folder.path().join("ledger"));
    let store = ledger.open();
    let ids = ids('a', 2);
    ledger.mint(&store, &ids, 1, HOUR, START);
    let route = Arc::clone(&ledger.config.policy.route("doc").unwrap().name);
    let path = CanonicalPath::parse("/doc/a").unwrap();
    let captures = ledger.config.policy.route("doc").unwrap().path.capture(&path);
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let in_flight = std::sync::atomic::AtomicUsize::new(0);
    ledger.runtime.block_on(async {
        let claims = (0..400).map(|n: usize| {
            let (store, ids, route, captures) = (&store, &ids, &route, &captures);
            let (tries, in_flight) = (&tries, &in_flight);
            async move {
                // One in four has no interaction.
                let id = &ids[n % 2];
                let granted = Granted {
                    interaction: id.as_str().into(),
                    issued: START,
                    expires: START.plus(HOUR),
                    uses: None,
                    owner: None,
                    is_opaque: false,
                };
                let of_dedup = n % 4 == 3;
                let scope = if of_dedup { Scope::Captures(captures) } else { Scope::Interaction(id) };
                let events = [EventKey::of_id(route, scope, b"e")];
                let (follow, report) = (Follow::default(), Report::default());
                let ask = Ask {
                    granted: (!of_dedup).then_some(&granted),
                    events: &events,
                    ..Ask::new(route, captures, &follow, &report)
                };
                let claimed = store.claim(&ask, START, Duration::from_secs(60)).await.unwrap();
                use std::sync::atomic::Ordering::SeqCst;
                assert!(in_flight.fetch_add(1, SeqCst) < 3, "one delivery of each event at a time");
                tokio::task::yield_now().await;
                in_flight.fetch_sub(1, SeqCst);
                drop(claimed);
                tries.fetch_add(1, SeqCst);
            }
        });
        let mut all: Vec<_> = claims.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            all.retain_mut(|claim| claim.as_mut().poll(context).is_pending());
            if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    });
    assert_eq!(tries.into_inner(), 400);
}

#[test]
fn what_is_minted_after_the_clock_was_set_back_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::at(&folder.path().join("ledger"));
    let store = ledger.open();
    let (mut clock, at) = (Steady::default(), Duration::from_secs);
    assert_eq!(clock.look(START, at(10)), START);
    // The tokens are valid for two hours, and the clock is set back by three.
    let set = START.minus(3 * HOUR);
    let ledger_now = clock.look(set, at(11));
    let request = MintRequest { route: "doc", parameters: &[("id", "a")], ttl: None, uses: None };
    let metrics = Metrics::new().unwrap();
    let minted = ledger
        .runtime
        .block_on(callgate::store::mint(&store, &ledger.config.policy, &metrics, &request, set, ledger_now))
        .unwrap();
    let later = clock.look(set.plus(at(5)), at(16));
    ledger.runtime.block_on(store.pass(later));
    ledger.runtime.block_on(ledger.deliver(&store, &minted.interaction, "e", later)).unwrap();
    // After a minute the clock is believed in any case.
    let later = clock.look(set.plus(at(65)), at(76));
    ledger.runtime.block_on(store.pass(later));
    ledger.runtime.block_on(ledger.deliver(&store, &minted.interaction, "f", later)).unwrap();
}
