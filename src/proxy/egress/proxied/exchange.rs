//! One request to the forward proxy, on an intercepted connection or with an absolute URL.

use crate::denial::{Denial, Refusal};
use crate::egress::{OTHERS, Rule, UNMATCHED, check_same_origin};
use crate::guard::Url;
use crate::http::{Session, head_of};
use crate::path::Captures;
use crate::proxy::egress::agent_exchange::AgentExchange;
use crate::proxy::egress::provider_client::SendError;
use crate::proxy::egress::request_log::ExchangeEnd;

/// The origin of all requests on an intercepted connection.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    /// A URL with the host and the port of the CONNECT request.
    pub(crate) url: Url,
    /// Whether the server name in the client's TLS handshake differs from the host of the CONNECT request.
    pub(crate) other_server_name: bool,
}

impl Origin {
    /// Checks that a request on an intercepted connection is for the host of the CONNECT request.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if the request is for another host.
    pub(crate) fn check(&self, session: &Session) -> Result<(), Refusal> {
        if self.other_server_name {
            let detail = "the server name of the TLS handshake differs from the target of CONNECT";
            return Err(Refusal::new(Denial::ProxyMisdirected, detail));
        }
        check_same_origin(session.method(), session.target(), session.headers(), &self.url)
    }
}

impl AgentExchange<'_> {
    /// Serves a request for the origin `url`. If no rule names the origin, calls `others` to check whether the agent is
    /// allowed to reach the origin.
    pub(crate) async fn run_by_url(
        &mut self,
        url: &Url,
        others: impl Fn(&Url) -> Result<(), Refusal>,
    ) -> ExchangeEnd {
        self.details.host = Some(url.authority());
        let head = head_of(self.session, self.caller);
        if self.policy.egress.names(url) {
            return match self.policy.egress.find_by_url(&head, url) {
                Ok((rule, captures)) => {
                    self.details.rule = rule.name.clone();
                    if &*rule.name != UNMATCHED {
                        self.details.path = captures.redacted_path();
                    }
                    self.run_rule(&rule, &captures).await
                }
                Err(unruled) => {
                    let methods = unruled.rule.as_ref().map_or(Vec::new(), |rule| rule.methods.clone());
                    self.details.rule = unruled.rule.map_or_else(|| "none".into(), |rule| rule.name.clone());
                    self.deny(unruled.refusal, &methods).await
                }
            };
        }
        match others(url) {
            Ok(()) => {
                self.details.rule = OTHERS.into();
                self.pass_on(&Rule::passing(OTHERS, url), &Captures::none()).await
            }
            Err(refusal) => self.deny(refusal, &[]).await,
        }
    }

    /// Returns the denial for a request that could not be sent, or that has no valid response. If the guard denied an
    /// address of the host, counts this in the metrics.
    pub(crate) fn failed(&self, failed: SendError) -> Refusal {
        match failed {
            SendError::Guarded(refused) => {
                self.context.recorder.metrics.guard_refusal(refused.class());
                Refusal::new(Denial::ProxyAddressRefused, refused.to_string())
            }
            failed => failed.refusal(),
        }
    }
}
