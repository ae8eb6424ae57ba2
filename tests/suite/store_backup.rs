//! `callgate store backup` and `callgate store restore`, with real files and the real binary.

use std::path::Path;

use serde_json::Value;

use crate::harness::Callgate;
use crate::store_copy::{World, callback, mint, text};

const WORKING: &str = r#"{"status":"working"}"#;

fn deliveries(callgate: &Callgate, interaction: &str) -> Value {
    callgate.admin_get(&format!("/callbacks/{interaction}")).json()["deliveries"].clone()
}

fn backup(config: &Path, to: &Path) -> (i32, String) {
    World::run(&["backup", "-c", text(config), "--to", text(to)])
}

fn restore(config: &Path, from: &Path, more: &[&str]) -> (i32, String) {
    World::run(&[&["restore", "-c", text(config), "--from", text(from)], more].concat())
}

#[test]
fn a_backup_brings_the_ledger_back() {
    let world = World::new();
    let store = world.file("ledger");
    let (config, saved) = (world.written(&store), world.path("saved"));
    let (id, token) = {
        let callgate = world.start(&store);
        let minted = mint(&callgate, "jobs", r#","uses":2"#);
        assert_eq!(callback(&callgate, &minted.1, WORKING), 200);
        let (code, output) = backup(&config, &saved);
        assert_eq!(code, 69, "{output}");
        assert!(output.contains("is in use") && output.contains("Stop the process"), "{output}");
        assert!(!saved.exists());
        minted
    };
    for _ in 0..2 {
        let (code, output) = backup(&config, &saved);
        assert_eq!((code, output.contains("1 interaction")), (0, true), "{output}");
    }
    // Nothing has changed since, and then the file is lost.
    let (code, output) = restore(&config, &saved, &[]);
    assert_eq!(code, 0, "{output}");
    std::fs::remove_file(world.path("ledger")).unwrap();
    let (code, output) = restore(&config, &saved, &[]);
    assert_eq!(code, 0, "{output}");
    {
        let callgate = world.start(&store);
        assert_eq!(deliveries(&callgate, &id), 1);
        assert_eq!(callback(&callgate, &token, r#"{"status":"n2"}"#), 200);
        assert_eq!(callback(&callgate, &token, r#"{"status":"n3"}"#), 410, "the uses were restored");
        let (code, output) = restore(&config, &saved, &["--force"]);
        assert_eq!((code, output.contains("is in use")), (69, true), "{output}");
    }
    let (code, output) = restore(&config, &saved, &[]);
    assert_eq!(code, 1, "{output}");
    assert!(output.contains("newer") && output.contains("--force"), "{output}");
    assert_eq!(deliveries(&world.start(&store), &id), 2, "unchanged");
    let (code, output) = restore(&config, &saved, &["--force"]);
    assert_eq!((code, output.contains(".former")), (0, true), "{output}");
    assert_eq!(deliveries(&world.start(&store), &id), 1);
    assert_eq!(deliveries(&world.start(&world.file("ledger.former")), &id), 2);
    for name in ["ledger.restored", "saved.new"] {
        assert!(!world.path(name).exists(), "{name} is left over");
    }
}

#[test]
fn a_damaged_backup_changes_nothing() {
    let world = World::new();
    let store = world.file("ledger");
    let (config, saved) = (world.written(&store), world.path("saved"));
    let (id, _) = mint(&world.start(&store), "jobs", "");
    assert_eq!(backup(&config, &saved).0, 0);
    let good = std::fs::read(&saved).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut other_checksum = good.clone();
    other_checksum[60] = if other_checksum[60] == b'0' { b'1' } else { b'0' };
    let cut = good[..good.len() - 1].to_vec();
    let damaged = world.path("damaged");
    for bytes in [flipped, other_checksum, cut, b"something else".to_vec(), Vec::new()] {
        std::fs::write(&damaged, &bytes).unwrap();
        let (code, output) = restore(&config, &damaged, &["--force"]);
        assert_eq!((code, output.contains("cannot be restored")), (65, true), "{output}");
        assert_eq!(deliveries(&world.start(&store), &id), 0, "the ledger is unchanged");
    }
    // A backup never replaces another file.
    let precious = world.path("precious");
    std::fs::write(&precious, "precious").unwrap();
    let (code, output) = backup(&config, &precious);
    assert_eq!((code, output.contains("is no backup")), (69, true), "{output}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "precious");
}

#[test]
fn a_damaged_ledger_is_replaced_only_by_force() {
    let world = World::new();
    let store = world.file("ledger");
    let (config, saved) = (world.written(&store), world.path("saved"));
    let (id, _) = mint(&world.start(&store), "jobs", "");
    assert_eq!(backup(&config, &saved).0, 0);
    std::fs::write(world.path("ledger"), vec![7; 65_536]).unwrap();
    let (code, output) = restore(&config, &saved, &[]);
    assert_eq!((code, output.contains("cannot be read")), (1, true), "{output}");
    let (code, output) = restore(&config, &saved, &["--force"]);
    assert_eq!(code, 0, "{output}");
    assert_eq!(deliveries(&world.start(&store), &id), 0);
    assert_eq!(std::fs::read(world.path("ledger.former")).unwrap(), vec![7; 65_536]);
}

#[test]
fn only_a_ledger_in_a_file_has_backups() {
    let world = World::new();
    let config = world.written("store: { kind: memory }");
    let saved = world.path("saved");
    for (code, output) in [backup(&config, &saved), restore(&config, &saved, &[])] {
        assert_eq!((code, output.contains("not in a file")), (64, true), "{output}");
    }
    let (code, output) = backup(&world.written(&world.file("missing")), &saved);
    assert_eq!((code, output.contains("does not exist")), (69, true), "{output}");
}
