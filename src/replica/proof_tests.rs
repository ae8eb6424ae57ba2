//! Tests of the header `Callgate-Replica`, with which replicas prove to each other that a request or a response is from a
//! replica.

use super::*;
use crate::request::ClientCertificate;

const NOW: Timestamp = Timestamp::from_unix_secs(1_700_000_000);

fn prover(secrets: &[&str]) -> Prover {
    let secrets: Vec<_> = secrets.iter().map(|text| Secret::new(text.as_bytes().to_vec())).collect();
    Prover::new(&secrets)
}

fn proof(client: Option<Vouched>) -> Proof {
    let (from, to) = (Incarnation::from_bytes([1; 8]), Incarnation::from_bytes([2; 8]));
    Proof::new(NOW, from, Some(to), client, b"{}").unwrap()
}

fn client(names: Option<&[&str]>, is_tls: bool) -> Vouched {
    let certificate =
        names.map(|names| ClientCertificate { names: names.iter().map(|name| (*name).into()).collect() });
    Vouched { address: "2001:db8::1".parse().unwrap(), is_tls, certificate }
}

#[test]
fn a_proof_reads_back_and_holds_for_its_request_only() {
    let ours = prover(&["a secret of the replicas"]);
    for client in [
        None,
        Some(client(None, false)),
        Some(client(None, true)),
        Some(client(Some(&[]), true)),
        Some(client(Some(&["tls", "a;b", "spiffe://x/+y"]), true)),
    ] {
        let proof = proof(client);
        let header = ours.prove(&proof, "POST", "/a?b").unwrap();
        assert_eq!(ours.verify(&header, "POST", "/a?b"), Ok(proof.clone()));
        assert_eq!(proof.check_body(b"{}"), Ok(()));
        assert_eq!(proof.check_body(b"{ }"), Err(ProofError::Body));
        for (method, target) in [("PUT", "/a?b"), ("POST", "/a"), ("POST", "/a?b ")] {
            assert_eq!(ours.verify(&header, method, target), Err(ProofError::Mac));
        }
        // A change of any byte of the header invalidates the proof.
        for at in 0..header.len() {
            let mut changed = header.clone().into_bytes();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(ours.verify(&changed, "POST", "/a?b").is_err(), "{changed}");
        }
    }
}

#[test]
fn both_secrets_hold_during_a_rotation_and_a_proof_expires() {
    let header = prover(&["old secret of the replicas"]).prove(&proof(None), "GET", "/replica").unwrap();
    let both = prover(&["new secret of the replicas", "old secret of the replicas"]);
    assert!(both.verify(&header, "GET", "/replica").is_ok());
    let new = prover(&["new secret of the replicas"]);
    assert_eq!(new.verify(&header, "GET", "/replica"), Err(ProofError::Mac));
    for secs in [-31, -30, 30, 31] {
        let now = Timestamp::from_unix_secs(NOW.unix_secs() + secs);
        let expected = if i64::abs(secs) > 30 { Err(ProofError::Time) } else { Ok(()) };
        assert_eq!(
            both.verify(&header, "GET", "/replica").and_then(|proof| proof.check_time(now)),
            expected,
            "{secs}"
        );
    }
}

#[test]
fn a_response_is_proven_for_its_request_and_status() {
    let (ours, from) = (prover(&["a secret of the replicas"]), Incarnation::from_bytes([3; 8]));
    for outcome in Outcome::ALL {
        let header = ours.prove_response(outcome, from, 421, 7).unwrap();
        assert_eq!(ours.verify_response(&header, 421, 7), Some((outcome, from)));
        assert_eq!(ours.verify_response(&header, 200, 7), None);
        assert_eq!(ours.verify_response(&header, 421, 8), None);
        assert_eq!(prover(&["another secret of the replicas"]).verify_response(&header, 421, 7), None);
    }
    // The proof of a request is not valid as the proof of a response.
    let request = ours.prove(&proof(None), "GET", "/replica").unwrap();
    assert_eq!(ours.verify_response(&request, 200, 7), None);
}

#[test]
fn other_forms_are_malformed() {
    let ours = prover(&["a secret of the replicas"]);
    let long = format!("v1;{}", "1".repeat(HEADER_BYTES_MAX));
    for header in ["", "v1", ";", "v1;1;2", "v2;1700000000;0101010101010101;-;-;00;AA;BB", &long] {
        assert_eq!(ours.verify(header, "GET", "/"), Err(ProofError::Malformed), "{header}");
    }
}
