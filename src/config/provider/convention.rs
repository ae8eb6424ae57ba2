//! `callback` of a preset: how a request asks for callbacks, and how to read the callbacks.

use crate::config::insertions::insertion;
use crate::config::yaml::Cursor;
use crate::egress::Insertion;
use crate::interaction::{Follow, StatusAt};
use crate::json::Pointer;

/// The convention of a provider for callbacks: how a request asks for them, and how to read them.
#[derive(Clone, Debug)]
pub struct CallbackConvention {
    /// The URL of the documentation.
    pub source: Box<str>,
    /// The insertions into the agent's request: the values and their places.
    pub insertions: Vec<Insertion>,
    /// The way in which the provider sends the token back.
    pub token: TokenReturn,
    /// The locations in a callback that can contain the status.
    pub status: Vec<StatusAt>,
    /// The member of a callback that contains the progress, if callbacks report progress.
    pub progress: Option<Pointer>,
    /// The status values with which the provider asks a question.
    pub asking: Vec<Box<str>>,
    /// The status values that mean success.
    pub done: Vec<Box<str>>,
    /// The status values that mean failure.
    pub failed: Vec<Box<str>>,
    /// The member of the provider's response to the request that contains the provider's id for the work. `None` if the
    /// response contains no such id.
    pub response: Option<Pointer>,
    /// The locations in a callback that can contain the provider's id for the work.
    pub id: Vec<StatusAt>,
}

impl CallbackConvention {
    /// Returns how Callgate follows the interactions of a route that does not set `interaction`. `asked` is the
    /// callback convention of the preset that the egress rule for this route names.
    pub(crate) fn follow(asked: Option<&Self>) -> Follow {
        let mut follow = Follow::default();
        if let Some(asked) = asked {
            asked.complete(&mut follow, false);
        }
        follow
    }

    /// Completes `follow`, which contains the settings of a route, with the settings of this convention. If
    /// `own_states` is false, `status`, `asking`, `done` and `failed` are set to those of the convention. If it is
    /// true, these four settings stay unchanged. `progress` and `id` are set only if the route does not set them.
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

/// The way in which a provider sends the token back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenReturn {
    /// The provider sends the token as a bearer token.
    Bearer,
    /// The provider sends the token in this header.
    Header(http::HeaderName),
    /// The URL contains the token, so the provider sends the token whenever it calls the URL.
    Url,
}

/// Reads `callback`.
pub(crate) fn convention(at: &Cursor<'_>) -> Option<CallbackConvention> {
    let mut fields = at.fields()?;
    let source = fields.required("source").and_then(|at| at.text());
    let insertions = fields.required("inject").and_then(|at| {
        let read: Vec<_> = at.list()?.iter().map(insertion).collect();
        read.into_iter().collect::<Option<Vec<_>>>()
    });
    let token = fields.required("token").and_then(|at| token(&at));
    let status = fields.optional("status").map_or(Some(Vec::new()), |at| locations(&at));
    let progress = fields.optional("progress").map(|at| at.pointer());
    let mut words = |key| fields.optional(key).map_or(Some(Vec::new()), |at| at.texts());
    let (asking, done, failed) = (words("asking"), words("done"), words("failed"));
    let response = fields.optional("response").map(|at| at.pointer());
    let id = fields.optional("id").map_or(Some(Vec::new()), |at| locations(&at));
    fields.finish();
    Some(CallbackConvention {
        source: source?.into(),
        insertions: insertions?,
        token: token?,
        status: status?,
        progress: progress.map_or(Some(None), |read| read.map(Some))?,
        asking: asking?,
        done: done?,
        failed: failed?,
        response: response.map_or(Some(None), |read| read.map(Some))?,
        id: id?,
    })
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

/// Reads locations in a callback: JSON pointers, `{header: NAME}` or `{form: NAME}`.
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
