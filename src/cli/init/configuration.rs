//! Creates the text of a first configuration.

use crate::config::{CHANGE_ME, CallbackConvention, Config, PresetDefinition, Surroundings, TokenReturn};
use crate::egress::{CallbackRequest, RequestCondition, Slot};

/// Example secrets, one for each format that signature schemes require. A new configuration is compiled once with each
/// secret, until one compilation succeeds.
const SECRETS: [&str; 6] = [
    TOKEN_KEY,
    "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA=",
    "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056",
    "PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM=",
    "user:and a long password",
    r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","alg":"ES256","x":"jBLSfGDkO-rjWoKjB9EE5H_aiqnSTWUqcljqlFtM0zA","y":"uNpP4Kk8K_vP85ojcaUJCWi7Uvy1GH03JPDlf9f4oIo"}]}"#,
];

/// An example of a secret key that signs callback tokens.
const TOKEN_KEY: &str = "a secret of thirty-two bytes, or more";

/// The setting of a provider whose secrets Callgate derives. Each interaction has a secret of its own.
const DERIVED: &str = "secrets: derived";

/// The address of the egress listener in a first configuration.
const EGRESS: &str = "127.0.0.1:8081";

const OBSERVE: &str = "    # mode: observe  # also delivers requests that fail a check, and counts them; use it at first for existing traffic\n";

/// The parts of a first configuration that belong to one provider.
struct Parts {
    /// The text of the provider's entry in the section `providers`.
    provider: String,
    /// The text of the provider's entry in the section `routes`.
    route: String,
    /// The text of the provider's entry in the section `egress`. `None` if the provider sends all callbacks to one URL.
    rule: Option<Rule>,
    /// The example secret with which the configuration for this provider compiles. During the compilation, the
    /// environment variable for the provider's secret has this value.
    secret: &'static str,
}

/// The text of an entry in the section `egress`.
enum Rule {
    /// A complete entry that is in use.
    Active(String),
    /// A commented-out entry, in two parts. The configuration contains a text between the two parts: the list of the
    /// locations where the user must remove the comment signs.
    Commented(String, String),
}

/// Returns the text of a configuration that compiles, with comments about the values to change. `providers` contains
/// the name and the preset of each provider. Returns `None` if the configuration for one provider alone, or for all
/// providers together, does not compile.
pub fn first_configuration(providers: &[(&str, PresetDefinition)]) -> Option<String> {
    let parts: Vec<_> = providers.iter().map(|(name, entry)| parts(name, entry)).collect::<Option<_>>()?;
    let text = configuration(providers, &parts);
    let secret = |wanted: &str| {
        let mut names = providers.iter().map(|(name, _)| variable(name)).zip(&parts);
        names.find(|(name, _)| name == wanted).map_or(TOKEN_KEY, |(_, parts)| parts.secret)
    };
    compiles(&text, &secret).then_some(text)
}

/// Returns the parts of the configuration for one provider. Tries several combinations of settings, and uses the first
/// combination with which a configuration compiles.
fn parts(name: &str, entry: &PresetDefinition) -> Option<Parts> {
    let slots = |callback: &CallbackConvention| {
        callback.insertions().any(|insertion| insertion.shape.holds(Slot::Secret))
    };
    let hands_over = entry.callback.as_ref().is_some_and(slots);
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
    let settings = secrets
        .into_iter()
        .flatten()
        .flat_map(|secrets| expects.map(|expect| format!("    preset: {name}\n{secrets}{expect}")));
    let mut parts = settings.map(|settings| parts_with(name, entry, &settings));
    parts.find_map(|parts| {
        let text = configuration(&[(name, entry.clone())], std::slice::from_ref(&parts));
        let secret = SECRETS.into_iter().find(|secret| compiles(&text, &|_| *secret))?;
        Some(Parts { secret, ..parts })
    })
}

/// Reports whether the text of a configuration compiles. `secret` returns the value of each environment variable.
fn compiles(text: &str, secret: &dyn Fn(&str) -> &'static str) -> bool {
    let env = |name: &str| Some(secret(name).to_owned());
    let file = |_: &str| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
    Config::parse(&text.replace(CHANGE_ME, "changed"), &Surroundings { env: &env, file: &file }).is_ok()
}

/// Returns the name of the environment variable for a provider's secret: `stripe` becomes `STRIPE_SECRET`.
fn variable(name: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("{}_SECRET", name.chars().map(upper).collect::<String>())
}

fn parts_with(name: &str, entry: &PresetDefinition, settings: &str) -> Parts {
    // If the provider does not sign its callbacks, the route needs a callback token.
    let signs = entry.scheme.as_ref().is_some_and(|scheme| scheme.has_proof());
    let provider = format!("  {name}:\n{settings}");
    match &entry.callback {
        None if signs => Parts { provider, route: one_address(name, entry), rule: None, secret: "" },
        _ => {
            let rule = rule(name, entry, settings.contains(DERIVED));
            Parts { provider, route: addresses(name, entry), rule: Some(rule), secret: "" }
        }
    }
}

fn configuration(providers: &[(&str, PresetDefinition)], parts: &[Parts]) -> String {
    let names: Vec<_> = providers.iter().map(|(_, entry)| &*entry.title).collect();
    let mut sources: Vec<_> = providers.iter().map(|(_, entry)| &*entry.source).collect();
    sources.dedup();
    let text = |part: fn(&Parts) -> &str| parts.iter().map(part).collect::<String>();
    let (settings, routes) = (text(|parts| &parts.provider), text(|parts| &parts.route));
    let rules: Vec<_> = parts.iter().filter_map(|parts| parts.rule.as_ref()).collect();
    let is_active = rules.iter().any(|rule| matches!(rule, Rule::Active(_)));
    let egress_listener = match (rules.is_empty(), is_active) {
        (true, _) => String::new(),
        (false, true) => format!(
            "  egress: {{ address: {EGRESS} }}  # the agent sends its requests to the providers here\n"
        ),
        (false, false) => format!("  # egress: {{ address: {EGRESS} }}  # for the egress rule at the end\n"),
    };
    // Without an egress rule, no route has a callback token.
    let tokens = match rules.is_empty() {
        true => "",
        false => {
            "callback_tokens:\n  keys: [ { id: k1, algorithm: HS256, secret: { env: CALLGATE_TOKEN_KEY } } ]  # openssl rand -base64 32\n"
        }
    };
    let egress = match (rules.is_empty(), is_active) {
        (true, _) => String::new(),
        (false, true) => "\negress:\n".to_owned(),
        (false, false) => "\n# egress:\n".to_owned(),
    };
    // With an active egress rule of another provider, the section `egress` and its listener are not commented out.
    let places = if is_active { "here" } else { "here, at `egress`, and at `listen`" };
    let rule = |rule: &&Rule| match rule {
        Rule::Active(text) => text.clone(),
        Rule::Commented(before, after) => format!("{before}{places}{after}"),
    };
    let rules: String = rules.iter().map(rule).collect();
    let change = match settings.contains(CHANGE_ME) || is_active && rules.contains(CHANGE_ME) {
        true => format!(" and replace each {CHANGE_ME}"),
        false => String::new(),
    };
    format!(
        "# Callgate in front of an agent that {titles} calls back. Signatures and callbacks: {sources}
# Set the environment variables below{change}. Then run: callgate check -c FILE && callgate run -c FILE
public_url: https://agent.example.com  # your public URL
listen:  # in a pod: ingress on 0.0.0.0:8443 with `tls`, and admin on 0.0.0.0:9901, which the probes of deploy/ use
  ingress: [ {{ address: 0.0.0.0:8080 }} ]  # plain HTTP; without a load balancer that ends TLS, add `tls` (docs/configuration.md)
{egress_listener}  admin: {{ address: 127.0.0.1:9901 }}  # metrics, health checks, callbacks API
agent: {{ address: 127.0.0.1:8000 }}  # your agent
# With `kind: memory`, Callgate forgets at each restart which interactions are open, which deadlines and notices are due,
# and which callbacks were delivered: it delivers a callback again that the provider repeats. In a pod, use a volume.
store: {{ kind: file, path: callgate-ledger.redb }}  # in the working directory of Callgate
{tokens}providers:
{settings}routes:
{routes}{egress}{rules}",
        titles = names.join(" or "),
        sources = sources.join(" "),
    )
}

/// Returns the text of a route whose provider sends all callbacks to one URL. This route needs no egress listener.
fn one_address(name: &str, entry: &PresetDefinition) -> String {
    format!(
        "  - name: {name}
    path: /webhooks/{name}  # the webhook URL for {title} is public_url and this path
    provider: {name}
    forward: /webhooks/{name}  # the path of your agent
{OBSERVE}",
        title = entry.title
    )
}

/// Returns the text of a route for a provider that receives a separate callback URL with each request. The path of the
/// route contains an id, and the callback carries a token that is bound to this id.
fn addresses(name: &str, entry: &PresetDefinition) -> String {
    let title = &entry.title;
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
    format!(
        "  - name: {name}
    path: /webhooks/{name}/{{id}}  # each request to {title} has its own address, with a token
    provider: {name}
    token: {{ kind: callback, from: [{from}] }}  # one token for each interaction, bound to {{id}}
{states}    forward: /webhooks/{name}/{{id}}  # the path of your agent
{OBSERVE}",
        from = token_places(entry)
    )
}

/// Returns where a callback of the provider carries the token, as the value of the setting `from`.
fn token_places(entry: &PresetDefinition) -> String {
    match entry.callback.as_ref().map(|callback| &callback.token) {
        None | Some(TokenReturn::Url) => "query".to_owned(),
        Some(TokenReturn::Bearer) => "bearer".to_owned(),
        Some(TokenReturn::Header(name)) => {
            // Some protocols have several spellings of the header that carries the token.
            let headers = entry.scheme.as_ref().map_or(&[] as &[_], |scheme| scheme.proof_headers());
            let names = if headers.contains(name) { headers } else { std::slice::from_ref(name) };
            let names: Vec<_> = names.iter().map(|name| format!("{{ header: {name} }}")).collect();
            format!(" {} ", names.join(", "))
        }
    }
}

/// Returns the text of the egress rule that creates callback URLs. The rule is commented out if it is unknown where the
/// provider expects the callback URL. `derived` is true if Callgate derives the secrets of the provider. In this case,
/// only an egress rule can send the secret of an interaction to the provider.
fn rule(name: &str, entry: &PresetDefinition, derived: bool) -> Rule {
    let title = &entry.title;
    let by_hand = match derived {
        true => String::new(),
        false => format!(
            "# Make an address and its token by hand: callgate mint -c FILE --route {name} --param id=ID\n"
        ),
    };
    let Some(callback) = &entry.callback else {
        // Only the provider's documentation says which field of the request contains the callback URL.
        let before = format!(
            "{by_hand}# Or let Callgate make them for requests that the agent sends to http://{EGRESS}/{name}: remove `# ` "
        );
        let after = format!(
            ".
#   - name: {name}
#     path: /{name}
#     target: https://{CHANGE_ME}.example.com  # the API of {title}
#     # id: a new UUID for each request, or a member of its body, such as /document_id
#     inject: {{ route: {name}, params: {{ id: {{ new: uuid }} }}, url: /callback_url }}  # the member of the request body in which {title} expects the URL
"
        );
        return Rule::Commented(before, after);
    };
    let inject = format!("inject: {{ route: {name}, preset: {name}, params: {{ id: {{ new: uuid }} }} }}");
    let head = format!("{by_hand}  - name: {name}\n");
    Rule::Active(match prefix(callback) {
        Some(origin) => format!(
            "{head}    path: /{name}/{{*rest}}  # the base URL of the agent's client: http://{EGRESS}/{name}
    methods: [GET, HEAD, POST, PUT, PATCH, DELETE]
    target: {origin}/{{rest}}  # the API of {title}
    body_max: 64MiB  # the largest possible value; the default is 1MiB, also for uploads that get no callback
    {inject}  # {which} get a callback
",
            which = requests(&callback.requests)
        ),
        None => format!(
            "{head}    path: /{name}  # the agent sends requests with a callback to http://{EGRESS}/{name}
    target: {target}  # the URL of {title} for these requests
    {inject}
",
            target = callback
                .api
                .as_deref()
                .map_or_else(|| format!("https://{CHANGE_ME}.example.com"), str::to_owned)
        ),
    })
}

/// Returns the origin of the provider's API, to which one egress rule can forward all requests. Returns `None` if the
/// preset names one endpoint instead of an origin. Also returns `None` if the preset has no condition that identifies
/// the requests that get a callback.
fn prefix(callback: &CallbackConvention) -> Option<String> {
    let has_condition = |request: &CallbackRequest| request.condition != RequestCondition::default();
    match &callback.api {
        Some(api) => (api.matches('/').count() == 2).then(|| api.to_string()),
        None if callback.requests.iter().all(has_condition) => {
            Some(format!("https://{CHANGE_ME}.example.com"))
        }
        None => None,
    }
}

/// Describes the requests to which the egress rule adds a callback, as text.
fn requests(requests: &[CallbackRequest]) -> String {
    let paths = requests.iter().flat_map(|request| &request.condition.paths);
    let paths: Vec<&str> = paths.map(|path| &**path).collect();
    let members = requests.iter().filter_map(|request| request.condition.member.as_ref());
    let methods: Vec<&str> = members.flat_map(|(_, values)| values).map(|value| &**value).collect();
    let mut parts = Vec::new();
    if !paths.is_empty() {
        parts.push(format!("requests to paths that end with {}", paths.join(", ")));
    }
    if !methods.is_empty() {
        parts.push(format!("requests with the method {}", methods.join(", ")));
    }
    if parts.is_empty() { "requests with a body".to_owned() } else { parts.join(", and ") }
}
