//! Measures the ledger: `ledger memory COUNT`, `ledger events COUNT`, `ledger file FOLDER SECONDS WAITERS`, `ledger sqlite FOLDER SECONDS
//! WAITERS`, `ledger fill FOLDER COUNT`, `ledger restart FOLDER`.
//!
//! A settle is the work of the store for one callback: it rewrites the record of the interaction and remembers the
//! event. The file store and SQLite do the same work: all waiting changes are one transaction, and a settle is counted
//! when it is durable.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use callgate::config::{Config, Surroundings};
use callgate::interaction::{Ask, EventKey, Follow, Report, Scope};
use callgate::observe::Metrics;
use callgate::path::CanonicalPath;
use callgate::policy::MintRequest;
use callgate::random::new_id;
use callgate::store::{Store, Walk};
use callgate::time::Timestamp;
use callgate::token::Granted;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<usize>().ok()).unwrap_or(1);
    let folder = args.get(1).cloned().unwrap_or_default();
    match args.first().map(String::as_str) {
        Some("memory") => memory(number(1)),
        Some("events") => events(number(1)),
        Some("file") => file(&folder, number(2), number(3)),
        Some("fill") => fill(&folder, number(2)),
        Some("restart") => restart(&folder),
        Some("sqlite") => sqlite::run(&folder, number(2), number(3)),
        _ => Err("memory, events, file, fill, restart or sqlite?".into()),
    }
}

fn config(store: &str) -> Result<Config, Failure> {
    let text = format!(
        "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}
agent: {{ address: 127.0.0.1:1 }}
store: {store}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: KEY }} }} ] }}
routes:
  - {{ name: status, path: \"/w/{{document_id}}\", token: {{ kind: callback }}, forward: \"/in/{{document_id}}\", interaction: {{ status: /status, progress: /progress, done: [done], deadline: 30m }} }}
"
    );
    let env = |_: &str| Some("0123456789abcdef0123456789abcdef".to_owned());
    let surroundings = Surroundings { env: &env, file: &|path| std::fs::read(path) };
    Config::parse(&text, &surroundings).map_err(|errors| format!("{errors:?}").into())
}

fn start(config: &Config) -> Result<Store, Failure> {
    let metrics = Arc::new(Metrics::new()?);
    let store = Store::start(&config.startup.store, metrics, Instant::now, now());
    store.map_err(|error| error.to_string().into())
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(since.as_millis() as i64)
}

fn rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

async fn open(store: &Store, config: &Config, i: usize) -> Result<String, Failure> {
    let document = format!("doc-{i:08}");
    let parameters = [("document_id", document.as_str())];
    let request = MintRequest { route: "status", parameters: &parameters, ttl: None, uses: None };
    let id = new_id("int_").ok_or("no randomness")?;
    let minted = config.policy.mint(&request, &id, now()).map_err(|fault| fault.to_string())?;
    store.open(&minted, now()).await.map_err(|refusal| refusal.denial.code())?;
    Ok(id)
}

/// Claims and settles one callback of an interaction.
async fn settle(store: &Store, config: &Config, id: &str, event: u64) -> Result<(), Failure> {
    settle_for(store, config, Some(id), event).await
}

/// Claims and settles one callback, with or without an interaction.
async fn settle_for(store: &Store, config: &Config, id: Option<&str>, event: u64) -> Result<(), Failure> {
    let route = config.policy.route("status").ok_or("no route")?;
    let path = CanonicalPath::parse("/w/doc-1").map_err(|fault| fault.to_string())?;
    let captures = route.path.capture(&path);
    let at = now();
    let expires = at.plus(Duration::from_secs(3600));
    let granted = id.map(|id| Granted { interaction: id.into(), issued: at, expires, uses: None, owner: None, is_opaque: false });
    let scope = id.map_or(Scope::Captures(&captures), Scope::Interaction);
    let report =
        Report { status: Some("processing".into()), progress: Some(event as f64), ..Report::default() };
    let events = [EventKey::of_id(&route.name, scope, &event.to_le_bytes())];
    let follow = Follow::default();
    let ask = Ask { granted: granted.as_ref(), events: &events, ..Ask::new(&route.name, &captures, &follow, &report) };
    let claimed = store.claim(&ask, at, Duration::from_secs(1)).await.map_err(|held| format!("{held:?}"))?;
    claimed.settle(&report, None, at).await.map_err(|refusal| refusal.denial.code().into())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Measures the resident memory of an open interaction, and the time to mint and settle as the ledger grows.
fn memory(count: usize) -> Result<(), Failure> {
    let config = config("{ kind: memory, interactions_max: 100000000, events_max: 100000000 }")?;
    let store = start(&config)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let before = rss_bytes();
        let mut ids = Vec::with_capacity(1000);
        for tenth in 0..10 {
            let began = Instant::now();
            for i in 0..count / 10 {
                let id = open(&store, &config, tenth * count / 10 + i).await?;
                if ids.len() < 1000 {
                    ids.push(id);
                }
            }
            let mint = began.elapsed().as_nanos() as f64 / (count / 10) as f64;
            let began = Instant::now();
            for (i, id) in ids.iter().enumerate() {
                settle(&store, &config, id, (tenth * 1000 + i) as u64).await?;
            }
            let settle = began.elapsed().as_nanos() as f64 / ids.len() as f64;
            println!("{:>9} open: mint {mint:.0} ns, claim and settle {settle:.0} ns", (tenth + 1) * count / 10);
        }
        let each = (rss_bytes() - before) as f64 / count as f64;
        let own = "int_".len() + 26 + "document_id=doc-00000000".len();
        println!("{each:.0} bytes resident for each of {count} open interactions, {own} of them its id and captures");
        let (mut walk, metrics, began) = (Walk::default(), Metrics::new()?, Instant::now());
        store.walk(&mut walk, &metrics, now());
        println!("one step of the walk for the oldest: {:.1} ms", began.elapsed().as_secs_f64() * 1e3);
        Ok(())
    })
}

/// Measures the resident memory of a delivered event without an interaction, and the time to claim and settle one, until
/// there are `count` events and while the oldest make room for as many more.
fn events(count: usize) -> Result<(), Failure> {
    let config = config(&format!("{{ kind: memory, events_max: {count} }}"))?;
    let store = start(&config)?;
    runtime()?.block_on(async {
        let before = rss_bytes();
        for tenth in 0..20 {
            let began = Instant::now();
            for i in 0..count / 10 {
                settle_for(&store, &config, None, (tenth * count / 10 + i) as u64).await?;
            }
            let settle = began.elapsed().as_nanos() as f64 / (count / 10) as f64;
            let known = store.counts().1;
            let each = rss_bytes().saturating_sub(before) as f64 / known as f64;
            println!(
                "{known:>9} events: claim and settle {settle:.0} ns, {each:.1} bytes resident for each event"
            );
        }
        Ok(())
    })
}

/// Measures durable settles per second.
fn file(folder: &str, seconds: usize, waiters: usize) -> Result<(), Failure> {
    let config =
        Arc::new(config(&format!("{{ kind: file, path: {folder}/ledger, interactions_max: 100000000 }}"))?);
    let store = Arc::new(start(&config)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (settled, until) =
        (Arc::new(AtomicUsize::new(0)), Instant::now() + Duration::from_secs(seconds as u64));
    runtime.block_on(async {
        let tasks: Vec<_> = (0..waiters)
            .map(|waiter| {
                let (store, config, settled) =
                    (Arc::clone(&store), Arc::clone(&config), Arc::clone(&settled));
                tokio::spawn(async move {
                    let mut event = 0;
                    while Instant::now() < until {
                        let Ok(id) = open(&store, &config, waiter).await else { return };
                        for _ in 0..20 {
                            event += 1;
                            if settle(&store, &config, &id, event).await.is_err() {
                                return;
                            }
                            settled.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            let _ = task.await;
        }
    });
    println!("file: {} durable settles/s", settled.load(Ordering::Relaxed) / seconds);
    Ok(())
}

fn fill(folder: &str, count: usize) -> Result<(), Failure> {
    let config = Arc::new(config(&format!(
        "{{ kind: file, path: {folder}/ledger, interactions_max: 100000000, events_max: 100000000 }}"
    ))?);
    let store = Arc::new(start(&config)?);
    let runtime = runtime()?;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..500)
            .map(|task| {
                let (store, config) = (Arc::clone(&store), Arc::clone(&config));
                async move {
                    for i in 0..count / 500 {
                        let id =
                            open(&store, &config, task * count / 500 + i).await.map_err(|e| e.to_string())?;
                        settle(&store, &config, &id, i as u64).await.map_err(|e| e.to_string())?;
                    }
                    Ok::<_, String>(())
                }
            })
            .collect();
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let handles: Vec<_> = tasks.into_iter().map(tokio::task::spawn_local).collect();
                for handle in handles {
                    handle.await??;
                }
                Ok::<_, Failure>(())
            })
            .await
    })?;
    let bytes = std::fs::metadata(format!("{folder}/ledger"))?.len();
    println!("{count} interactions with an event each: {} MiB", bytes >> 20);
    // Aborts without closing the file, as `kill -9` would.
    std::process::abort();
}

fn restart(folder: &str) -> Result<(), Failure> {
    let config = config(&format!(
        "{{ kind: file, path: {folder}/ledger, interactions_max: 100000000, events_max: 100000000 }}"
    ))?;
    let began = Instant::now();
    let store = start(&config)?;
    let (interactions, events) = store.counts();
    println!(
        "{interactions} interactions and {events} events after {:.2} s, {} MiB resident",
        began.elapsed().as_secs_f64(),
        rss_bytes() >> 20
    );
    Ok(())
}

/// Measures the same changes with SQLite (WAL, synchronous FULL), with the same batches.
mod sqlite {
    use std::sync::mpsc;

    use super::{Arc, AtomicUsize, Duration, Failure, Instant, Ordering};

    struct Change {
        number: i64,
        record: Vec<u8>,
        event: Vec<u8>,
        safe: mpsc::Sender<()>,
    }

    pub fn run(folder: &str, seconds: usize, waiters: usize) -> Result<(), Failure> {
        let mut database = rusqlite::Connection::open(format!("{folder}/ledger.sqlite"))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.execute_batch(
            "CREATE TABLE interactions (number INTEGER PRIMARY KEY, record BLOB NOT NULL);
             CREATE TABLE events (number INTEGER PRIMARY KEY, event BLOB NOT NULL);",
        )?;
        let (sender, changes) = mpsc::channel::<Change>();
        let settled = Arc::new(AtomicUsize::new(0));
        let numbers = Arc::new(AtomicUsize::new(0));
        let until = Instant::now() + Duration::from_secs(seconds as u64);
        let threads: Vec<_> = (0..waiters)
            .map(|_| {
                let (sender, settled, numbers) = (sender.clone(), Arc::clone(&settled), Arc::clone(&numbers));
                std::thread::spawn(move || {
                    while Instant::now() < until {
                        let number = numbers.fetch_add(1, Ordering::Relaxed) as i64;
                        for _ in 0..20 {
                            let (safe, done) = mpsc::channel();
                            let (record, event) = (vec![b'x'; 220], vec![b'y'; 24]);
                            if sender.send(Change { number, record, event, safe }).is_err()
                                || done.recv().is_err()
                            {
                                return;
                            }
                            settled.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        let mut event = 0_i64;
        while let Ok(first) = changes.recv() {
            let batch: Vec<_> = std::iter::once(first).chain(changes.try_iter()).collect();
            let write = database.transaction()?;
            for change in &batch {
                event += 1;
                write
                    .prepare_cached("INSERT OR REPLACE INTO interactions VALUES (?, ?)")?
                    .execute(rusqlite::params![change.number, change.record])?;
                write
                    .prepare_cached("INSERT INTO events VALUES (?, ?)")?
                    .execute(rusqlite::params![event, change.event])?;
            }
            write.commit()?;
            for change in batch {
                let _ = change.safe.send(());
            }
        }
        for thread in threads {
            let _ = thread.join();
        }
        println!("sqlite: {} durable settles/s", settled.load(Ordering::Relaxed) / seconds);
        Ok(())
    }
}
