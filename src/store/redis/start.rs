//! The beginning and the end of the use of a ledger that several processes share.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::members::BEAT_INTERVAL;
use super::members::beat::BEAT_RETRY;
use super::store::RedisStore;

/// How long the end of the process waits for changes that nobody waits for, such as the release of claims.
const LEAVE_MAX: Duration = Duration::from_secs(2);

impl RedisStore {
    /// Judges the engine, and starts to beat. Waits until the engine has answered or has not answered in time.
    ///
    /// # Errors
    /// Returns the reason why the engine must not be used.
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

    /// Waits for the tasks that nobody waits for, and removes this process from the members.
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
