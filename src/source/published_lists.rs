//! Allowlists of IP networks. An allowlist consists of networks from the configuration and of lists that a provider
//! publishes.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::networks::{Networks, parse_network};
use crate::feed::FeedId;

/// The maximum number of networks in one published list.
const NETWORKS_MAX: usize = 50_000;

/// The fetched address lists, indexed by the id of the feed.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    lists: Vec<Option<Arc<Networks>>>,
}

impl Lists {
    /// Stores the address list of the feed `id`.
    pub fn put(&mut self, id: FeedId, networks: Networks) {
        if self.lists.len() <= id.0 {
            self.lists.resize(id.0 + 1, None);
        }
        if let Some(place) = self.lists.get_mut(id.0) {
            *place = Some(Arc::new(networks));
        }
    }

    /// Copies an address list from another set of lists. The list of the feed `before` in `from` becomes the list of
    /// the feed `id`.
    pub fn take(&mut self, id: FeedId, from: &Self, before: FeedId) {
        if let Some(networks) = from.get(before) {
            self.put(id, networks.clone());
        }
    }

    /// Returns the address list of the feed `id`, or `None` if the list has not been fetched yet.
    pub fn get(&self, id: FeedId) -> Option<&Networks> {
        self.lists.get(id.0)?.as_deref()
    }
}

/// The error for a lookup whose result depends on a published address list that has not been fetched yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListUnavailable;

/// A set of allowed addresses: networks from the configuration, and fetched address lists.
#[derive(Clone, Debug)]
pub struct Allowlist {
    /// The networks from the configuration or from a preset.
    pub fixed: Networks,
    /// The feeds whose fetched address lists belong to the allowlist.
    pub feeds: Vec<FeedId>,
}

impl Allowlist {
    /// Reports whether the allowlist contains `address`.
    ///
    /// # Errors
    /// Returns [`ListUnavailable`] if no available list contains the address and at least one list has not been fetched
    /// yet.
    pub fn contains(&self, address: IpAddr, lists: &Lists) -> Result<bool, ListUnavailable> {
        if self.fixed.contains(address) {
            return Ok(true);
        }
        let mut missing = false;
        for feed in &self.feeds {
            match lists.get(*feed) {
                Some(networks) if networks.contains(address) => return Ok(true),
                Some(_) => {}
                None => missing = true,
            }
        }
        if missing { Err(ListUnavailable) } else { Ok(false) }
    }

    /// Returns the number of address ranges in the allowlist. Lists that have not been fetched yet are not counted.
    pub fn len(&self, lists: &Lists) -> usize {
        self.fixed.len() + self.feeds.iter().filter_map(|id| lists.get(*id)).map(Networks::len).sum::<usize>()
    }
}

/// The rules for selecting the networks in a published document.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Selection {
    /// The JSON pointers to the networks. The step `[*]` in a pointer selects every element of an array. Without
    /// pointers, the document must be a text with one network per line.
    pub pointers: Vec<Box<str>>,
    /// The conditions for the array elements that the first `[*]` of a pointer selects. Each condition consists of a
    /// JSON key and a value. An element meets a condition if its value for this key equals the value, or is an array
    /// that contains the value. Only elements that meet all conditions are used.
    pub filter: Vec<(Box<str>, Box<str>)>,
}

impl Selection {
    /// Parses a published document and returns its networks.
    ///
    /// # Errors
    /// Returns a description of the fault if the document has an unexpected form, contains an invalid network, contains
    /// no networks or too many networks, or contains every address.
    pub fn read(&self, document: &[u8]) -> Result<Networks, String> {
        let mut texts: Vec<String> = Vec::new();
        if self.pointers.is_empty() {
            let text = std::str::from_utf8(document).map_err(|_| "it is not text".to_owned())?;
            let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            texts.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
        } else {
            let value: Value = serde_json::from_slice(document).map_err(|_| "it is not JSON".to_owned())?;
            for pointer in &self.pointers {
                let steps: Vec<_> = pointer.split('/').skip(1).collect();
                self.gather(&value, &steps, false, &mut texts)?;
            }
        }
        let mut networks = Vec::with_capacity(texts.len());
        for text in &texts {
            // Some lists contain addresses without a prefix length.
            let host = if text.contains(':') { 128 } else { 32 };
            let whole = if text.contains('/') { text.clone() } else { format!("{text}/{host}") };
            networks.push(parse_network(&whole).map_err(|fault| format!("a network in it {fault}"))?);
        }
        match networks.len() {
            0 => Err("it contains no networks".to_owned()),
            count if count > NETWORKS_MAX => {
                Err(format!("it contains {count} networks; the limit is {NETWORKS_MAX}"))
            }
            _ => Some(Networks::new(networks))
                .filter(|networks| !networks.is_everything())
                .ok_or_else(|| "it contains every address".to_owned()),
        }
    }

    fn gather(
        &self,
        value: &Value,
        steps: &[&str],
        filtered: bool,
        texts: &mut Vec<String>,
    ) -> Result<(), String> {
        let wrong = || "its structure is not the expected one".to_owned();
        match (steps, value) {
            ([], Value::String(text)) => texts.push(text.clone()),
            ([], Value::Array(list)) => {
                for element in list {
                    texts.push(element.as_str().ok_or_else(wrong)?.to_owned());
                }
            }
            (["[*]", rest @ ..], Value::Array(list)) => {
                for element in list.iter().filter(|element| filtered || self.fits(element)) {
                    self.gather(element, rest, true, texts)?;
                }
            }
            // An array element may lack the key, because some documents use different keys for IPv4 and IPv6 networks.
            ([name, rest @ ..], Value::Object(members)) => match members.get(*name) {
                Some(member) => self.gather(member, rest, filtered, texts)?,
                None if filtered => {}
                None => return Err(wrong()),
            },
            _ => return Err(wrong()),
        }
        Ok(())
    }

    fn fits(&self, element: &Value) -> bool {
        self.filter.iter().all(|(name, wanted)| match element.get(&**name) {
            Some(Value::String(text)) => *text == **wanted,
            Some(Value::Array(list)) => list.iter().any(|one| one.as_str() == Some(wanted)),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(pointers: &[&str], filter: &[(&str, &str)]) -> Selection {
        Selection {
            pointers: pointers.iter().map(|p| (*p).into()).collect(),
            filter: filter.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect(),
        }
    }

    #[test]
    fn published_forms_are_read() {
        let github = selection(&["/hooks"], &[]);
        let read = github.read(br#"{"hooks": ["192.30.252.0/22", "2a0a:a440::/29"], "web": []}"#).unwrap();
        assert!(read.contains("192.30.253.9".parse().unwrap()) && !read.contains("1.1.1.1".parse().unwrap()));
        let atlassian = selection(&["/items/[*]/cidr"], &[("direction", "egress"), ("product", "jira")]);
        let document = br#"{"items": [
            {"cidr": "10.1.0.0/16", "direction": ["ingress"], "product": ["jira"]},
            {"cidr": "10.2.0.0/16", "direction": ["egress", "ingress"], "product": ["jira", "x"]}]}"#;
        let read = atlassian.read(document).unwrap();
        assert!(read.contains("10.2.0.1".parse().unwrap()) && !read.contains("10.1.0.1".parse().unwrap()));
        let google = selection(&["/prefixes/[*]/ipv4Prefix", "/prefixes/[*]/ipv6Prefix"], &[]);
        let document = br#"{"prefixes": [{"ipv4Prefix": "8.8.4.0/24"}, {"ipv6Prefix": "2001:4860::/32"}]}"#;
        assert_eq!(google.read(document).unwrap().len(), 2);
        assert_eq!(selection(&[], &[]).read(b"# ours\n10.0.0.1\n\n10.1.0.0/16 # two\n").unwrap().len(), 2);
    }

    #[test]
    fn what_is_not_a_list_is_refused_whole() {
        let list = selection(&["/hooks"], &[]);
        for bad in [
            "",
            "<html>",
            "{}",
            r#"{"hooks": []}"#,
            r#"{"hooks": ["x"]}"#,
            r#"{"hooks": [1]}"#,
            r#"{"hooks": ["0.0.0.0/0", "::/0"]}"#,
            r#"{"hooks": "10.0.0.0/8", "x"#,
        ] {
            assert!(list.read(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
