//! Reads the settings for documents that Callgate fetches: the URLs of key sets and address lists, and the section
//! `fetch`.

use std::time::Duration;

use crate::config::yaml::{Cursor, Fields, shown_url};
use crate::guard::{Scheme, Url};
use crate::policy::{Feed, FeedKind, Fetching};
use crate::source::Selection;

/// The default of `fetch.stale_ok`: how long fetched keys stay in use if every attempt to fetch them again fails.
const STALE_OK_DEFAULT: Duration = Duration::from_secs(86_400);
/// The default of `fetch.every`: the time between two fetches of the same document.
const EVERY_DEFAULT: Duration = Duration::from_secs(3600);

impl Cursor<'_> {
    /// Reads the URL of a document that Callgate fetches. It is an `https:` URL, a `file:` URL, or a plain HTTP URL on
    /// this host.
    pub(crate) fn fetchable(&self) -> Option<Box<str>> {
        let text = self.text()?;
        if text.strip_prefix("file:").is_some_and(|path| path.starts_with('/')) {
            return Some(text.into());
        }
        let fetchable = match Url::parse(text) {
            Ok(url) if url.scheme() == Scheme::Https => true,
            Ok(url) => matches!(url.host(), "127.0.0.1" | "localhost" | "[::1]" | "::1"),
            Err(_) => false,
        };
        if fetchable {
            return Some(text.into());
        }
        self.error(
            format!("{} is not a URL to fetch from", shown_url(text)),
            "https://…, file:/absolute/path, or http:// on this host",
        )
    }
}

/// Reads `pointers` and `where`, which select the networks in a published list of addresses.
pub(crate) fn selection(fields: &mut Fields<'_>) -> Option<Selection> {
    let pointers = fields.optional("pointers").map_or(Some(Vec::new()), |at| at.texts());
    let filter = fields.optional("where").map_or(Some(Vec::new()), |at| {
        let one = |(name, at): (&str, Cursor<'_>)| Some((name.into(), at.text()?.into()));
        let read: Vec<_> = at.named()?.into_iter().map(one).collect();
        read.into_iter().collect()
    });
    let pointers = pointers?;
    if let Some(bad) = pointers.iter().find(|pointer| !pointer.starts_with('/')) {
        return fields
            .at()
            .error(format!("`{bad}` is not a JSON pointer"), "such as /hooks or /prefixes/[*]/cidr");
    }
    let filter = filter?;
    if !filter.is_empty() && !pointers.iter().any(|pointer| pointer.contains("/[*]")) {
        return fields.at().error(
            "`where` selects elements of a list, but no pointer contains [*]",
            "such as pointers: [\"/items/[*]/cidr\"]",
        );
    }
    Some(Selection { pointers, filter })
}

/// Returns the feed (document to fetch) for the address list at `url`. `selection` selects the networks in the list.
pub(crate) fn list(url: Box<str>, selection: Selection) -> Feed {
    Feed { url, kind: FeedKind::Addresses(selection) }
}

/// Reads the configuration section `fetch`, the settings for documents that Callgate fetches.
pub(crate) fn fetching(at: Option<Cursor<'_>>) -> Option<Fetching> {
    let mut fetching = Fetching {
        cache: None,
        every: EVERY_DEFAULT,
        stale_ok: STALE_OK_DEFAULT,
        timeout: Duration::from_secs(10),
        required: false,
    };
    let Some(at) = at else { return Some(fetching) };
    let mut fields = at.fields()?;
    let cache = fields.optional("cache").map(|at| match at.text()? {
        path if path.starts_with('/') => Some(path.into()),
        _ => at.error("the path of the folder is not absolute", "such as /var/lib/callgate"),
    });
    let mut duration = |key, default| fields.optional(key).map_or(Some(default), |at| at.duration());
    let (every, stale_ok) = (duration("every", EVERY_DEFAULT), duration("stale_ok", STALE_OK_DEFAULT));
    let timeout = duration("timeout", fetching.timeout);
    let required = fields.optional("required").map_or(Some(false), |at| at.boolean());
    fields.finish();
    fetching.required = required?;
    fetching.cache = cache.map_or(Some(None), |read| read.map(Some))?;
    fetching.every = every?;
    fetching.stale_ok = stale_ok?;
    fetching.timeout = timeout?;
    if fetching.stale_ok < fetching.every {
        return at.error(
            "`stale_ok` is shorter than `every`, so keys would expire before the next fetch",
            "use a longer `stale_ok`",
        );
    }
    Some(fetching)
}
