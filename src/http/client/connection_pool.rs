//! A pool of idle connections.
//!
//! A connection is reused only if the kernel reports that the peer has not closed it and has sent no data. The idle
//! time of the connection must also be clearly shorter than the peer's idle timeout. The pool estimates this timeout
//! from the connections that the peer closes.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::exchange::Connection;
use super::upstream::IdleState;

/// The maximum number of idle connections in the pool.
const CONNECTIONS_MAX: usize = 128;
/// The maximum number of peers for which the pool stores an estimated idle timeout.
const LEARNED_MAX: usize = 256;
/// The maximum number of connections that one call of [`ConnectionPool::sweep`] checks. Each check is a system call,
/// and the lock of the pool is held during all checks.
const CHECKS_MAX: usize = 16;
/// The maximum number of connections to one peer that stay open although their idle time is too long for reuse. These
/// connections show whether the peer's idle timeout is longer than estimated.
const PROBES_MAX: usize = 4;

/// A pool of idle connections. The key `K` identifies the peer.
pub(crate) struct ConnectionPool<K> {
    state: Mutex<State<K>>,
}

struct State<K> {
    /// The idle connections, sorted by idle time. The connection with the longest idle time comes first.
    idle: Vec<Idle<K>>,
    /// The maximum idle time for reuse, for each peer that closes idle connections before the idle timeout of the pool.
    reuse_within: HashMap<K, Duration>,
    /// The number of calls of [`ConnectionPool::invalidate`]. The pool does not accept connections that were opened
    /// before the last call.
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
    /// Takes the most recently used open connection to this peer. Returns `None` if there is no open connection to this
    /// peer, or if the idle times of all of them are too long for reuse.
    pub(crate) fn take(&self, key: &K, now: Instant) -> Option<Connection> {
        loop {
            let mut state = self.state.lock();
            let at = state.idle.iter().rposition(|idle| idle.key == *key)?;
            // All other connections to this peer are older, so they are not reusable either.
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

    /// Returns the current generation of the pool. A new connection must store this number, because
    /// [`ConnectionPool::keep`] closes connections of earlier generations.
    pub(crate) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Stores an idle connection for up to `idle_timeout`. If the pool is full, closes the connection with the longest
    /// idle time.
    pub(crate) fn keep(&self, key: K, connection: Connection, idle_timeout: Duration, now: Instant) {
        let mut state = self.state.lock();
        if connection.generation != state.generation {
            return;
        }
        let oldest = (state.idle.len() >= CONNECTIONS_MAX).then(|| state.idle.remove(0));
        state.idle.push(Idle { key, connection, since: now, until: now + idle_timeout });
        drop(state);
        // Dropping the connection closes it, so it happens after the lock is released.
        drop(oldest);
    }

    /// Closes all idle connections. Connections that are in use are closed when their users return them to the pool.
    pub(crate) fn invalidate(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        state.reuse_within.clear();
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        drop(idle);
    }

    /// Closes expired connections and connections that the peer has closed. Updates the maximum idle time for reuse of
    /// each peer.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut closed = Vec::new();
        let mut probes: HashMap<K, usize> = HashMap::new();
        let mut state = self.state.lock();
        let (mut checks, mut at) = (0, 0);
        while let Some(idle) = state.idle.get_mut(at) {
            let is_checked = checks < CHECKS_MAX;
            checks += usize::from(is_checked);
            let is_ended = is_checked && idle.connection.stream.idle_state() == IdleState::Ended;
            let (key, age, is_expired) = (idle.key.clone(), idle.age(now), now >= idle.until);
            if is_ended {
                let idle = state.idle.remove(at);
                state.peer_ended(&idle, now);
                closed.push(idle);
                continue;
            }
            let is_probe = state.reuse_within.get(&key).is_some_and(|within| age > *within);
            if is_probe && is_checked && is_expired {
                // The peer has not closed this connection during the whole idle timeout of the pool, so the pool needs
                // no shorter limit for this peer.
                state.reuse_within.remove(&key);
            } else if is_probe && is_checked {
                state.peer_keeps(&key, age);
            }
            let count = probes.entry(key).or_default();
            *count += usize::from(is_probe);
            if is_expired || (is_probe && *count > PROBES_MAX) {
                closed.push(state.idle.remove(at));
            } else {
                at += 1;
            }
        }
        drop(state);
        // Closing a connection is a system call, so it happens after the lock is released.
        drop(closed);
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Lowers the maximum idle time for reuse. The new maximum is half of the idle time after which the peer closed
    /// this connection. This margin is necessary, because a request is lost if the peer closes the connection while the
    /// request is being sent.
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

    /// Raises the maximum idle time for reuse to half of `age`, because a connection with the idle time `age` is still
    /// open.
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

    /// Returns both ends of a new connection.
    async fn connection() -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::new(Upstream::Tcp(ours), 0), listener.accept().await.unwrap().0)
    }

    fn count(pool: &ConnectionPool<u8>) -> usize {
        pool.state.lock().idle.len()
    }

    #[tokio::test]
    async fn a_connection_with_unread_bytes_or_closed_by_the_peer_is_not_reused() {
        let (pool, now) = (ConnectionPool::default(), instant());
        for ends in [false, true] {
            let (ours, mut theirs) = connection().await;
            pool.keep(1, ours, TIMEOUT, now);
            // The peer acts immediately before `take`, so tokio's event loop has not noticed the change yet.
            if ends {
                drop(theirs.into_std().unwrap());
            } else {
                theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            }
            assert!(pool.take(&1, now).is_none(), "ended by the peer: {ends}");
            pool.invalidate();
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
        pool.invalidate();
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
    async fn a_peer_that_keeps_connections_as_long_as_the_pool_has_no_learned_timeout_any_more() {
        let (pool, now) = (ConnectionPool::default(), instant());
        let (ours, theirs) = connection().await;
        pool.keep(1, ours, TIMEOUT, now);
        drop(theirs.into_std().unwrap());
        pool.sweep(now + Duration::from_secs(1));
        // `PROBES_MAX` applies to each peer separately. The many connections to peer 2 have no effect on peer 1.
        let mut peers = Vec::new();
        for key in [2, 2, 2, 2, 2, 2, 1] {
            let (ours, theirs) = connection().await;
            pool.keep(key, ours, TIMEOUT, now);
            peers.push(theirs);
        }
        pool.sweep(now + TIMEOUT / 2);
        assert_eq!(count(&pool), 7);
        pool.sweep(now + TIMEOUT);
        assert_eq!(count(&pool), 0);
        let (ours, _theirs) = connection().await;
        pool.keep(1, ours, TIMEOUT, now);
        assert!(pool.take(&1, now + TIMEOUT * 9 / 10).is_some(), "as long as the pool keeps connections");
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
