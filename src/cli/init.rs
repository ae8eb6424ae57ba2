//! `callgate init`: writes a first configuration for one provider. The configuration is compiled before it is written.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::common::{EXIT_DATA, EXIT_USAGE};
use crate::config::{CHANGE_ME, Config, PresetDefinition, Surroundings, preset};
use crate::egress::Slot;

#[derive(Args)]
pub(super) struct InitArgs {
    /// The provider. `callgate providers` lists all names.
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// The file to write, which must not exist. Default: standard output.
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn init(args: &InitArgs) -> u8 {
    let Some((preset, entry)) = preset(&args.provider) else {
        eprintln!("error: there is no provider {}; `callgate providers` lists them", args.provider);
        return EXIT_DATA;
    };
    let Some(text) = first_configuration(preset.name, &entry) else {
        eprintln!("error: no first configuration can be made for {}: see docs/providers.md", entry.title);
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

/// Example secrets, one for each format that schemes require. A new configuration is compiled once with each of them,
/// until one compilation succeeds.
const SECRETS: [&str; 6] = [
    "a secret of thirty-two bytes, or more",
    "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
    "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    "PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=",
    "user:and a long password",
    r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","alg":"ES256","x":"jBLSfGDkO-rjWoKjB9EE5H_aiqnSTWUqcljqlFtM0zA","y":"uNpP4Kk8K_vP85ojcaUJCWi7Uvy1GH03JPDlf9f4oIo"}]}"#,
];

/// The setting for a provider whose secrets Callgate derives. Each interaction has a secret of its own.
const DERIVED: &str = "secrets: derived";

/// Returns a configuration that compiles, with comments that say what to change. Returns `None` if no configuration for
/// this provider compiles.
pub fn first_configuration(name: &str, entry: &PresetDefinition) -> Option<String> {
    let hands_over = entry.callback.as_ref().is_some_and(|callback| {
        callback.insertions().any(|insertion| insertion.shape.holds(Slot::Secret))
    });
    let what = if entry.secret.is_empty() { "the secret" } else { &*entry.secret };
    let own = format!("    secrets: [ {{ env: {} }} ]  # {what}\n", variable(name));
    let derived = format!(
        "    {DERIVED}  # one secret for each interaction; the egress rule below sends it to the provider\n"
    );
    // A secret is added only if the configuration does not compile without one. A provider with published keys needs no
    // secret, because Callgate fetches the keys.
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

fn configuration(name: &str, entry: &PresetDefinition, provider: &str) -> String {
    // Without a signature, only the token of the interaction protects the route.
    let signs = entry.scheme.as_ref().is_some_and(|scheme| scheme.has_proof());
    let one = signs && entry.callback.is_none();
    let (listen, route) =
        if one { one_address(name, entry) } else { addresses(name, entry, provider.contains(DERIVED)) };
    let change = format!(" and replace each {CHANGE_ME}");
    let fill = if provider.contains(CHANGE_ME) { &*change } else { "" };
    format!(
        "# Callgate in front of an agent that {title} calls back. Signatures and callbacks: {source}
# Set the environment variables below{fill}. Then run: callgate check -c FILE && callgate run -c FILE
public_url: https://agent.example.com  # your public URL
listen:  # in a pod: ingress on 0.0.0.0:8443 with `tls`, and admin on 0.0.0.0:9901, which the probes of deploy/ use
  ingress: [ {{ address: 0.0.0.0:8080 }} ]  # plain HTTP; without a load balancer that ends TLS, add `tls` (docs/configuration.md)
{listen}  admin: {{ address: 127.0.0.1:9901 }}  # metrics, health checks, callbacks API
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

const OBSERVE: &str = "    # mode: observe  # also delivers requests that fail a check, and counts them; use it at first for existing traffic\n";

/// Returns a route with one address for all callbacks. Such a route needs no further listener.
fn one_address(name: &str, entry: &PresetDefinition) -> (&'static str, String) {
    let route = format!(
        "  - name: {name}
    path: /webhooks/{name}  # the webhook URL for {title} is public_url and this path
    provider: {name}
    forward: /webhooks/{name}  # the path of your agent
{OBSERVE}",
        title = entry.title
    );
    ("", route)
}

/// Returns a route with one address for each request, the egress rule that creates these addresses, and the egress
/// listener. If `derived` is true, each address has its own secret, and only an egress rule can send this secret to the
/// provider.
fn addresses(name: &str, entry: &PresetDefinition, derived: bool) -> (&'static str, String) {
    let title = &entry.title;
    // If the provider's convention is unknown, only the provider's documentation says which field of the request
    // contains the callback URL.
    let (how, place) = match entry.callback {
        Some(_) => (format!("preset: {name}, "), " }".to_owned()),
        None => {
            let place = format!(
                ", url: /callback_url }}  # the member of the request body in which {title} expects the URL"
            );
            (String::new(), place)
        }
    };
    let by_hand = match derived {
        true => "# Callgate makes each address, its token and its secret ".to_owned(),
        false => format!(
            "# Make an address and its token by hand: callgate mint -c FILE --route {name} --param id=ID\n# Or let Callgate make them "
        ),
    };
    let has_final_states = entry
        .callback
        .as_ref()
        .is_some_and(|callback| !callback.done.is_empty() || !callback.failed.is_empty());
    let states = match has_final_states {
        true => format!(
            "    interaction: {{ preset: {name} }}  # a callback of {title} with a final state ends the interaction\n"
        ),
        false => String::new(),
    };
    let route = format!(
        "  - name: {name}
    path: /webhooks/{name}/{{id}}  # each request to {title} has its own address, with a token
    provider: {name}
    token: {{ kind: callback, from: [query] }}  # one token for each interaction, bound to {{id}}
{states}    forward: /webhooks/{name}/{{id}}  # the path of your agent
{OBSERVE}
{by_hand}for requests that the agent sends to http://127.0.0.1:8081/{name}: remove `# ` below, and at `listen`.
# egress:
#   - name: {name}
#     path: /{name}
#     target: https://{CHANGE_ME}.example.com  # the API of {title}
#     # id: a new UUID for each request, or a member of its body, such as /document_id
#     inject: {{ route: {name}, {how}params: {{ id: {{ new: uuid }} }}{place}
"
    );
    ("  # egress: { address: 127.0.0.1:8081 }  # for the egress rule at the end\n", route)
}
