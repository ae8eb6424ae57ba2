//! One exchange on the egress: the agent's request, the callback it gets, the provider's answer.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};
use pingora::ErrorType;
use pingora::apps::{HttpPersistentSettings, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use tokio::time::timeout;

use super::action::{self, Question};
use super::answer::{self, Broken};
use super::body;
use super::clock::instant;
use super::exchange::{Shared, WRITE_TIMEOUT};
use super::http1_client::{Fault, Message};
use super::provider::{Answered, Failed, Patience};
use super::refuse;
use super::session::{
    Caller, Session, begin_span, continue_if_expected, go_on_with, head, known_method, lacks_host, micros,
};
use super::slots::BodyMemory;
use crate::browser::{Foreign, refuse_pages};
use crate::denial::{Denial, Refusal};
use crate::egress::{Callback, Inject, Plan, Rule, Slot, Unruled};
use crate::json::{Pointer, find_one};
use crate::observe::{EgressEntry, Span, redact_path};
use crate::path::Captures;
use crate::policy::{MintRequest, Minted, Policy};
use crate::random::new_uuid;
use crate::store::{MintRefusal, mint};

/// How much of an answer is read before it is passed on, where the provider's id is to be found in it.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// How an exchange ended.
pub(super) struct Ended {
    /// `ok` or `kept`; or why not.
    pub(super) outcome: Result<&'static str, Denial>,
    pub(super) status: u16,
    /// Whether the connection is in a state to take another request.
    pub(super) reusable: bool,
}

/// One exchange.
pub(super) struct Exchange<'x> {
    pub(super) shared: &'x Shared,
    pub(super) policy: &'x Policy,
    pub(super) session: &'x mut Session,
    pub(super) request_id: &'x str,
    /// For the log and the metrics, as far as it got.
    pub(super) rule: Box<str>,
    pub(super) path: String,
    pub(super) detail: Option<String>,
    pub(super) interaction: Option<String>,
    pub(super) body_bytes: u64,
}

/// Serves the next request of a connection. `None` closes it.
pub(super) async fn serve(
    shared: &Shared,
    mut session: ServerSession,
    stopping: &ShutdownWatch,
) -> Option<ReusedHttpStream> {
    let patience = shared.policy.load().limits.idle_timeout;
    let read = timeout(patience, session.read_request()).await;
    let policy = shared.policy.load_full();
    let under_way = shared.egress.begin()?;
    let began = instant();
    let request_id = shared.request_ids.next();
    let mut session = Session::from(session);
    session.set_write_timeout(WRITE_TIMEOUT);
    let no_host = matches!(read, Ok(Ok(true))) && lacks_host(&session);
    // Before a head was read there is none to put a span into.
    let span = match &read {
        Ok(Ok(true)) => begin_span(shared, &session, "request"),
        _ => None,
    };
    go_on_with(&mut session, span.as_ref());
    let mut exchange = Exchange {
        shared,
        policy: &policy,
        session: &mut session,
        request_id: &request_id,
        rule: "none".into(),
        path: "-".to_owned(),
        detail: None,
        interaction: None,
        body_bytes: 0,
    };
    let ended = match read {
        Ok(Ok(true)) if no_host => exchange.refuse_head(true).await,
        Ok(Ok(true)) => {
            if *stopping.borrow() {
                exchange.session.close_behind();
            }
            exchange.run().await
        }
        Ok(Err(error)) if matches!(error.etype(), ErrorType::InvalidHTTPHeader) => {
            exchange.refuse_head(false).await
        }
        _ => return None,
    };
    exchange.record(&ended, began, span);
    let Session::Pingora(session) = session else { return None };
    let kept = hand_back(*session, ended.reusable).await;
    drop(under_way);
    kept
}

impl Exchange<'_> {
    async fn run(&mut self) -> Ended {
        let caller = Caller::of(self.session);
        let head = head(self.session, caller);
        self.path = redact_path(head.raw_path());
        if let Err(refusal) = self.refuse_pages() {
            return self.refuse(refusal, &[]).await;
        }
        if let Some(question) = Question::of(&head) {
            self.rule = action::RULE.into();
            return self.answer_question(caller, question).await;
        }
        let found = self.policy.egress.find(&head);
        match found {
            Ok((rule, captures)) => {
                self.rule = rule.name.clone();
                self.path = captures.redacted_path();
                self.run_rule(caller, &rule, &captures).await
            }
            Err(Unruled { refusal, rule }) => {
                if let Some(rule) = &rule {
                    self.rule = rule.name.clone();
                }
                self.refuse(refusal, rule.as_ref().map_or(&[], |rule| &rule.methods)).await
            }
        }
    }

    /// Refuses what a web page may be behind, whatever it asks for: the agent's requests carry credentials.
    fn refuse_pages(&self) -> Result<(), Refusal> {
        let listener = self.shared.egress_listener.load();
        let hosts = listener.as_ref().map_or(&[] as &[_], |listener| &listener.hosts);
        let denial = match refuse_pages(self.session.headers(), hosts) {
            Ok(()) => return Ok(()),
            Err(Foreign::Host) => Denial::HostNotAllowed,
            Err(Foreign::Page) => Denial::PageNotAllowed,
        };
        Err(Refusal::new(denial, denial.help()))
    }

    async fn run_rule(&mut self, caller: Caller<'_>, rule: &Arc<Rule>, captures: &Captures) -> Ended {
        let body = match self.body(rule.body_bytes_max).await {
            Ok(body) => body,
            Err(denial) => return self.refuse(Refusal::new(denial, denial.help()), &[]).await,
        };
        let fresh = || new_uuid().unwrap_or_default();
        let plan = rule.plan(&head(self.session, caller), &body, captures, fresh);
        let (minted, reason) = match plan {
            Ok(Plan::Pass { kept }) => (None, if kept { "kept" } else { "ok" }),
            Ok(Plan::Mint(parameters)) => match self.mint(rule, &parameters).await {
                Ok(minted) => (Some(minted), "ok"),
                Err(refusal) => return self.refuse(refusal, &[]).await,
            },
            Err(refusal) => return self.refuse(refusal, &[]).await,
        };
        let secret = minted.as_ref().and_then(|minted| self.secret(rule, minted));
        let callback = minted.as_ref().map(|minted| Callback {
            url: &minted.callback_url,
            token: &minted.callback_token,
            secret: secret.as_deref().unwrap_or_default(),
            expires: minted.expires,
        });
        let head = head(self.session, caller);
        let expects_body = head.method != Method::HEAD.as_str();
        let outgoing = match rule.request(&head, &body, captures, callback.as_ref()) {
            Ok(outgoing) => outgoing,
            Err(refusal) => {
                self.not_sent(minted.as_ref(), true).await;
                return self.refuse(refusal, &[]).await;
            }
        };
        let (url, body) = (outgoing.url, Bytes::from(outgoing.body.into_owned()));
        let message = Message { head: outgoing.head, body, expects_body };
        let patience = Patience { connect: rule.connect_timeout, response: rule.response_timeout };
        match self.shared.providers.load_full().send(&url, None, message, patience).await {
            Ok(answered) => self.pass_on(rule, answered, minted.as_ref(), reason).await,
            Err(failed) => {
                if matches!(failed, Failed::Fault(Fault::Unreachable)) {
                    self.not_sent(minted.as_ref(), true).await;
                }
                self.refuse(failed.refusal(), &[]).await
            }
        }
    }

    /// Reads the agent's body whole.
    pub(super) async fn body(&mut self, bytes_max: u64) -> Result<Bytes, Denial> {
        continue_if_expected(self.session).await;
        let declared = head(self.session, Caller::of(self.session)).body_bytes_declared;
        let limits = &self.policy.limits;
        // The agent is not held to a share of the memory that is there for callers.
        let memory = BodyMemory::default();
        let mut reserved = memory.reserve(u64::MAX);
        let room = body::Room { bytes_max, deadline: limits.body_deadline, limits, reserved: &mut reserved };
        let body = body::read(self.session, declared, room).await?;
        self.body_bytes = body.len() as u64;
        Ok(body)
    }

    /// Makes the callback and records it, before anything leaves.
    async fn mint(&mut self, rule: &Rule, parameters: &[(Box<str>, String)]) -> Result<Minted, Refusal> {
        let parameters: Vec<_> = parameters.iter().map(|(name, value)| (&**name, value.as_str())).collect();
        let Some(inject) = &rule.inject else {
            return Err(Refusal::new(Denial::RuleUnknown, "the rule has no callback"));
        };
        let request =
            MintRequest { route: &inject.route, parameters: &parameters, ttl: inject.ttl, uses: inject.uses };
        let shared = self.shared;
        let (now, ledger_now) = (shared.clock.now(), shared.ledger_clock.now(instant()));
        let minted = mint(&shared.store, self.policy, &shared.metrics, &request, now, ledger_now).await;
        let minted = minted.map_err(|refusal| match refusal {
            MintRefusal::Refused(refusal) => refusal,
            MintRefusal::Fault(fault) => Refusal::new(Denial::ParameterUnusable, fault.to_string()),
        })?;
        self.interaction = Some(minted.interaction.clone());
        Ok(minted)
    }

    /// The interaction's own secret, where the provider is given one.
    fn secret(&self, rule: &Rule, minted: &Minted) -> Option<String> {
        let given = |inject: &Inject| inject.insertions.iter().any(|one| one.shape.holds(Slot::Secret));
        let minting = self.policy.minting.as_ref().filter(|_| rule.inject.as_ref().is_some_and(given))?;
        String::from_utf8(minting.minter.secret(&minted.interaction).expose().to_vec()).ok()
    }

    /// Nobody will call back: the interaction ends here. `unseen`: nobody got to know its token.
    async fn not_sent(&self, minted: Option<&Minted>, unseen: bool) {
        let Some(minted) = minted else { return };
        let now = self.shared.ledger_clock.now(instant());
        if let Err(refusal) = self.shared.store.not_sent(&minted.interaction, unseen, now).await {
            log::error!("{}: {}", minted.interaction, refusal.detail);
        }
    }

    async fn pass_on(
        &mut self,
        rule: &Rule,
        mut answered: Answered,
        minted: Option<&Minted>,
        reason: &'static str,
    ) -> Ended {
        let status = answered.answer.status();
        if status.as_u16() >= 400 {
            self.not_sent(minted, false).await;
        }
        let mut gathered = Bytes::new();
        let pointer = rule.inject.as_ref().and_then(|inject| inject.response.as_ref());
        if let (Some(pointer), Some(minted), true) = (pointer, minted, answered.answer.is_success())
            && is_json(answered.answer.headers())
        {
            gathered = match answered.answer.gather(ANSWER_BYTES_MAX).await {
                Ok(gathered) => gathered,
                Err(fault) => return self.refuse(Failed::Fault(fault).refusal(), &[]).await,
            };
            self.bind(minted, pointer, &gathered).await;
        }
        self.relay(answered, gathered, reason).await
    }

    /// The provider's own id is known from now on.
    async fn bind(&mut self, minted: &Minted, pointer: &Pointer, gathered: &[u8]) {
        let id = find_one(gathered, pointer).word();
        match id.filter(|id| id.len() <= 256) {
            Some(id) => {
                let now = self.shared.ledger_clock.now(instant());
                if let Err(refusal) = self.shared.store.bind(&minted.interaction, &id, now).await {
                    log::error!("{}: {}", minted.interaction, refusal.detail);
                }
            }
            None => self.detail = Some(format!("the answer has no id at {}", pointer.as_str())),
        }
    }

    /// Passes a provider's answer on.
    pub(super) async fn relay(
        &mut self,
        mut answered: Answered,
        gathered: Bytes,
        reason: &'static str,
    ) -> Ended {
        let status = answered.answer.status().as_u16();
        match answer::relay(self.session, &mut answered.answer, gathered, &self.policy.limits).await {
            Ok(()) => {
                self.shared.providers.load_full().finish(answered);
                Ended { outcome: Ok(reason), status, reusable: true }
            }
            Err(Broken::Upstream(fault)) => {
                Ended { outcome: Err(fault.of_provider()), status, reusable: false }
            }
            Err(Broken::Caller) => Ended { outcome: Ok(reason), status: 0, reusable: false },
        }
    }

    /// Answers with a denial. The agent is told the reason.
    pub(super) async fn refuse(&mut self, refusal: Refusal, methods: &[Method]) -> Ended {
        let declared = head(self.session, Caller::of(self.session)).body_bytes_declared;
        let refused =
            refuse::refuse(self.session, refusal.denial, declared, methods, self.request_id, true).await;
        self.detail = Some(refusal.detail.into_owned());
        let status = if refused.told { refusal.denial.status() } else { 0 };
        Ended { outcome: Err(refusal.denial), status, reusable: refused.reusable }
    }

    async fn refuse_head(&mut self, parsed: bool) -> Ended {
        self.session.close_behind();
        let denial = Denial::RequestMalformed;
        let told = match parsed {
            true => answer::deny(self.session, denial, &[], self.request_id, true).await,
            false => answer::deny_unread(self.session, self.request_id, true).await,
        };
        Ended { outcome: Err(denial), status: if told { denial.status() } else { 0 }, reusable: false }
    }

    /// Counts and logs the exchange.
    fn record(&self, ended: &Ended, began: Instant, span: Option<Span>) {
        let took = instant().saturating_duration_since(began);
        let (verdict, reason) = match ended.outcome {
            Ok(reason) => ("allow", reason),
            Err(denial) => (denial.verdict(), denial.code()),
        };
        self.shared.metrics.egress(&self.rule, verdict, reason, took.as_secs_f64());
        if self.shared.access_log.is_none() && span.is_none() {
            return;
        }
        let readable = self.path != "-";
        let entry = EgressEntry {
            time: self.shared.clock.now(),
            request_id: self.request_id,
            rule: &self.rule,
            verdict,
            reason,
            status: ended.status,
            method: if readable { known_method(self.session.method().as_str()) } else { "-" },
            path: &self.path,
            detail: self.detail.as_deref(),
            interaction: self.interaction.as_deref(),
            body_bytes: self.body_bytes,
            duration_us: micros(took),
        };
        if let Some(log) = &self.shared.access_log
            && !log.log(&entry.line())
        {
            self.shared.metrics.log_line_lost();
        }
        if let Some(span) = span {
            span.end_egress(&entry);
        }
    }
}

/// Ends an exchange: hands the connection back for another request, or closes it.
async fn hand_back(mut session: ServerSession, reusable: bool) -> Option<ReusedHttpStream> {
    if !reusable {
        session.shutdown().await;
        return None;
    }
    let settings = HttpPersistentSettings::for_session(&session);
    let stream = session.finish().await.ok().flatten()?;
    Some(ReusedHttpStream::from_reusable_stream(stream, settings))
}

impl Failed {
    /// The reason, in words.
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Fault(fault) => Refusal::new(fault.of_provider(), fault.of_provider().help()),
            Self::Guarded(refused) => Refusal::new(Denial::ActionNotAllowed, refused.to_string()),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
