//! The number of a feed. A feed is a document that Callgate fetches, such as a key set or an address list. The code
//! that uses feeds and the code that fetches them both refer to a feed by this number, so the number has a module of
//! its own.

/// The index of a feed in `Policy::feeds`. A feed is a document that Callgate fetches, such as a key set or an address
/// list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FeedId(pub usize);
