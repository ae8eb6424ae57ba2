//! Reads and changes single values of a JSON text without serializing the whole document again. All other parts stay
//! byte for byte the same: numbers, the order of keys, white space and unknown keys.

mod duplicate_members;
mod find;
mod insert;
mod pointer;
mod scalars;
mod scan;

pub use duplicate_members::{find_strict, is_same_name};
pub use find::{Found, NotJson, find, find_one};
pub use insert::{Absent, InsertFault, insert, quoted, replace, replace_all, resolve_appends, set};
pub use pointer::{POINTERS_MAX, Pointer};
pub use scalars::{Scalar, scalars};
