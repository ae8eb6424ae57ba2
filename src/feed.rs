//! The number of a feed. A feed is a document that Callgate fetches, such as a key set or an address list. This
//! module only defines the number, so that the code that uses a feed and the code that fetches it can name the same
//! one.

/// The index of a feed in `Policy::feeds`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FeedId(pub usize);
