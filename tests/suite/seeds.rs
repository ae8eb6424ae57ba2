//! Runs every seed of the fuzz targets through the same code as fuzzing, so that fixed findings stay fixed.

use std::fs;

#[path = "../../fuzz/src/lib.rs"]
pub mod fuzz;

#[test]
fn every_seed_holds_what_its_target_asserts() {
    let mut count = 0;
    for (name, target) in fuzz::TARGETS {
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
