//! Reads and revokes the interactions in the ledger of this process, for the callbacks API and for requests of other
//! replicas.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::admin::interaction_view;
use crate::clock::{LedgerClock, instant};
use crate::denial::Refusal;
use crate::interaction::{Interaction, State};
use crate::path::{Parameter, parameter};
use crate::proxy::{MemberAnswer, MemberRequest, Replication};
use crate::store::{OwnedInteraction, Revoked, Store};
use crate::time::Timestamp;

/// The maximum number of interactions in one response of the callbacks API.
const PAGE_MAX: usize = 1000;
const PAGE_DEFAULT: usize = 100;
/// The prefix of the query parameters that select interactions by the value of a path capture, as in `capture.NAME`.
const CAPTURE: &str = "capture.";
/// The names of the query parameters of a list of interactions, except `capture.NAME`.
const PARAMETERS: [&str; 9] =
    ["route", "state", "over", "provider_id", "search", "sort", "before", "after", "limit"];
const UNKNOWN_PARAMETER: &str = "unknown parameter; use route, state, over, provider_id, capture.NAME, search, sort, before, after and limit";
/// The number of base32 digits in an interaction id (128 bits).
const ID_DIGITS: usize = 26;

/// The interactions in the ledger of this process.
#[derive(Clone)]
pub struct LocalInteractions {
    /// The ledger.
    pub store: Arc<Store>,
    /// The clock of the ledger.
    pub ledger_clock: Arc<LedgerClock>,
    /// The connections to the other replicas. `None` if there is only one replica.
    pub replication: Option<Arc<Replication>>,
}

impl std::fmt::Debug for LocalInteractions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalInteractions")
    }
}

/// The parsed query of a request that lists interactions: the filters, the order and the page.
#[derive(Clone, Debug, Default)]
pub(in crate::admin) struct ListQuery {
    pub(in crate::admin) route: Option<String>,
    pub(in crate::admin) state: Option<State>,
    /// `Some(true)` selects interactions in a final state. `Some(false)` selects interactions whose state can still
    /// change. `None` selects both.
    pub(in crate::admin) over: Option<bool>,
    /// The names and required values of path captures.
    pub(in crate::admin) captures: Vec<(String, String)>,
    pub(in crate::admin) provider_id: Option<String>,
    /// The text, in lower case, that an interaction must contain. The comparison ignores the case of the interaction's
    /// text.
    pub(in crate::admin) search: Option<String>,
    /// Whether the newest interaction comes first. Otherwise, the list is ordered by interaction id.
    pub(in crate::admin) newest: bool,
    /// Selects interactions that were created before this time. Used only with `newest`.
    pub(in crate::admin) before: Option<Timestamp>,
    pub(in crate::admin) after: String,
    pub(in crate::admin) limit: usize,
}

impl ListQuery {
    /// Parses the query of a request that lists interactions.
    ///
    /// # Errors
    /// Returns an explanation if a parameter is invalid.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let captures = Self::captures(query)?;
        let value = |name| match parameter(query, name) {
            Parameter::One(value) => Some(value.into_owned()),
            Parameter::Missing | Parameter::Several => None,
        };
        let state = match value("state") {
            None => None,
            Some(name) => Some(State::from_name(&name).ok_or("no such state")?),
        };
        let over = match value("over").as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err("over must be true or false"),
        };
        let newest = match value("sort").as_deref() {
            None | Some("id") => false,
            Some("newest") => true,
            Some(_) => return Err("sort must be id or newest"),
        };
        let before = match value("before") {
            None => None,
            Some(_) if !newest => return Err("before needs sort=newest"),
            Some(text) => {
                Some(Timestamp::parse(&text).ok_or("before must be a time, such as 2026-01-01T00:00:00Z")?)
            }
        };
        let search = value("search").map(|text| text.to_lowercase());
        let limit = value("limit").map_or(Some(PAGE_DEFAULT), |text| text.parse().ok());
        let limit = limit.filter(|limit| (1..=PAGE_MAX).contains(limit));
        let limit = limit.ok_or("limit must be a number from 1 to 1000")?;
        let (route, provider_id) = (value("route"), value("provider_id"));
        let after = value("after").unwrap_or_default();
        Ok(Self { route, state, over, captures, provider_id, search, newest, before, after, limit })
    }

    /// Returns the names and values of the `capture.NAME` parameters in a query.
    ///
    /// # Errors
    /// Returns an explanation if a parameter is unknown or occurs twice. If unknown parameters were ignored, a
    /// misspelled filter would select every interaction.
    fn captures(query: &str) -> Result<Vec<(String, String)>, &'static str> {
        let mut captures = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let name = pair.split('=').next().unwrap_or_default();
            let name = percent_decode_str(name).decode_utf8().map_err(|_| "a parameter is not UTF-8")?;
            let value = match parameter(query, &name) {
                Parameter::One(value) => value.into_owned(),
                Parameter::Missing | Parameter::Several => return Err("a parameter occurs twice"),
            };
            match name.strip_prefix(CAPTURE) {
                Some(capture) => captures.push((capture.to_owned(), value)),
                None if PARAMETERS.contains(&&*name) => {}
                None => return Err(UNKNOWN_PARAMETER),
            }
        }
        Ok(captures)
    }

    /// Returns this list query as the query string of a request to another replica.
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("limit={}", self.limit);
        let (state, over) = (self.state.map(State::name), self.over.map(|over| over.to_string()));
        let before = self.before.map(|before| before.to_string());
        let after = Some(&*self.after).filter(|after| !after.is_empty());
        let values = [
            ("route", self.route.as_deref()),
            ("state", state),
            ("over", over.as_deref()),
            ("provider_id", self.provider_id.as_deref()),
            ("search", self.search.as_deref()),
            ("sort", self.newest.then_some("newest")),
            ("before", before.as_deref()),
            ("after", after),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                text.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        for (name, value) in &self.captures {
            text.push_str(&format!("&{CAPTURE}{}={}", encoded(name), encoded(value)));
        }
        text
    }
}

impl ListQuery {
    /// Reports whether an interaction passes the filters of the list.
    fn wants(&self, interaction: &Interaction) -> bool {
        self.route.as_deref().is_none_or(|route| *interaction.route == *route)
            && self.state.is_none_or(|state| interaction.state == state)
            && self.over.is_none_or(|over| interaction.state.is_open() != over)
            && self.before.is_none_or(|before| interaction.created() < before)
            && self.provider_id.as_deref().is_none_or(|id| interaction.provider_id() == Some(id))
            && self.captures.iter().all(|(name, value)| {
                interaction.captures().any(|(other, found)| other == name && found == value)
            })
            && self.search.as_deref().is_none_or(|text| contains(interaction, text))
    }
}

/// Reports whether an interaction contains a text. Searches the route, the provider, the state, the status, the
/// provider's id, the path captures and the ids of delivered events. `text` must be in lower case.
fn contains(interaction: &Interaction, text: &str) -> bool {
    let texts = [
        Some(&*interaction.route),
        interaction.provider.as_deref(),
        Some(interaction.state.name()),
        interaction.status(),
        interaction.provider_id(),
    ];
    let captures = interaction.captures().flat_map(|(name, value)| [name, value]);
    let events = interaction.event_ids().iter().map(|id| &**id);
    texts.into_iter().flatten().chain(captures).chain(events).any(|found| found.to_lowercase().contains(text))
}

impl LocalInteractions {
    /// Returns the interaction with this id as JSON, or `None` if the ledger of this process does not contain the
    /// interaction.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub(super) async fn read(&self, id: &str) -> Result<Option<Value>, Refusal> {
        Ok(self.store.read_owned(id).await?.map(|owned| self.view(id, &owned)))
    }

    /// Returns the interactions that match a query, as a map from the interaction id to JSON. With `query.newest`,
    /// returns the `query.limit` newest interactions. If further interactions were created at the same time as the
    /// oldest of these, they are also returned, so that the result can exceed `query.limit`.
    ///
    /// # Errors
    /// Returns the denial `store_unavailable` if the ledger cannot be read.
    pub(super) async fn list(&self, query: &ListQuery) -> Result<BTreeMap<Arc<str>, Value>, Refusal> {
        let found = match query.newest {
            true => self.store.newest(query.limit, |one| query.wants(one)).await,
            false => self.store.list(&query.after, query.limit, |one| query.wants(one)).await,
        }?;
        let view = |(id, owned): (Arc<str>, _)| (Arc::clone(&id), self.view(&id, &owned));
        Ok(found.into_iter().map(view).collect())
    }

    /// Revokes an interaction. If the ledger of this process does not contain the interaction and `remembers` is true,
    /// the revocation is recorded nevertheless. Otherwise this process could adopt the interaction when one of its
    /// callbacks arrives.
    pub(super) async fn revoke(&self, id: &str, remembers: bool) -> Result<Revoked, Refusal> {
        if !is_id(id) && (self.store.is_shared() || !self.store.knows(id)) {
            return Ok(Revoked::Unknown);
        }
        self.store.revoke(id, remembers, self.ledger_clock.now(instant())).await
    }

    /// Responds to another replica's request about interactions. Reads and changes only the ledger of this process.
    pub async fn answer_member(self, request: MemberRequest) -> MemberAnswer {
        let id = request.path.strip_prefix("/callbacks").unwrap_or_default().trim_start_matches('/');
        match (request.method.as_str(), id) {
            ("GET", "") => match ListQuery::parse(&request.query) {
                Ok(query) => match self.list(&query).await {
                    Ok(found) => {
                        json_answer(200, &json!({ "interactions": found.values().collect::<Vec<_>>() }))
                    }
                    Err(refusal) => json_answer(refusal.denial.status(), &Value::Null),
                },
                Err(_) => json_answer(400, &Value::Null),
            },
            ("GET", id) => match self.read(id).await {
                Ok(Some(view)) => json_answer(200, &view),
                Ok(None) => json_answer(404, &Value::Null),
                Err(refusal) => json_answer(refusal.denial.status(), &Value::Null),
            },
            ("DELETE", id) if !id.is_empty() => match self.revoke(id, true).await {
                Ok(Revoked::Known) => json_answer(204, &Value::Null),
                Ok(Revoked::Remembered) => json_answer(202, &Value::Null),
                Ok(Revoked::Unknown) => json_answer(404, &Value::Null),
                Err(refusal) => json_answer(refusal.denial.status(), &Value::Null),
            },
            _ => json_answer(405, &Value::Null),
        }
    }

    /// Returns an interaction as JSON for the callbacks API.
    fn view(&self, id: &str, (interaction, owner): &OwnedInteraction) -> Value {
        let questions: Vec<_> = interaction
            .questions()
            .iter()
            .map(|question| {
                json!({ "number": question.number, "endpoint": question.endpoint, "answered": question.answered })
            })
            .collect();
        let besides = [
            ("uses_left", json!(interaction.uses_left())),
            ("event_ids", json!(interaction.event_ids())),
            ("questions", json!(questions)),
            ("provider_id", json!(interaction.provider_id())),
            ("notice", json!(interaction.notice().map(|notice| notice.name()))),
            ("notice_attempts", json!(interaction.notice_attempts())),
            (
                "informed",
                interaction
                    .informed()
                    .iter()
                    .map(|one| json!({ "by": one.by, "at": one.at().to_string() }))
                    .collect(),
            ),
            ("informed_at", json!(interaction.informed_at().map(|at| at.to_string()))),
            ("ended_at", json!(interaction.ended_at().map(|at| at.to_string()))),
            ("expires_at", json!(interaction.expires().to_string())),
        ];
        let mut view = interaction_view::interaction(id, interaction, besides);
        if let (Some((count, last)), Some(members)) =
            (self.store.inbox().undelivered(id), view.as_object_mut())
        {
            let undelivered = json!({ "count": count, "last_at": last.to_string() });
            members.insert("undelivered".to_owned(), undelivered);
        }
        if let (Some(replication), Some(members)) = (&self.replication, view.as_object_mut()) {
            let own = || replication.address();
            members.insert("member".to_owned(), json!(owner.clone().unwrap_or_else(own)));
        }
        view
    }
}

/// Percent-encodes a value for a path or a query.
pub(super) fn encoded(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
        .to_string()
        .replace("%5F", "_")
}

fn json_answer(status: u16, body: &Value) -> MemberAnswer {
    MemberAnswer { status, body: if body.is_null() { Vec::new() } else { body.to_string().into_bytes() } }
}

/// Reports whether a text has the form of an interaction id. The ledger of this process need not contain the
/// interaction, because another replica may have created the interaction.
fn is_id(id: &str) -> bool {
    let rest = id.strip_prefix("int_").unwrap_or_default();
    rest.len() == ID_DIGITS && rest.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7'))
}
