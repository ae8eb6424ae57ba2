//! `callgate init`: a configuration to begin with, for one provider. It is tried before it is written.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::{EXIT_DATA, EXIT_USAGE};
use crate::config::{Config, Entry, Surroundings, preset};

#[derive(Args)]
pub(super) struct InitArgs {
    /// The provider; `callgate providers` lists them.
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// Where it is written; a file that is there stays. Without it, on standard output.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn init(args: &InitArgs) -> u8 {
    let Some((preset, entry)) = preset(&args.provider) else {
        eprintln!("error: there is no provider {}; `callgate providers` lists them", args.provider);
        return EXIT_DATA;
    };
    let Some(text) = first_configuration(preset.name, &entry) else {
        eprintln!("error: {} needs more than can be guessed: see docs/providers.md", entry.title);
        return EXIT_DATA;
    };
    let Some(path) = &args.output else {
        return u8::from(std::io::stdout().write_all(text.as_bytes()).is_err());
    };
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    match written.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            eprintln!("{} is written; what it needs is said in it", path.display());
            0
        }
        Err(error) => {
            eprintln!("error: {}: {error}", path.display());
            EXIT_USAGE
        }
    }
}

/// Secrets of every form that a scheme may ask for: one of them fits, so that it can be tried whether the rest does.
const SECRETS: [&str; 6] = [
    "a secret of thirty-two bytes, or more",
    "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
    "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    "PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=",
    "user:and a long password",
    r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","alg":"ES256","x":"jBLSfGDkO-rjWoKjB9EE5H_aiqnSTWUqcljqlFtM0zA","y":"uNpP4Kk8K_vP85ojcaUJCWi7Uvy1GH03JPDlf9f4oIo"}]}"#,
];

/// A configuration that compiles, with comments that say what to change; `None` where none could be made.
pub fn first_configuration(name: &str, entry: &Entry) -> Option<String> {
    let expects: String = entry
        .expect
        .iter()
        .map(|key| format!("{key}: CHANGE-ME, "))
        .collect::<String>()
        .trim_end_matches(", ")
        .into();
    let mut variants = Vec::new();
    for secrets in [true, false] {
        for expect in [false, true] {
            let mut lines = vec![format!("    preset: {name}")];
            if secrets {
                let what = if entry.secret.is_empty() { "the secret" } else { &*entry.secret };
                lines.push(format!("    secrets: [ {{ env: {} }} ]  # {what}", variable(name)));
            }
            if expect && !expects.is_empty() {
                lines.push(format!("    expect: {{ {expects} }}"));
            }
            variants.push(lines.join("\n"));
        }
    }
    let texts = variants.iter().map(|provider| configuration(name, entry, provider));
    texts.into_iter().find(|text| SECRETS.iter().any(|secret| compiles(text, secret)))
}

fn compiles(text: &str, secret: &str) -> bool {
    let env = |_: &str| Some(secret.to_owned());
    let file = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    Config::parse(text, &Surroundings { env: &env, file: &file }).is_ok()
}

/// `stripe` -> `STRIPE_SECRET`.
fn variable(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}_SECRET", name.chars().map(upper).collect::<String>())
}

fn configuration(name: &str, entry: &Entry, provider: &str) -> String {
    // Without a signature, the token that is made for each interaction is all there is.
    let signs = entry.scheme.as_ref().is_some_and(|scheme| scheme.proves());
    let (capture, token) = match signs && entry.callback.is_none() {
        true => ("", ""),
        false => (
            "/{id}",
            "    token: { kind: callback, from: [query] }  # minted for each interaction, bound to {id}\n",
        ),
    };
    let route = format!(
        "  - name: {name}
    path: /webhooks/{name}{capture}  # what you give to {title}, behind public_url
    provider: {name}
{token}    forward: /webhooks/{name}{capture}  # where your agent takes it
    # mode: observe  # nothing is refused, everything is counted: for traffic that is there already\n",
        title = entry.title
    );
    format!(
        "# Callgate in front of an agent, for {title}: {source}
# Set the environment variables below, then: callgate check -c FILE && callgate run -c FILE
public_url: https://agent.example.com  # yours
listen:
  ingress: [ {{ address: 0.0.0.0:8080 }} ]  # plain HTTP: see `tls` in docs/configuration.md where nothing in front ends TLS
  admin: {{ address: 127.0.0.1:9901 }}  # metrics, health, the callbacks API
agent: {{ address: 127.0.0.1:8000 }}  # your agent
callback_tokens:
  keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: CALLGATE_TOKEN_KEY }} }} ]  # openssl rand -base64 32
providers:
  {name}:
{provider}
routes:
{route}",
        title = entry.title,
        source = entry.source,
    )
}
