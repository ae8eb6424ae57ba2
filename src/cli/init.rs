//! `callgate init`: a configuration to begin with, for one provider. It is tried before it is written.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::{EXIT_DATA, EXIT_USAGE};
use crate::config::{CHANGE_ME, Config, PresetDefinition, Surroundings, preset};
use crate::egress::Slot;

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

/// What a provider says whose secrets are ours to make.
const DERIVED: &str = "secrets: derived";

/// A configuration that compiles, with comments that say what to change; `None` where none could be made.
pub fn first_configuration(name: &str, entry: &PresetDefinition) -> Option<String> {
    let hands_over = entry.callback.as_ref().is_some_and(|callback| {
        callback.insertions.iter().any(|insertion| insertion.shape.holds(Slot::Secret))
    });
    let what = if entry.secret.is_empty() { "the secret" } else { &*entry.secret };
    let own = format!("    secrets: [ {{ env: {} }} ]  # {what}\n", variable(name));
    let derived = format!("    {DERIVED}  # made for each interaction, handed over by the rule below\n");
    // Keys that are published are fetched: a secret is asked for only where it does not go without one.
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

/// `stripe` -> `STRIPE_SECRET`.
fn variable(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}_SECRET", name.chars().map(upper).collect::<String>())
}

fn configuration(name: &str, entry: &PresetDefinition, provider: &str) -> String {
    // Without a signature, the token that is made for each interaction is all there is.
    let signs = entry.scheme.as_ref().is_some_and(|scheme| scheme.proves());
    let one = signs && entry.callback.is_none();
    let (listen, route) =
        if one { one_address(name, entry) } else { addresses(name, entry, provider.contains(DERIVED)) };
    let change = format!(" and write what {CHANGE_ME} stands for");
    let fill = if provider.contains(CHANGE_ME) { &*change } else { "" };
    format!(
        "# Callgate in front of an agent, for {title}: {source}
# Set the environment variables below{fill}, then: callgate check -c FILE && callgate run -c FILE
public_url: https://agent.example.com  # yours
listen:  # in a pod: ingress on 0.0.0.0:8443 with `tls`, admin on 0.0.0.0:9901, where the probes of deploy/ ask
  ingress: [ {{ address: 0.0.0.0:8080 }} ]  # plain HTTP: see `tls` in docs/configuration.md where nothing in front ends TLS
{listen}  admin: {{ address: 127.0.0.1:9901 }}  # metrics, health, the callbacks API
agent: {{ address: 127.0.0.1:8000 }}  # your agent
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

const OBSERVE: &str =
    "    # mode: observe  # nothing is refused, everything is counted: for traffic that is there already\n";

/// A route with one address for all callbacks, and nothing to listen on besides.
fn one_address(name: &str, entry: &PresetDefinition) -> (&'static str, String) {
    let route = format!(
        "  - name: {name}
    path: /webhooks/{name}  # what you give to {title}, behind public_url
    provider: {name}
    forward: /webhooks/{name}  # where your agent takes it
{OBSERVE}",
        title = entry.title
    );
    ("", route)
}

/// A route with an address for each request, how it is made, and the listener that a rule for it needs. `derived`: a
/// secret goes along with it, which only a rule hands over.
fn addresses(name: &str, entry: &PresetDefinition, derived: bool) -> (&'static str, String) {
    let title = &entry.title;
    // A provider that no convention is known of is told the address where its own documentation says.
    let (how, place) = match entry.callback {
        Some(_) => (format!("preset: {name}, "), " }".to_owned()),
        None => {
            let place =
                format!(", url: /callback_url }}  # the member of the request in which {title} looks for it");
            (String::new(), place)
        }
    };
    let by_hand = match derived {
        true => "# An address, its token and its secret are made ".to_owned(),
        false => format!(
            "# An address and its token are made by hand: callgate mint -c FILE --route {name} --param id=ID\n# Or "
        ),
    };
    let route = format!(
        "  - name: {name}
    path: /webhooks/{name}/{{id}}  # every request to {title} gets such an address of its own, with a token: see below
    provider: {name}
    token: {{ kind: callback, from: [query] }}  # minted for each interaction, bound to {{id}}
    forward: /webhooks/{name}/{{id}}  # where your agent takes it
{OBSERVE}
{by_hand}by a rule, where the agent sends its requests to http://127.0.0.1:8081/{name}: take `# ` away below, and at `listen`.
# egress:
#   - name: {name}
#     path: /{name}
#     target: https://{CHANGE_ME}.example.com  # where requests to {title} go
#     # id: of each request anew; or from its body, such as /document_id
#     inject: {{ route: {name}, {how}params: {{ id: {{ new: uuid }} }}{place}
"
    );
    (
        "  # egress: { address: 127.0.0.1:8081 }  # where the agent's own requests come in, for the rule at the end\n",
        route,
    )
}
