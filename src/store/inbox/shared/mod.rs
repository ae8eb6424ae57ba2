//! The inbox in a ledger that several processes share. Each process has an index of the messages that it holds
//! (delivers), and changes only these messages.

mod doubt;
mod hold;
mod partitions;
mod queue;
#[cfg(test)]
mod tests;
mod writer;

pub(in crate::store) use self::queue::SharedMessages;
pub(in crate::store) use self::writer::start;
