//! Replaces the URLs in agent cards (A2A protocol) by URLs on the egress listener.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HOST};

use crate::clock::instant;
use crate::egress::{CardPlace, INTERFACES_MAX, LocalCard, Rule};
use crate::framing::is_same_header;
use crate::guard::Url;
use crate::http::client::ResponseFault;
use crate::http::head_of;
use crate::path::Captures;
use crate::proxy::egress::agent_exchange::{AgentExchange, RESPONSE_BYTES_MAX};
use crate::proxy::egress::provider_client::ProviderResponse;
use crate::request::{BODY_DIGESTS, is_json};

/// The maximum number of URLs in a warning about an agent card. The provider chooses the number and the length of the
/// URLs, so the warning limits both.
const SHOWN_MAX: usize = 3;
const SHOWN_CHARACTERS_MAX: usize = 60;

impl AgentExchange<'_> {
    /// Reads a response that can contain an agent card (A2A protocol) at `place`. Looks for URLs in the card that
    /// `rule` covers, and replaces them by the corresponding URLs on the egress listener. `sent` is the URL of the
    /// request, and `captures` are the path captures of the request. Returns the part of the body that was read, with
    /// the replaced URLs.
    pub(in crate::proxy::egress) async fn localize_card(
        &mut self,
        rule: &Rule,
        place: Option<CardPlace>,
        provider_response: &mut ProviderResponse,
        (sent, captures): (&Url, &Captures),
    ) -> Result<Bytes, ResponseFault> {
        let Some(place) = place else { return Ok(Bytes::new()) };
        let response = &mut provider_response.response;
        let headers = response.headers();
        if response.status() != http::StatusCode::OK
            || !is_json(headers)
            || headers.contains_key(CONTENT_ENCODING)
        {
            return Ok(Bytes::new());
        }
        let body = response.read_up_to(RESPONSE_BYTES_MAX).await?;
        if !response.is_complete() {
            return Ok(body);
        }
        let Some(address) = self.own_address() else { return Ok(body) };
        let local = |url: &str| {
            let path = Url::parse(url).ok().and_then(|url| {
                // A card may contain a URL without a path (`https://a.example`). The parsed URL has the path `/`.
                rule.local_location(&url.to_string(), sent, captures)
            })?;
            Some(format!("{address}{path}"))
        };
        let detail = match place.localize(&body, local) {
            LocalCard::None => return Ok(body),
            LocalCard::Signed => {
                "the agent card is signed, so that its URLs were not replaced: clients that use them \
                                  bypass Callgate"
                    .to_owned()
            }
            LocalCard::TooMany => format!(
                "the agent card has more than {INTERFACES_MAX} interfaces, so that its URLs were not replaced: \
                 clients that use them bypass Callgate"
            ),
            LocalCard::Card { text, foreign } => {
                if !foreign.is_empty() {
                    let shown = shown(&foreign);
                    self.warn(format!("the agent card names URLs that the rule does not cover: {shown}"));
                }
                let Some(text) = text else { return Ok(body) };
                let response = &mut provider_response.response;
                // Digests of the original body are removed from the headers and from the trailers. The trailers have
                // arrived, because the body was read completely.
                response.remove_headers(|name| BODY_DIGESTS.contains(name));
                response.remove_trailers(|name| {
                    BODY_DIGESTS.iter().any(|digest| is_same_header(digest.as_str(), name))
                });
                if response.headers().contains_key(CONTENT_LENGTH) {
                    response.set_header(&CONTENT_LENGTH, Some(&text.len().to_string()));
                }
                return Ok(text.into());
            }
        };
        self.warn(detail);
        Ok(body)
    }

    /// Writes a warning to the log, at most once per minute, and to the details of the request.
    fn warn(&mut self, detail: String) {
        if self.context.log_throttle.should_log("agent_card", instant()) {
            log::warn!("the egress rule {}: {detail}", self.details.rule);
        }
        self.details.detail = Some(detail);
    }

    /// Returns the scheme, host and port of the egress listener, with the host and port from the `Host` header of the
    /// agent's request.
    fn own_address(&self) -> Option<String> {
        let head = head_of(self.session, self.caller);
        let host = head.headers.get(HOST)?.to_str().ok()?;
        Some(format!("{}://{host}", if head.is_tls { "https" } else { "http" }))
    }
}

/// Returns the first [`SHOWN_MAX`] URLs and the number of the remaining URLs, as text for a warning. Truncates each URL
/// and escapes control characters.
fn shown(urls: &[String]) -> String {
    let one = |url: &String| {
        let cut: String = url.chars().take(SHOWN_CHARACTERS_MAX).collect();
        let end = if cut.len() < url.len() { "…" } else { "" };
        format!("{}{end}", cut.escape_debug())
    };
    let more = urls.len().saturating_sub(SHOWN_MAX);
    let first = urls.iter().take(SHOWN_MAX).map(one).collect::<Vec<_>>().join(", ");
    if more == 0 { first } else { format!("{first}, and {more} more") }
}
