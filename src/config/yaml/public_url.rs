//! Reads public URLs.

use super::cursor::Cursor;
use super::suggest::shown_url;

impl Cursor<'_> {
    /// Returns the beginning of public URLs. `has_tokens` tells whether these URLs contain callback tokens.
    pub(crate) fn public_url(&self, has_tokens: bool) -> Option<String> {
        let text = self.text()?;
        let hint = "such as https://agent.example.com, without a slash at the end";
        let Ok(uri) = text.parse::<http::Uri>() else {
            return self.error(format!("{} is not a URL", shown_url(text)), hint);
        };
        let web = matches!(uri.scheme_str(), Some("https" | "http"));
        let plain = !text.ends_with('/') && !text.contains(['?', '#', '@', '*']);
        if !web || !plain || uri.host().is_none_or(str::is_empty) {
            return self.error(format!("{} is not the beginning of a public URL", shown_url(text)), hint);
        }
        if has_tokens && uri.scheme_str() == Some("http") {
            self.warn("callback tokens are sent over plain HTTP, without encryption");
        }
        Some(text.to_owned())
    }
}
