//! Tests of the client for providers, with sockets on the loopback network.

use std::net::{IpAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::guard::{AddressClass, Entry};

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A server on the loopback network, and a client for which each name has the given addresses.
struct World {
    listener: TcpListener,
    port: u16,
}

impl World {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, port }
    }

    /// Connects to a host whose name resolves to `addresses`. The guard allows this host, and also allows the networks
    /// in `listed` although they are not public. `own` is the address of a listener of Callgate.
    async fn connect(
        &self,
        addresses: &[&str],
        listed: &[&str],
        own: Option<&str>,
    ) -> Result<IpAddr, SendError> {
        let providers = Self::providers(addresses, own.map(|own| address(own, self.port)));
        self.connect_with(&providers, listed).await
    }

    /// Returns a client for which each name has these addresses.
    fn providers(addresses: &[&str], own: Option<SocketAddr>) -> Providers {
        Providers {
            resolver: Resolver::Fixed(addresses.iter().map(|text| text.parse().unwrap()).collect()),
            ..Providers::new(Some("tests/corpora/tls/tls.crt"))
                .unwrap()
                .with_own_addresses(OwnAddresses::new(own.into_iter().collect()))
        }
    }

    async fn connect_with(&self, providers: &Providers, listed: &[&str]) -> Result<IpAddr, SendError> {
        let entries = listed.iter().chain(&["http://service.example"]);
        let guard = Guard::new(entries.map(|entry| Entry::parse(entry).unwrap()).collect());
        let url = guard.admit(&format!("http://service.example:{}/x", self.port)).unwrap();
        let connected = providers.connect(&url, Some(Guarded { guard: &guard, agents: &[] })).await;
        connected.map(|(_, target)| target.address.ip())
    }

    fn was_dialled(&self) -> bool {
        self.listener.accept().is_ok()
    }
}

#[tokio::test]
async fn every_address_of_a_name_is_judged_before_the_first_is_dialled() {
    let world = World::new();
    let reached = world.connect(&["127.0.0.1"], &["127.0.0.0/8"], None).await.unwrap();
    assert!(world.was_dialled() && reached.is_loopback());
    for (addresses, listed, own) in [
        (&["127.0.0.1", "10.0.0.1"][..], &["127.0.0.0/8"][..], None),
        (&["10.0.0.1", "127.0.0.1"], &["127.0.0.0/8"], None),
        (
            &["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "10.0.0.1"],
            &["127.0.0.1"],
            None,
        ),
        (&["127.0.0.1", "::ffff:10.0.0.1"], &["127.0.0.0/8"], None),
        (&["127.0.0.1"], &[], None),
        (&["127.0.0.1", "169.254.169.254"], &["127.0.0.0/8"], None),
        (&["127.0.0.1", "10.0.0.1"], &["127.0.0.0/8", "10.0.0.0/8"], Some("10.0.0.1")),
    ] {
        let refused = world.connect(addresses, listed, own).await;
        let expected = |refused: &Refused| match own {
            Some(_) => *refused == Refused::Own,
            None => matches!(refused, Refused::Address(_)),
        };
        assert!(
            matches!(&refused, Err(SendError::Guarded(why)) if expected(why)),
            "{addresses:?} {refused:?}"
        );
        assert!(!world.was_dialled(), "{addresses:?}");
    }
    let private = world.connect(&["10.0.0.1"], &[], None).await;
    assert!(
        matches!(private, Err(SendError::Guarded(Refused::Address(AddressClass::Private)))),
        "{private:?}"
    );
}

#[tokio::test]
async fn the_next_address_of_a_name_is_tried_if_one_refuses_the_connection() {
    let world = World::new();
    let listed = &["127.0.0.0/8"];
    assert!(world.connect(&["127.0.0.3", "127.0.0.2", "127.0.0.1"], listed, None).await.is_ok());
    assert!(world.was_dialled());
    let none = world.connect(&["127.0.0.3", "127.0.0.2"], listed, None).await;
    assert!(matches!(none, Err(SendError::Unreachable(Unreachable::Connect(_)))), "{none:?}");
}

/// A listener that accepts no connection, because its queue is full. The kernel drops the packets of further
/// callers.
struct FullListener {
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl FullListener {
    async fn bind(address: SocketAddr) -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&address.into()).unwrap();
        listener.listen(0).unwrap();
        let mut queued = Vec::new();
        // A connection that takes longer than a second on the loopback network was not accepted.
        while let Ok(connected) = timeout(Duration::from_secs(1), TcpStream::connect(address)).await {
            queued.push(connected.unwrap());
            assert!(queued.len() < 100, "the queue has a bound");
        }
        Self { _listener: listener, _queued: queued }
    }
}

#[tokio::test]
async fn an_address_that_drops_packets_does_not_hinder_the_next_one() {
    let world = World::new();
    let listed = &["127.0.0.0/8"];
    let _full = FullListener::bind(address("127.0.0.2", world.port)).await;
    let providers = World::providers(&["127.0.0.2", "127.0.0.1"], None);
    let reached = timeout(Duration::from_secs(60), world.connect_with(&providers, listed)).await;
    assert_eq!(
        reached.expect("the kernel gives up after more than a minute").unwrap().to_string(),
        "127.0.0.1"
    );
    assert!(world.was_dialled());
    let remembered = providers.connected.lock().values().copied().collect::<Vec<_>>();
    assert_eq!(remembered, [address("127.0.0.1", world.port)]);
    assert!(world.connect_with(&providers, listed).await.is_ok() && world.was_dialled());
}

#[test]
fn few_hosts_are_remembered() {
    let providers = Providers::none();
    for i in 0..1000 {
        providers.remember(&format!("host-{i}"), address("127.0.0.1", 1));
        assert!(providers.connected.lock().len() <= HOSTS_MAX);
    }
}
