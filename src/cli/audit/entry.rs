//! The lines of an access log.

use serde::Deserialize;

/// The maximum length of a text in an access-log entry, in characters. Callgate writes shorter texts, so only the texts
/// of other programs are cut.
const TEXT_CHARS_MAX: usize = 200;
/// The maximum number of failed checks that are read from one access-log entry. Callgate has fewer checks, so only the
/// entries of other programs are cut.
const OBSERVED_MAX: usize = 100;

/// A parsed line of a log file.
pub(super) enum Line {
    Entry(Box<Entry>),
    /// The line is JSON, but not an entry of the access log.
    OtherJson,
    NotJson,
}

/// An entry of Callgate's access log, as parsed from one line of JSON.
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
        // `docker compose logs` and `kubectl logs --prefix` write a prefix before each line.
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
    /// Cuts the texts of the entry to [`TEXT_CHARS_MAX`] characters and the list of failed checks to [`OBSERVED_MAX`]
    /// checks, because another program may have written the entry.
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

    /// Reports whether the agent received the callback of this entry and answered it. Returns false for a callback that
    /// was forwarded to the process that owns its interaction, because that process writes its own access-log entry.
    /// Also returns false for a streamed request, because it is not a callback.
    pub(super) fn was_delivered(&self) -> bool {
        match self.verdict.as_deref() {
            Some("allow") => self.reason.as_deref() == Some("ok"),
            Some("observe") => true,
            _ => false,
        }
    }

    /// Returns the HTTP status with which the agent rejected the request. Returns `None` if the agent accepted the
    /// request or did not receive it.
    pub(super) fn agent_rejection(&self) -> Option<u16> {
        // The status is 0 if the provider closed the connection before it received the response.
        self.status.filter(|status| self.was_delivered() && *status >= 300)
    }

    /// Returns the client address of the request. If it is unknown, returns the source address of the connection.
    pub(super) fn caller(&self) -> &str {
        self.client.as_ref().or(self.peer.as_ref()).map_or("unknown", String::as_str)
    }
}
