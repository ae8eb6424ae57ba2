//! The callbacks API over all replicas: reads, lists and revokes the interactions of this process and of the other
//! replicas.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::api::refused;
use super::local::{ListQuery, encoded};
use crate::admin::responses::{answer, problem};
use crate::admin::server::AdminResponse;
use crate::admin::service::Admin;
use crate::denial::Refusal;
use crate::policy::Policy;
use crate::proxy::MemberAnswer;
use crate::store::{NO_ROUTE, Revoked};
use crate::time::Timestamp;

/// The responses of the other replicas to a request about interactions.
pub(super) struct Answers {
    /// The responses of the replicas that were reached.
    answered: Vec<MemberAnswer>,
    /// The addresses of the replicas that could not be reached but are not considered dead.
    unreachable: Vec<Box<str>>,
}

/// One page of the interactions of all replicas.
pub(in crate::admin) struct FoundAnywhere {
    pub(in crate::admin) interactions: Vec<Value>,
    /// The value of the query parameter with which a client requests the next page: an interaction id for `after`, or
    /// with `newest` a creation time for `before`. `None` if there are no more interactions.
    next: Option<String>,
    /// The addresses of the replicas that could not be reached but are not considered dead.
    unreachable: Vec<Box<str>>,
}

impl FoundAnywhere {
    /// Returns the page as JSON.
    pub(in crate::admin) fn into_json(self) -> Value {
        let mut page = json!({ "interactions": self.interactions, "next": self.next });
        if !self.unreachable.is_empty()
            && let Some(members) = page.as_object_mut()
        {
            members.insert("unreachable".to_owned(), json!(self.unreachable));
        }
        page
    }
}

impl Admin {
    /// Sends a request to all other replicas and returns their responses. `rest` is the part of the request target
    /// after `/replica/callbacks`. Sends nothing if the replicas share one ledger.
    async fn ask_members(&self, method: &Method, rest: &str) -> Answers {
        let mut answers = Answers { answered: Vec::new(), unreachable: Vec::new() };
        let Some(replication) = &self.interactions.replication else { return answers };
        if self.store.is_shared() {
            return answers;
        }
        answers.unreachable = replication.unknown_members().await;
        let target = format!("/replica/callbacks{rest}");
        let asked: Vec<_> = replication
            .others()
            .into_iter()
            .map(|owner| {
                let (replication, method, target) = (Arc::clone(replication), method.clone(), target.clone());
                tokio::spawn(async move {
                    let answer = replication.ask_member(&owner, (&method, &target), Bytes::new()).await;
                    (owner.address, answer)
                })
            })
            .collect();
        for one in asked {
            match one.await {
                Ok((_, Ok(answer))) if answer.status < 500 => answers.answered.push(answer),
                Ok((address, _)) => answers.unreachable.push(address),
                Err(_) => {}
            }
        }
        answers
    }

    /// Returns the interaction with this id from the ledger of this process, or otherwise from another replica.
    pub(in crate::admin) async fn read_anywhere(&self, id: &str) -> AdminResponse {
        let own = match self.interactions.read(id).await {
            Ok(own) => own,
            Err(refusal) => return refused(&refusal),
        };
        if let Some(view) = own.as_ref().filter(|view| !is_tombstone(view)) {
            return answer(200, view);
        }
        let answers = self.ask_members(&Method::GET, &format!("/{}", encoded(id))).await;
        let found = answers.answered.iter().filter(|answer| answer.status == 200);
        let found: Vec<Value> =
            found.filter_map(|answer| serde_json::from_slice(&answer.body).ok()).chain(own).collect();
        match found.iter().find(|view| !is_tombstone(view)).or_else(|| found.first()) {
            Some(view) => answer(200, view),
            None if answers.unreachable.is_empty() => problem(404, "no such interaction"),
            None => unreachable(503, &answers.unreachable, "no reachable member knows the interaction"),
        }
    }

    /// Responds to a request that lists the interactions of all replicas.
    pub(super) async fn list_anywhere(&self, query: &str) -> AdminResponse {
        match ListQuery::parse(query) {
            Ok(query) => match self.list_all(&query).await {
                Ok(found) if found.interactions.is_empty() && found.unreachable.is_empty() => {
                    let unknown = self.unknown_name(&query);
                    unknown.map_or_else(|| answer(200, &found.into_json()), |fault| problem(400, &fault))
                }
                Ok(found) => answer(200, &found.into_json()),
                Err(refusal) => refused(&refusal),
            },
            Err(fault) => problem(400, fault),
        }
    }

    /// Returns one page of the interactions of all replicas. With `newest`, the newest interaction comes first.
    /// Otherwise, the page is ordered by interaction id.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger of this process cannot be read.
    pub(in crate::admin) async fn list_all(&self, query: &ListQuery) -> Result<FoundAnywhere, Refusal> {
        let local = self.interactions.list(query).await?;
        let mut found: BTreeMap<String, Value> =
            local.into_iter().map(|(id, view)| (id.to_string(), view)).collect();
        let answers = self.ask_members(&Method::GET, &format!("?{}", query.to_text())).await;
        for answer in answers.answered.iter().filter(|answer| answer.status == 200) {
            let Ok(mut page) = serde_json::from_slice::<Value>(&answer.body) else { continue };
            let views = page.get_mut("interactions").and_then(Value::as_array_mut).map(std::mem::take);
            for view in views.unwrap_or_default() {
                if let Some(id) = view.get("interaction").and_then(Value::as_str) {
                    let known = found.entry(id.to_owned()).or_insert(Value::Null);
                    if known.is_null() || is_tombstone(known) {
                        *known = view;
                    }
                }
            }
        }
        let unreachable = answers.unreachable;
        if query.newest {
            let (interactions, next) = newest(found.into_values().collect(), query.limit);
            return Ok(FoundAnywhere { interactions, next, unreachable });
        }
        while found.len() > query.limit {
            found.pop_last();
        }
        let next = found.last_key_value().filter(|_| found.len() == query.limit).map(|(id, _)| id.clone());
        Ok(FoundAnywhere { interactions: found.into_values().collect(), next, unreachable })
    }

    /// Returns an explanation if the query names a route or a path capture that does not exist. Call this function only
    /// if no interaction was found. Otherwise the name may belong to a route that a reload has removed.
    fn unknown_name(&self, query: &ListQuery) -> Option<String> {
        let policy = self.policy.load();
        let unknown_route = query.route.as_deref().and_then(|name| unknown_route(&policy, name));
        unknown_route.or_else(|| {
            let routes = policy.ingress.routes().iter();
            let names: BTreeSet<_> = routes.flat_map(|route| route.path.names()).collect();
            let (name, _) = query.captures.iter().find(|(name, _)| !names.contains(&**name))?;
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            Some(format!("no route has the capture {name}; the captures are {names}"))
        })
    }

    /// Revokes an interaction on every replica. A replica that does not have the interaction stores only the
    /// revocation, so that the replica does not adopt the interaction later.
    pub(in crate::admin) async fn revoke(&self, id: &str) -> AdminResponse {
        let has_members = self.interactions.replication.is_some();
        let local = match self.interactions.revoke(id, has_members).await {
            Ok(revoked) => revoked,
            Err(refusal) => return super::api::refused(&refusal),
        };
        if local == Revoked::Unknown {
            return problem(404, "no such interaction");
        }
        let answers = self.ask_members(&Method::DELETE, &format!("/{}", encoded(id))).await;
        let is_known = local == Revoked::Known || answers.answered.iter().any(|answer| answer.status == 204);
        match answers.unreachable.as_slice() {
            [] if is_known || !has_members || self.adopts() => {
                AdminResponse { body: String::new(), ..problem(204, "") }
            }
            [] => problem(404, "no such interaction"),
            unreached => unreachable(202, unreached, "these members do not know of the revocation yet"),
        }
    }

    /// Returns the state of all replicas as JSON.
    pub(in crate::admin) fn members(&self) -> Value {
        match &self.interactions.replication {
            Some(replication) => replication.to_json(),
            None => json!({ "own": null, "members": [] }),
        }
    }
}

/// Returns an explanation that lists the routes if the policy has no route with this name, and `None` otherwise.
pub(in crate::admin) fn unknown_route(policy: &Policy, name: &str) -> Option<String> {
    if policy.route(name).is_some() {
        return None;
    }
    let names: Vec<_> = policy.ingress.routes().iter().map(|route| &*route.name).collect();
    Some(format!("there is no route {name}; the routes are {}", names.join(", ")))
}

/// Sorts interactions by creation time, newest first. Returns the first `limit` interactions, and all interactions that
/// were created at the same time as the last of these. The second result is this creation time, or `None` if there are
/// fewer than `limit` interactions.
fn newest(mut found: Vec<Value>, limit: usize) -> (Vec<Value>, Option<String>) {
    let created = |view: &Value| view.get("created_at").and_then(Value::as_str).and_then(Timestamp::parse);
    found.sort_by_cached_key(|view| Reverse(created(view)));
    let Some(last) = limit.checked_sub(1).and_then(|last| found.get(last)).map(created) else {
        return (found, None);
    };
    let count = found.partition_point(|view| created(view) >= last);
    found.truncate(count);
    (found, last.map(|last| last.to_string()))
}

/// Reports whether the JSON view of an interaction contains only its revocation. Then the interaction was revoked, but
/// its other data is not in the ledger of this process. Another replica may have this data.
fn is_tombstone(view: &Value) -> bool {
    view.get("route").and_then(Value::as_str) == Some(NO_ROUTE)
}

fn unreachable(status: u16, members: &[Box<str>], detail: &str) -> AdminResponse {
    answer(status, &json!({ "detail": detail, "unreachable": members }))
}
