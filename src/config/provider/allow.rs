//! Reads the setting `allow` of a provider: the addresses from which the provider calls.

use super::definition::{Addresses, PresetDefinition};
use super::fetched_documents;
use crate::config::yaml::Cursor;
use crate::policy::Feed;
use crate::source::{Allowlist, Networks};

/// Reads the setting `allow` of a provider: networks, `published` for the address list of the preset, or `{url: …}`
/// for another list.
pub(super) fn allow(at: &Cursor<'_>, preset: Option<&PresetDefinition>) -> Option<Allowlist> {
    let mut fixed = Vec::new();
    let mut lists = Vec::new();
    let mut good = true;
    for at in at.list_or_one()? {
        let read = if at.is_map() {
            own_list(&at).map(|feed| lists.push(at.feed(feed)))
        } else if at.is_word("published") {
            published(&at, preset).map(|addresses| match addresses {
                Addresses::Feed(url, selection) => {
                    lists.push(at.feed(fetched_documents::list(url, selection)))
                }
                Addresses::Fixed(networks) => fixed.extend(networks.nets()),
            })
        } else {
            at.network().map(|network| fixed.push(network))
        };
        good &= read.is_some();
    }
    good.then_some(())?;
    let allowlist = Allowlist { fixed: Networks::new(fixed), feeds: lists };
    if allowlist.fixed.is_everything() {
        at.warn("every address is allowed");
    }
    Some(allowlist)
}

fn own_list(at: &Cursor<'_>) -> Option<Feed> {
    let mut fields = at.fields()?;
    let url = fields.required("url").and_then(|at| at.fetchable());
    let selection = fetched_documents::selection(&mut fields);
    fields.finish();
    Some(fetched_documents::list(url?, selection?))
}

fn published(at: &Cursor<'_>, preset: Option<&PresetDefinition>) -> Option<Addresses> {
    match preset.map(|entry| &entry.addresses) {
        Some(Some(addresses)) => Some(addresses.clone()),
        Some(None) => at.error("the preset has no list of addresses", "write the networks, or {url: …}"),
        None => at.error("`published` needs a `preset`", "add a `preset`, or write {url: …}"),
    }
}
