//! JSON as text: members are found in a document, and put into one, without printing it anew. Whatever is
//! not touched stays byte for byte as it was: numbers, order, white space, members nobody knows.

mod find;
mod insert;
mod pointer;
mod scan;
mod strict;

pub use find::{Found, NotJson, find, find_one};
pub use insert::{InsertFault, insert, quoted, replace, set};
pub use pointer::{POINTERS_MAX, Pointer};
pub use strict::find_strict;
