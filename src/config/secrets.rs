//! Secrets in the configuration: references to where they are, never text.

use super::yaml::Cursor;
use crate::secret::Secret;

/// Shorter secrets than this many bytes are worth a warning.
const SECRET_BYTES_QUIET_MIN: usize = 16;
/// Largest secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 * 1024;

impl Cursor<'_> {
    /// A secret: `{env: NAME}` or `{file: path}`, never text.
    pub(super) fn secret(&self) -> Option<Secret> {
        if !self.is_map() {
            let hint = "secrets are never text in the configuration: write {env: NAME} or {file: path}";
            return self.error("expected a reference to a secret", hint);
        }
        let mut fields = self.fields()?;
        let (env, file) = (fields.optional("env"), fields.optional("file"));
        if !fields.all_asked() {
            // The key is not repeated: it may be the secret itself.
            return self.error("expected exactly one of env and file", "{env: NAME} or {file: path}");
        }
        let surroundings = self.surroundings();
        let (at, bytes) = match (env, file) {
            (Some(env), None) => {
                let name = env.text()?;
                if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') || name.contains("sec_") {
                    return env
                        .error("that is no name of an environment variable", "the name, not the value");
                }
                let Some(value) = (surroundings.env)(name) else {
                    let hint = "set it, or mount the secret as a file and write {file: path}";
                    return env.error(format!("the environment variable {name} is not set"), hint);
                };
                (env, value.into_bytes())
            }
            (None, Some(file)) => {
                let path = file.text()?;
                match (surroundings.file)(path) {
                    Ok(bytes) => (file, without_newline(bytes)),
                    Err(error) => return file.error(format!("cannot read {path}: {error}"), ""),
                }
            }
            _ => return self.error("expected exactly one of env and file", "{env: NAME} or {file: path}"),
        };
        match bytes.len() {
            0 => at.error("the secret is empty", ""),
            n if n > SECRET_BYTES_MAX => at.error("the secret is larger than 64 KiB", ""),
            _ => Some(Secret::new(bytes)),
        }
    }

    /// A list of secrets, each one different from the others.
    pub(super) fn secrets(&self) -> Option<Vec<Secret>> {
        let list = self.list()?;
        let read: Vec<_> = list.iter().map(Cursor::secret).collect();
        let secrets = read.into_iter().collect::<Option<Vec<_>>>()?;
        for (i, secret) in secrets.iter().enumerate() {
            if secrets.iter().take(i).any(|earlier| earlier.matches(secret.expose())) {
                let at = list.get(i).unwrap_or(self);
                return at
                    .error("the same secret as one before", "each secret costs a MAC for every request");
            }
        }
        if secrets.iter().any(|secret| secret.len() < SECRET_BYTES_QUIET_MIN) {
            self.warn("a secret is shorter than 16 bytes: it can be guessed");
        }
        Some(secrets)
    }
}

/// Files written by hand end with a newline that is not part of the secret.
fn without_newline(mut bytes: Vec<u8>) -> Vec<u8> {
    for end in [b'\n', b'\r'] {
        if bytes.last() == Some(&end) {
            bytes.pop();
        }
    }
    bytes
}
