//! Idle connections, kept for reuse. A connection is reused only if the kernel says that the peer has neither closed it
//! nor sent anything, and only while it is younger than the peer's own idle timeout, which is learned from the
//! connections that the peer closes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::exchange::Connection;
use super::upstream::IdleState;

/// Most idle connections kept.
const CONNECTIONS_MAX: usize = 128;
/// Most peers whose idle timeout is remembered.
const LEARNED_MAX: usize = 256;
/// Most connections that one sweep asks the kernel about: the lock is held meanwhile.
const LOOKS_MAX: usize = 16;
/// How many connections are kept that are too old for reuse: they show whether the peer keeps connections for longer than
/// is known.
const PROBES_MAX: usize = 4;

/// Idle connections to peers that are told apart by a key.
pub(crate) struct ConnectionPool<K> {
    state: Mutex<State<K>>,
}

struct State<K> {
    /// In the order in which they became idle.
    idle: Vec<Idle<K>>,
    /// Peers that close connections before we do: the longest idle time after which a connection is reused.
    reuse_within: HashMap<K, Duration>,
    /// Raised when all connections become unusable at once.
    generation: u64,
}

struct Idle<K> {
    key: K,
    connection: Connection,
    since: Instant,
    until: Instant,
}

impl<K> Default for ConnectionPool<K> {
    fn default() -> Self {
        let state = State { idle: Vec::new(), reuse_within: HashMap::new(), generation: 0 };
        Self { state: Mutex::new(state) }
    }
}

impl<K: Clone + Eq + Hash> ConnectionPool<K> {
    /// Returns the connection to this peer that became idle last, if it can be reused.
    pub(crate) fn take(&self, key: &K, now: Instant) -> Option<Connection> {
        loop {
            let mut state = self.state.lock();
            let at = state.idle.iter().rposition(|idle| idle.key == *key)?;
            // The others are older still.
            if !state.idle.get(at)?.is_reusable(state.reuse_within.get(key), now) {
                return None;
            }
            let mut idle = state.idle.remove(at);
            drop(state);
            if idle.connection.stream.idle_state() == IdleState::Quiet {
                return Some(idle.connection);
            }
            self.state.lock().peer_ended(&idle, now);
        }
    }

    /// Returns a new connection's generation: [`ConnectionPool::keep`] drops connections of an earlier one.
    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Keeps a connection for reuse until `idle_timeout` is over.
    pub(crate) fn keep(&self, key: K, connection: Connection, idle_timeout: Duration, now: Instant) {
        let mut state = self.state.lock();
        if connection.generation != state.generation {
            return;
        }
        let oldest = (state.idle.len() >= CONNECTIONS_MAX).then(|| state.idle.remove(0));
        state.idle.push(Idle { key, connection, since: now, until: now + idle_timeout });
        drop(state);
        // Closing is a system call, which need not happen under the lock.
        drop(oldest);
    }

    /// Closes all idle connections. Those that are in use are not kept when they become idle.
    pub(crate) fn renew(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.reuse_within.clear();
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
    }

    /// Closes the connections whose time is over and those that the peer has ended, and learns from the others.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut ended = Vec::new();
        let mut state = self.state.lock();
        let (mut looks, mut probes, mut at) = (0, 0, 0);
        while let Some(idle) = state.idle.get_mut(at) {
            let is_over = now >= idle.until;
            let is_looked_at = !is_over && looks < LOOKS_MAX;
            looks += usize::from(is_looked_at);
            let is_ended = is_looked_at && idle.connection.stream.idle_state() == IdleState::Ended;
            let (key, age) = (idle.key.clone(), idle.age(now));
            let is_probe = state.reuse_within.get(&key).is_some_and(|within| age > *within);
            probes += usize::from(is_probe);
            if is_ended || is_over || (is_probe && probes > PROBES_MAX) {
                let idle = state.idle.remove(at);
                if is_ended {
                    state.peer_ended(&idle, now);
                }
                ended.push(idle);
                continue;
            }
            if is_probe && is_looked_at {
                state.peer_keeps(&key, age);
            }
            at += 1;
        }
        drop(state);
        drop(ended);
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// The peer closed a connection after less than this idle time. Reuse ends at half of it: the peer's clock began
    /// before ours, and a request that crosses the peer's close is lost.
    fn peer_ended(&mut self, idle: &Idle<K>, now: Instant) {
        let within = idle.age(now) / 2;
        if let Some(known) = self.reuse_within.get_mut(&idle.key) {
            *known = within.min(*known);
        } else if within < idle.until.saturating_duration_since(idle.since)
            && self.reuse_within.len() < LEARNED_MAX
        {
            self.reuse_within.insert(idle.key.clone(), within);
        }
    }

    /// The peer keeps a connection for longer than was known: what closed the others was not its idle timeout.
    fn peer_keeps(&mut self, key: &K, age: Duration) {
        if let Some(known) = self.reuse_within.get_mut(key) {
            *known = (age / 2).max(*known);
        }
    }
}

impl<K> Idle<K> {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    fn is_reusable(&self, within: Option<&Duration>, now: Instant) -> bool {
        now < self.until && within.is_none_or(|within| self.age(now) < *within)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::clock::instant;
    use crate::http::client::Upstream;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Both ends of a connection.
    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::new(Upstream::Tcp(ours), 0), listener.accept().await.unwrap().0)
    }

    fn count(pool: &ConnectionPool<u8>) -> usize {
        pool.state.lock().idle.len()
    }

    #[tokio::test]
    async fn what_the_peer_wrote_or_closed_is_not_reused_without_a_turn_of_the_event_loop() {
        let (pool, now) = (ConnectionPool::default(), instant());
        for ends in [false, true] {
            let (ours, mut theirs) = connection().await;
            pool.keep(1, ours, TIMEOUT, now);
            // A blocking write: nothing of it has passed through this event loop.
            if ends {
                drop(theirs.into_std().unwrap());
            } else {
                theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            }
            assert!(pool.take(&1, now).is_none(), "ended by the peer: {ends}");
            pool.renew();
            let _ = pool.generation();
        }
    }

    #[tokio::test]
    async fn connections_are_reused_for_their_peer_alone_and_for_their_time() {
        let (pool, now) = (ConnectionPool::default(), instant());
        let (ours, _theirs) = connection().await;
        pool.keep(1, ours, TIMEOUT, now);
        assert!(pool.take(&2, now).is_none());
        assert!(pool.take(&1, now + TIMEOUT).is_none());
        let ours = pool.take(&1, now + TIMEOUT / 2).unwrap();
        pool.keep(1, ours, TIMEOUT, now);
        pool.sweep(now + TIMEOUT / 2);
        assert_eq!(count(&pool), 1);
        pool.sweep(now + TIMEOUT);
        assert_eq!(count(&pool), 0, "closed without being asked for");
    }

    #[tokio::test]
    async fn connections_of_an_earlier_generation_are_not_kept() {
        let (pool, now) = (ConnectionPool::default(), instant());
        let ((one, _a), (two, _b)) = (connection().await, connection().await);
        pool.keep(1, one, TIMEOUT, now);
        pool.renew();
        assert!(pool.take(&1, now).is_none());
        pool.keep(1, two, TIMEOUT, now);
        assert!(pool.take(&1, now).is_none(), "it was in use when the pool was renewed");
    }

    #[tokio::test]
    async fn the_idle_timeout_of_a_peer_is_learned_and_forgotten() {
        let (pool, now) = (ConnectionPool::default(), instant());
        let (ours, theirs) = connection().await;
        pool.keep(1, ours, TIMEOUT, now);
        drop(theirs.into_std().unwrap());
        let seconds = |seconds| now + Duration::from_secs(seconds);
        pool.sweep(seconds(4));
        assert_eq!(count(&pool), 0);
        let (ours, _theirs) = connection().await;
        pool.keep(1, ours, TIMEOUT, now);
        assert!(pool.take(&1, seconds(3)).is_none(), "older than half of four seconds");
        let ours = pool.take(&1, seconds(1)).unwrap();
        pool.keep(1, ours, TIMEOUT, now);
        pool.sweep(seconds(10));
        assert!(pool.take(&1, seconds(4)).is_some(), "the peer keeps connections for ten seconds after all");
    }

    #[tokio::test]
    async fn the_number_of_connections_is_bounded() {
        let (pool, now) = (ConnectionPool::default(), instant());
        let mut peers = Vec::new();
        for key in 0..=u8::try_from(CONNECTIONS_MAX).unwrap() {
            let (ours, theirs) = connection().await;
            pool.keep(key, ours, TIMEOUT, now);
            peers.push(theirs);
        }
        assert_eq!(count(&pool), CONNECTIONS_MAX);
        assert!(pool.take(&0, now).is_none(), "the oldest made room");
    }
}
