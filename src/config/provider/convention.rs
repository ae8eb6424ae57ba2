//! `callback` of a preset: how a callback is asked for with each request, and how what comes back is read.

use crate::config::yaml::{Cursor, Node};
use crate::egress::{Insertion, Place, Shape};
use crate::interaction::{Follow, StatusAt};
use crate::json::Pointer;

/// How a provider's callbacks are asked for and read.
#[derive(Clone, Debug)]
pub struct CallbackConvention {
    /// Where that is described.
    pub source: Box<str>,
    /// What goes where in the agent's request.
    pub insertions: Vec<Insertion>,
    /// How the token comes back.
    pub token: TokenReturn,
    /// Where a callback says its state.
    pub status: Vec<StatusAt>,
    /// Where it says how far it got.
    pub progress: Option<Pointer>,
    /// The states that ask something.
    pub asking: Vec<Box<str>>,
    /// The states that mean success.
    pub done: Vec<Box<str>>,
    /// The states that mean failure.
    pub failed: Vec<Box<str>>,
    /// Where the answer to the request has the provider's id of the work.
    pub response: Option<Pointer>,
    /// Where a callback repeats that id.
    pub id: Vec<StatusAt>,
}

impl CallbackConvention {
    /// How interactions are followed where a route says nothing itself.
    pub(crate) fn follow(asked: Option<&Self>) -> Follow {
        let mut follow = Follow::default();
        if let Some(asked) = asked {
            asked.complete(&mut follow, false);
        }
        follow
    }

    /// Adds how callbacks are read to what a route says itself; `own_states`: it says all of the states.
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

/// How a token comes back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TokenReturn {
    /// As a bearer token.
    Bearer,
    /// In a header.
    Header(http::HeaderName),
    /// Within the URL.
    Url,
}

/// Reads it.
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

/// Places in a callback: JSON pointers, `{header: NAME}`, `{form: NAME}`.
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

fn insertion(at: &Cursor<'_>) -> Option<Insertion> {
    let mut fields = at.fields()?;
    let body = fields.optional("body").map(|at| at.pointer().map(Place::Body));
    let form = fields.optional("form").map(|at| at.text().map(|name| Place::Form(name.into())));
    let header = fields.optional("header").map(|at| at.header_name().map(Place::Header));
    let query = fields.optional("query").map(|at| at.text().map(|name| Place::Query(name.into())));
    let value = fields.optional("value").map(|at| shape(at.node()));
    let base64 = fields.optional("base64").map(|at| Shape::Base64(Box::new(shape(at.node()))));
    fields.finish();
    let mut places = [body, form, header, query].into_iter().flatten();
    match (places.next(), places.next(), value, base64) {
        (Some(place), None, Some(shape), None) | (Some(place), None, None, Some(shape)) => {
            Some(Insertion { place: place?, shape })
        }
        _ => at.error("expected one place and one value", "{body: /webhook, value: \"{url}\"}"),
    }
}

/// A value as it stands in the file, with the placeholders in its texts.
fn shape(node: &Node) -> Shape {
    match node {
        Node::Bool(value) => Shape::Raw(value.to_string().into()),
        Node::List(items) => Shape::List(items.iter().map(shape).collect()),
        Node::Map(members) => {
            Shape::Object(members.iter().map(|(name, value)| (name.as_str().into(), shape(value))).collect())
        }
        Node::Null => Shape::Raw("null".into()),
        Node::Number(number) => Shape::Raw(number.as_str().into()),
        Node::Text(text) => Shape::text(text),
    }
}
