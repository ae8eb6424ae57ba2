//! Runs every seed of the fuzz targets through the same code as fuzzing, so that fixed findings stay fixed.

use std::fs;

#[path = "../../fuzz/src/lib.rs"]
pub mod fuzz;

#[test]
fn every_seed_holds_what_its_target_asserts() {
    let mut count = 0;
    for (name, target) in fuzz::TARGETS {
        let (name, target) = (*name, *target);
        let folder = format!("fuzz/seeds/{name}");
        let mut seeds: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        seeds.sort();
        assert!((5..=30).contains(&seeds.len()), "{folder} has {} seeds", seeds.len());
        let whole = seeds.iter().map(|seed| fs::read(seed).unwrap());
        let (mut failed, mut accepted) = (Vec::new(), 0);
        for (seed, bytes) in seeds.iter().zip(whole) {
            // Each truncated seed is used as an input as well.
            for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1).chain([bytes.len()]) {
                count += 1;
                match std::panic::catch_unwind(|| target(&bytes[..end])) {
                    Ok(true) if end == bytes.len() => accepted += 1,
                    Ok(_) => {}
                    Err(_) => failed.push(format!("{} up to {end}", seed.display())),
                }
            }
        }
        println!("{name}: {accepted} of {} seeds are accepted", seeds.len());
        assert!(accepted >= 4 && accepted < seeds.len(), "{name}: both kinds are wanted");
        assert!(failed.is_empty(), "{failed:#?}");
    }
    println!("{count} inputs from seeds");
}

/// A xorshift generator, so that a failing input can be made again.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// Changes, removes, doubles or exchanges some bytes of an input.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let end = (at + 1 + self.below(8)).min(bytes.len());
            match self.below(6) {
                0 if at < end => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 if at < end => bytes[at] ^= 1 << self.below(8),
                2 => drop(bytes.drain(at..end)),
                3 => {
                    let piece = bytes[at..end].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
                4 if !other.is_empty() => {
                    let from = self.below(other.len());
                    let piece = other[from..(from + 16).min(other.len())].to_vec();
                    drop(bytes.splice(at..end, piece));
                }
                _ => bytes.insert(at.min(bytes.len()), b"\r\n: ,;=\"\\{}%/.\0\xff"[self.below(16)]),
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Changes seeds at random and runs them, as a fuzzer without coverage does. `CALLGATE_FUZZ_INPUTS` sets the number of
/// inputs of each target, and `CALLGATE_FUZZ_TARGET` selects one target.
#[allow(clippy::disallowed_methods, reason = "how long a test is to go on is not the product's business")]
#[test]
fn changed_seeds_hold_what_their_target_asserts() {
    let inputs = std::env::var("CALLGATE_FUZZ_INPUTS").map_or(2_000, |number| number.parse().unwrap());
    let selected = std::env::var("CALLGATE_FUZZ_TARGET").ok();
    for (name, target) in fuzz::TARGETS {
        if selected.as_deref().is_some_and(|selected| selected != *name) {
            continue;
        }
        // Each input of the ledger's file is a file on disk.
        let inputs = if *name == "ledger_file" { inputs / 100 } else { inputs };
        let mut paths: Vec<_> =
            fs::read_dir(format!("fuzz/seeds/{name}")).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let seeds: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        let (mut numbers, mut accepted) = (Numbers(0x9e37_79b9_7f4a_7c15), 0);
        for _ in 0..inputs {
            let mut bytes = seeds[numbers.below(seeds.len())].clone();
            let other = &seeds[numbers.below(seeds.len())];
            numbers.mutate(&mut bytes, other);
            match std::panic::catch_unwind(|| target(&bytes)) {
                Ok(taken) => accepted += usize::from(taken),
                Err(_) => {
                    panic!("{name}: {:?}\nin hexadecimal: {}", String::from_utf8_lossy(&bytes), hex(&bytes))
                }
            }
        }
        println!("{name}: {accepted} of {inputs} changed seeds are accepted");
    }
}
