//! Several members: a message belongs to the owner of its interaction.

use serde_json::json;
use tempfile::tempdir;

use crate::harness::{Agent, Callgate, eventually};
use crate::replicas::{Member, config};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[test]
fn a_callback_is_kept_by_the_owner_of_its_interaction() {
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    let mut members: Vec<Member> = Vec::new();
    for folder in &folders {
        let agent = Agent::start(OK);
        let discover: Vec<_> = members.iter().map(Member::address).collect();
        let store = format!("store: {{ kind: file, path: {} }}", folder.path().join("ledger").display());
        let text = config(agent.address, "127.0.0.1:0", &discover, &store);
        let text = text.replace("forward: \"/in/{id}\",", "forward: \"/in/{id}\", deliver: inbox,");
        members.push(Member { callgate: Callgate::start(&text, callgate::clock::Clock::System), agent });
    }
    let [owner, other] = members.as_slice() else { unreachable!() };
    eventually(|| (owner.present().len() == 1 && other.present().len() == 1).then_some(()));
    let (interaction, token) = owner.mint("a");
    let response = other.callback("a", &token, r#"{"status":"done"}"#);
    assert_eq!((response.status, response.json()), (202, json!({ "result": "accepted" })));
    let received = owner.agent.wait_for(1).remove(0);
    assert_eq!(received.header("callgate-interaction"), [&*interaction]);
    assert_eq!(received.header("callgate-attempt"), ["1"]);
    assert!(other.agent.received().is_empty());
    assert_eq!(owner.state(&interaction).unwrap()["state"], "done");
}
