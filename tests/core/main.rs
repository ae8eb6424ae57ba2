//! The tests of the core that are not unit tests: one test per decision case and per vector of a provider, the cases of
//! egress rules, of notices and of the inbox, and the records of interactions. This binary compiles without the feature
//! `proxy`, so it needs neither pingora nor tokio. The suite runs the decision cases over a socket.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

#[allow(dead_code, reason = "the suite reads further fields")]
mod case;
mod egress;
mod environment;
mod kept;
mod ledger;
mod notice;
mod record;
#[allow(dead_code, reason = "the suite uses the vectors in other tests")]
mod vectors;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Trial};

use case::{File, Pure, config_text, files};
use environment::parse;
use ledger::PureLedger;

/// A file of cases, and its tokens once a case needs them.
struct Cases {
    file: File,
    tokens: OnceLock<BTreeMap<String, String>>,
}

impl Cases {
    /// Runs a case and its later requests with one ledger.
    fn run(&self, index: usize) {
        let tokens = self.tokens.get_or_init(|| self.file.tokens());
        let config = parse(&config_text(&self.file.config, "127.0.0.1:1"));
        let ledger = PureLedger::new(&config.startup.store);
        let mut pure = Pure { config, ledger };
        let case = &self.file.cases[index];
        for step in std::iter::once(case).chain(&case.then) {
            let prepared = step.prepare(&pure.config, tokens);
            pure.check(&prepared, step);
        }
    }
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    let mut names = BTreeSet::new();
    for (path, file) in files() {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let cases = Arc::new(Cases { file, tokens: OnceLock::new() });
        for (index, case) in cases.file.cases.iter().enumerate() {
            let name = format!("{stem}::{}", case.name);
            assert!(names.insert(name.clone()), "two cases have the name {name}");
            let cases = Arc::clone(&cases);
            trials.push(Trial::test(name, move || {
                cases.run(index);
                Ok(())
            }));
        }
    }
    trials.extend(egress::trials());
    trials.extend(kept::trials());
    trials.extend(notice::trials());
    trials.extend(record::trials());
    trials.extend(vectors::trials());
    assert!(trials.len() > 100, "only {} cases", trials.len());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
