//! Reads the section `callback` of a preset: how a request asks the provider for callbacks, and what the callbacks
//! contain.

use http::HeaderName;
use http::header::AUTHORIZATION;

use crate::config::egress::insertions::insertion;
use crate::config::yaml::{Cursor, Fields};
use crate::egress::{CallbackRequest, Insertion, RequestCondition};
use crate::interaction::{Follow, StatusAt};
use crate::json::Pointer;

/// The convention of a provider for callbacks: how a request asks for callbacks, and what the callbacks contain.
#[derive(Clone, Debug)]
pub struct CallbackConvention {
    /// The URL of the provider's documentation of callbacks.
    pub source: Box<str>,
    /// The kinds of requests that ask for callbacks. Each kind lists the values to insert and their locations in the
    /// request.
    pub requests: Vec<CallbackRequest>,
    /// The URL of the provider's API. The URL is the origin of the API, or the only URL that accepts requests for
    /// callbacks. It contains `CHANGE-ME` where it is different for each user. `None` for protocols that many services
    /// implement.
    pub api: Option<Box<str>>,
    /// The way in which the provider sends the token of the interaction back in a callback.
    pub token: TokenReturn,
    /// The locations where a callback can contain the status of the provider's work.
    pub status: Vec<StatusAt>,
    /// The JSON pointer to the progress of the provider's work in a callback. `None` if callbacks do not report
    /// progress.
    pub progress: Option<Pointer>,
    /// The status values that mean that the provider asks the agent a question.
    pub asking: Vec<Box<str>>,
    /// The status values that mean that the provider's work succeeded.
    pub done: Vec<Box<str>>,
    /// The status values that mean that the provider's work failed.
    pub failed: Vec<Box<str>>,
    /// The locations where a callback can contain the provider's id for its work.
    pub id: Vec<StatusAt>,
}

impl CallbackConvention {
    /// Returns the insertions (values and their locations in a request) of all kinds of requests together.
    pub fn insertions(&self) -> impl Iterator<Item = &Insertion> {
        self.requests.iter().flat_map(|request| &request.insertions)
    }

    /// Returns the header in which the provider sends the token of the interaction back. Returns `None` if `headers`
    /// does not contain this header, or if the provider sends the token in no header.
    pub(crate) fn token_header<'h>(&self, headers: &'h [HeaderName]) -> Option<&'h HeaderName> {
        let sent_in = match &self.token {
            TokenReturn::Url => return None,
            TokenReturn::Bearer => &AUTHORIZATION,
            TokenReturn::Header(name) => name,
        };
        headers.iter().find(|header| *header == sent_in)
    }

    /// Returns how Callgate follows the interactions of a route that does not set `interaction`. If the egress rule for
    /// this route names a preset, `asked` is the callback convention of this preset. If `asked` is `None`, returns the
    /// default.
    pub(crate) fn follow(asked: Option<&Self>) -> Follow {
        let mut follow = Follow::default();
        if let Some(asked) = asked {
            asked.complete(&mut follow, false);
        }
        follow
    }

    /// Completes `follow`, which contains the `interaction` settings of a route, with the settings of this convention.
    /// If `own_states` is false, `status`, `asking`, `done` and `failed` are copied from the convention. If
    /// `own_states` is true, these four settings stay unchanged. `progress` and `id` are copied only if the route does
    /// not set them.
    pub(crate) fn complete(&self, follow: &mut Follow, own_states: bool) {
        if !own_states {
            follow.status.clone_from(&self.status);
            follow.asking.clone_from(&self.asking);
            follow.done.clone_from(&self.done);
            follow.failed.clone_from(&self.failed);
        }
        follow.progress = follow.progress.take().or_else(|| self.progress.clone());
        if follow.id.is_empty() {
            follow.id.clone_from(&self.id);
        }
    }
}

/// The way in which a provider sends the token of the interaction back in a callback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenReturn {
    /// The provider sends the token as a bearer token in the header `Authorization`.
    Bearer,
    /// The provider sends the token as the value of this header.
    Header(http::HeaderName),
    /// The callback URL contains the token, so the provider sends the token whenever it calls the URL.
    Url,
}

/// Reads the section `callback` of a preset.
pub(crate) fn convention(at: &Cursor<'_>) -> Option<CallbackConvention> {
    let mut fields = at.fields()?;
    let source = fields.required("source").and_then(|at| at.text());
    // The URL may contain `CHANGE-ME`, which is an error in every other text.
    let api = fields.optional("api").map(|at| at.node().as_text().map(Box::from));
    let requests = match fields.optional("requests") {
        None => request(&mut fields).map(|request| vec![request]),
        Some(at) => {
            let read: Vec<_> = at.list()?.iter().map(one_request).collect();
            read.into_iter().collect::<Option<Vec<_>>>()
        }
    };
    let token = fields.required("token").and_then(|at| token(&at));
    let status = fields.optional("status").map_or(Some(Vec::new()), |at| locations(&at));
    let progress = fields.optional("progress").map(|at| at.pointer());
    let mut words = |key| fields.optional(key).map_or(Some(Vec::new()), |at| at.texts());
    let (asking, done, failed) = (words("asking"), words("done"), words("failed"));
    let id = fields.optional("id").map_or(Some(Vec::new()), |at| locations(&at));
    fields.finish();
    Some(CallbackConvention {
        source: source?.into(),
        requests: requests?,
        api: api.map_or(Some(None), |read| read.map(Some))?,
        token: token?,
        status: status?,
        progress: progress.map_or(Some(None), |read| read.map(Some))?,
        asking: asking?,
        done: done?,
        failed: failed?,
        id: id?,
    })
}

fn one_request(at: &Cursor<'_>) -> Option<CallbackRequest> {
    let mut fields = at.fields()?;
    let read = request(&mut fields);
    fields.finish();
    read
}

/// Reads a kind of request that asks for callbacks: its condition, its insertions, and the possible locations of the
/// provider's id in the response.
fn request(fields: &mut Fields<'_>) -> Option<CallbackRequest> {
    let condition = fields.optional("when").map_or(Some(RequestCondition::default()), |at| condition(&at));
    let insertions = fields.required("inject").and_then(|at| {
        let read: Vec<_> = at.list()?.iter().map(insertion).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let response = fields.optional("response").map_or(Some(Vec::new()), |at| {
        let read: Vec<_> = at.list_or_one()?.iter().map(|at| at.pointer()).collect();
        read.into_iter().collect()
    });
    Some(CallbackRequest { condition: condition?, insertions: insertions?, response: response? })
}

/// Reads the condition for a kind of request. The setting `path` lists the endings of accepted paths. The setting
/// `body` lists the accepted values at one location in the request body.
fn condition(at: &Cursor<'_>) -> Option<RequestCondition> {
    let mut fields = at.fields()?;
    let paths = fields.optional("path").map_or(Some(Vec::new()), |at| at.texts());
    let member = fields.optional("body").map(|at| member(&at));
    fields.finish();
    Some(RequestCondition { paths: paths?, member: member.map_or(Some(None), |read| read.map(Some))? })
}

/// Reads `body` of the condition for a kind of request, such as `{/method: [a, b]}`. The setting is a mapping with a
/// single key. The key is a JSON pointer into the request body, and its value lists the accepted values.
fn member(at: &Cursor<'_>) -> Option<(Pointer, Vec<Box<str>>)> {
    match at.named()?.as_slice() {
        [(name, values)] => match Pointer::parse(name) {
            Some(pointer) => Some((pointer, values.texts()?)),
            None => values.error(format!("`{name}` is not a JSON pointer"), "such as /method"),
        },
        _ => at.error("expected exactly one member and its values", "{ /method: [a, b] }"),
    }
}

fn token(at: &Cursor<'_>) -> Option<TokenReturn> {
    if at.is_map() {
        let mut fields = at.fields()?;
        let header = fields.required("header").and_then(|at| at.header_name());
        fields.finish();
        return header.map(TokenReturn::Header);
    }
    #[derive(Clone, Copy)]
    enum Word {
        Bearer,
        Url,
    }
    Some(match at.one_of(&[("bearer", Word::Bearer), ("url", Word::Url)])? {
        Word::Bearer => TokenReturn::Bearer,
        Word::Url => TokenReturn::Url,
    })
}

/// Reads one or more locations in a callback. A location is a JSON pointer, `{header: NAME}` or `{form: NAME}`.
pub(crate) fn locations(at: &Cursor<'_>) -> Option<Vec<StatusAt>> {
    let read: Vec<_> = at.list_or_one()?.iter().map(place).collect();
    read.into_iter().collect()
}

fn place(at: &Cursor<'_>) -> Option<StatusAt> {
    if !at.is_map() {
        return at.pointer().map(StatusAt::Body);
    }
    let mut fields = at.fields()?;
    let header = fields.optional("header").map(|at| at.header_name().map(StatusAt::Header));
    let form = fields.optional("form").map(|at| at.text().map(|name| StatusAt::Form(name.into())));
    fields.finish();
    match (header, form) {
        (Some(one), None) | (None, Some(one)) => one,
        _ => at.error("expected exactly one of header and form", "or a JSON pointer, such as /status"),
    }
}
