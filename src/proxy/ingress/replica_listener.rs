//! The replica listener: accepts requests of other replicas, verifies their proofs, and serves forwarded callbacks and
//! the replica API.

use std::sync::Arc;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

use super::context::IngressContext;
use super::exchange::{self, Origin};
use crate::clock::instant;
use crate::denial::Denial;
use crate::http::{
    BodyMemory, CLOSE_TIMEOUT, NextRequest, RequestLoop, Session, deny, request_body, response, with_timeout,
};
use crate::policy::Limits;
use crate::proxy::listen::{ConnInfo, LogThrottle};
use crate::proxy::replicas::{API, API_BODY_BYTES_MAX, CallbacksApi, IDLE_TIMEOUT, Replication};
use crate::proxy::runtime::boxed_future;
use crate::replica::{
    HEADER_BYTES_MAX, Outcome, Proof, ProofError, REPLICA, Replicas, ResponseProof, SeenNonce,
};

/// The maximum number of headers that a replica adds to a forwarded callback: `Host`, `Content-Length` and the proof.
const ADDED_HEADERS_MAX: usize = 3;
/// The maximum size of the headers that a replica adds to a forwarded callback, in bytes.
const ADDED_BYTES_MAX: usize = HEADER_BYTES_MAX + 1024;

/// The maximum memory for all bodies of requests to the replica API, in bytes.
const API_BODIES_BYTES_MAX: u64 = 8 * API_BODY_BYTES_MAX;

/// The listener for requests of other replicas.
pub(crate) struct ReplicaListener {
    ingress: Arc<IngressContext>,
    pub(crate) replication: Arc<Replication>,
    /// Responds to requests of other replicas about interactions.
    callbacks: CallbacksApi,
    /// The memory for the bodies of requests to the replica API. Callbacks cannot use up this memory.
    body_memory: BodyMemory,
    log_throttle: LogThrottle,
}

impl ReplicaListener {
    pub(crate) fn new(
        ingress: &Arc<IngressContext>,
        replication: Arc<Replication>,
        callbacks: CallbacksApi,
    ) -> Self {
        let (ingress, body_memory) = (Arc::clone(ingress), BodyMemory::default());
        Self { ingress, replication, callbacks, body_memory, log_throttle: LogThrottle::default() }
    }

    /// Serves a connection of another replica until the connection is closed.
    pub(crate) async fn serve(self: Arc<Self>, stream: Stream, conn: ConnInfo, stopping: ShutdownWatch) {
        let mut requests = RequestLoop::over(stream, stopping);
        loop {
            match requests.next(|| self.limits()).await {
                Some(NextRequest::Request(session)) => {
                    conn.request_began();
                    if !conn.is_still_allowed(&self.ingress.clocks.wall) {
                        return;
                    }
                    match boxed_future(|| self.exchange(session, &conn)).await {
                        Some((stream, leftover)) => requests.take_back(stream, leftover),
                        None => return,
                    }
                }
                Some(NextRequest::HeadError(stream, error)) => {
                    let denial = error.denial;
                    let denied = deny::deny_head(stream, denial, error.is_head_request, "", false);
                    with_timeout(CLOSE_TIMEOUT, denied).await;
                    return;
                }
                None => return,
            }
        }
    }

    /// Returns the limits for requests of other replicas. A forwarded callback has more headers than the provider sent,
    /// so the limits of the head are higher. Another replica retains an idle connection for [`IDLE_TIMEOUT`], so the
    /// idle timeout of this listener is longer.
    fn limits(&self) -> Limits {
        let limits = self.ingress.policy.load().limits;
        Limits {
            head_bytes_max: limits.head_bytes_max.saturating_add(ADDED_BYTES_MAX),
            headers_max: limits.headers_max.saturating_add(ADDED_HEADERS_MAX),
            idle_timeout: limits.idle_timeout.max(2 * IDLE_TIMEOUT),
            ..limits
        }
    }

    /// Serves one request of another replica. If another request may follow, returns the connection and the bytes that
    /// were read after the request.
    async fn exchange(&self, mut session: Session, conn: &ConnInfo) -> Option<(Stream, BytesMut)> {
        let replicas = self.replication.settings()?;
        let proof = match Self::verify(&replicas, &session) {
            Ok(proof) => proof,
            Err(error) => return self.deny_proof(session, conn, error).await,
        };
        let own = self.replication.own().incarnation;
        let answered = ResponseProof::new(replicas.prover.clone(), own, proof.nonce);
        let is_mistaken = proof.to.is_some_and(|to| to != own);
        if let Err(error) = proof.check_time(self.replication.wall_clock()) {
            // The request is denied, because the clocks differ too much. The outcome `Clock` shows the other replica
            // that this process is alive.
            session.prove(answered.with_outcome(Outcome::Clock));
            return self.deny_proof(session, conn, error).await;
        }
        session.prove(if is_mistaken { answered.with_outcome(Outcome::Mistaken) } else { answered });
        if is_mistaken {
            return self.deny(session, Denial::ReplicaMistaken).await;
        }
        match self.replication.accept_nonce(proof.nonce) {
            SeenNonce::New => {}
            SeenNonce::Repeated => {
                let why = format!("the proof of {} was used before", self.replication.name_of(proof.from));
                self.refused_proof(conn, "repeated", &why);
                return self.deny(session, Denial::ReplicaProof).await;
            }
            SeenNonce::Full => return self.deny(session, Denial::Overloaded).await,
        }
        match &proof.client {
            None => self.serve_api(session, conn, &proof).await,
            Some(_) if self.replication.is_leaving() => {
                session.set_outcome(Outcome::Stopping);
                self.deny(session, Denial::OwnerUnreachable).await
            }
            Some(client) => exchange::serve(&self.ingress, session, Origin::Member(&proof, client)).await,
        }
    }

    async fn deny_proof(
        &self,
        session: Session,
        conn: &ConnInfo,
        error: ProofError,
    ) -> Option<(Stream, BytesMut)> {
        self.refused_proof(conn, throttle_key(error), &error.to_string());
        self.deny(session, Denial::ReplicaProof).await
    }

    /// Verifies the proof of a request from another replica. Does not check the time and the nonce of the proof, or the
    /// body of the request.
    ///
    /// # Errors
    /// Returns a [`ProofError`] if the proof is missing, not well-formed or not valid for the request.
    fn verify(replicas: &Replicas, session: &Session) -> Result<Proof, ProofError> {
        let mut headers = session.headers().get_all(&REPLICA).iter();
        let (Some(header), None) = (headers.next(), headers.next()) else {
            return Err(ProofError::Malformed);
        };
        let header = header.to_str().map_err(|_| ProofError::Malformed)?;
        replicas.prover.verify(header, session.method().as_str(), session.target())
    }

    /// Counts and logs a request whose proof is not valid. Each cause is logged at most once a minute, so that a
    /// frequent cause does not hide another one.
    fn refused_proof(&self, conn: &ConnInfo, cause: &'static str, why: &str) {
        self.replication.metrics.replica_denied();
        if self.log_throttle.should_log(cause, instant()) {
            log::warn!(
                "denied a request of {} to the replica listener: {why}; further denials for this reason are not logged for a minute",
                conn.peer
            );
        }
    }

    async fn serve_api(
        &self,
        mut session: Session,
        conn: &ConnInfo,
        proof: &Proof,
    ) -> Option<(Stream, BytesMut)> {
        let limits = self.limits();
        let mut reservation = self.body_memory.reserve(API_BODIES_BYTES_MAX);
        let body_limits = request_body::BodyLimits {
            bytes_max: API_BODY_BYTES_MAX,
            deadline: limits.body_deadline,
            limits: &limits,
            reservation: &mut reservation,
        };
        let body = match request_body::read(&mut session, None, body_limits).await {
            Ok(body) => body,
            Err(denial) => return self.deny(session, denial).await,
        };
        if let Err(error) = proof.check_body(&body) {
            self.refused_proof(conn, throttle_key(error), &error.to_string());
            return self.deny(session, Denial::ReplicaProof).await;
        }
        let (path, query) = session.target().split_once('?').unwrap_or((session.target(), ""));
        let Some(path) = path.strip_prefix(API) else {
            return self.deny(session, Denial::RouteUnknown).await;
        };
        let (method, path, query) = (session.method().clone(), path.to_owned(), query.to_owned());
        let answer = self.replication.answer(proof.from, &self.callbacks, (method, path, query), &body).await;
        let was_written = response::member_answer(&mut session, answer.status, answer.body).await;
        session.end(was_written).await
    }

    async fn deny(&self, mut session: Session, denial: Denial) -> Option<(Stream, BytesMut)> {
        let denied = deny::deny(&mut session, denial, None, &[], "", true).await;
        session.end(denied.reusable).await
    }
}

/// Returns the key for the log throttle for this cause.
const fn throttle_key(error: ProofError) -> &'static str {
    match error {
        ProofError::Malformed => "malformed",
        ProofError::Mac => "mac",
        ProofError::Time => "time",
        ProofError::Body => "body",
    }
}
