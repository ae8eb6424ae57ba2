//! The presets of known providers: one YAML file for each preset, embedded in the binary. The code that reads these
//! files also reads the signature schemes that users describe.

use super::convention::CallbackConvention;
use super::definition::{Addresses, PresetDefinition, addresses, definition};
use crate::config::env::Surroundings;
use crate::config::yaml::{Cursor, Fields, Node, Reader, Sources, did_you_mean, shown};
use crate::signature::Scheme;

/// A preset of a known provider, or the description of an edge network. The text is an embedded YAML file.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name of the preset in the configuration.
    pub name: &'static str,
    /// The content of the YAML file.
    pub text: &'static str,
}

macro_rules! embedded {
    ($folder:literal, [$($name:literal),+ $(,)?]) => {
        &[$(Preset { name: $name, text: include_str!(concat!($folder, $name, ".yaml")) }),+]
    };
}

/// All presets of known providers, sorted alphabetically.
pub const PRESETS: &[Preset] = embedded!(
    "presets/",
    [
        "a2a-0-3",
        "a2a-bearer",
        "a2a-jsonrpc",
        "a2a-token",
        "adcp-legacy",
        "adcp-mcp",
        "adyen",
        "adyen-platform",
        "agentmail",
        "airtable",
        "anthropic",
        "apify",
        "asana",
        "assemblyai",
        "attio",
        "aws-sns",
        "azure-event-grid",
        "azure-event-grid-entra",
        "baseten",
        "basic-auth",
        "bitbucket",
        "bland",
        "box",
        "browser-use",
        "buildkite",
        "cal-com",
        "calendly",
        "camara",
        "checkout-com",
        "circleci",
        "clerk",
        "clickup",
        "cloudevents",
        "coinbase-commerce",
        "composio",
        "cursor",
        "customer-io",
        "deepgram",
        "discord",
        "discord-events",
        "docusign",
        "dropbox",
        "easypost",
        "elevenlabs",
        "exa",
        "fal",
        "firecrawl",
        "forgejo",
        "fusionauth",
        "gemini-dynamic",
        "gemini-static",
        "getstream",
        "ghost",
        "gitea",
        "github",
        "gitlab",
        "gitlab-signing-token",
        "gocardless",
        "gogs",
        "google-pubsub",
        "grafana",
        "helpscout",
        "heroku",
        "hookdeck",
        "hubspot",
        "hubspot-v1",
        "hubspot-v2",
        "huggingface",
        "infisical",
        "inngest",
        "intercom",
        "jira",
        "kick",
        "kie",
        "knock",
        "langfuse",
        "launchdarkly",
        "lemonsqueezy",
        "line",
        "linear",
        "livekit",
        "loops",
        "mailchannels",
        "mailgun",
        "make",
        "mcp-events",
        "messagebird",
        "meta",
        "metronome",
        "microsoft-graph",
        "modern-treasury",
        "mux",
        "nango",
        "netlify",
        "nexus",
        "notion",
        "nylas",
        "okta",
        "onfido",
        "onfleet",
        "openai",
        "paddle",
        "pagerduty",
        "parallel",
        "paypal",
        "plaid",
        "plain",
        "planetscale",
        "polar",
        "postmark",
        "pusher",
        "razorpay",
        "replicate",
        "resend",
        "retell",
        "rfc9421-adcp-webhook",
        "runcomfy",
        "runpod",
        "sanity",
        "sendgrid",
        "sentry",
        "shopify",
        "skyvern",
        "slack",
        "snyk",
        "square",
        "standard-webhooks",
        "standard-webhooks-v1a",
        "stripe",
        "supabase",
        "svix",
        "tailscale",
        "telegram",
        "telnyx",
        "terraform",
        "trello",
        "twilio",
        "twitch",
        "typeform",
        "ucp",
        "ultravox",
        "upstash-qstash",
        "vapi-default",
        "vercel",
        "webex",
        "webflow",
        "websub",
        "woocommerce",
        "workos",
        "x",
        "zendesk",
        "zoom",
    ]
);

/// The descriptions of all known edge networks, sorted alphabetically.
pub const EDGES: &[Preset] = embedded!("edges/", ["cloudflare", "fastly"]);

/// Returns the names of all presets, without their aliases.
pub(super) fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|preset| preset.name).collect()
}

/// Returns the preset with this name or alias, and its compiled definition.
pub fn preset(name: &str) -> Option<(&'static Preset, PresetDefinition)> {
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) {
        return Some((preset, preset.read().ok()?));
    }
    PRESETS.iter().find_map(|preset| {
        // If the text of a preset file does not contain the name, the name is no alias of this preset. The file is then
        // not parsed.
        if !preset.text.contains(name) {
            return None;
        }
        let entry = preset.read().ok()?;
        entry.aliases.iter().any(|alias| **alias == *name).then_some((preset, entry))
    })
}

/// Returns the signature scheme of a preset. Returns `None` if there is no such preset, or if the preset has no
/// scheme.
pub(crate) fn scheme_of(name: &str) -> Option<Scheme> {
    preset(name)?.1.scheme
}

/// Returns the description of an edge network: the header in which the network sends the client address, and the
/// addresses of the network.
pub(crate) fn edge(name: &str) -> Option<(http::HeaderName, Addresses)> {
    let edge = EDGES.iter().find(|edge| edge.name == name)?;
    edge.compile(|fields| {
        for key in ["title", "source"] {
            fields.required(key)?.text()?;
        }
        let header = fields.required("header")?.header_name();
        let addresses = fields.required("addresses").and_then(|at| addresses(&at));
        Some((header?, addresses?))
    })
    .ok()
}

/// Reads the name of a preset in the configuration. Returns the callback convention of the preset.
pub(crate) fn callback_convention(at: &Cursor<'_>) -> Option<CallbackConvention> {
    let name = at.text()?;
    match preset(name) {
        Some((_, PresetDefinition { callback: Some(callback), .. })) => Some(callback),
        Some((_, entry)) => at.error(
            format!("{} does not accept the address of callbacks in a request", entry.title),
            "see `callgate providers`",
        ),
        None => at.error(format!("{} is not a preset", shown(name)), did_you_mean(name, &names())),
    }
}

impl Preset {
    /// Compiles the YAML file of a preset.
    ///
    /// # Errors
    /// Returns the mistakes in the file as text, one line for each mistake.
    pub fn read(&self) -> Result<PresetDefinition, String> {
        self.compile(definition)
    }

    fn compile<T>(&self, read: impl Fn(&mut Fields<'_>) -> Option<T>) -> Result<T, String> {
        let nothing =
            Surroundings { env: &|_| None, file: &|_| Err(std::io::Error::other("presets read no files")) };
        let tree = Node::parse(self.text).map_err(|(message, _)| message)?;
        let reader = Reader::new(&nothing);
        let read = Cursor::root(&reader, &tree).fields().and_then(|mut fields| {
            let read = read(&mut fields);
            fields.finish();
            read
        });
        let list = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        reader.finish(&Sources::new(self.text)).map_err(list)?;
        read.ok_or_else(|| "incomplete".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Slot;
    use crate::signature::Proof;

    #[test]
    fn every_preset_compiles_and_the_list_is_whole() {
        let mut wrong = Vec::new();
        for preset in PRESETS {
            if let Err(error) = preset.read() {
                wrong.push(format!("{}: {error}", preset.name));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        for (folder, list) in [("presets", PRESETS), ("edges", EDGES)] {
            let files = std::fs::read_dir(format!("src/config/provider/{folder}")).unwrap();
            let mut files: Vec<String> =
                files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            files.sort_by_key(|file| file.trim_end_matches(".yaml").to_owned());
            let listed: Vec<String> = list.iter().map(|preset| format!("{}.yaml", preset.name)).collect();
            assert_eq!(listed, files, "{folder}");
        }
        assert!(EDGES.iter().all(|known| edge(known.name).is_some()));
    }

    /// Three presets sign two parts without a boundary between them, because their providers do so. In a signature
    /// scheme that a user describes, this is an error.
    #[test]
    fn few_presets_sign_parts_without_a_boundary() {
        let unclear = |preset: &Preset| {
            let Some(Proof::Content(scheme)) = preset.read().unwrap().scheme.map(|scheme| scheme.proof)
            else {
                return None;
            };
            let time = scheme.timestamp.as_ref().map(|rule| &rule.source);
            let (first, second) = scheme.content.unclear_boundary(time)?;
            Some(format!("{}: {first}{second}", preset.name))
        };
        let unclear: Vec<_> = PRESETS.iter().filter_map(unclear).collect();
        let known = ["kie: {body:/taskId}{body:/data/task_id}", "trello: {body}{url}", "twilio: {url}{form}"];
        assert_eq!(unclear, known);
    }

    /// Every preset passes two checks: the signature does not cover itself, and no handshake needs a body in two
    /// formats. The signature schemes of users must pass the same checks.
    #[test]
    fn every_preset_describes_possible_requests() {
        for preset in PRESETS {
            let Some(scheme) = preset.read().unwrap().scheme else { continue };
            if let Proof::Content(content) = &scheme.proof {
                assert!(!content.covers_itself(), "{}", preset.name);
            }
            for handshake in &scheme.handshakes {
                let formats = handshake.body_formats().chain(scheme.body_formats(handshake.signed));
                let mut formats: Vec<_> = formats.collect();
                formats.dedup();
                assert!(formats.len() < 2, "{}: {}: {formats:?}", preset.name, handshake.name);
            }
        }
    }

    #[test]
    fn the_requests_for_one_provider_contain_a_secret() {
        let has_secret = |callback: CallbackConvention| {
            callback.insertions().any(|insertion| insertion.shape.holds(Slot::Secret))
        };
        let of = |preset: &&Preset| preset.read().unwrap().callback.is_some_and(has_secret);
        let names: Vec<_> = PRESETS.iter().filter(of).map(|preset| preset.name).collect();
        assert_eq!(names, ["mcp-events"]);
    }

    #[test]
    fn no_name_is_taken_twice() {
        let mut taken: Vec<Box<str>> = Vec::new();
        for preset in PRESETS {
            let entry = preset.read().unwrap();
            for name in std::iter::once(preset.name.into()).chain(entry.aliases) {
                assert!(!taken.contains(&name), "{name}");
                assert!(super::preset(&name).is_some(), "{name}");
                taken.push(name);
            }
        }
    }
}
