//! Wakes an agent that does not respond while messages wait, for example by a request to the service that scales the
//! agent.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::deliveries::Deliveries;
use crate::agent::{Agent, Wake};
use crate::egress::answer_head;
use crate::guard::Url;
use crate::http::client::Message;
use crate::proxy::egress::Timeouts;
use crate::request::RequestHead;

const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), response: Duration::from_secs(10) };
/// The maximum number of bytes that Callgate reads from the response to a wake request.
const RESPONSE_BYTES_MAX: usize = 64 << 10;

/// Sends the request that wakes an agent, and counts the result.
pub(super) async fn wake(deliveries: &Deliveries, agent: &Arc<Agent>, wake: &Wake) {
    let result = match send(deliveries, wake).await {
        Ok(()) => "sent",
        Err(error) => {
            log::warn!("the agent {} was not woken: {error}", agent.name);
            "failed"
        }
    };
    deliveries.recorder.metrics.inbox_wake(&agent.name, result);
}

async fn send(deliveries: &Deliveries, wake: &Wake) -> Result<(), String> {
    let url = Url::parse(&wake.url).map_err(|_| "the URL is invalid".to_owned())?;
    let (headers, peer) = (HeaderMap::new(), std::net::IpAddr::from([127, 0, 0, 1]));
    let head = answer_head(&RequestHead::new("POST", "/", &headers, peer), &url, &wake.headers, &[], 0);
    let message = Message::new(head, Bytes::new(), true);
    let sent = deliveries.providers.load_full().send(&url, None, message, TIMEOUTS).await;
    let mut answered = sent.map_err(|error| error.refusal().detail.into_owned())?;
    let status = answered.response.status();
    if answered.response.read_up_to(RESPONSE_BYTES_MAX).await.is_ok()
        && let Some(connection) = answered.response.take_connection()
    {
        answered.origin.reuse(connection);
    }
    if status.is_success() { Ok(()) } else { Err(format!("the answer was {}", status.as_u16())) }
}
