//! The definition of a preset, and the reader for its YAML file.

use super::convention::{CallbackConvention, convention};
use super::fetched_documents;
use super::handshake_rules::handshakes;
use super::signature_scheme::{KINDS, Kind, MACS, scheme};
use crate::config::yaml::{Cursor, Fields};
use crate::signature::{MacAlgorithm, Proof, Scheme, StatedAlgorithm};
use crate::source::{Networks, Selection};

/// The addresses from which a provider calls.
#[derive(Clone, Debug)]
pub enum Addresses {
    /// A list of addresses that the provider publishes: the URL of the list, and the rule that selects the networks in
    /// the list.
    Feed(Box<str>, Selection),
    /// The networks that the provider's documentation states.
    Fixed(Networks),
}

/// The kind of evidence on which the definition of a preset is based.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Evidence {
    /// The provider's own documentation or specification.
    Documentation,
    /// The code of the provider's own client library.
    Library,
    /// Several independent programs that receive messages of this provider. All of them verify the messages in the same
    /// way.
    Receivers,
}

impl Evidence {
    /// Returns the name of the kind of evidence in preset files.
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

/// The content of the YAML file of a preset.
#[derive(Clone, Debug)]
pub struct PresetDefinition {
    /// The provider's name.
    pub title: Box<str>,
    /// Other names under which a configuration can select the preset.
    pub aliases: Vec<Box<str>>,
    /// The URL of the page or the code that describes the provider's signature.
    pub source: Box<str>,
    /// The kind of evidence on which the preset is based.
    pub evidence: Evidence,
    /// A description of the secret that the user has to write into `secrets`.
    pub secret: Box<str>,
    /// A description of the parts of a request that the signature does not protect. `None` if there are no such parts.
    pub gaps: Option<Box<str>>,
    /// The signature scheme of the provider. `None` if the provider does not sign and has no handshakes.
    pub scheme: Option<Scheme>,
    /// The JWT claims that the user must set in `expect`.
    pub expect: Vec<Box<str>>,
    /// The MAC algorithms from which the user can choose with `algorithm`. The list is empty if the user cannot choose.
    pub algorithms: Vec<MacAlgorithm>,
    /// True if the user chooses the name of the header in which the provider sends its secret.
    pub header_is_yours: bool,
    /// The addresses from which the provider calls, if they are known.
    pub addresses: Option<Addresses>,
    /// How a request asks the provider for callbacks, and how to read these callbacks. `None` if the preset does not
    /// describe callbacks to requests.
    pub callback: Option<CallbackConvention>,
    /// The path of a document on the public host. In this document, the provider looks up the paths that accept its
    /// messages.
    pub well_known: Option<Box<str>>,
    /// True if the provider reads the responses to its callbacks.
    pub reads_answer: bool,
}

impl PresetDefinition {
    /// Reports whether `scheme` expects a shared secret in the header in which the provider sends the token of the
    /// interaction back. Such a provider has no secret of its own. Its callbacks contain the token that the request
    /// contained.
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
    let answer = fields.optional("answer").map_or(Some(false), |at| at.one_of(&[("read", true)]));
    let (scheme, expect, algorithms, header_is_yours) = match signature {
        None => {
            let shakes = shakes?;
            let scheme = (!shakes.is_empty()).then(|| Scheme { handshakes: shakes, ..Scheme::unsigned() });
            (scheme, Vec::new(), Vec::new(), false)
        }
        Some(read) => {
            let (scheme, choices) = read?;
            let scheme = Scheme { handshakes: shakes?, ..scheme };
            (Some(scheme), choices.expect, choices.algorithms, choices.header_is_yours)
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
        algorithms,
        header_is_yours,
        addresses: addresses.map_or(Some(None), |read| read.map(Some))?,
        callback: callback.map_or(Some(None), |read| read.map(Some))?,
        well_known: well_known.map_or(Some(None), |read| read.map(Some))?,
        reads_answer: answer?,
    })
}

/// The parts of a preset's signature scheme that the user must choose.
struct Choices {
    algorithms: Vec<MacAlgorithm>,
    expect: Vec<Box<str>>,
    header_is_yours: bool,
}

fn signature(at: &Cursor<'_>) -> Option<(Scheme, Choices)> {
    let mut fields = at.fields()?;
    let kind = fields.optional("scheme").map_or(Some(Kind::Hmac), |at| at.one_of(KINDS));
    let expect = fields.optional("expect").map_or(Some(Vec::new()), |at| at.texts());
    let yours = fields.optional("header_is_yours").map_or(Some(false), |at| at.boolean());
    let algorithms = fields.optional("algorithms").map_or(Some(Vec::new()), |at| {
        let read: Vec<_> = at.list()?.iter().map(|at| at.one_of(MACS)).collect();
        read.into_iter().collect()
    });
    let stated = fields.optional("stated_algorithm").map(|at| stated_algorithm(&at));
    let scheme = kind.and_then(|kind| scheme(kind, &mut fields));
    fields.finish();
    let stated_algorithm = stated.map_or(Some(None), |read| read.map(Some))?;
    let choices = Choices { algorithms: algorithms?, expect: expect?, header_is_yours: yours? };
    Some((Scheme { stated_algorithm, ..scheme? }, choices))
}

/// Reads `stated_algorithm` of a preset, for a provider that states the MAC algorithm in a header. The key `header`
/// names the header, and the key `item` names the item of the header that contains the algorithm. The key `names` maps
/// each algorithm to the provider's name for it. The key `without_header` is the algorithm of a message without the
/// header.
fn stated_algorithm(at: &Cursor<'_>) -> Option<StatedAlgorithm> {
    let mut fields = at.fields()?;
    let header = fields.required("header").and_then(|at| at.header_name());
    let item = fields.required("item").and_then(|at| at.text());
    let without_header = fields.required("without_header").and_then(|at| at.one_of(MACS));
    let mut names = Vec::new();
    if let Some(at) = fields.required("names") {
        for (name, algorithm) in at.named()? {
            names.push((algorithm.one_of(MACS)?, name.into()));
        }
    }
    fields.finish();
    Some(StatedAlgorithm { header: header?, item: item?.into(), names, without_header: without_header? })
}

pub(super) fn addresses(at: &Cursor<'_>) -> Option<Addresses> {
    let mut fields = at.fields()?;
    // The preset file states the date and the source of the address list only for readers of the file.
    fields.required("as_of")?.text()?;
    let _ = fields.optional("source").map(|at| at.text());
    let feed = fields.optional("feed").map(|at| at.fetchable());
    let networks = fields.optional("networks").map(|at| at.networks());
    let selection = fetched_documents::selection(&mut fields);
    fields.finish();
    match (feed, networks) {
        (Some(url), None) => Some(Addresses::Feed(url?, selection?)),
        (None, Some(networks)) => Some(Addresses::Fixed(Networks::new(networks?))),
        _ => at.error("expected exactly one of feed and networks", ""),
    }
}
