//! Every seed of the fuzz targets through the same code that fuzzing drives: what was found once stays found.

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
        let mut failed = Vec::new();
        for (seed, bytes) in seeds.iter().zip(whole) {
            // Cut off anywhere, a seed is an input, too.
            for end in (0..bytes.len()).step_by(bytes.len() / 16 + 1).chain([bytes.len()]) {
                count += 1;
                if std::panic::catch_unwind(|| target(&bytes[..end])).is_err() {
                    failed.push(format!("{} up to {end}", seed.display()));
                }
            }
        }
        assert!(failed.is_empty(), "{failed:#?}");
    }
    println!("{count} inputs from seeds");
}
