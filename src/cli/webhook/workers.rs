//! Computes the responses of the webhook on threads of their own, a few at a time. The webhook can therefore respond to
//! health checks at the same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The maximum number of webhook responses that are computed at the same time. One computation can use some ten MiB.
const RUNNING_MAX: usize = 2;
/// The maximum number of threads for blocking work: one more than [`RUNNING_MAX`].
pub(super) const THREADS_MAX: usize = RUNNING_MAX + 1;
/// The maximum time until a response of the webhook must be ready. By default, Kubernetes waits for the same time.
const DEADLINE: Duration = Duration::from_secs(10);

/// The threads that compute the responses of the webhook.
pub(super) struct Workers(Arc<Semaphore>);

impl Default for Workers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(RUNNING_MAX)))
    }
}

impl Workers {
    /// Computes a response on a thread for blocking work. Returns `None` if this takes too long or fails.
    pub(super) async fn run<T, F>(&self, answer: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let computed = async {
            let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
            let computed = tokio::task::spawn_blocking(move || {
                // A computation that exceeds the deadline holds its permit until it ends.
                let _permit = permit;
                answer()
            });
            computed.await.ok()
        };
        timeout(DEADLINE, computed).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn few_answers_are_computed_at_the_same_time_and_late_ones_are_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let workers = Arc::new(Workers::default());
        let answer = || {
            let (running, most, workers) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&workers));
            async move {
                let work = move || {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    running.fetch_sub(1, Ordering::SeqCst);
                };
                workers.run(work).await
            }
        };
        runtime.block_on(async {
            let all: Vec<_> = (0..50).map(|_| tokio::spawn(answer())).collect();
            for one in all {
                assert_eq!(one.await.unwrap(), Some(()));
            }
            // A computation that panics returns `None`, and later computations must still succeed.
            let response: Option<()> = workers.run(|| panic!("a fault")).await;
            assert_eq!(response, None);
            assert_eq!(answer().await, Some(()));
        });
        assert!(most.load(Ordering::SeqCst) <= RUNNING_MAX);
    }
}
