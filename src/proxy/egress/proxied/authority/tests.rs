//! Tests of the certificate authority of the forward proxy.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::agent::Pem;
use crate::egress::AuthorityFiles;
use crate::guard::Guard;
use crate::secret::Secret;

fn proxy(bundle: &std::path::Path) -> ForwardProxy {
    ForwardProxy {
        tunnels_others: false,
        tunnel: Vec::new(),
        ports: vec![443],
        guard: Guard::public_and(Vec::new()),
        bundle: bundle.display().to_string().into(),
        authority: None,
        password: None,
        tunnels_max: 1,
        idle: Duration::from_secs(1),
    }
}

/// Reports whether `bytes` contains `part`.
fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn now() -> Timestamp {
    Timestamp::from_unix_secs(1_800_000_000)
}

#[test]
fn the_cache_of_certificates_is_bounded_and_renewed() {
    let folder = tempfile::tempdir().unwrap();
    let authority =
        Authority::for_proxy(&proxy(folder.path()), vec!["example.com".into()], None, now()).unwrap();
    let first = authority.leaf("h0.example.com", now()).unwrap();
    assert!(Arc::ptr_eq(&first, &authority.leaf("h0.example.com", now()).unwrap()));
    for i in 0..10_000 {
        authority.leaf(&format!("h{i}.example.com"), now()).unwrap();
    }
    assert_eq!(authority.leaves.lock().len(), LEAVES_MAX);
    let last = authority.leaf("h9999.example.com", now()).unwrap();
    let later = now().plus(LEAF_LIFETIME);
    assert!(!Arc::ptr_eq(&last, &authority.leaf("h9999.example.com", later).unwrap()));
}

#[test]
fn a_new_authority_is_created_only_for_other_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = proxy(folder.path());
    let hosts = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<_>>();
    let first = Authority::for_proxy(&proxy, hosts(&["a"]), None, now()).unwrap();
    let same = Authority::for_proxy(&proxy, hosts(&["a"]), Some(Arc::clone(&first)), now()).unwrap();
    assert!(Arc::ptr_eq(&first, &same));
    let other = Authority::for_proxy(&proxy, hosts(&["a", "b"]), Some(Arc::clone(&first)), now()).unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
}

fn files(certificates: &str, key: &str) -> AuthorityFiles {
    let file =
        |path: &str, text: &str| Pem { path: path.into(), content: Secret::new(text.as_bytes().to_vec()) };
    AuthorityFiles { certificate: file("ca.crt", certificates), key: file("ca.key", key) }
}

#[test]
fn agents_trust_the_old_and_the_new_authority_while_one_replaces_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let hosts: Vec<Box<str>> = vec!["a".into()];
    let create = |hosts: &[Box<str>]| create_authority(hosts, now()).unwrap();
    // The earlier authority permits fewer hosts than the new authority.
    let (old, new) = (create(&["b".into()]), create(&hosts));
    let start = |certificates: &str, key: &str| {
        let proxy = ForwardProxy { authority: Some(files(certificates, key)), ..proxy(folder.path()) };
        Authority::for_proxy(&proxy, hosts.clone(), None, now())
    };
    let both = new.certificate.clone() + &old.certificate + &new.certificate;
    let authority = start(&both, &new.key).unwrap();
    authority.publish().unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("ca.pem"), new.certificate.clone() + &old.certificate);
    assert!(read("bundle.pem").ends_with(&read("ca.pem")));
    let trust_store = std::fs::read(folder.path().join("trust.p12")).unwrap();
    assert!(authority.further.len() == 1 && holds(&trust_store, &authority.further[0]));
    assert!(authority.leaf("a", now()).is_ok());
    // The first certificate must belong to the signing key.
    assert!(start(&both, &old.key).is_err());
    // Agents must not trust an authority without name constraints.
    let unlimited = std::fs::read_to_string("tests/corpora/tls/tls.crt").unwrap();
    let error = start(&(new.certificate.clone() + &unlimited), &new.key).err().unwrap();
    assert!(error.contains("limited to names"), "{error}");
    // A private key in the same file is not copied.
    let with_key = old.key.clone() + &old.certificate;
    assert_eq!(previous_certificates("f", with_key.as_bytes()).unwrap(), old.certificate);
}

#[test]
fn the_folder_contains_certificates_that_everybody_can_read_and_no_key() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("new/trust");
    let authority = Authority::for_proxy(&proxy(&bundle), vec!["a".into()], None, now()).unwrap();
    authority.publish().unwrap();
    authority.publish().unwrap();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&bundle).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let content = std::fs::read(entry.path()).unwrap();
        let text = String::from_utf8_lossy(&content);
        assert!(!text.contains("PRIVATE KEY") && !holds(&content, authority.issuer.key().serialized_der()));
        let is_pem = text.contains("-----BEGIN CERTIFICATE-----\n");
        assert!(is_pem || holds(&content, &authority.certificate));
    }
    names.sort_unstable();
    assert_eq!(names, ["bundle.pem", "ca.pem", "trust.p12"]);
    let ca = std::fs::read_to_string(bundle.join("ca.pem")).unwrap();
    assert!(std::fs::read_to_string(bundle.join("bundle.pem")).unwrap().ends_with(&ca), "a union");
}
