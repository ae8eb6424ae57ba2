//! What is kept elsewhere and fetched: keys and address lists. Here is only the number by which those who need one
//! and those who bring it know which is meant.

/// One of the things that are fetched, by its place in the policy's list of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FeedId(pub usize);
