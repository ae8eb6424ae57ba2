//! A call of a script as a Redis command, and the response to the command.

use redis::{Cmd, RedisError, Value};

use super::keys::Partition;
use super::scripts::Call;

/// A call of a script, with its keys and arguments.
#[derive(Debug)]
pub(in crate::store::redis) struct Request {
    pub(in crate::store::redis) call: &'static Call,
    pub(in crate::store::redis) partition: Partition,
    pub(in crate::store::redis) keys: Vec<String>,
    pub(in crate::store::redis) arguments: Vec<Vec<u8>>,
}

impl Request {
    #[cfg(test)]
    pub(in crate::store::redis) fn copy(&self) -> Self {
        let (keys, arguments) = (self.keys.clone(), self.arguments.clone());
        Self { call: self.call, partition: self.partition, keys, arguments }
    }

    /// Returns the command that executes the script, by its hash or by its text.
    pub(in crate::store::redis) fn command(&self, by_hash: bool) -> Cmd {
        let mut command = redis::cmd(if by_hash { "EVALSHA" } else { "EVAL" });
        command.arg(if by_hash { self.call.hash() } else { self.call.text() }).arg(self.keys.len());
        self.keys.iter().for_each(|key| {
            command.arg(key);
        });
        self.arguments.iter().for_each(|argument| {
            command.arg(&argument[..]);
        });
        command
    }
}

/// Returns the value of a response, or the error that the Redis server sent instead of a value.
pub(super) fn server_error(value: Value) -> Result<Value, RedisError> {
    match value {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    error.code() == Some("NOSCRIPT")
}
