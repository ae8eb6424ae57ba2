//! The API of the replica listener: the description of this process, interactions that another replica moves to this
//! ledger, and requests of other replicas about interactions.

use bytes::Bytes;
use http::Method;

use super::liveness::About;
use super::member_client::{API, Identity};
use super::replication::{CallbacksApi, MemberAnswer, MemberRequest, Replication};
use crate::replica::{Incarnation, Owner};
use crate::store::HandedRecords;

/// The maximum size in bytes of the body of a request to the replica API. The largest body is a batch of interactions.
pub(crate) const API_BODY_BYTES_MAX: u64 = 2 << 20;
/// The path, after `/replica`, of requests that move interactions from another replica to this ledger.
pub(super) const LEDGER: &str = "/ledger";

/// The path, after `/replica`, of requests to apply expired deadlines. The body lists the ids of interactions that the
/// receiving process owns.
const DUE: &str = "/due";

impl Replication {
    /// Asks the owner of interactions to apply the expired deadlines of these interactions. Returns whether the owner
    /// accepted the request.
    pub(crate) async fn pass_on_deadlines(&self, to: &Owner, ids: &[Box<str>]) -> bool {
        let Ok(body) = serde_json::to_vec(ids) else { return false };
        let target = format!("{API}{DUE}");
        let answer = self.ask_member(to, (&Method::POST, &target), Bytes::from(body)).await;
        answer.is_ok_and(|answer| answer.status == 204)
    }

    /// Responds to a request to the replica API. The caller must have verified the proof of the request.
    pub(crate) async fn answer(
        &self,
        from: Incarnation,
        callbacks: &CallbacksApi,
        (method, path, query): (Method, String, String),
        body: &Bytes,
    ) -> MemberAnswer {
        match (method.as_str(), path.as_str()) {
            ("GET", "") => json(200, serde_json::to_vec(&self.about())),
            ("POST", "") => {
                // The proof contains the id of the sending replica. A description of any other replica is ignored.
                if let Ok(about) = serde_json::from_slice::<About>(body)
                    && about.incarnation == from.to_string()
                {
                    self.learned(about);
                }
                json(200, serde_json::to_vec(&self.about()))
            }
            ("POST", LEDGER) => self.take_over(from, body).await,
            ("POST", DUE) => match serde_json::from_slice::<Vec<Box<str>>>(body) {
                Ok(ids) => {
                    self.store().apply_here(ids.into_iter());
                    MemberAnswer { status: 204, body: Vec::new() }
                }
                Err(_) => MemberAnswer { status: 400, body: Vec::new() },
            },
            (_, rest) if rest == "/callbacks" || rest.starts_with("/callbacks/") => {
                callbacks(MemberRequest { method: method.to_string(), path, query }).await
            }
            _ => MemberAnswer { status: 404, body: Vec::new() },
        }
    }

    /// Stores interactions that another replica moves to this ledger. The response lists the ids of the stored
    /// interactions.
    async fn take_over(&self, from: Incarnation, body: &Bytes) -> MemberAnswer {
        if self.is_leaving() {
            return MemberAnswer { status: 503, body: Vec::new() };
        }
        let Ok(records) = serde_json::from_slice::<HandedRecords>(body) else {
            return MemberAnswer { status: 400, body: Vec::new() };
        };
        match self.store().take_over(records).await {
            Ok(taken) => {
                self.log_take_over(from);
                self.metrics.taken_over(taken.len());
                json(200, serde_json::to_vec(&taken))
            }
            Err(refusal) => {
                log::warn!(
                    "the interactions of {} were not taken over: {}",
                    self.name_of(from),
                    refusal.detail
                );
                MemberAnswer { status: refusal.denial.status(), body: Vec::new() }
            }
        }
    }
}

fn json(status: u16, body: serde_json::Result<Vec<u8>>) -> MemberAnswer {
    match body {
        Ok(body) => MemberAnswer { status, body },
        Err(_) => MemberAnswer { status: 500, body: Vec::new() },
    }
}
