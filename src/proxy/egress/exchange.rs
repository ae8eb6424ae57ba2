//! One exchange on the egress: the agent's request, the callback it gets, the provider's answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use super::context::EgressContext;
use super::providers::{ProviderResponse, SendError, Timeouts};
use super::question::{self, Question};
use super::record::{ExchangeEnd, RequestDetails};
use crate::browser::{Foreign, refuse_pages};
use crate::clock::instant;
use crate::denial::{Denial, Refusal};
use crate::egress::{Callback, Inject, Plan, Rule, Slot, Unruled};
use crate::http::client::{Message, ResponseFault};
use crate::http::{Broken, Caller, Reserved, Session, body, continue_if_expected, head_of, refuse, response};
use crate::json::{Pointer, find_one};
use crate::observe::redact_path;
use crate::path::Captures;
use crate::policy::{MintRequest, Minted, Policy};
use crate::random::new_uuid;
use crate::store::{MintRefusal, mint};

/// How much of an answer is read before it is passed on, where the provider's id is to be found in it.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// One exchange.
pub(crate) struct AgentExchange<'x> {
    pub(crate) context: &'x EgressContext,
    pub(crate) policy: &'x Policy,
    pub(crate) session: &'x mut Session,
    pub(crate) caller: Caller<'x>,
    pub(crate) request_id: &'x str,
    /// The memory for its body, for as long as the exchange lasts: what is sent to the provider is made of it.
    pub(crate) memory: Reserved,
    pub(crate) told: RequestDetails,
}

impl AgentExchange<'_> {
    pub(crate) async fn run(&mut self) -> ExchangeEnd {
        let head = head_of(self.session, self.caller);
        self.told.path = redact_path(head.raw_path());
        if let Err(refusal) = self.refuse_pages() {
            return self.refuse(refusal, &[]).await;
        }
        if let Some(question) = Question::of(&head) {
            self.told.rule = question::RULE.into();
            return self.answer_question(question).await;
        }
        let found = self.policy.egress.find(&head);
        match found {
            Ok((rule, captures)) => {
                self.told.rule = rule.name.clone();
                self.told.path = captures.redacted_path();
                self.run_rule(&rule, &captures).await
            }
            Err(Unruled { refusal, rule }) => {
                if let Some(rule) = &rule {
                    self.told.rule = rule.name.clone();
                }
                self.refuse(refusal, rule.as_ref().map_or(&[], |rule| &rule.methods)).await
            }
        }
    }

    /// Refuses what a web page may be behind, whatever it asks for: the agent's requests carry credentials.
    fn refuse_pages(&self) -> Result<(), Refusal> {
        let listener = self.context.limits.settings.load();
        let hosts = listener.as_ref().map_or(&[] as &[_], |listener| &listener.hosts);
        let denial = match refuse_pages(self.session.headers(), hosts) {
            Ok(()) => return Ok(()),
            Err(Foreign::Host) => Denial::HostNotAllowed,
            Err(Foreign::Page) => Denial::PageNotAllowed,
        };
        Err(Refusal::new(denial, denial.help()))
    }

    async fn run_rule(&mut self, rule: &Arc<Rule>, captures: &Captures) -> ExchangeEnd {
        let body = match self.body(rule.body_bytes_max).await {
            Ok(body) => body,
            Err(denial) => return self.refuse(Refusal::new(denial, denial.help()), &[]).await,
        };
        let fresh = || new_uuid().unwrap_or_default();
        let plan = rule.plan(&head_of(self.session, self.caller), &body, captures, fresh);
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
        let head = head_of(self.session, self.caller);
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
        let patience = Timeouts { connect: rule.connect_timeout, response: rule.response_timeout };
        match self.context.providers.load_full().send(&url, None, message, patience).await {
            Ok(answered) => self.pass_on(rule, answered, minted.as_ref(), reason).await,
            Err(failed) => {
                if matches!(failed, SendError::ResponseFault(ResponseFault::Unreachable)) {
                    self.not_sent(minted.as_ref(), true).await;
                }
                self.refuse(failed.refusal(), &[]).await
            }
        }
    }

    /// Reads the agent's body whole.
    pub(crate) async fn body(&mut self, bytes_max: u64) -> Result<Bytes, Denial> {
        continue_if_expected(self.session).await;
        let declared = head_of(self.session, self.caller).body_bytes_declared;
        let limits = &self.policy.limits;
        let room = body::BodyLimits {
            bytes_max: bytes_max.min(self.context.limits.body_memory_bytes_max()),
            deadline: limits.body_deadline,
            limits,
            reserved: &mut self.memory,
        };
        let body = match body::read(self.session, declared, room).await {
            Ok(body) => body,
            Err(denial) => {
                // What is thrown away takes no memory.
                self.memory = self.context.limits.reserve();
                return Err(denial);
            }
        };
        self.told.body_bytes = body.len() as u64;
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
        let context = self.context;
        let (now, ledger_now) = (context.clocks.now(), context.clocks.ledger_now(instant()));
        let minted =
            mint(&context.store, self.policy, &context.recorder.metrics, &request, now, ledger_now).await;
        let minted = minted.map_err(|refusal| match refusal {
            MintRefusal::Refused(refusal) => refusal,
            MintRefusal::Fault(fault) => Refusal::new(Denial::ParameterUnusable, fault.to_string()),
        })?;
        self.told.interaction = Some(minted.interaction.clone());
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
        let now = self.context.clocks.ledger_now(instant());
        if let Err(refusal) = self.context.store.not_sent(&minted.interaction, unseen, now).await {
            log::error!("{}: {}", minted.interaction, refusal.detail);
        }
    }

    async fn pass_on(
        &mut self,
        rule: &Rule,
        mut answered: ProviderResponse,
        minted: Option<&Minted>,
        reason: &'static str,
    ) -> ExchangeEnd {
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
                Err(fault) => return self.refuse(SendError::ResponseFault(fault).refusal(), &[]).await,
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
                let now = self.context.clocks.ledger_now(instant());
                if let Err(refusal) = self.context.store.bind(&minted.interaction, &id, now).await {
                    log::error!("{}: {}", minted.interaction, refusal.detail);
                }
            }
            None => self.told.detail = Some(format!("the answer has no id at {}", pointer.as_str())),
        }
    }

    /// Passes a provider's answer on.
    pub(crate) async fn relay(
        &mut self,
        mut answered: ProviderResponse,
        gathered: Bytes,
        reason: &'static str,
    ) -> ExchangeEnd {
        let status = answered.answer.status().as_u16();
        match response::relay(self.session, &mut answered.answer, gathered, &self.policy.limits).await {
            Ok(()) => {
                answered.finish();
                ExchangeEnd { outcome: Ok(reason), status, reusable: true }
            }
            Err(Broken::Upstream(fault)) => {
                ExchangeEnd { outcome: Err(fault.of_provider()), status, reusable: false }
            }
            Err(Broken::Caller) => ExchangeEnd { outcome: Ok(reason), status: 0, reusable: false },
        }
    }

    /// Answers with a denial. The agent is told the reason.
    pub(crate) async fn refuse(&mut self, refusal: Refusal, methods: &[Method]) -> ExchangeEnd {
        let declared = head_of(self.session, self.caller).body_bytes_declared;
        let refused =
            refuse::refuse(self.session, refusal.denial, declared, methods, self.request_id, true).await;
        self.told.detail = Some(refusal.detail.into_owned());
        let status = if refused.told { refusal.denial.status() } else { 0 };
        ExchangeEnd { outcome: Err(refusal.denial), status, reusable: refused.reusable }
    }
}

impl SendError {
    /// The reason, in words.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::ResponseFault(fault) => Refusal::new(fault.of_provider(), fault.of_provider().help()),
            Self::Guarded(refused) => Refusal::new(Denial::ActionNotAllowed, refused.to_string()),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
