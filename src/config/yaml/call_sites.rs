//! Records which calls of `Cursor::error` and `Cursor::warn` a test has reached.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::Location;

/// The location of a call in the source code: the file and the line.
pub(crate) type CallSite = (String, u32);

thread_local! {
    static REACHED: RefCell<BTreeSet<CallSite>> = const { RefCell::new(BTreeSet::new()) };
}

/// Records the location of a call of `Cursor::error` or `Cursor::warn`.
pub(super) fn record(at: &Location<'_>) {
    REACHED.with_borrow_mut(|reached| reached.insert((at.file().to_owned(), at.line())));
}

/// Returns the locations of the calls that this thread has recorded since it last called this function.
pub(crate) fn reached() -> BTreeSet<CallSite> {
    REACHED.take()
}
