//! Reads and changes single members of a JSON text without serializing the document again. Everything else stays byte
//! for byte the same: numbers, member order, white space and unknown members.

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
