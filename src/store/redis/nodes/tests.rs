//! Tests of calls to a node on a real connection. The node sends the responses that a test prepares.

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::faults::TOO_FEW_REPLICAS;
use super::scripts::{BIND, READ};
use super::*;
use crate::store::redis::simulation;

/// A node that sends prepared responses to calls of scripts.
struct PreparedNode {
    responses: Mutex<std::vec::IntoIter<String>>,
    /// The names of the commands that called scripts, and `ASKING`.
    called: Mutex<Vec<String>>,
    /// The number of replicas that confirm each change.
    replicas: u8,
}

impl PreparedNode {
    fn response(&self, command: String) -> String {
        match &*command {
            "EVALSHA" | "EVAL" => {
                self.called.lock().push(command);
                format!(
                    "{}\r\n",
                    self.responses.lock().next().unwrap_or("-ERR no further response".to_owned())
                )
            }
            "ASKING" => {
                self.called.lock().push(command);
                "+OK\r\n".to_owned()
            }
            "WAIT" => format!(":{}\r\n", self.replicas),
            _ => "+OK\r\n".to_owned(),
        }
    }

    /// Responds to the commands of a connection until it is closed.
    async fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        while let Some(words) = number(&mut stream).await {
            let mut command = None;
            for _ in 0..words {
                let Some(bytes) = number(&mut stream).await else { return };
                let mut word = vec![0; bytes + 2];
                stream.read_exact(&mut word).await.unwrap();
                command.get_or_insert_with(|| String::from_utf8_lossy(&word).trim_end().to_owned());
            }
            let response = self.response(command.unwrap_or_default());
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    }
}

/// Reads a line that consists of one character and a number, such as `$5`, and returns the number. Returns `None` at
/// the end of the connection.
async fn number(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.get(1..)?.trim_end().parse().ok()
}

/// Calls a script on a node that sends these responses. In a response, `NODE` means the address of the node. Returns the
/// result, the names of the commands that the node received, and the number of changes whose outcome is unknown
/// according to the metrics.
async fn call(
    call: &'static scripts::Call,
    responses: &[&'static str],
    replicas: u8,
) -> (Result<Vec<Value>, Failure>, Vec<String>, u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let responses: Vec<_> = responses.iter().map(|response| response.replace("NODE", &address)).collect();
    let responses = Mutex::new(responses.into_iter());
    let node = Arc::new(PreparedNode { responses, called: Mutex::default(), replicas });
    let served = Arc::clone(&node);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let node = Arc::clone(&served);
            tokio::spawn(async move { node.serve(stream).await });
        }
    });
    let settings = RedisSettings {
        nodes: vec![address.into()],
        timeout: Duration::from_secs(10),
        ..simulation::settings().redis.unwrap()
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let nodes = Nodes::new(settings, Arc::clone(&metrics));
    let request =
        Request { call, partition: Partition::Number(0), keys: vec!["k".into()], arguments: Vec::new() };
    let result = nodes.call(&request).await;
    let called = node.called.lock().clone();
    let text = metrics.text().unwrap();
    let unknown = text.lines().find_map(|line| line.strip_prefix("callgate_store_unknown_outcomes_total "));
    (result, called, unknown.unwrap().parse().unwrap())
}

/// The response to a script, and its values.
const LIST: &str = "*2\r\n:7\r\n$1\r\nx";
fn list() -> Result<Vec<Value>, &'static str> {
    Ok(vec![Value::Int(7), Value::BulkString(b"x".to_vec())])
}

/// Asserts that a call has these values, or that it failed for this reason and was certainly not executed.
fn assert_result(name: &str, result: Result<Vec<Value>, Failure>, expected: Result<Vec<Value>, &str>) {
    match (result, expected) {
        (Ok(values), Ok(expected)) => assert_eq!(values, expected, "{name}"),
        (Err(failure), Err(reason)) => {
            assert!(!failure.may_have_happened, "{name}");
            assert!(failure.reason.contains(reason), "{name}: {}", failure.reason);
        }
        (result, _) => panic!("{name}: {result:?}"),
    }
}

const UNKNOWN: &str = "-NOSCRIPT No matching script.";

/// Calls a script that only reads and a script that changes data. Their calls are sent on different connections,
/// because replicas must confirm changes.
#[tokio::test]
async fn a_script_is_called_by_its_hash_and_then_by_its_text_if_the_node_does_not_know_it() {
    for script in [&READ, &BIND] {
        for (name, responses, expected, called) in [
            ("known", &[LIST][..], list(), &["EVALSHA"][..]),
            ("unknown", &[UNKNOWN, LIST], list(), &["EVALSHA", "EVAL"]),
            ("busy", &["-LOADING the dataset", LIST], list(), &["EVALSHA", "EVALSHA"]),
            ("denied", &["-NOPERM no permissions"], Err("no permissions"), &["EVALSHA"]),
            ("denied as text", &[UNKNOWN, "-NOPERM no text"], Err("no text"), &["EVALSHA", "EVAL"]),
            ("no list", &[":7"], Err("something else than a list"), &["EVALSHA"]),
            ("nothing", &["$-1"], Err("something else than a list"), &["EVALSHA"]),
        ] {
            let name = format!("{}, {name}", script.name);
            let (result, sent, unknown) = call(script, responses, 1).await;
            assert_eq!((sent.join(" "), unknown), (called.join(" "), 0), "{name}");
            assert_result(&name, result, expected);
        }
    }
    let (result, _, unknown) = call(&BIND, &[LIST], 0).await;
    let failure = result.unwrap_err();
    assert_eq!(unknown, 1);
    assert!(failure.may_have_happened && failure.reason.contains(TOO_FEW_REPLICAS), "{}", failure.reason);
    assert_eq!(call(&READ, &[LIST], 0).await.0.ok(), list().ok(), "replicas do not confirm reads");
}

/// The slot of the keys is being moved, and the prepared node is both the old and the new one.
#[tokio::test]
async fn a_script_is_called_where_its_slot_is_being_moved_and_its_result_is_returned() {
    const ASK: &str = "-ASK 7 NODE";
    for (script, responses, expected, called) in [
        (&READ, &[ASK, LIST][..], list(), &["EVALSHA", "ASKING", "EVAL"][..]),
        (&READ, &[ASK, "-NOPERM no permissions"], Err("no permissions"), &["EVALSHA", "ASKING", "EVAL"]),
        (&BIND, &[ASK, LIST], list(), &["EVALSHA", "ASKING", "EVALSHA"]),
        (&BIND, &[ASK, UNKNOWN, LIST], list(), &["EVALSHA", "ASKING", "EVALSHA", "ASKING", "EVAL"]),
        (&BIND, &[ASK, "-NOPERM no permissions"], Err("no permissions"), &["EVALSHA", "ASKING", "EVALSHA"]),
    ] {
        let name = format!("{}, {responses:?}", script.name);
        let (result, sent, unknown) = call(script, responses, 1).await;
        assert_eq!((sent.join(" "), unknown), (called.join(" "), 0), "{name}");
        assert_result(&name, result, expected);
    }
    let (result, _, unknown) = call(&BIND, &[ASK, LIST], 0).await;
    let failure = result.unwrap_err();
    assert_eq!(unknown, 1);
    assert!(failure.may_have_happened && failure.reason.contains(TOO_FEW_REPLICAS), "{}", failure.reason);
}

#[tokio::test]
async fn the_topology_is_requested_from_the_known_and_from_the_configured_nodes() {
    let configured = ["b:1", "c:1"].map(Into::into).to_vec();
    let settings = RedisSettings {
        nodes: configured,
        mode: RedisMode::Cluster,
        ..simulation::settings().redis.unwrap()
    };
    let nodes = Nodes::new(settings.clone(), Arc::new(Metrics::new().unwrap()));
    let asked = || -> Vec<_> {
        nodes.some_nodes(&settings).into_iter().map(|(address, _)| address.to_string()).collect()
    };
    assert_eq!(asked(), ["b:1", "c:1"], "no topology is known");
    nodes.known.lock().topology = Topology::even(&["a:1".into(), "b:1".into()]);
    assert_eq!(asked(), ["a:1", "b:1", "c:1"]);
}

#[test]
fn only_changes_that_replicas_must_confirm_may_also_wait_for_them() {
    for (script, wait_replicas, expected) in [(&READ, 0, 20), (&READ, 2, 20), (&BIND, 0, 20), (&BIND, 1, 23)]
    {
        let settings = RedisSettings {
            timeout: Duration::from_secs(10),
            wait_timeout: Duration::from_secs(3),
            wait_replicas,
            ..simulation::settings().redis.unwrap()
        };
        let limit = patience(&settings, script).as_secs();
        assert_eq!(limit, expected, "{}, {wait_replicas}", script.name);
    }
}
