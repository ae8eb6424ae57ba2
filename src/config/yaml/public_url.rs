//! Reads settings whose text comes from an environment variable, and settings that are public URLs.

use super::cursor::Cursor;
use super::key_path::Step;
use super::node::Node;
use super::suggest::shown_url;
use super::variable::variable;

impl<'n> Cursor<'n> {
    /// Reports whether the value has the form `{env: NAME}`, which stands for the value of an environment variable.
    pub(super) fn is_variable(&self) -> bool {
        variable(self.node).is_some()
    }

    /// Returns the value as text, or the value of the environment variable that `{env: NAME}` names. Returns `None`
    /// without an error if the variable is not set, or if the value is neither text nor `{env: NAME}`.
    pub(super) fn plain_text(&self) -> Option<&'n str> {
        match self.node {
            Node::Text(text) => Some(text),
            _ => {
                let name = variable(self.node)?.as_text()?;
                self.reader.variables.get(name)?.as_ref().map(|value| value.as_str())
            }
        }
    }

    /// Returns the value as text for a message. For `{env: NAME}`, returns the name of the environment variable
    /// instead of its value, because a variable that was named by mistake can be a secret.
    pub(crate) fn named_text(&self) -> String {
        let variable = variable(self.node).and_then(Node::as_text);
        let name = variable.map(|name| format!("the file in the environment variable {name}"));
        name.or_else(|| self.plain_text().map(str::to_owned)).unwrap_or_default()
    }

    /// Returns the value of the environment variable that `{env: NAME}` names. The value is used as an ordinary text,
    /// not as a secret.
    pub(super) fn variable_text(&self) -> Option<&'n str> {
        let at = self.step(variable(self.node)?, Step::Key("env".to_owned()));
        let Node::Text(name) = at.node else { return at.expected("text") };
        match self.plain_text() {
            Some("") => at.error(format!("the environment variable {name} is empty"), ""),
            Some(value) => {
                self.reader.used.borrow_mut().insert(name.clone(), value.to_owned());
                Some(value)
            }
            None => at.error(format!("the environment variable {name} is not set"), "set the variable"),
        }
    }
}

impl Cursor<'_> {
    /// Returns the value as text. The value is the common beginning of public URLs, such as
    /// `https://agent.example.com`. `has_tokens` is true if the configuration has callback tokens, which causes
    /// additional warnings.
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
        if has_tokens && uri.path().len() > 1 {
            self.warn(&format!(
                "callback URLs begin with the path {}, which no route contains: a proxy in front must remove it from the paths of \
                 callbacks, or they receive 404",
                uri.path()
            ));
        }
        Some(text.to_owned())
    }
}
