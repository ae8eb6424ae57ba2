//! The file of the ledger: a damaged file is opened, or it is an error that names the path.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use callgate::config::{StoreSettings, Unknown};
use callgate::observe::Metrics;
use callgate::policy::MintRequest;
use callgate::store::{Store, StoreError, mint};

use super::{NOW, read};

/// The bytes of a change: the offset in the file, and the new byte.
const CHANGE_BYTES: usize = 4;

fn open(path: &Path) -> Result<Store, StoreError> {
    let settings = StoreSettings {
        path: Some(path.to_str().expect("a path of text").into()),
        redis: None,
        unknown: Unknown::Refuse,
        interactions_max: 1000,
        events_max: 1000,
        remember: Duration::from_secs(3600),
        keep_ended: Duration::from_secs(3600),
        grace: Duration::from_secs(10),
    };
    Store::start(&settings, Arc::new(Metrics::new().expect("metrics")), now, NOW)
}

#[allow(clippy::disallowed_methods, reason = "the package of the fuzz targets has no clock of its own")]
fn now() -> Instant {
    Instant::now()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// A ledger with a few interactions.
static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let text = "public_url: https://agent.example.com
listen: { ingress: [ { address: 127.0.0.1:0 } ] }
agent: { address: 127.0.0.1:1 }
callback_tokens: { keys: [ { id: k, algorithm: HS256, secret: { env: KEY } } ] }
routes: [ { name: r, path: \"/r/{id}\", token: { kind: callback }, forward: \"/in/{id}\" } ]
";
    let policy = read(text).expect("a configuration").policy;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    let store = open(&path).unwrap_or_else(|error| panic!("{error}"));
    let metrics = Metrics::new().expect("metrics");
    let request = MintRequest { route: "r", parameters: &[("id", "a")], ttl: None, uses: Some(1) };
    for _ in 0..20 {
        runtime().block_on(mint(&store, &policy, &metrics, &request, NOW, NOW)).expect("a callback");
    }
    store.close();
    drop(store);
    fs::read(path).expect("the file")
});

/// A byte that is 1 if the file is cut off, the length of the file then, and changes of single bytes.
pub fn run(data: &[u8]) -> bool {
    let Some((head, changes)) = data.split_at_checked(CHANGE_BYTES) else { return false };
    let mut file = VALID.clone();
    let offset = |bytes: &[u8]| bytes.iter().fold(0_usize, |number, byte| number << 8 | usize::from(*byte));
    for change in changes.chunks_exact(CHANGE_BYTES) {
        let at = offset(&change[..CHANGE_BYTES - 1]) % file.len();
        file[at] = change[CHANGE_BYTES - 1];
    }
    if head[0] == 1 {
        file.truncate(offset(&head[1..]) % file.len());
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger");
    fs::write(&path, &file).expect("the file");
    match open(&path) {
        Ok(store) => {
            let (interactions, _) = store.counts();
            assert!(interactions <= 20, "{interactions} interactions");
            let listed = runtime().block_on(store.list("", 1000, |_| true)).expect("a local ledger");
            assert_eq!(listed.len(), interactions);
            store.close();
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(path.to_str().expect("text")) && !error.message.is_empty(), "{text}");
            false
        }
    }
}
