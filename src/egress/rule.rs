//! The rules of the egress: which of the agent's requests go where, and what callback they get.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};

use super::inject::{self, Insertion, Place, Source};
use super::shape::Callback;
use crate::denial::{Denial, Refusal};
use crate::guard::Url;
use crate::json::Pointer;
use crate::path::{CanonicalPath, Captures, Template, check_query, is_capturable};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::time::Timestamp;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name: metric label and log field.
    pub name: Box<str>,
    /// The path at which the agent calls.
    pub path: Template,
    /// The methods it takes.
    pub methods: Vec<Method>,
    /// Where the request goes.
    pub target: Target,
    /// The callback it gets; `None`: none.
    pub inject: Option<Inject>,
    /// Headers it is sent with, credentials of the provider among them; they replace the agent's.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Largest body, in bytes.
    pub body_bytes_max: u64,
    /// How long a connection may take, TLS included.
    pub connect_timeout: Duration,
    /// How long the head of the answer, and each further piece of it, may take.
    pub response_timeout: Duration,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The URL; of one with captures in its path, the origin.
    pub url: Url,
    /// The path, where it has captures.
    pub path: Option<Template>,
}

/// The callback a request gets.
#[derive(Clone, Debug)]
pub struct Inject {
    /// The route the callback comes in by.
    pub route: Arc<str>,
    /// Where the value for each of its captures comes from.
    pub params: Vec<(Box<str>, Source)>,
    /// What goes where.
    pub insertions: Vec<Insertion>,
    /// A request that has something in one of these places is sent as it is, without a callback of ours.
    pub keep: bool,
    /// How long the token lives; `None`: as `callback_tokens` says.
    pub ttl: Option<Duration>,
    /// How many callbacks it is good for; `None`: any number.
    pub uses: Option<u32>,
    /// Where the provider's own id stands in its answer.
    pub response: Option<Pointer>,
}

/// What is to be done with a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Plan {
    /// Mint a callback for these captures, then send.
    Mint(Vec<(Box<str>, String)>),
    /// Send as it is.
    Pass {
        /// The agent brought a callback of its own, which the rule keeps.
        kept: bool,
    },
}

/// A request that no rule takes.
#[derive(Clone, Debug)]
pub struct Unruled {
    /// Why.
    pub refusal: Refusal,
    /// The rule that has the path, but not the method or not the size.
    pub rule: Option<Arc<Rule>>,
}

/// The rules.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    rules: Vec<Arc<Rule>>,
}

impl Egress {
    /// Rules, which are known to differ in shape.
    pub fn new(mut rules: Vec<Arc<Rule>>) -> Self {
        rules.sort_by(|a, b| a.path.precedence(&b.path));
        Self { rules }
    }

    /// The rules, the most literal path first.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule for a request, and what its path captured.
    ///
    /// # Errors
    /// [`Unruled`].
    pub fn find(&self, head: &RequestHead<'_>) -> Result<(Arc<Rule>, Captures), Unruled> {
        let unruled = |denial, detail: String, rule: Option<&Arc<Rule>>| Unruled {
            refusal: Refusal::new(denial, detail),
            rule: rule.cloned(),
        };
        let malformed = |detail: String| unruled(Denial::PathMalformed, detail, None);
        let path = CanonicalPath::parse(head.raw_path()).map_err(|fault| malformed(fault.to_string()))?;
        check_query(head.raw_query().unwrap_or_default())
            .map_err(|at| malformed(format!("forbidden character at byte {at} of the query")))?;
        let Some(rule) = self.rules.iter().find(|rule| rule.path.matches(&path)) else {
            let detail = format!("none of {} rules has this path", self.rules.len());
            return Err(unruled(Denial::RuleUnknown, detail, None));
        };
        if rule.methods.iter().all(|method| method.as_str() != head.method) {
            let detail = format!("{} is none of {:?}", head.method, rule.methods);
            return Err(unruled(Denial::MethodNotAllowed, detail, Some(rule)));
        }
        if let Some(declared) = head.body_bytes_declared.filter(|declared| *declared > rule.body_bytes_max) {
            let detail = format!("{declared} bytes declared, {} allowed", rule.body_bytes_max);
            return Err(unruled(Denial::BodyTooLarge, detail, Some(rule)));
        }
        Ok((Arc::clone(rule), rule.path.capture(&path)))
    }
}

impl Rule {
    /// Says what is to be minted for a request. `fresh` makes a new id for a capture that wants one.
    ///
    /// # Errors
    /// Why the request cannot be given a callback; nothing is sent then.
    pub fn plan(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        captures: &Captures,
        mut fresh: impl FnMut() -> String,
    ) -> Result<Plan, Refusal> {
        let Some(inject) = &self.inject else { return Ok(Plan::Pass { kept: false }) };
        if let Some(place) = inject.places().find(|place| place.is_taken(head, body)) {
            if inject.keep {
                return Ok(Plan::Pass { kept: true });
            }
            return Err(Refusal::new(Denial::CallbackPresent, format!("there is something at {place}")));
        }
        let mut params = Vec::with_capacity(inject.params.len());
        for (name, source) in &inject.params {
            let value = match source {
                Source::New => Some(fresh()),
                source => source.read(head, body, captures),
            };
            match value.filter(|value| is_capturable(name, value)) {
                Some(value) => params.push((name.clone(), value)),
                None => {
                    let detail = format!("{source} gives no usable value for {name}");
                    let denial = match inject::parse(body) {
                        Err(refusal) if matches!(source, Source::Body(_)) => return Err(refusal),
                        _ => Denial::ParameterUnusable,
                    };
                    return Err(Refusal::new(denial, detail));
                }
            }
        }
        // Tried before anything is minted: what cannot be put in must not leave an interaction behind.
        let nothing = Callback { url: "", token: "", secret: "", expires: Timestamp::from_unix_secs(0) };
        inject::body(inject, head, body, &nothing)?;
        Ok(Plan::Mint(params))
    }
}

impl Inject {
    /// The places that must be free: what only says how to call back may be said by the agent.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        let moving = self.insertions.iter().filter(|insertion| !insertion.shape.is_constant());
        moving.map(|insertion| &insertion.place)
    }

    /// What is put into a request: what only says how to call back is left as the agent said it.
    pub(super) fn wanted<'i>(
        &'i self,
        head: &'i RequestHead<'_>,
        body: &'i [u8],
    ) -> impl Iterator<Item = &'i Insertion> {
        self.insertions
            .iter()
            .filter(move |insertion| !insertion.shape.is_constant() || !insertion.place.is_taken(head, body))
    }
}
