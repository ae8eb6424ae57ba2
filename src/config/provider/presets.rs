//! The providers we know, as data: one YAML file each, in the language of the configuration, embedded in
//! the binary and read by the code that reads a user's own scheme.

use super::callback::{Callback, callback};
use super::feeds;
use super::fields::Fields;
use super::node::Node;
use super::reader::{Cursor, Reader, Surroundings};
use super::scheme::{KINDS, Kind, scheme};
use super::shake::handshakes;
use crate::signature::Scheme;
use crate::source::{Networks, Selection};

/// A provider we know.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its YAML.
    pub text: &'static str,
}

macro_rules! embedded {
    ($folder:literal, [$($name:literal),+ $(,)?]) => {
        &[$(Preset { name: $name, text: include_str!(concat!($folder, $name, ".yaml")) }),+]
    };
}

/// Every preset, alphabetically.
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
        "cal-com",
        "calendly",
        "camara",
        "clerk",
        "cloudevents",
        "cursor",
        "customer-io",
        "deepgram",
        "discord",
        "discord-events",
        "docusign",
        "dropbox",
        "elevenlabs",
        "exa",
        "fal",
        "firecrawl",
        "fusionauth",
        "gemini-dynamic",
        "gemini-static",
        "github",
        "gitlab",
        "gitlab-signing-token",
        "google-pubsub",
        "heroku",
        "hookdeck",
        "hubspot",
        "hubspot-v2",
        "huggingface",
        "infisical",
        "inngest",
        "intercom",
        "jira",
        "kick",
        "kie",
        "langfuse",
        "line",
        "linear",
        "livekit",
        "mailchannels",
        "mailgun",
        "mcp-events",
        "meta",
        "metronome",
        "microsoft-graph",
        "mux",
        "netlify",
        "nexus",
        "notion",
        "okta",
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
        "razorpay",
        "replicate",
        "resend",
        "retell",
        "rfc9421-adcp-webhook",
        "runcomfy",
        "runpod",
        "sendgrid",
        "sentry",
        "shopify",
        "skyvern",
        "slack",
        "square",
        "standard-webhooks",
        "standard-webhooks-v1a",
        "stripe",
        "supabase",
        "svix",
        "tailscale",
        "telegram",
        "telnyx",
        "trello",
        "twilio",
        "twitch",
        "typeform",
        "ucp",
        "upstash-qstash",
        "vapi-default",
        "vercel",
        "webflow",
        "websub",
        "woocommerce",
        "workos",
        "x",
        "zendesk",
        "zoom",
    ]
);

/// The edges in front of us that we know, alphabetically.
pub const EDGES: &[Preset] = embedded!("edges/", ["cloudflare", "fastly"]);

/// Where a provider's callbacks come from.
#[derive(Clone, Debug)]
pub enum Addresses {
    /// A published list.
    Feed(Box<str>, Selection),
    /// What its documentation says.
    Fixed(Networks),
}

/// What a preset was checked against.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// The provider's own documentation or specification.
    Documentation,
    /// Code of the provider's own client library.
    Library,
    /// Several receivers of other people that agree.
    Receivers,
}

impl Evidence {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Documentation => "documentation",
            Self::Library => "library",
            Self::Receivers => "receivers",
        }
    }
}

const EVIDENCE: &[(&str, Evidence)] = &[
    ("documentation", Evidence::Documentation),
    ("library", Evidence::Library),
    ("receivers", Evidence::Receivers),
];

/// A preset, read.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The provider's name.
    pub title: Box<str>,
    /// Other names of the preset.
    pub aliases: Vec<Box<str>>,
    /// Where the signature is described.
    pub source: Box<str>,
    /// What it was checked against.
    pub evidence: Evidence,
    /// What the user puts into `secrets`.
    pub secret: Box<str>,
    /// What the signature does not protect, in words.
    pub gaps: Option<Box<str>>,
    /// How it signs; `None`: it does not.
    pub scheme: Option<Scheme>,
    /// Which expectations the user must state.
    pub expect: Vec<Box<str>>,
    /// Whether the header's name is the user's choice.
    pub header_is_yours: bool,
    /// Where its callbacks come from, where it says so.
    pub addresses: Option<Addresses>,
    /// How a callback is asked for, with each request.
    pub callback: Option<Callback>,
    /// The document in which the provider looks for addresses that take its messages.
    pub well_known: Option<Box<str>>,
}

/// The names of all presets.
pub(super) fn names() -> Vec<&'static str> {
    PRESETS.iter().map(|preset| preset.name).collect()
}

/// The preset of this name, or of which this is another name.
pub fn preset(name: &str) -> Option<(&'static Preset, Entry)> {
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) {
        return Some((preset, preset.read().ok()?));
    }
    PRESETS.iter().find_map(|preset| {
        // Another name stands in one line near the top: only that file is read.
        if !preset.text.contains(name) {
            return None;
        }
        let entry = preset.read().ok()?;
        entry.aliases.iter().any(|alias| **alias == *name).then_some((preset, entry))
    })
}

/// The scheme of a preset; `None` when there is no such preset, or it has none.
pub(super) fn scheme_of(name: &str) -> Option<Scheme> {
    preset(name)?.1.scheme
}

/// An edge in front of us: the header in which it tells the caller's address, and its own addresses.
pub(super) fn edge(name: &str) -> Option<(http::HeaderName, Addresses)> {
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

impl Preset {
    /// Compiles the preset.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(&self) -> Result<Entry, String> {
        self.compile(entry)
    }

    fn compile<T>(&self, read: impl Fn(&mut Fields<'_>) -> Option<T>) -> Result<T, String> {
        let nothing =
            Surroundings { env: &|_| None, file: &|_| Err(std::io::Error::other("presets read no files")) };
        let tree = Node::parse(self.text).map_err(|(message, _)| message)?;
        let reader = Reader::new(&nothing);
        let read = reader.root(&tree).fields().and_then(|mut fields| {
            let read = read(&mut fields);
            fields.finish();
            read
        });
        let list = |errors: Vec<_>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        reader.finish(self.text).map_err(list)?;
        read.ok_or_else(|| "incomplete".to_owned())
    }
}

fn entry(fields: &mut Fields<'_>) -> Option<Entry> {
    let mut text = |key| fields.required(key).and_then(|at| at.text()).map(Box::<str>::from);
    let (title, source, secret) = (text("title"), text("source"), text("secret"));
    let evidence = fields.required("evidence").and_then(|at| at.one_of(EVIDENCE));
    let aliases = fields.optional("aliases").map_or(Some(Vec::new()), |at| at.words());
    let gaps = fields.optional("gaps").map(|at| at.text().map(Into::into));
    let signature = fields.optional("signature").map(|at| signature(&at));
    let shakes = fields.optional("handshakes").map_or(Some(Vec::new()), |at| handshakes(&at));
    let addresses = fields.optional("addresses").map(|at| addresses(&at));
    let callback = fields.optional("callback").map(|at| callback(&at));
    let well_known = fields.optional("well_known").map(|at| at.text().map(Into::into));
    let (scheme, expect, header_is_yours) = match signature {
        None => {
            let shakes = shakes?;
            let scheme = (!shakes.is_empty()).then(|| Scheme { handshakes: shakes, ..Scheme::nothing() });
            (scheme, Vec::new(), false)
        }
        Some(read) => {
            let (scheme, expect, yours) = read?;
            (Some(Scheme { handshakes: shakes?, ..scheme }), expect, yours)
        }
    };
    Some(Entry {
        title: title?,
        aliases: aliases?,
        source: source?,
        evidence: evidence?,
        secret: secret?,
        gaps: gaps.map_or(Some(None), |read| read.map(Some))?,
        scheme,
        expect,
        header_is_yours,
        addresses: addresses.map_or(Some(None), |read| read.map(Some))?,
        callback: callback.map_or(Some(None), |read| read.map(Some))?,
        well_known: well_known.map_or(Some(None), |read| read.map(Some))?,
    })
}

fn signature(at: &Cursor<'_>) -> Option<(Scheme, Vec<Box<str>>, bool)> {
    let mut fields = at.fields()?;
    let kind = fields.optional("scheme").map_or(Some(Kind::Hmac), |at| at.one_of(KINDS));
    let expect = fields.optional("expect").map_or(Some(Vec::new()), |at| at.words());
    let yours = fields.optional("header_is_yours").map_or(Some(false), |at| at.boolean());
    let scheme = kind.and_then(|kind| scheme(kind, &mut fields));
    fields.finish();
    Some((scheme?, expect?, yours?))
}

fn addresses(at: &Cursor<'_>) -> Option<Addresses> {
    let mut fields = at.fields()?;
    // When it was looked up, and where: for people.
    fields.required("as_of")?.text()?;
    let _ = fields.optional("source").map(|at| at.text());
    let feed = fields.optional("feed").map(|at| at.fetchable());
    let networks = fields.optional("networks").map(|at| at.networks());
    let selection = feeds::selection(&mut fields);
    fields.finish();
    match (feed, networks) {
        (Some(url), None) => Some(Addresses::Feed(url?, selection?)),
        (None, Some(networks)) => Some(Addresses::Fixed(Networks::new(networks?))),
        _ => at.error("expected exactly one of feed and networks", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let files = std::fs::read_dir(format!("src/config/{folder}")).unwrap();
            let mut files: Vec<String> =
                files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
            files.sort_by_key(|file| file.trim_end_matches(".yaml").to_owned());
            let listed: Vec<String> = list.iter().map(|preset| format!("{}.yaml", preset.name)).collect();
            assert_eq!(listed, files, "{folder}");
        }
        assert!(EDGES.iter().all(|known| edge(known.name).is_some()));
    }

    #[test]
    fn no_name_is_taken_twice() {
        let mut taken: Vec<Box<str>> = Vec::new();
        for preset in PRESETS {
            let entry = preset.read().unwrap();
            for name in std::iter::once(preset.name.into()).chain(entry.aliases) {
                assert!(!taken.contains(&name), "{name}");
                assert!(super::super::presets::preset(&name).is_some(), "{name}");
                taken.push(name);
            }
        }
    }
}
