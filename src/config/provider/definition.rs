//! The definition of a preset, and its reader for YAML files.

use super::convention::{CallbackConvention, convention};
use super::feeds;
use super::handshake_rules::handshakes;
use super::signature_scheme::{KINDS, Kind, scheme};
use crate::config::yaml::{Cursor, Fields};
use crate::signature::{Proof, Scheme};
use crate::source::{Networks, Selection};

/// The addresses from which a provider calls.
#[derive(Clone, Debug)]
pub enum Addresses {
    /// A list that the provider publishes: its URL, and the rule that selects the networks in the list.
    Feed(Box<str>, Selection),
    /// The networks in the provider's documentation.
    Fixed(Networks),
}

/// The evidence for a preset.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// The provider's own documentation or specification.
    Documentation,
    /// The code of the provider's own client library.
    Library,
    /// Several independent programs that receive this provider's messages and verify them in the same way.
    Receivers,
}

impl Evidence {
    /// Returns the name of the kind of evidence.
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

/// The content of a preset.
#[derive(Clone, Debug)]
pub struct PresetDefinition {
    /// The provider's name.
    pub title: Box<str>,
    /// Other names of the preset.
    pub aliases: Vec<Box<str>>,
    /// The URL of the page or the code that describes the provider's signature.
    pub source: Box<str>,
    /// The evidence for the preset.
    pub evidence: Evidence,
    /// A description of the secret that the user has to write into `secrets`.
    pub secret: Box<str>,
    /// The parts of a request that the signature does not protect.
    pub gaps: Option<Box<str>>,
    /// The signature scheme. `None` if the provider does not sign.
    pub scheme: Option<Scheme>,
    /// The claims that the user must set in `expect`.
    pub expect: Vec<Box<str>>,
    /// True if the user chooses the name of the header in which the provider sends its secret.
    pub header_is_yours: bool,
    /// The addresses from which the provider calls, if they are known.
    pub addresses: Option<Addresses>,
    /// How a request asks the provider for callbacks, and how to read these callbacks.
    pub callback: Option<CallbackConvention>,
    /// The path of the document in which the provider looks up the paths that accept its messages.
    pub well_known: Option<Box<str>>,
}

impl PresetDefinition {
    /// Reports whether the provider sends back the token of the request in the header in which `scheme` expects a shared
    /// secret. Such a provider has no secret of its own: each request names the value that its callbacks contain.
    pub fn sends_token_as_secret(&self, scheme: &Scheme) -> bool {
        let is_secret = matches!(scheme.proof, Proof::SharedSecret(_));
        let sends = |callback: &CallbackConvention| callback.token_header(scheme.proof_headers()).is_some();
        is_secret && self.callback.as_ref().is_some_and(sends)
    }
}

pub(super) fn definition(fields: &mut Fields<'_>) -> Option<PresetDefinition> {
    let mut text = |key| fields.required(key).and_then(|at| at.text()).map(Box::<str>::from);
    let (title, source, secret) = (text("title"), text("source"), text("secret"));
    let evidence = fields.required("evidence").and_then(|at| at.one_of(EVIDENCE));
    let aliases = fields.optional("aliases").map_or(Some(Vec::new()), |at| at.texts());
    let gaps = fields.optional("gaps").map(|at| at.text().map(Into::into));
    let signature = fields.optional("signature").map(|at| signature(&at));
    let shakes = fields.optional("handshakes").map_or(Some(Vec::new()), |at| handshakes(&at));
    let addresses = fields.optional("addresses").map(|at| addresses(&at));
    let callback = fields.optional("callback").map(|at| convention(&at));
    let well_known = fields.optional("well_known").map(|at| at.text().map(Into::into));
    let (scheme, expect, header_is_yours) = match signature {
        None => {
            let shakes = shakes?;
            let scheme = (!shakes.is_empty()).then(|| Scheme { handshakes: shakes, ..Scheme::unsigned() });
            (scheme, Vec::new(), false)
        }
        Some(read) => {
            let (scheme, expect, yours) = read?;
            (Some(Scheme { handshakes: shakes?, ..scheme }), expect, yours)
        }
    };
    Some(PresetDefinition {
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
    let expect = fields.optional("expect").map_or(Some(Vec::new()), |at| at.texts());
    let yours = fields.optional("header_is_yours").map_or(Some(false), |at| at.boolean());
    let scheme = kind.and_then(|kind| scheme(kind, &mut fields));
    fields.finish();
    Some((scheme?, expect?, yours?))
}

pub(super) fn addresses(at: &Cursor<'_>) -> Option<Addresses> {
    let mut fields = at.fields()?;
    // The date and the source of the list are only for readers of the file.
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
