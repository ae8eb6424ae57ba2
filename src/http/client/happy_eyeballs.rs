//! Connects to one of the addresses of a host (Happy Eyeballs, RFC 8305). If an address does not respond, the next
//! address is tried after a short delay.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;

/// The time after which the next address is tried if the previous attempts have neither succeeded nor failed (RFC 8305
/// section 5, Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The maximum number of addresses that are tried for one host.
const ADDRESSES_MAX: usize = 8;

/// Returns at most [`ADDRESSES_MAX`] addresses, in the order in which they must be tried. `preferred` comes first if it
/// is one of the addresses. The other addresses alternate between IPv4 and IPv6 (RFC 8305 section 4), beginning with
/// the family of the first address, because the resolver has sorted the addresses by preference (RFC 6724). The
/// addresses of one family keep their order.
pub(crate) fn attempt_order(addresses: &[SocketAddr], preferred: Option<SocketAddr>) -> Vec<SocketAddr> {
    let is_preferred = |address: &&SocketAddr| preferred == Some(**address);
    let others = || addresses.iter().filter(|address| !is_preferred(address));
    let begins_with_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let mut first = others().filter(|address| address.is_ipv6() == begins_with_ipv6);
    let mut second = others().filter(|address| address.is_ipv6() != begins_with_ipv6);
    let mut order: Vec<_> = addresses.iter().find(is_preferred).into_iter().copied().collect();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            order.truncate(ADDRESSES_MAX);
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

/// Calls `dial` for each address, in the given order, until an attempt succeeds. Returns the successful address and its
/// connection. The next attempt begins when an attempt fails, or after [`ATTEMPT_DELAY`]. After a success, all other
/// attempts are dropped.
///
/// # Errors
/// Returns the error of the attempt that failed last, if all attempts failed.
pub(crate) async fn connect_first<T, F>(
    addresses: &[SocketAddr],
    mut dial: impl FnMut(SocketAddr) -> F,
) -> io::Result<(SocketAddr, T)>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.iter().copied();
    let mut attempts: Attempts<F> = Vec::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        match waiting.next() {
            Some(address) => attempts.push((address, Box::pin(dial(address)))),
            None if attempts.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            biased;
            ended = first_ended(&mut attempts) => match ended {
                Ok(connected) => return Ok(connected),
                Err(error) => failure = error,
            },
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
}

/// The connection attempts that are still running, each with its address.
type Attempts<F> = Vec<(SocketAddr, Pin<Box<F>>)>;

/// Waits until one of the attempts succeeds or fails. Removes this attempt from the list and returns its result.
async fn first_ended<T, F>(attempts: &mut Attempts<F>) -> io::Result<(SocketAddr, T)>
where
    F: Future<Output = io::Result<T>>,
{
    poll_fn(|context| {
        let mut ended = None;
        for (index, (address, attempt)) in attempts.iter_mut().enumerate() {
            if let Poll::Ready(result) = attempt.as_mut().poll(context) {
                ended = Some((index, result.map(|connection| (*address, connection))));
                break;
            }
        }
        match ended {
            None => Poll::Pending,
            Some((index, result)) => {
                drop(attempts.swap_remove(index));
                Poll::Ready(result)
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate_and_the_last_winner_is_first() {
        let all = addresses(&["1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1", "[2::1]:1", "[2::2]:1"]);
        let expected = ["1.0.0.1:1", "[2::1]:1", "1.0.0.2:1", "[2::2]:1", "1.0.0.3:1"];
        assert_eq!(attempt_order(&all, None), addresses(&expected));
        let expected = ["1.0.0.2:1", "1.0.0.1:1", "[2::1]:1", "1.0.0.3:1", "[2::2]:1"];
        assert_eq!(attempt_order(&all, Some(all[1])), addresses(&expected));
        let other = "9.9.9.9:1".parse().unwrap();
        assert_eq!(attempt_order(&all, Some(other)), attempt_order(&all, None), "only addresses of the name");
        let many: Vec<_> = (1..=20).map(|i| format!("1.0.0.{i}:1").parse().unwrap()).collect();
        assert_eq!(attempt_order(&many, None).len(), ADDRESSES_MAX);
        assert_eq!(attempt_order(&[], None), []);
    }

    /// Simulates a connection attempt: port 1 does not respond, port 2 fails, port 3 succeeds.
    async fn dial(address: SocketAddr) -> io::Result<u16> {
        match address.port() {
            1 => pending().await,
            2 => Err(io::ErrorKind::ConnectionRefused.into()),
            port => Ok(port),
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_does_not_hinder_the_others() {
        for ports in [&[3][..], &[1, 3], &[2, 3], &[1, 1, 3], &[1, 2, 3], &[2, 1, 3], &[2, 2, 2, 1, 2, 3, 1]]
        {
            let all: Vec<SocketAddr> = ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
            let tried = RefCell::new(Vec::new());
            let connected = connect_first(&all, |address| {
                tried.borrow_mut().push(address.port());
                dial(address)
            });
            let (address, port) = connected.await.unwrap();
            assert_eq!((address.port(), port), (3, 3), "{ports:?}");
            let end = ports.iter().position(|port| *port == 3).unwrap() + 1;
            assert_eq!(*tried.borrow(), ports[..end], "no address is tried once one has succeeded");
        }
    }

    #[tokio::test]
    async fn if_all_addresses_fail_the_result_is_an_error() {
        let all = addresses(&["127.0.0.1:2", "127.0.0.2:2"]);
        let failed = connect_first(&all, dial).await;
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert!(connect_first(&[], dial).await.is_err());
    }
}
