//! TLS between members: callbacks, the ledger and revocations travel only between members whose certificates the
//! authorities issued.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;

use crate::harness::{PATIENCE, Response, eventually};
use crate::replicas::{Member, config, members};
use crate::tls::{authority, issued};

/// Returns `replicas.tls` with the files of a member in a folder, and more settings.
fn tls(folder: &Path, authorities: &str, name: &str, more: &str) -> String {
    let file = |name: String| folder.join(name).display().to_string();
    format!(
        "  tls: {{ certificate: {}, key: {}, authorities: {}{more} }}\n",
        file(format!("{name}.crt")),
        file(format!("{name}.key")),
        file(format!("{authorities}.crt"))
    )
}

#[test]
fn callbacks_ledgers_and_revocations_travel_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "ca");
    issued(folder.path(), "ca", "member", "DNS:member.example");
    let section = tls(folder.path(), "ca", "member", ", name: member.example");
    let [mut a, b, c] = members(&section);
    let (interaction, token) = a.mint("a");
    for member in [&a, &b, &c] {
        assert_eq!(member.callback("a", &token, "{\"status\":\"working\"}").status, 200);
    }
    assert_eq!(a.agent.received().len(), 3);
    let (revoked, revoked_token) = a.mint("b");
    assert_eq!(b.callgate.admin_send("DELETE", &format!("/callbacks/{revoked}"), "").status, 204);
    for member in [&a, &b, &c] {
        assert_eq!(member.callback("b", &revoked_token, "{}").status, 410);
    }
    assert_eq!(a.callgate.stop_in_background().join().unwrap(), 0);
    for member in [&b, &c] {
        assert_eq!(member.callback("a", &token, "{\"status\":\"working\"}").status, 200);
        assert_eq!(member.state(&interaction).unwrap()["state"], "progressing");
    }
    assert!([&b, &c].iter().any(|member| member.agent.received().len() == 2), "one of them has the ledger");
}

/// Each of these members has the secret, but one side of the connection must not trust the other.
#[test]
fn a_member_with_another_certificate_receives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "ca");
    authority(at, "other");
    issued(at, "ca", "member", "DNS:member.example");
    issued(at, "ca", "named", "DNS:named.example");
    issued(at, "other", "stranger", "DNS:member.example");
    let name = ", name: member.example";
    let strangers = [
        // Its certificate is not from the authority of the others, in both directions.
        tls(at, "other", "stranger", name),
        // It trusts the others, but they do not trust it.
        tls(at, "ca", "stranger", name),
        // The authority issued its certificate, but for another name.
        tls(at, "ca", "named", name),
        // It has no TLS.
        String::new(),
    ];
    for stranger in strangers {
        let a = Member::start(&[], &tls(at, "ca", "member", name));
        let b = Member::start(&[&a], &stranger);
        let (_, token) = b.mint("a");
        assert_eq!(a.callback("a", &token, "{\"status\":\"working\"}").status, 503);
        assert_eq!(a.callgate.logged(1)[0]["reason"], "owner_unreachable");
        assert_eq!((a.agent.received().len(), b.agent.received().len()), (0, 0));
        assert!(a.present().is_empty(), "{stranger}");
    }
}

#[test]
fn a_client_without_a_certificate_gets_no_answer() {
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "ca");
    issued(folder.path(), "ca", "member", "DNS:member.example");
    let a = Member::start(&[], &tls(folder.path(), "ca", "member", ", name: member.example"));
    let url = format!("https://member.example:{}/replica", a.address().port());
    let resolve = format!("member.example:{}:127.0.0.1", a.address().port());
    let ca = folder.path().join("ca.crt");
    let out = std::process::Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--resolve", &resolve, "--cacert"])
        .arg(ca)
        .arg(url)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "000");
    let mut plain = TcpStream::connect(a.address()).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut plain, b"GET /replica HTTP/1.1\r\nhost: h\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The connection may be reset.
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/"));
}

/// The operator replaces the authority: first every member trusts both, then the certificates change, then the old
/// authority is removed. Callbacks travel after each step.
#[test]
fn certificates_and_authorities_are_replaced_by_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    authority(at, "old");
    authority(at, "new");
    issued(at, "old", "first", "DNS:member.example");
    issued(at, "new", "second", "DNS:member.example");
    let read = |name: &str| fs::read_to_string(at.join(name)).unwrap();
    let write = |name: &str, text: &str| fs::write(at.join(name), text).unwrap();
    write("ca.crt", &read("old.crt"));
    write("member.crt", &read("first.crt"));
    write("member.key", &read("first.key"));
    let section = tls(at, "ca", "member", ", name: member.example");
    let [a, b] = members(&section);
    let (_, token) = a.mint("a");
    let hop = || -> Response { b.callback("a", &token, "{\"status\":\"working\"}") };
    let reload = |member: &Member, discover: &[_]| {
        let text = config(member.agent.address, "127.0.0.1:0", discover, &section);
        member.callgate.reload(&text).unwrap();
    };
    let steps: [&dyn Fn(); 3] = [
        &|| write("ca.crt", &(read("old.crt") + &read("new.crt"))),
        &|| {
            write("member.crt", &read("second.crt"));
            write("member.key", &read("second.key"));
        },
        &|| write("ca.crt", &read("new.crt")),
    ];
    for (number, step) in steps.iter().enumerate() {
        step();
        reload(&a, &[]);
        // The two members are reloaded one after the other.
        assert_eq!(eventually(|| Some(hop()).filter(|response| response.status == 200)).status, 200);
        reload(&b, &[a.address()]);
        assert_eq!(hop().status, 200, "after step {number}");
    }
}
