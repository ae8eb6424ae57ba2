//! Reads public URLs.

use std::borrow::Cow;

use super::cursor::Cursor;
use super::suggest::shown_url;

impl Cursor<'_> {
    /// Returns a text, or the value of the environment variable that `{env: NAME}` names. The value is not a secret.
    pub(crate) fn text_or_env(&self) -> Option<Cow<'_, str>> {
        if !self.is_map() {
            return self.text().map(Cow::Borrowed);
        }
        let mut fields = self.fields()?;
        let env = fields.required("env");
        fields.finish();
        let env = env?;
        let name = env.text()?;
        match (self.surroundings().env)(name) {
            Some(value) if !value.is_empty() => Some(Cow::Owned(value)),
            Some(_) => env.error(format!("the environment variable {name} is empty"), ""),
            None => env.error(format!("the environment variable {name} is not set"), "set the variable"),
        }
    }

    /// Returns the beginning of public URLs. `has_tokens` tells whether these URLs contain callback tokens.
    pub(crate) fn public_url(&self, has_tokens: bool) -> Option<String> {
        let text = &*self.text_or_env()?;
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
