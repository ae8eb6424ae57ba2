//! Sends requests to other replicas over pooled connections. On a new connection, the process at the address must
//! identify itself first, so that no callback is sent to a wrong process.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use parking_lot::Mutex;

use super::liveness::About;
use crate::agent::{Agent, AgentAddress, AgentTls};
use crate::clock::instant;
use crate::http::client::{Connection, Message, ResponseFault, UpstreamResponse, exchange};
use crate::proxy::agent_client::AgentClient;
use crate::replica::{Incarnation, Outcome, Owner, Proof, REPLICA, Replicas, Vouched};
use crate::request::write_line;
use crate::time::Timestamp;

/// The timeout for opening a connection to another replica, including the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an idle connection to another replica is retained. The timeout of the replica listener is longer.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The maximum size of the description that a replica sends about itself, in bytes.
const ABOUT_BYTES_MAX: usize = 256 << 10;
/// The maximum number of replicas to which idle connections are retained.
const CLIENTS_MAX: usize = 512;

/// The path prefix of the API of the replica listener.
pub(crate) const API: &str = "/replica";

/// Provides the identity and the description that this process sends to other replicas.
pub(super) trait Identity: Sync {
    fn now(&self) -> Timestamp;
    fn incarnation(&self) -> Incarnation;
    fn about(&self) -> About;
}

/// A request to another replica.
pub(crate) struct Sending<'s> {
    pub(crate) method: &'s str,
    pub(crate) target: &'s str,
    /// The client that sent the callback. `None` for requests to the replica API.
    pub(crate) client: Option<Vouched>,
    pub(crate) body: Bytes,
    /// Writes the head of a forwarded callback with a proof. `None` for requests to the replica API.
    pub(crate) write_head: Option<&'s WriteHead<'s>>,
}

/// A function that returns the head of a forwarded callback. The argument is the proof, which the head contains in a
/// header.
pub(crate) type WriteHead<'w> = dyn Fn(&str) -> Vec<u8> + Send + Sync + 'w;

impl<'s> Sending<'s> {
    /// Creates a request to the replica API.
    pub(super) fn api(method: &'s Method, target: &'s str, body: Bytes) -> Self {
        Self { method: method.as_str(), target, client: None, body, write_head: None }
    }

    fn head(&self, address: &str, proof: &str) -> Vec<u8> {
        match self.write_head {
            Some(write_head) => write_head(proof),
            None => self.api_head(address, proof),
        }
    }

    pub(super) fn api_head(&self, address: &str, proof: &str) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        write_line(&mut out, "host", address.as_bytes());
        write_line(&mut out, REPLICA.as_str(), proof.as_bytes());
        write_line(&mut out, "content-length", self.body.len().to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// The response of another replica, and the client to whose pool the connection can be returned.
pub(crate) struct MemberResponse {
    pub(crate) response: UpstreamResponse,
    pub(crate) outcome: Outcome,
    client: Arc<AgentClient>,
}

impl MemberResponse {
    /// Puts a connection back into the client's pool of idle connections. The caller must have read the response on the
    /// connection completely.
    pub(crate) fn keep(client: &AgentClient, connection: Connection) {
        client.keep(IDLE_TIMEOUT, connection, instant());
    }

    /// Returns the client to whose pool the connection can be returned.
    pub(crate) fn client(&self) -> Arc<AgentClient> {
        Arc::clone(&self.client)
    }

    /// Reads and returns the whole response body, and puts the connection back into the pool. Returns `None` if the
    /// body is incomplete or has more than `bytes_max` bytes.
    pub(super) async fn read_all(&mut self, bytes_max: usize) -> Option<Vec<u8>> {
        let body = read_all(&mut self.response, bytes_max).await?;
        self.response.take_connection().into_iter().for_each(|one| Self::keep(&self.client, one));
        Some(body)
    }
}

/// The reason why a request to another replica has no valid response.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The request was not sent. The replica responded with this status when it was asked to identify itself.
    Busy(StatusCode),
    /// The request was not sent, because the clock of the replica differs too much from this host's clock.
    Clock,
    /// The request was not sent, for example because no connection was opened. Contains an explanation.
    NotSent(String),
    /// The request was not sent, because another program uses the address of the replica.
    Stranger,
    /// The request was not sent, because another replica has the address. Contains the description of the other
    /// replica.
    Mistaken(About),
    /// The replica may have received the request, but no valid response arrived.
    Unknown(ResponseFault),
}

impl SendError {
    /// Reports whether the error suggests that the replica is not running.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::NotSent(_) | Self::Stranger)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(status) => write!(f, "it answers with status {status}"),
            Self::Clock => f.write_str("the clocks of both members differ by more than 30 s"),
            Self::NotSent(error) => f.write_str(error),
            Self::Stranger => f.write_str(
                "the process at this address does not prove that it is a member; are `replicas.secrets` the same everywhere?",
            ),
            Self::Mistaken(about) => write!(f, "another member has the address: {}", about.incarnation),
            Self::Unknown(fault) => write!(f, "{fault:?} after the request was sent"),
        }
    }
}

/// The pooled connections to other replicas.
#[derive(Default)]
pub(super) struct MemberClient {
    clients: Mutex<Clients>,
}

/// The clients for other replicas, by replica id and address.
type Clients = HashMap<(Incarnation, Box<str>), Arc<AgentClient>>;

impl MemberClient {
    /// Sends a request to another replica and reads the head of the response.
    ///
    /// # Errors
    /// Returns a [`SendError`] if the intended replica did not respond.
    pub(super) async fn send(
        &self,
        me: &impl Identity,
        replicas: &Replicas,
        to: &Owner,
        message: &Sending<'_>,
        timeout: Duration,
    ) -> Result<MemberResponse, SendError> {
        let client = self.client(replicas, to).map_err(SendError::NotSent)?;
        let connection = match client.pooled(instant()) {
            Some(connection) => connection,
            None => {
                let (connection, about) = open(me, replicas, &client).await?;
                if about.incarnation != to.incarnation.to_string() {
                    return Err(SendError::Mistaken(about));
                }
                connection
            }
        };
        let no_random = || SendError::NotSent("the system provides no random numbers".to_owned());
        let own = me.incarnation();
        let client_of = message.client.clone();
        let proof = Proof::new(me.now(), own, Some(to.incarnation), client_of, &message.body);
        let proof = proof.ok_or_else(no_random)?;
        let text = replicas.prover.prove(&proof, message.method, message.target).ok_or_else(no_random)?;
        let head = message.head(&to.address, &text);
        let request = Message::new(head, message.body.clone(), message.method != Method::HEAD.as_str());
        let response = exchange(connection, request, timeout).await.map_err(SendError::Unknown)?;
        let outcome = outcome(replicas, &response, proof.nonce, to.incarnation);
        let outcome = outcome.ok_or(SendError::Unknown(ResponseFault::Garbled))?;
        Ok(MemberResponse { response, outcome, client })
    }

    /// Asks the process at an address to identify itself. Returns the description that the process sends.
    ///
    /// # Errors
    /// Returns a [`SendError`] if no replica responds at the address.
    pub(super) async fn introduce(
        &self,
        me: &impl Identity,
        replicas: &Replicas,
        address: &str,
    ) -> Result<About, SendError> {
        let client = client(replicas, address).map_err(SendError::NotSent)?;
        let (connection, about) = open(me, replicas, &client).await?;
        // The connection is retained for callbacks to this replica.
        if let Some(incarnation) = Incarnation::parse(&about.incarnation)
            && let Ok(client) = self.client(replicas, &Owner { incarnation, address: address.into() })
        {
            MemberResponse::keep(&client, connection);
        }
        Ok(about)
    }

    /// Returns the client for a replica. Creates a new client if the TLS settings have changed.
    fn client(&self, replicas: &Replicas, to: &Owner) -> Result<Arc<AgentClient>, String> {
        let digest = |tls: Option<&AgentTls>| tls.map(|tls| tls.digest);
        let mut clients = self.clients.lock();
        let key = (to.incarnation, to.address.clone());
        let wanted = agent(replicas, &to.address);
        if let Some(client) = clients.get(&key)
            && digest(client.agent().tls.as_ref()) == digest(wanted.tls.as_ref())
        {
            return Ok(Arc::clone(client));
        }
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        let client = client(replicas, &to.address)?;
        clients.insert(key, Arc::clone(&client));
        Ok(client)
    }

    pub(super) fn sweep(&self, now: Instant) {
        self.clients.lock().values().for_each(|client| client.sweep(now));
    }
}

fn client(replicas: &Replicas, address: &str) -> Result<Arc<AgentClient>, String> {
    AgentClient::new(Arc::new(agent(replicas, address)), Arc::default()).map(Arc::new)
}

/// Returns an [`Agent`] with the address and the TLS settings of another replica. The HTTP client for that replica uses
/// this value.
fn agent(replicas: &Replicas, address: &str) -> Agent {
    let address = AgentAddress::Tcp(address.into());
    let tls = replicas.tls.clone().map(|tls| match address.host() {
        Some(host) if tls.name.is_empty() => AgentTls::new(tls.authorities, tls.certificate, host.into()),
        _ => tls,
    });
    Agent {
        name: "member".into(),
        address,
        tls,
        connect_timeout: CONNECT_TIMEOUT,
        response_timeout: replicas.timeout,
        idle_timeout: IDLE_TIMEOUT,
        forwarded_headers: false,
        wake: None,
    }
}

/// Opens a connection to an address. Requires that the process at the address identifies itself as a replica.
async fn open(
    me: &impl Identity,
    replicas: &Replicas,
    client: &AgentClient,
) -> Result<(Connection, About), SendError> {
    let not_sent = |error: &str| SendError::NotSent(error.to_owned());
    let connection = client.open(client.agent()).await.map_err(|(_, error)| SendError::NotSent(error))?;
    // The request contains a description of this process, so that the other replica also finds this process if
    // `discover` does not list this process yet.
    let own = serde_json::to_vec(&me.about()).map_err(|error| not_sent(&error.to_string()))?;
    let message = Sending::api(&Method::POST, API, own.into());
    let proof = Proof::new(me.now(), me.incarnation(), None, None, &message.body);
    let proof = proof.ok_or_else(|| not_sent("the system provides no random numbers"))?;
    let text = replicas.prover.prove(&proof, message.method, API);
    let text = text.ok_or_else(|| not_sent("no secret can sign"))?;
    let head = message.api_head(client.agent().authority(), &text);
    let answered =
        exchange(connection, Message::new(head, message.body.clone(), true), CONNECT_TIMEOUT).await;
    let mut response =
        answered.map_err(|fault| not_sent(&format!("it does not say who it is ({fault:?})")))?;
    let header = response.headers().get(&REPLICA).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let proven = replicas.prover.verify_response(header, response.status().as_u16(), proof.nonce);
    let (outcome, incarnation) = proven.ok_or(SendError::Stranger)?;
    if outcome == Outcome::Clock {
        return Err(SendError::Clock);
    }
    if response.status() != StatusCode::OK {
        return Err(SendError::Busy(response.status()));
    }
    let body = read_all(&mut response, ABOUT_BYTES_MAX).await;
    let body = body.ok_or_else(|| not_sent("its answer is incomplete"))?;
    let about: About = serde_json::from_slice(&body).map_err(|_| not_sent("its answer is malformed"))?;
    let connection = response.take_connection().ok_or_else(|| not_sent("it closed the connection"))?;
    // The proof of the response covers the replica id in the header, but not the body. Therefore the replica id in the
    // body is compared with the id in the header.
    match about.incarnation == incarnation.to_string() {
        true => Ok((connection, about)),
        false => Err(SendError::Stranger),
    }
}

/// Returns the outcome in the proof of a replica's response. Returns `None` if the proof is not valid, or if another
/// replica than `to` sent the response. [`Outcome::Clock`] and [`Outcome::Mistaken`] are accepted from every replica.
fn outcome(
    replicas: &Replicas,
    response: &UpstreamResponse,
    nonce: u128,
    to: Incarnation,
) -> Option<Outcome> {
    let header = response.headers().get(&REPLICA)?.to_str().ok()?;
    let (outcome, from) = replicas.prover.verify_response(header, response.status().as_u16(), nonce)?;
    (from == to || matches!(outcome, Outcome::Clock | Outcome::Mistaken)).then_some(outcome)
}

async fn read_all(response: &mut UpstreamResponse, bytes_max: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(data) = response.read_body().await.ok()? {
        body.extend_from_slice(&data);
        if body.len() > bytes_max {
            return None;
        }
    }
    Some(body)
}
