//! Reads references to secrets. A configuration never contains the text of a secret.

mod loaded_secret;
mod secret_mistakes;

pub use self::loaded_secret::LoadedSecret;
pub(super) use self::secret_mistakes::other_value;
use self::secret_mistakes::surrounding_text;
use super::yaml::{Cursor, Node};
use crate::secret::Secret;

/// The minimum length of a secret that causes no warning, in bytes.
const SECRET_BYTES_QUIET_MIN: usize = 16;
/// The maximum length of a secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 * 1024;

impl Cursor<'_> {
    /// Reads a secret from its reference, `{env: NAME}` or `{file: path}`.
    pub(super) fn secret(&self) -> Option<Secret> {
        self.secret_or_password(false)
    }

    /// Reads a secret that a person may have chosen, such as `user:password`. Callgate shows no fingerprint of this
    /// secret.
    pub(super) fn password(&self) -> Option<Secret> {
        self.secret_or_password(true)
    }

    fn secret_or_password(&self, is_password: bool) -> Option<Secret> {
        if !matches!(self.node(), Node::Map(_)) {
            let hint = "a secret is never text in the configuration: write {env: NAME} or {file: path}";
            return self.error("expected a reference to a secret", hint);
        }
        let mut fields = self.fields()?;
        let (env, file) = (fields.optional("env"), fields.optional("file"));
        if !fields.all_asked() {
            // The error message does not repeat the keys of the mapping, because a key can be the secret itself.
            return self.error("expected exactly one of env and file", "{env: NAME} or {file: path}");
        }
        let surroundings = self.surroundings();
        let (at, source, bytes) = match (env, file) {
            (Some(env), None) => {
                let name = env.text()?;
                if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') || name.contains("sec_") {
                    return env
                        .error("not the name of an environment variable", "write the name, not the value");
                }
                let Some(value) = (surroundings.env)(name) else {
                    let hint = "set the variable, or write {file: path} for a secret in a file";
                    return env.error(format!("the environment variable {name} is not set"), hint);
                };
                (env, format!("the environment variable {name}"), without_newline(value.into_bytes()))
            }
            (None, Some(file)) => {
                let path = file.text()?;
                match (surroundings.file)(path) {
                    Ok(bytes) => (file, format!("the file {path}"), without_newline(bytes)),
                    Err(error) => return file.error(format!("cannot read {path}: {error}"), ""),
                }
            }
            _ => return self.error("expected exactly one of env and file", "{env: NAME} or {file: path}"),
        };
        match bytes.len() {
            0 => at.error("the secret is empty", ""),
            n if n > SECRET_BYTES_MAX => at.error("the secret is larger than 64 KiB", ""),
            _ => {
                let secret = Secret::new(bytes);
                if let Some(warning) = surrounding_text(&secret) {
                    at.warn(warning);
                }
                self.loaded(source, &secret, is_password);
                Some(secret)
            }
        }
    }

    /// Reads a list of secrets. It is an error if the list contains a secret twice.
    pub(super) fn secrets(&self) -> Option<Vec<Secret>> {
        let list = self.list()?;
        let read: Vec<_> = list.iter().map(Cursor::secret).collect();
        let secrets = read.into_iter().collect::<Option<Vec<_>>>()?;
        for (i, secret) in secrets.iter().enumerate() {
            if secrets.iter().take(i).any(|earlier| earlier.matches(secret.expose())) {
                let at = list.get(i).unwrap_or(self);
                return at.error(
                    "the same secret occurs earlier in the list",
                    "each secret costs a MAC for every request",
                );
            }
        }
        if secrets.iter().any(|secret| secret.len() < SECRET_BYTES_QUIET_MIN) {
            self.warn("a secret is shorter than 16 bytes, so it can be guessed");
        }
        Some(secrets)
    }
}

/// Removes the newline at the end of a file or of an environment variable. Editors and `echo` add this newline. It is
/// not part of the secret.
fn without_newline(mut bytes: Vec<u8>) -> Vec<u8> {
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    bytes
}
