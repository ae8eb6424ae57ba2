//! The lines of an access log.

use serde::Deserialize;

/// The maximum length of a text, in characters. Callgate writes shorter ones.
const TEXT_CHARS_MAX: usize = 200;
/// The maximum number of failed checks of a request. Callgate has fewer checks.
const OBSERVED_MAX: usize = 100;

/// A line of a log.
pub(super) enum Line {
    Entry(Box<Entry>),
    /// JSON, but not an entry of the access log.
    OtherJson,
    NotJson,
}

/// An entry of the access log.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) time: Option<String>,
    pub(super) route: Option<String>,
    pub(super) egress: Option<String>,
    pub(super) provider: Option<String>,
    pub(super) verdict: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) status: Option<u16>,
    #[serde(default)]
    pub(super) observed: Vec<String>,
    pub(super) client: Option<String>,
    pub(super) peer: Option<String>,
}

impl Line {
    pub(super) fn parse(line: &[u8]) -> Self {
        let direct = serde_json::from_slice::<serde_json::Value>(line).ok();
        // `docker compose logs` and `kubectl logs --prefix` write a name before each line.
        let value = direct.or_else(|| {
            let start = line.windows(9).position(|bytes| bytes == b"{\"time\":\"")?;
            serde_json::from_slice(line.get(start..)?).ok()
        });
        let Some(value) = value else { return Self::NotJson };
        match Entry::deserialize(value) {
            Ok(entry) if entry.is_request() => Self::Entry(Box::new(entry.shortened())),
            _ => Self::OtherJson,
        }
    }
}

impl Entry {
    /// Limits what somebody else may have written: the texts and the number of failed checks.
    fn shortened(mut self) -> Self {
        let texts = [
            &mut self.time,
            &mut self.route,
            &mut self.egress,
            &mut self.provider,
            &mut self.verdict,
            &mut self.reason,
            &mut self.mode,
            &mut self.client,
            &mut self.peer,
        ];
        self.observed.truncate(OBSERVED_MAX);
        for text in texts.into_iter().flatten().chain(&mut self.observed) {
            if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
                text.truncate(end);
                text.shrink_to_fit();
            }
        }
        self
    }

    fn is_request(&self) -> bool {
        self.egress.is_some() || (self.route.is_some() && self.verdict.is_some())
    }

    /// Reports whether the agent has answered the request. The line of a callback that was handed over does not count:
    /// the owner has a line of its own. Neither do the requests of streams, which are no callbacks.
    pub(super) fn was_delivered(&self) -> bool {
        match self.verdict.as_deref() {
            Some("allow") => self.reason.as_deref() == Some("ok"),
            Some("observe") => true,
            _ => false,
        }
    }

    /// Returns the status with which the agent rejected the request. Returns `None` if the agent has accepted it, or has
    /// not received it.
    pub(super) fn agent_rejection(&self) -> Option<u16> {
        // The status is 0 if the provider closed the connection before it received the answer.
        self.status.filter(|status| self.was_delivered() && *status >= 300)
    }

    /// Returns the address of the caller.
    pub(super) fn caller(&self) -> &str {
        self.client.as_ref().or(self.peer.as_ref()).map_or("unknown", String::as_str)
    }
}
