//! `callgate init`: writes a first configuration for one provider.
//!
//! The configuration is compiled before it is written, so that `callgate check` accepts it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::{EXIT_DATA, EXIT_USAGE};
use crate::config::{CHANGE_ME, Config, Entry, Surroundings, preset};
use crate::egress::Slot;

#[derive(Args)]
pub(super) struct InitArgs {
    /// Name of the provider. `callgate providers` lists the names.
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// File to write. An existing file is not overwritten. Default: standard output.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn init(args: &InitArgs) -> u8 {
    let Some((preset, entry)) = preset(&args.provider) else {
        eprintln!("error: there is no provider {}; `callgate providers` lists them", args.provider);
        return EXIT_DATA;
    };
    let Some(text) = first_configuration(preset.name, &entry) else {
        eprintln!("error: {} needs settings that init cannot guess: see docs/providers.md", entry.title);
        return EXIT_DATA;
    };
    let Some(path) = &args.output else {
        return u8::from(std::io::stdout().write_all(text.as_bytes()).is_err());
    };
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    match written.and_then(|mut file| file.write_all(text.as_bytes())) {
        Ok(()) => {
            eprintln!("wrote {}; its comments say what to change", path.display());
            0
        }
        Err(error) => {
            eprintln!("error: {}: {error}", path.display());
            EXIT_USAGE
        }
    }
}

/// Example secrets, one in each form that a signature scheme can require. The generated configuration is compiled with
/// each of them; if one compiles, the rest of the configuration is correct.
const SECRETS: [&str; 6] = [
    "a secret of thirty-two bytes, or more",
    "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
    "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    "PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=",
    "user:and a long password",
    r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","alg":"ES256","x":"jBLSfGDkO-rjWoKjB9EE5H_aiqnSTWUqcljqlFtM0zA","y":"uNpP4Kk8K_vP85ojcaUJCWi7Uvy1GH03JPDlf9f4oIo"}]}"#,
];

/// The setting of a provider whose secret Callgate derives for each interaction.
const DERIVED: &str = "secrets: derived";

/// Returns a configuration that compiles, with comments that say what to change. Returns `None` if the preset needs
/// settings that cannot be guessed.
pub fn first_configuration(name: &str, entry: &Entry) -> Option<String> {
    let hands_over = entry.callback.as_ref().is_some_and(|callback| {
        callback.insertions.iter().any(|insertion| insertion.shape.holds(Slot::Secret))
    });
    let what = if entry.secret.is_empty() { "the secret" } else { &*entry.secret };
    let own = format!("    secrets: [ {{ env: {} }} ]  # {what}\n", variable(name));
    let derived = format!(
        "    {DERIVED}  # one secret per interaction, sent to the provider by the egress rule below\n"
    );
    // A provider with published keys needs no secret. So the variant without a secret is tried first.
    let secrets = [Some(""), hands_over.then_some(&*derived), Some(&own)];
    let expected =
        entry.expect.iter().map(|key| format!("{key}: {CHANGE_ME}")).collect::<Vec<_>>().join(", ");
    let expect = format!("    expect: {{ {expected} }}\n");
    let expects = ["", if entry.expect.is_empty() { "" } else { &expect }];
    let providers = secrets
        .into_iter()
        .flatten()
        .flat_map(|secrets| expects.map(|expect| format!("    preset: {name}\n{secrets}{expect}")));
    let mut texts = providers.map(|provider| configuration(name, entry, &provider));
    texts.find(|text| SECRETS.iter().any(|secret| compiles(text, secret)))
}

fn compiles(text: &str, secret: &str) -> bool {
    let env = |_: &str| Some(secret.to_owned());
    let file = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    Config::parse(&text.replace(CHANGE_ME, "changed"), &Surroundings { env: &env, file: &file }).is_ok()
}

/// Returns the environment variable for a provider's secret: `stripe` becomes `STRIPE_SECRET`.
fn variable(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}_SECRET", name.chars().map(upper).collect::<String>())
}

fn configuration(name: &str, entry: &Entry, provider: &str) -> String {
    // If the provider does not sign, only the callback token protects the route. So it needs a URL per interaction.
    let signs = entry.scheme.as_ref().is_some_and(|scheme| scheme.has_proof());
    let one = signs && entry.callback.is_none();
    let (listen, route) =
        if one { one_address(name, entry) } else { addresses(name, entry, provider.contains(DERIVED)) };
    let change = format!(" and replace every {CHANGE_ME}");
    let fill = if provider.contains(CHANGE_ME) { &*change } else { "" };
    format!(
        "# Callgate in front of an agent, for {title}: {source}
# Set the environment variables below{fill}, then: callgate check -c FILE && callgate run -c FILE
public_url: https://agent.example.com  # change this to your URL
listen:  # in a pod: ingress on 0.0.0.0:8443 with `tls`, admin on 0.0.0.0:9901 for the probes in deploy/
  ingress: [ {{ address: 0.0.0.0:8080 }} ]  # plain HTTP; add `tls` (docs/configuration.md) unless a proxy in front terminates TLS
{listen}  admin: {{ address: 127.0.0.1:9901 }}  # metrics, health checks, callbacks API, admin page
agent: {{ address: 127.0.0.1:8000 }}  # the address of your agent
callback_tokens:
  keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: CALLGATE_TOKEN_KEY }} }} ]  # openssl rand -base64 32
providers:
  {name}:
{provider}routes:
{route}",
        title = entry.title,
        source = entry.source,
    )
}

const OBSERVE: &str = "    # mode: observe  # counts denials but denies nothing; use it to introduce Callgate for existing traffic\n";

/// Returns a route with one fixed path for all callbacks. It needs no further listener.
fn one_address(name: &str, entry: &Entry) -> (&'static str, String) {
    let route = format!(
        "  - name: {name}
    path: /webhooks/{name}  # give {title} the URL with this path, after public_url
    provider: {name}
    forward: /webhooks/{name}  # the path at your agent
{OBSERVE}",
        title = entry.title
    );
    ("", route)
}

/// Returns the egress listener and a route with a callback URL per interaction, followed by a commented-out egress rule
/// that injects the URL. `derived`: the provider has a secret per interaction, which only an egress rule can send.
fn addresses(name: &str, entry: &Entry, derived: bool) -> (&'static str, String) {
    let title = &entry.title;
    // If the preset does not know where the provider expects the URL, the user must say it with `url`.
    let (how, place) = match entry.callback {
        Some(_) => (format!("preset: {name}, "), " }".to_owned()),
        None => {
            let place =
                format!(", url: /callback_url }}  # where {title} expects the URL in the request body");
            (String::new(), place)
        }
    };
    let by_hand = match derived {
        true => "# An egress rule mints the URL, its token and its secret. ".to_owned(),
        false => format!(
            "# Mint a URL and its token by hand: callgate mint -c FILE --route {name} --param id=ID\n\
             # Or let an egress rule mint them. "
        ),
    };
    let route = format!(
        "  - name: {name}
    path: /webhooks/{name}/{{id}}  # each request to {title} gets a URL and a token of its own, see below
    provider: {name}
    token: {{ kind: callback, from: [query] }}  # minted for each interaction, bound to {{id}}
    forward: /webhooks/{name}/{{id}}  # the path at your agent
{OBSERVE}
{by_hand}For this, remove `# ` below and in `listen`. The agent then sends its requests to http://127.0.0.1:8081/{name}.
# egress:
#   - name: {name}
#     path: /{name}
#     target: https://{CHANGE_ME}.example.com  # the URL of {title} for requests
#     # `id` is a new UUID for each request. It can also be a value in the body, such as /document_id.
#     inject: {{ route: {name}, {how}params: {{ id: {{ new: uuid }} }}{place}
"
    );
    (
        "  # egress: { address: 127.0.0.1:8081 }  # the agent sends its requests here, for the rule at the end\n",
        route,
    )
}
