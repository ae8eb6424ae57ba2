//! Tests of the HTTP client for providers, with sockets on the loopback network.

use std::net::{IpAddr, TcpListener};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::guard::{AddressClass, Entry};
use crate::outbound::Exemption;

fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A test server on the loopback network, with clients that resolve every host name to addresses of a test's choice.
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

    /// Connects to `service.example`, which resolves to `addresses`. The guard allows this host and the non-public
    /// networks in `listed`. `own` is the IP address of a listener of Callgate.
    async fn connect(
        &self,
        addresses: &[&str],
        listed: &[&str],
        own: Option<&str>,
    ) -> Result<IpAddr, SendError> {
        let providers = Self::providers(addresses, own.map(|own| address(own, self.port)));
        self.connect_with(&providers, listed).await
    }

    /// Returns a client for which every host name resolves to these addresses.
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
        let guarded = Guarded { guard: &guard, agents: &[] };
        let connected = providers.connect(&url, Some(guarded), &Progress::default()).await;
        connected.map(|(_, target)| match target.way {
            Way::Direct(address) => address.ip(),
            Way::Tunnel(to) => panic!("a tunnel to {to}"),
        })
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

/// A listener that accepts no further connection, because its accept queue is full. The kernel drops the packets of
/// further callers.
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
        // A connection on the loopback network that takes longer than a second was not accepted, so the queue is full.
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

/// Starts an outbound proxy that confirms every tunnel without opening one. Returns its settings and the requested
/// targets.
async fn proxy() -> (OutboundProxy, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let targets = Arc::<Mutex<Vec<String>>>::default();
    let recorded = Arc::clone(&targets);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 1000];
            let length = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8(head[..length].to_vec()).unwrap();
            recorded.lock().push(head.split(' ').nth(1).unwrap().to_owned());
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            open.push(stream);
        }
    });
    let no_proxy = vec![Exemption::parse("127.0.0.0/8").unwrap(), Exemption::parse("10.9.0.0/16").unwrap()];
    (OutboundProxy::new(url, no_proxy, None), targets)
}

#[tokio::test]
async fn with_a_guard_the_proxy_receives_an_address_that_was_judged_and_never_the_name() {
    let (proxy, targets) = proxy().await;
    let guard = |listed: &[&str]| {
        let entries = listed.iter().chain(&["http://service.example"]);
        Guard::new(entries.map(|entry| Entry::parse(entry).unwrap()).collect())
    };
    let connect = async |addresses: &[&str], listed: &[&str], own: Option<SocketAddr>| {
        // The URL of the proxy contains an IP address, so `Resolver::Fixed` affects only the provider.
        let providers = World::providers(addresses, own).with_proxy(Some(proxy.clone()));
        let guard = guard(listed);
        let url = guard.admit("http://service.example:8080/x").unwrap();
        let guarded = Guarded { guard: &guard, agents: &[] };
        let connected = providers.connect(&url, Some(guarded), &Progress::default()).await;
        connected.map(|(_, target)| target.way)
    };
    let tunnel = |to: &str| Way::Tunnel(to.into());
    assert_eq!(connect(&["93.184.216.34"], &[], None).await.unwrap(), tunnel("93.184.216.34:8080"));
    assert_eq!(connect(&["2606:2800::1"], &[], None).await.unwrap(), tunnel("[2606:2800::1]:8080"));
    assert_eq!(connect(&["10.0.0.1"], &["10.0.0.0/8"], None).await.unwrap(), tunnel("10.0.0.1:8080"));
    assert_eq!(*targets.lock(), ["93.184.216.34:8080", "[2606:2800::1]:8080", "10.0.0.1:8080"]);
    // Addresses that the guard denies, and addresses of Callgate's listeners, are not passed to the proxy.
    for (addresses, listed, own) in [
        (&["10.0.0.1"][..], &[][..], None),
        (&["93.184.216.34", "10.0.0.1"], &[], None),
        (&["169.254.169.254"], &["10.0.0.0/8"], None),
        (&["127.0.0.1"], &[], None),
        (&["10.0.0.1"], &["10.0.0.0/8"], Some("10.0.0.1")),
    ] {
        let denied = connect(addresses, listed, own.map(|own| address(own, 8080))).await;
        assert!(matches!(denied, Err(SendError::Guarded(_))), "{addresses:?} {denied:?}");
    }
    assert_eq!(targets.lock().len(), 3);
    // A connection to this host, or to a network in `no_proxy`, does not use the proxy.
    let world = World::new();
    let providers = World::providers(&["127.0.0.1"], None).with_proxy(Some(proxy.clone()));
    assert!(world.connect_with(&providers, &["127.0.0.0/8"]).await.unwrap().is_loopback());
    assert!(world.was_dialled());
    let url = Url::parse("http://service.example:1/").unwrap();
    let way = |ip: &str| Way::to_address(Some(&proxy), &url, address(ip, 1));
    assert_eq!(way("10.9.1.1"), Way::Direct(address("10.9.1.1", 1)));
    assert_eq!(way("10.8.1.1"), tunnel("10.8.1.1:1"));
    assert_eq!(targets.lock().len(), 3);
}

#[test]
fn a_client_is_replaced_if_the_proxy_changes() {
    let with = |url: Option<&str>| {
        let proxy = url.map(|url| OutboundProxy::new(Url::parse(url).unwrap(), Vec::new(), None));
        Providers::none().with_proxy(proxy)
    };
    let one = with(Some("http://a.example:1"));
    assert!(one.has_same_settings(&with(Some("http://a.example:1"))));
    assert!(!one.has_same_settings(&with(Some("http://a.example:2"))));
    assert!(!one.has_same_settings(&with(None)) && !with(None).has_same_settings(&one));
}

/// The host name first resolves to 127.0.0.1, and then to the metadata service (DNS rebinding). The first tunnel must
/// lead to 127.0.0.1, and the second tunnel must be denied.
#[tokio::test]
async fn a_tunnel_leads_to_the_address_that_was_judged() {
    let world = World::new();
    let first = vec!["127.0.0.1".parse().unwrap()];
    let resolver = Resolver::OnceThenMetadata(Arc::new(Mutex::new(first)));
    let providers = Providers { resolver, ..World::providers(&[], None) };
    let guard = Guard::public_and(vec!["127.0.0.0/8".parse().unwrap()]);
    let guarded = Guarded { guard: &guard, agents: &[] };
    let url = Url::parse(&format!("https://rebinding.example:{}", world.port)).unwrap();
    let open = || providers.open_tunnel(&url, guarded, Duration::from_secs(60));
    let stream = open().await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address("127.0.0.1", world.port), "resolved once");
    let refused = open().await;
    assert!(
        matches!(refused, Err(SendError::Guarded(Refused::Address(AddressClass::Metadata)))),
        "{refused:?}"
    );
}
