//! Starts and ends the use of a shared ledger by this process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::members::BEAT_INTERVAL;
use super::members::beat::BEAT_RETRY;
use super::store::RedisStore;

/// The maximum time for which a stopping process waits for background tasks, such as the release of claims.
const LEAVE_MAX: Duration = Duration::from_secs(2);

impl RedisStore {
    /// Checks the settings of the Redis server, and starts to send heartbeats. Waits until the server has responded, or
    /// until the time for a response is over.
    ///
    /// # Errors
    /// Returns the reason if the Redis server must not be used.
    pub(in crate::store) async fn begin(self: &Arc<Self>) -> Result<(), String> {
        self.probe().await;
        if let Some(fault) = self.health.why_unusable() {
            return Err(fault);
        }
        self.beat().await;
        let store = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut pause = BEAT_INTERVAL;
            loop {
                sleep(pause).await;
                let Some(store) = store.upgrade() else { return };
                pause = if store.beat().await { BEAT_INTERVAL } else { BEAT_RETRY };
                store.probe_again().await;
                store.look_for_room().await;
            }
        });
        Ok(())
    }

    /// Waits for background tasks, and removes this process from the list of processes that share the ledger.
    pub(in crate::store) async fn end(&self) {
        let ended = async {
            loop {
                let ended = self.task_ended.notified();
                if self.tasks.load(Ordering::SeqCst) == 0 {
                    return;
                }
                ended.await;
            }
        };
        let _ = timeout(LEAVE_MAX, ended).await;
        let _ = timeout(LEAVE_MAX, self.leave()).await;
    }
}
