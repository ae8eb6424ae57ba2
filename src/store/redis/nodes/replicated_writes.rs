//! Changes that replicas must confirm. Changes that are queued while one batch is in progress become the next batch.
//! Each batch ends with `WAIT`. `WAIT` blocks the connection on which it is sent, so these changes have a connection of
//! their own.

use std::time::Duration;

use redis::aio::{ConnectionLike, ConnectionManager};
use redis::{ErrorKind, RedisError, Value};
use tokio::sync::{mpsc, oneshot};

use super::connect::connection;
use super::faults::TOO_FEW_REPLICAS;
use super::request::{Request, is_unknown_script, server_error};
use crate::config::RedisSettings;

/// The maximum number of changes that wait for a batch. Further callers wait until there is room.
const QUEUE_MAX: usize = 4096;
/// The maximum number of changes in one batch.
const BATCH_MAX: usize = 256;

struct Write {
    by_hash: redis::Cmd,
    by_text: redis::Cmd,
    /// Whether the slot is being moved to the node, so that `ASKING` must precede the command.
    is_asking: bool,
    done: oneshot::Sender<Result<Value, RedisError>>,
}

/// The queue of changes that are sent to one node and confirmed by its replicas. The task that sends the changes ends
/// when this value is dropped.
pub(super) struct ReplicatedWrites(mpsc::Sender<Write>);

impl ReplicatedWrites {
    /// Starts the task that sends the changes. Must be called within a tokio runtime.
    pub(super) fn start(settings: &RedisSettings, address: &str) -> Result<Self, RedisError> {
        let patient = RedisSettings { timeout: settings.timeout + settings.wait_timeout, ..settings.clone() };
        let connection = connection(&patient, &settings.login, address)?;
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(connection, receiver, settings.wait_replicas, settings.wait_timeout));
        Ok(Self(sender))
    }

    /// Executes a script. Returns the result of the script once the replicas have confirmed its changes. `is_asking` is
    /// true if the slot is being moved to the node.
    pub(super) async fn write(&self, request: &Request, is_asking: bool) -> Result<Value, RedisError> {
        let (done, result) = oneshot::channel();
        let write =
            Write { by_hash: request.command(true), by_text: request.command(false), is_asking, done };
        let ended = || RedisError::from(std::io::Error::from(std::io::ErrorKind::NotConnected));
        self.0.send(write).await.map_err(|_| ended())?;
        result.await.map_err(|_| ended())?
    }
}

async fn run(
    mut connection: ConnectionManager,
    mut queue: mpsc::Receiver<Write>,
    replicas: u8,
    patience: Duration,
) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        send(&mut connection, std::mem::take(&mut batch), replicas, patience).await;
    }
}

/// Sends a batch of changes. Scripts that the Redis server does not have yet are sent again with their text.
async fn send(connection: &mut ConnectionManager, batch: Vec<Write>, replicas: u8, patience: Duration) {
    let commands = batch.iter().map(|write| (&write.by_hash, write.is_asking));
    let results = pipeline(connection, commands, replicas, patience).await;
    let mut unknown = Vec::new();
    for (write, result) in batch.into_iter().zip(results) {
        match result {
            Err(error) if is_unknown_script(&error) => unknown.push(write),
            result => drop(write.done.send(result)),
        }
    }
    if unknown.is_empty() {
        return;
    }
    let commands = unknown.iter().map(|write| (&write.by_text, write.is_asking));
    let results = pipeline(connection, commands, replicas, patience).await;
    for (write, result) in unknown.into_iter().zip(results) {
        let _ = write.done.send(result);
    }
}

async fn pipeline<'c>(
    connection: &mut ConnectionManager,
    commands: impl Iterator<Item = (&'c redis::Cmd, bool)>,
    replicas: u8,
    patience: Duration,
) -> Vec<Result<Value, RedisError>> {
    let mut pipeline = redis::pipe();
    let mut asking = Vec::new();
    for (command, is_asking) in commands {
        if is_asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(command.clone());
        asking.push(is_asking);
    }
    let count = asking.len() + asking.iter().filter(|is_asking| **is_asking).count();
    pipeline.cmd("WAIT").arg(replicas).arg(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
    let mut values = match connection.req_packed_commands(&pipeline, 0, count + 1).await {
        Ok(values) => values,
        Err(error) => return asking.iter().map(|_| Err(error.clone())).collect(),
    };
    let confirmed = match values.pop() {
        Some(Value::Int(confirmed)) => confirmed >= i64::from(replicas),
        _ => false,
    };
    let too_few = || RedisError::from((ErrorKind::Client, TOO_FEW_REPLICAS));
    let mut values = values.into_iter();
    let mut result = |is_asking: bool| values.nth(usize::from(is_asking)).unwrap_or(Value::Nil);
    let results: Vec<_> = asking.into_iter().map(&mut result).collect();
    results
        .into_iter()
        .map(server_error)
        .map(|result| match result {
            Ok(_) if !confirmed => Err(too_few()),
            result => result,
        })
        .collect()
}
