//! Agent cards of the A2A protocol. A card contains the URLs of an agent, to which clients send their requests. If an
//! egress rule covers a URL, Callgate replaces this URL by the address of the rule on the egress listener. The client's
//! requests then still pass through Callgate.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::rule::Rule;
use crate::json::{Found, Pointer, find, find_one, quoted, replace_all};
use crate::request::RequestHead;

/// The ends of the paths at which agents publish their cards: the two well-known paths, and the paths of the extended
/// card in the HTTP+JSON binding of A2A 1.0 and 0.3. Each path is listed with the location of the card in
/// the response.
const PATHS: [(&str, CardPlace); 4] = [
    ("/.well-known/agent-card.json", CardPlace::Whole),
    ("/.well-known/agent.json", CardPlace::Whole),
    ("/extendedAgentCard", CardPlace::Whole),
    ("/v1/card", CardPlace::WholeWithSkills),
];
/// The JSON-RPC methods that return the extended agent card in A2A 1.0 and 0.3.
const METHODS: [&str; 2] = ["GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"];
/// JSON keys of an agent card. The value of each key is an array of objects with the key `url`.
const LISTS: [&str; 2] = ["supportedInterfaces", "additionalInterfaces"];
/// The maximum number of interfaces in an agent card. The limit bounds the work for one card.
pub const INTERFACES_MAX: usize = 64;

/// The location of an agent card in a response.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CardPlace {
    /// The whole response is the card.
    Whole,
    /// The whole response is the card if it has an array `skills`. Without this array, it is the response of another
    /// API with the same path.
    WholeWithSkills,
    /// The card is the `result` of a JSON-RPC response.
    Result,
}

/// The result of replacing the URLs in a response that may contain an agent card.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LocalCard {
    /// The response is not an agent card.
    None,
    /// The card is signed. It is not changed, because a change would invalidate the signature.
    Signed,
    /// The card has more than [`INTERFACES_MAX`] interfaces. It is not changed.
    TooMany,
    /// The response is an unsigned card.
    Card {
        /// The text of the response with the replaced URLs. `None` if no URL was replaced.
        text: Option<String>,
        /// The URLs that were not replaced, because the egress rule does not cover them.
        foreign: Vec<String>,
    },
}

/// The JSON keys of a card that determine whether Callgate may change the card.
#[derive(Deserialize)]
struct Card<'c> {
    #[serde(borrow)]
    skills: Option<&'c RawValue>,
    #[serde(borrow)]
    signatures: Option<&'c RawValue>,
}

impl Rule {
    /// Returns the location of the agent card in the response to a request. Returns `None` if the request does not ask
    /// for an agent card. Also returns `None` if the client uses Callgate as its proxy, because this client reaches all
    /// URLs through Callgate anyway. `body` must be empty if the body of the request was not read.
    pub fn card_place(&self, head: &RequestHead<'_>, body: &[u8]) -> Option<CardPlace> {
        if self.is_by_url {
            return None;
        }
        let at_path = PATHS.iter().find(|(end, _)| head.raw_path().ends_with(end));
        if let Some((_, place)) = at_path.filter(|_| head.method == "GET") {
            return Some(*place);
        }
        let method = find_one(body, &Pointer::parse("/method")?).word().filter(|_| !body.is_empty())?;
        METHODS.contains(&&*method).then_some(CardPlace::Result)
    }
}

impl CardPlace {
    /// Replaces the URLs of the agent card in a response. For a URL, `local` returns its replacement, or `None` if the
    /// egress rule does not cover the URL.
    pub fn localize(self, response: &[u8], local: impl Fn(&str) -> Option<String>) -> LocalCard {
        let Ok(document) = std::str::from_utf8(response) else { return LocalCard::None };
        let prefix = match self {
            Self::Whole | Self::WholeWithSkills => "",
            Self::Result => "/result",
        };
        let card = match self {
            Self::Whole | Self::WholeWithSkills => Some(document),
            Self::Result => Pointer::parse(prefix).and_then(|at| find_one(response, &at).raw()),
        };
        let card = card.filter(|card| card.trim_start().starts_with('{'));
        let Some(card) = card.and_then(|card| serde_json::from_str::<Card<'_>>(card).ok()) else {
            return LocalCard::None;
        };
        let has_skills = card.skills.is_some_and(|skills| skills.get().starts_with('['));
        if self == Self::WholeWithSkills && !has_skills {
            return LocalCard::None;
        }
        if card.signatures.is_some_and(|signatures| length(signatures) != Some(0)) {
            return LocalCard::Signed;
        }
        let Some(places) = places(response, prefix) else { return LocalCard::TooMany };
        let found = find(response, &places.iter().collect::<Vec<_>>()).unwrap_or_default();
        let (mut replacements, mut foreign) = (Vec::new(), Vec::new());
        for found in found {
            let (Some(raw), Some(url)) = (found.raw(), found.word()) else { continue };
            match local(&url) {
                Some(local) => replacements.push((raw, quoted(&local))),
                None => foreign.push(url.into()),
            }
        }
        let text = (!replacements.is_empty()).then(|| replace_all(document, replacements));
        LocalCard::Card { text, foreign }
    }
}

/// Returns JSON pointers to the URLs of an agent card, or `None` if the card has too many interfaces. `prefix` is the
/// JSON pointer to the card in the response.
fn places(response: &[u8], prefix: &str) -> Option<Vec<Pointer>> {
    let mut places = vec![format!("{prefix}/url")];
    for list in LISTS {
        let items = find_one(response, &Pointer::parse(&format!("{prefix}/{list}"))?);
        let Found::One(items) = items else { continue };
        let count = length(items).unwrap_or(0);
        if places.len().saturating_add(count) > INTERFACES_MAX + 1 {
            return None;
        }
        places.extend((0..count).map(|i| format!("{prefix}/{list}/{i}/url")));
    }
    Some(places.iter().filter_map(|text| Pointer::parse(text)).collect())
}

/// Returns the number of elements of a JSON array, or `None` if the value is not an array.
fn length(list: &RawValue) -> Option<usize> {
    serde_json::from_str::<Vec<&RawValue>>(list.get()).ok().map(|items| items.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(url: &str) -> Option<String> {
        Some(format!("http://127.0.0.1:8081/a2a{}", url.strip_prefix("https://peer.example")?))
    }

    #[test]
    fn urls_that_the_rule_covers_are_replaced_and_nothing_else_is() {
        let card = r#"{ "url": "https://peer.example/rpc", "name": "p", "skills": [], "documentationUrl": "https://peer.example/docs",
            "supportedInterfaces": [ {"url":"https:\/\/peer.example\/v1","tenant":"t"}, {"url":"grpc.example:443"}, {} ],
            "additionalInterfaces": [ {"url":"https://peer.example/"} ], "signatures": [] }"#;
        let local_card = card
            .replace("https://peer.example/rpc", "http://127.0.0.1:8081/a2a/rpc")
            .replace(r"https:\/\/peer.example\/v1", "http://127.0.0.1:8081/a2a/v1")
            .replace("\"https://peer.example/\"", "\"http://127.0.0.1:8081/a2a/\"");
        let expected =
            |text: String| LocalCard::Card { text: Some(text), foreign: vec!["grpc.example:443".to_owned()] };
        assert_eq!(CardPlace::Whole.localize(card.as_bytes(), local), expected(local_card.clone()));
        let rpc = |card: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{card}}}"#);
        let found = CardPlace::Result.localize(rpc(card).as_bytes(), local);
        assert_eq!(found, expected(rpc(&local_card)));
    }

    #[test]
    fn signed_cards_and_other_documents_are_not_changed() {
        let signed = r#"{"skills":[],"url":"https://peer.example/","signatures":[{"protected":"x"}]}"#;
        assert_eq!(CardPlace::Whole.localize(signed.as_bytes(), local), LocalCard::Signed);
        for other in
            [r#"{"url":"https://peer.example/"}"#, r#"{"skills":1,"url":""}"#, "[]", "", "{", "\u{fffd}"]
        {
            let place = CardPlace::WholeWithSkills;
            assert_eq!(place.localize(other.as_bytes(), local), LocalCard::None, "{other}");
        }
        for other in ["[]", "[[],[]]", "1", "", "{", "\u{fffd}"] {
            assert_eq!(CardPlace::Whole.localize(other.as_bytes(), local), LocalCard::None, "{other}");
        }
        assert_eq!(CardPlace::Result.localize(signed.as_bytes(), local), LocalCard::None);
        let foreign = r#"{"skills":[],"url":"https://other.example/"}"#;
        let expected = LocalCard::Card { text: None, foreign: vec!["https://other.example/".to_owned()] };
        assert_eq!(CardPlace::Whole.localize(foreign.as_bytes(), local), expected);
    }
    #[test]
    fn a_card_needs_no_skills_at_a_place_that_only_cards_have() {
        for card in
            [r#"{"url":"https://peer.example/"}"#, r#" {"skills":null,"url":"https://peer.example/"}"#]
        {
            let text = Some(card.replace("https://peer.example/", "http://127.0.0.1:8081/a2a/"));
            let expected = LocalCard::Card { text, foreign: Vec::new() };
            assert_eq!(CardPlace::Whole.localize(card.as_bytes(), local), expected);
        }
        let odd = r#"{"url":"https://peer.example/","signatures":{}}"#;
        assert_eq!(CardPlace::Whole.localize(odd.as_bytes(), local), LocalCard::Signed);
    }

    #[test]
    fn the_number_of_interfaces_is_limited() {
        for (first, second, is_too_many) in
            [(64, 0, false), (32, 32, false), (65, 0, true), (0, 65, true), (33, 32, true)]
        {
            let list = |count| vec![r#"{"url":"https://peer.example/"}"#; count].join(",");
            let card = format!(
                r#"{{"skills":[],"supportedInterfaces":[{}],"additionalInterfaces":[{}]}}"#,
                list(first),
                list(second)
            );
            let expected = match is_too_many {
                true => LocalCard::TooMany,
                false => {
                    let text = card.replace("https://peer.example/", "http://127.0.0.1:8081/a2a/");
                    LocalCard::Card { text: Some(text), foreign: Vec::new() }
                }
            };
            assert_eq!(CardPlace::Whole.localize(card.as_bytes(), local), expected, "{first} {second}");
        }
    }
}
