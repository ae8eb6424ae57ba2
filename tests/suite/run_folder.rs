//! The folder of a long run: its configurations, its logs and its history. It stays if the run fails.

use std::any::Any;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tempfile::TempDir;

/// A folder in `target/tmp`. If the thread panics, the folder stays, and a message names it. Otherwise it is removed.
pub struct RunFolder(TempDir);

impl RunFolder {
    pub fn new(name: &str) -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(parent).unwrap();
        Self(tempfile::Builder::new().prefix(name).tempdir_in(parent).unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fails. `history` and `faults` become files of the folder, which stays.
    pub fn fail(self, history: &str, faults: &str) -> ! {
        fs::write(self.path().join("history"), history).unwrap();
        fs::write(self.path().join("faults"), faults).unwrap();
        let most = faults.char_indices().nth(10_000).map_or(faults.len(), |(at, _)| at);
        panic!("{}", &faults[..most]);
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            let _ = writeln!(std::io::stderr(), "the history and the logs are in {}", self.path().display());
        }
    }
}

/// Runs something that returns its faults. A panic is one.
pub fn faults_of(run: impl FnOnce() -> String) -> String {
    let message = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        format!("it ended early: {}", text.unwrap_or("a panic"))
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(message)
}

#[test]
fn the_folder_of_a_run_that_fails_stays() {
    let folder = RunFolder::new("run-folder-test-");
    fs::write(folder.path().join("member.log"), "line").unwrap();
    let faults = faults_of(|| panic!("number {}", 7));
    assert_eq!(faults, "it ended early: number 7");
    let path = folder.path().to_owned();
    faults_of(|| folder.fail("calls", &faults));
    for (name, text) in [("member.log", "line"), ("history", "calls"), ("faults", &*faults)] {
        assert_eq!(fs::read_to_string(path.join(name)).unwrap(), text);
    }
    fs::remove_dir_all(path).unwrap();
    let folder = RunFolder::new("run-folder-test-");
    let path = folder.path().to_owned();
    drop(folder);
    assert!(!path.exists(), "a run without faults leaves nothing");
}
