//! One request of the agent through the egress listener: finds the rule, mints a callback URL and inserts it into the
//! request, sends the request to the provider, and relays the response.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, StatusCode};

use super::action_url::{self, ActionUrl};
use super::context::EgressContext;
use super::provider_client::{ProviderResponse, SendError, Timeouts};
use super::pull::url::{self as pull_url, PullUrl};
use super::request_log::{ExchangeEnd, RequestDetails};
use crate::browser::{Foreign, refuse_pages};
use crate::clock::instant;
use crate::denial::{Denial, Refusal};
use crate::egress::{Callback, Inject, Plan, Rule, Slot, Unruled};
use crate::guard::{Guard, Url};
use crate::http::client::{Message, ResponseFault};
use crate::http::{
    Caller, MemoryReservation, RelayError, Session, deny, head_of, request_body, response,
    send_continue_if_expected,
};
use crate::json::Pointer;
use crate::observe::redact_path;
use crate::path::Captures;
use crate::policy::{MintRequest, Minted, Policy};
use crate::random::new_uuid;
use crate::request::is_event_stream;
use crate::store::{MintRefusal, ResponseAwaited, mint};

/// The maximum number of bytes that Callgate reads from a response before it relays the response. Callgate searches
/// these bytes for the provider's id, or for the URLs of an agent card.
pub(super) const RESPONSE_BYTES_MAX: usize = 256 << 10;

/// The response header that contains the id of the interaction that was created for the request.
pub(super) const INTERACTION: HeaderName = HeaderName::from_static("callgate-interaction");

/// The detail in the log for a request that was sent unchanged, although its rule can insert a callback URL.
pub(super) const NO_CALLBACK: &str = "no callback was inserted into this request";

/// One request of the agent through the egress listener, and its response.
pub(crate) struct AgentExchange<'x> {
    pub(crate) context: &'x EgressContext,
    pub(crate) policy: &'x Policy,
    pub(crate) session: &'x mut Session,
    pub(crate) caller: Caller<'x>,
    pub(crate) request_id: &'x str,
    /// The memory reserved for the request body. The memory stays reserved until the response is relayed, because the
    /// request to the provider contains the body.
    pub(crate) memory: MemoryReservation,
    pub(crate) details: RequestDetails,
    /// The origin in the request target, if the agent used Callgate as a forward proxy.
    pub(crate) origin: Option<&'x Url>,
    /// The guard that checks the addresses of a host that no rule names.
    pub(crate) guard: Option<&'x Guard>,
    /// Exists while the response can still contain the provider's task id. Callbacks that are matched by this id
    /// wait until this value is dropped.
    pub(super) awaited: Option<ResponseAwaited>,
}

impl<'x> AgentExchange<'x> {
    /// Creates the exchange for a request to the egress listener.
    pub(crate) fn new(
        context: &'x EgressContext,
        policy: &'x Policy,
        session: &'x mut Session,
        caller: Caller<'x>,
        request_id: &'x str,
    ) -> Self {
        let (memory, details) = (context.limits.reserve(), RequestDetails::default());
        Self {
            context,
            policy,
            session,
            caller,
            request_id,
            memory,
            details,
            origin: None,
            guard: None,
            awaited: None,
        }
    }
}

impl AgentExchange<'_> {
    pub(crate) async fn run(&mut self) -> ExchangeEnd {
        let head = head_of(self.session, self.caller);
        self.details.path = redact_path(head.raw_path());
        if let Err(refusal) = self.check_not_from_page() {
            return self.deny(refusal, &[]).await;
        }
        if let Some(url) = ActionUrl::parse(&head) {
            self.details.rule = action_url::RULE.into();
            return Box::pin(self.answer_question(url)).await;
        }
        if let Some(url) = PullUrl::parse(&head) {
            self.details.rule = pull_url::RULE.into();
            return Box::pin(self.pull(url)).await;
        }
        let found = self.policy.egress.find(&head);
        match found {
            Ok((rule, captures)) => {
                self.details.rule = rule.name.clone();
                self.details.path = captures.redacted_path();
                self.run_rule(&rule, &captures).await
            }
            Err(Unruled { refusal, rule }) => {
                if let Some(rule) = &rule {
                    self.details.rule = rule.name.clone();
                }
                self.deny(refusal, rule.as_ref().map_or(&[], |rule| &rule.methods)).await
            }
        }
    }

    /// Denies requests that a web page could have caused. The check applies to every path, because every request
    /// through the egress listener can use the agent's credentials.
    fn check_not_from_page(&self) -> Result<(), Refusal> {
        let listener = self.context.limits.settings.load();
        let hosts = listener.as_ref().map_or(&[] as &[_], |listener| &listener.hosts);
        let denial = match refuse_pages(self.session.headers(), hosts) {
            Ok(()) => return Ok(()),
            Err(Foreign::Host) => Denial::HostNotAllowed,
            Err(Foreign::Page) => Denial::PageNotAllowed,
        };
        Err(Refusal::new(denial, denial.help()))
    }

    pub(super) async fn run_rule(&mut self, rule: &Arc<Rule>, captures: &Captures) -> ExchangeEnd {
        if rule.injection(&head_of(self.session, self.caller)).is_none() {
            return Box::pin(self.pass_on(rule, captures)).await;
        }
        let body = match self.read_body(rule.body_bytes_max).await {
            Ok(body) => body,
            Err(denial) => return self.deny(Refusal::new(denial, denial.help()), &[]).await,
        };
        let (minted, reason) = match self.plan(rule, &body, captures).await {
            Ok(planned) => planned,
            Err(refusal) => return self.deny(refusal, &[]).await,
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
        let card = rule.card_place(&head, &body);
        let pointers = rule.callback_request(&head, &body).map(|(_, request)| request.response.clone());
        let learned = minted.as_ref().zip(pointers.filter(|pointers| !pointers.is_empty()));
        let outgoing = match rule.request(&head, &body, captures, callback.as_ref()) {
            Ok(outgoing) => outgoing,
            Err(refusal) => {
                self.close_interaction(minted.as_ref(), true).await;
                return self.deny(refusal, &[]).await;
            }
        };
        let (url, body) = (outgoing.url, Bytes::from(outgoing.body.into_owned()));
        let message = Message::new(outgoing.head, body, expects_body);
        let timeouts = Timeouts { connect: rule.connect_timeout, response: rule.response_timeout };
        match self.context.providers.load_full().send(&url, None, message, timeouts).await {
            Ok(mut provider_response) => {
                let local = |location: &str| rule.local_location(location, &url, captures);
                self.keep_location_local(&mut provider_response, &url, local);
                provider_response.response.keep_trailers();
                let sent = (&url, captures);
                let body_start = self.localize_card(rule, card, &mut provider_response, sent).await;
                self.handle_response(provider_response, body_start, minted.as_ref(), learned, reason).await
            }
            Err(failed) => {
                match failed {
                    SendError::Unreachable(_) => {
                        self.close_interaction(minted.as_ref(), true).await;
                    }
                    // The provider may have received the request.
                    _ => self.doubt_interaction(minted.as_ref()).await,
                }
                self.deny(failed.refusal(), &[]).await
            }
        }
    }

    /// Mints a callback token if the rule requires one. Returns the minted token with its URL, and the reason for the
    /// log: `kept` if the request already contains a callback URL, and otherwise `ok`.
    async fn plan(
        &mut self,
        rule: &Rule,
        body: &[u8],
        captures: &Captures,
    ) -> Result<(Option<Minted>, &'static str), Refusal> {
        let fresh = || new_uuid().unwrap_or_default();
        match rule.plan(&head_of(self.session, self.caller), body, captures, fresh)? {
            Plan::Mint(parameters) => Ok((Some(self.mint(rule, &parameters).await?), "ok")),
            Plan::Pass { kept: true } => Ok((None, "kept")),
            Plan::Pass { kept: false } => {
                self.details.detail = Some(NO_CALLBACK.to_owned());
                Ok((None, "ok"))
            }
        }
    }

    /// Reads the whole body of the agent's request.
    pub(crate) async fn read_body(&mut self, bytes_max: u64) -> Result<Bytes, Denial> {
        send_continue_if_expected(self.session).await;
        let declared = head_of(self.session, self.caller).body_bytes_declared;
        let limits = &self.policy.limits;
        let body_limits = request_body::BodyLimits {
            bytes_max: bytes_max.min(self.context.limits.body_memory_bytes_max()),
            deadline: limits.body_deadline,
            limits,
            reservation: &mut self.memory,
        };
        let body = match request_body::read(self.session, declared, body_limits).await {
            Ok(body) => body,
            Err(denial) => {
                // Releases the reserved memory, because discarding the rest of the body needs no memory.
                self.memory = self.context.limits.reserve();
                return Err(denial);
            }
        };
        self.details.body_bytes = body.len() as u64;
        Ok(body)
    }

    /// Mints a callback token and its URL. The ledger records the interaction before the request is sent.
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
        self.details.interaction = Some(minted.interaction.clone());
        if minted.route.follow.matching.is_some() {
            self.awaited = Some(context.store.await_response(&minted.route.name).await);
        }
        Ok(minted)
    }

    /// Returns the signing secret of the interaction, if the rule inserts this secret into the request.
    fn secret(&self, rule: &Rule, minted: &Minted) -> Option<String> {
        let given = |inject: &Inject| inject.insertions().any(|one| one.shape.holds(Slot::Secret));
        let minting = self.policy.minting.as_ref().filter(|_| rule.inject.as_ref().is_some_and(given))?;
        String::from_utf8(minting.minter.secret(&minted.interaction).expose().to_vec()).ok()
    }

    /// Ends an interaction for which no callback can arrive, because its request was not sent or the provider rejected
    /// the request. `unseen` is true if nobody has received the token of the interaction.
    async fn close_interaction(&self, minted: Option<&Minted>, unseen: bool) {
        let Some(minted) = minted else { return };
        let now = self.context.clocks.ledger_now(instant());
        if let Err(refusal) = self.context.store.not_sent(&minted.interaction, unseen, now).await {
            log::error!("{}: {}", minted.interaction, refusal.detail);
        }
    }

    /// Records that it is unknown whether the provider accepted the request. The agent receives an error, but callbacks
    /// may still arrive.
    async fn doubt_interaction(&self, minted: Option<&Minted>) {
        let Some(minted) = minted else { return };
        let now = self.context.clocks.ledger_now(instant());
        if let Err(refusal) = self.context.store.doubt(&minted.interaction, now).await {
            log::error!("{}: {}", minted.interaction, refusal.detail);
        }
    }

    /// Records in the ledger whether the provider accepted the request, and relays the response to the agent. If the
    /// response can contain the provider's task id, `learned` contains the minted callback and the JSON pointers to
    /// this id.
    async fn handle_response(
        &mut self,
        mut provider_response: ProviderResponse,
        body_start: Result<Bytes, ResponseFault>,
        minted: Option<&Minted>,
        learned: Option<(&Minted, Vec<Pointer>)>,
        reason: &'static str,
    ) -> ExchangeEnd {
        let status = provider_response.response.status();
        if is_not_accepted(status) {
            self.close_interaction(minted, false).await;
        } else if status.is_client_error() || status.is_server_error() {
            self.doubt_interaction(minted).await;
        }
        let body_start = match (body_start, learned) {
            (Ok(_), Some((learned, pointers)))
                if status.is_success() && is_event_stream(provider_response.response.headers()) =>
            {
                let end = Box::pin(self.relay_events(learned, pointers, provider_response, reason)).await;
                return self.doubt_if_broken(minted, status, end).await;
            }
            (Ok(body_start), Some((minted, pointers))) => {
                Box::pin(self.learn_id(minted, &pointers, &mut provider_response, body_start)).await
            }
            (body_start, _) => body_start,
        };
        let end = match body_start {
            Ok(body_start) => self.relay(provider_response, body_start, reason).await,
            Err(fault) => self.deny(SendError::ResponseFault(fault).refusal(), &[]).await,
        };
        self.doubt_if_broken(minted, status, end).await
    }

    /// Marks an interaction as doubtful if the provider accepted the request, but the provider's response was
    /// incomplete. The agent may then give up the work or send the request again. Does not mark the interaction if the
    /// agent itself closed the connection.
    async fn doubt_if_broken(
        &self,
        minted: Option<&Minted>,
        status: StatusCode,
        end: ExchangeEnd,
    ) -> ExchangeEnd {
        if status.is_success() && end.outcome.is_err() {
            self.doubt_interaction(minted).await;
        }
        end
    }

    /// Relays a provider's response to the agent. `body_start` is the part of the body that was already read.
    pub(crate) async fn relay(
        &mut self,
        provider_response: ProviderResponse,
        body_start: Bytes,
        reason: &'static str,
    ) -> ExchangeEnd {
        // The rest of the response cannot contain the provider's id. Callbacks that wait for this id must not be
        // delayed by a slow agent.
        self.awaited = None;
        self.relay_observed(provider_response, body_start, reason, |_| {}).await
    }

    /// Relays a provider's response to the agent, and calls `observe` with each part of the body.
    pub(super) async fn relay_observed(
        &mut self,
        mut provider_response: ProviderResponse,
        body_start: Bytes,
        reason: &'static str,
        observe: impl FnMut(&[u8]),
    ) -> ExchangeEnd {
        let status = provider_response.response.status().as_u16();
        let ProviderResponse { response, origin } = &mut provider_response;
        // The agent reads the id of its interaction from this header, so the provider must not be able to set it.
        response.remove_headers(|name| name.as_str().starts_with("callgate"));
        response.set_header(&INTERACTION, self.details.interaction.as_deref());
        let reuse = |connection| origin.reuse(connection);
        let limits = &self.policy.limits;
        match response::relay_observed(self.session, response, body_start, limits, reuse, observe).await {
            Ok(()) => ExchangeEnd { outcome: Ok(reason), status, reusable: true },
            Err(RelayError::Upstream(fault)) => {
                ExchangeEnd { outcome: Err(fault.provider_denial()), status, reusable: false }
            }
            Err(RelayError::Caller) => ExchangeEnd { outcome: Ok(reason), status: 0, reusable: false },
        }
    }

    /// Writes a denial, including the reason, to the agent. `methods` are the values of `Allow` in a 405 response.
    pub(crate) async fn deny(&mut self, refusal: Refusal, methods: &[Method]) -> ExchangeEnd {
        let declared = head_of(self.session, self.caller).body_bytes_declared;
        let result = deny::deny(self.session, refusal.denial, declared, methods, self.request_id, true).await;
        self.details.detail = Some(refusal.detail.into_owned());
        let status = if result.was_written { refusal.denial.status() } else { 0 };
        ExchangeEnd { outcome: Err(refusal.denial), status, reusable: result.reusable }
    }
}

impl SendError {
    /// Converts a failed request to a provider into the denial for the agent, with an explanation.
    pub(crate) fn refusal(self) -> Refusal {
        match self {
            Self::Unreachable(reason) => Refusal::new(reason.denial(), reason.to_string()),
            Self::Body(denial) => Refusal::new(denial, denial.help()),
            Self::ResponseFault(fault) => {
                Refusal::new(fault.provider_denial(), fault.provider_denial().help())
            }
            Self::Guarded(refused) => Refusal::new(Denial::ActionNotAllowed, refused.to_string()),
        }
    }
}

/// Reports whether the status of a response proves that the provider did not accept the request. The status 408, 425,
/// 429 or 5xx proves nothing, because a gateway may send this status while the provider still processes the request.
///
/// A redirect (301, 302, 307 or 308) counts as not accepted. A client that follows the redirect sends a second request,
/// for which Callgate creates a second interaction.
fn is_not_accepted(status: StatusCode) -> bool {
    let may_be_accepted = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    matches!(status.as_u16(), 301 | 302 | 307 | 308)
        || (status.is_client_error() && !may_be_accepted.contains(&status))
}
