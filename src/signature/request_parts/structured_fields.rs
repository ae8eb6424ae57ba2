//! Parses the two kinds of structured fields (RFC 9651) that HTTP message signatures use: dictionaries of byte
//! sequences, and dictionaries of inner lists of strings with parameters.
//!
//! The general parser `sfv` does not replace this parser, because a verifier needs four things that `sfv` does not
//! offer:
//!
//! - Two equal dictionary keys or two equal parameter names are an error. RFC 9651 silently uses the last value.
//! - Base64 whose unused last bits are not zero is an error. RFC 9651 allows parsers to accept such base64.
//! - Base64url is accepted, because some senders use it. RFC 9651 does not define it.
//! - The text of each inner list stays available as received, because this text was signed.
//!
//! The tests compare both parsers: `sfv` must accept every field that this parser accepts, except fields with
//! base64url, and must read the same values.

use data_encoding::{BASE64, BASE64URL_NOPAD};

/// The maximum number of signature labels in one header.
const LABELS_MAX: usize = 8;
/// The maximum number of components of one signature, and also the maximum number of its parameters.
const ITEMS_MAX: usize = 32;

/// One labeled entry of the header `Signature-Input` (RFC 9421), which describes one signature.
#[derive(Debug)]
pub(in crate::signature) struct SignatureInput<'t> {
    pub(in crate::signature) label: &'t str,
    pub(in crate::signature) components: Vec<&'t str>,
    parameters: Vec<(&'t str, ParameterValue<'t>)>,
    /// The text of the inner list and its parameters, as received.
    pub(in crate::signature) raw: &'t str,
}

#[derive(Clone, Copy, Debug)]
enum ParameterValue<'t> {
    Integer(i64),
    Text(&'t str),
}

impl<'t> SignatureInput<'t> {
    /// Returns the string parameter `name` of the signature. Returns `None` if the parameter is missing or not a
    /// string.
    pub(in crate::signature) fn text(&self, name: &str) -> Option<&'t str> {
        self.parameters.iter().find_map(|(n, value)| match value {
            ParameterValue::Text(text) if *n == name => Some(*text),
            _ => None,
        })
    }

    /// Returns the integer parameter `name` of the signature. Returns `None` if the parameter is missing or not an
    /// integer.
    pub(in crate::signature) fn integer(&self, name: &str) -> Option<i64> {
        self.parameters.iter().find_map(|(n, value)| match value {
            ParameterValue::Integer(number) if *n == name => Some(*number),
            _ => None,
        })
    }
}

/// Parses the value of the header `Signature-Input`. Returns `None` if the value is malformed, or if a label, a
/// component or a parameter occurs twice.
pub(in crate::signature) fn parse_signature_input(text: &str) -> Option<Vec<SignatureInput<'_>>> {
    let mut inputs: Vec<SignatureInput<'_>> = Vec::new();
    let mut rest = text.trim_matches([' ', '\t']);
    loop {
        let (label, behind) = rest.split_once('=')?;
        if !is_key(label) || inputs.iter().any(|input| input.label == label) || inputs.len() == LABELS_MAX {
            return None;
        }
        let (components, behind_list) = list(behind)?;
        let (parameters, after) = parameters(behind_list)?;
        let raw = behind.get(..behind.len() - after.len())?;
        inputs.push(SignatureInput { label, components, parameters, raw });
        match next(after)? {
            None => return Some(inputs),
            Some(following) => rest = following,
        }
    }
}

/// Skips the comma before the next entry of a dictionary. `after` is the text after the previous entry. Returns the
/// text that begins with the next entry, or `Some(None)` if there is no further entry. Returns `None` if the text is
/// malformed.
fn next(after: &str) -> Option<Option<&str>> {
    let after = after.trim_start_matches([' ', '\t']);
    if after.is_empty() {
        return Some(None);
    }
    let following = after.strip_prefix(',')?.trim_start_matches([' ', '\t']);
    (!following.is_empty()).then_some(Some(following))
}

/// Parses an inner list such as `("@method" "content-digest")`. Returns its components and the rest of the text.
/// Returns `None` if the list is malformed, or if a component has parameters, which are not supported.
fn list(text: &str) -> Option<(Vec<&str>, &str)> {
    let mut rest = text.strip_prefix('(')?;
    let mut items = Vec::new();
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix(')') {
            return Some((items, after));
        }
        let (item, after) = string(rest)?;
        if !after.starts_with([' ', ')']) || items.contains(&item) || items.len() == ITEMS_MAX {
            return None;
        }
        items.push(item);
        rest = after;
    }
}

fn parameters(text: &str) -> Option<(Vec<(&str, ParameterValue<'_>)>, &str)> {
    let mut rest = text;
    let mut found: Vec<(&str, ParameterValue<'_>)> = Vec::new();
    while let Some(after) = rest.strip_prefix(';') {
        let (name, behind) = after.trim_start_matches(' ').split_once('=')?;
        if !is_key(name) || found.iter().any(|(n, _)| *n == name) || found.len() == ITEMS_MAX {
            return None;
        }
        let (value, after) = if behind.starts_with('"') {
            let (text, after) = string(behind)?;
            (ParameterValue::Text(text), after)
        } else {
            let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
            let (digits, after) = behind.split_at_checked(end)?;
            let number = (1..=15).contains(&digits.len()).then(|| digits.parse().ok()).flatten()?;
            (ParameterValue::Integer(number), after)
        };
        found.push((name, value));
        rest = after;
    }
    Some((found, rest))
}

/// Parses a string in quotation marks. Returns the string and the rest of the text. Returns `None` for a string with
/// an escape, because no component and no parameter of a message signature needs an escape.
fn string(text: &str) -> Option<(&str, &str)> {
    let (inside, after) = text.strip_prefix('"')?.split_once('"')?;
    let plain = inside.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'\\');
    plain.then_some((inside, after))
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
}

/// Parses a dictionary of byte sequences, such as `sig1=:…:, sig2=:…:`. Returns the keys and the decoded bytes.
/// Returns `None` if the dictionary is malformed, or if a key occurs twice.
pub(in crate::signature) fn byte_sequences(text: &str) -> Option<Vec<(&str, Vec<u8>)>> {
    let mut members: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut rest = text.trim_matches([' ', '\t']);
    loop {
        let (name, behind) = rest.split_once('=')?;
        let (base64, after) = behind.strip_prefix(':')?.split_once(':')?;
        if !is_key(name) || members.iter().any(|(n, _)| *n == name) || members.len() == LABELS_MAX {
            return None;
        }
        members.push((name, decode(base64)?));
        match next(after)? {
            None => return Some(members),
            Some(following) => rest = following,
        }
    }
}

/// Returns the byte sequence with the key `label` in a dictionary of byte sequences. Returns `None` if the dictionary
/// is malformed, or if the key is missing.
pub(in crate::signature) fn byte_sequence(text: &str, label: &str) -> Option<Vec<u8>> {
    byte_sequences(text)?.into_iter().find(|(name, _)| *name == label).map(|(_, bytes)| bytes)
}

/// Decodes base64 with padding (RFC 9651), or base64url without padding, which some senders use. A text that mixes
/// both encodings is an error.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).or_else(|_| BASE64URL_NOPAD.decode(text.as_bytes())).ok()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use sfv::ListEntry;

    use super::*;

    #[test]
    fn inputs_are_read_strictly() {
        let text =
            r#"sig1=("@method" "content-digest");created=17;keyid="k 1";alg="ed25519", b=();created=1"#;
        let inputs = parse_signature_input(text).unwrap();
        assert_eq!(inputs.len(), 2);
        assert_eq!(inputs[0].components, ["@method", "content-digest"]);
        for (name, integer, text) in [
            ("created", Some(17), None),
            ("keyid", None, Some("k 1")),
            ("alg", None, Some("ed25519")),
            ("nonce", None, None),
        ] {
            assert_eq!((inputs[0].integer(name), inputs[0].text(name)), (integer, text), "{name}");
        }
        assert_eq!(inputs[0].raw, r#"("@method" "content-digest");created=17;keyid="k 1";alg="ed25519""#);
        assert_eq!(inputs[1].raw, "();created=1");
        for bad in [
            "",
            "sig1",
            "sig1=x",
            "sig1=(",
            r#"sig1=("a""b")"#,
            r#"sig1=("a" "a")"#,
            r#"sig1=("a");created=1;created=2"#,
            r#"sig1=("a"),"#,
            r#"sig1=("a"), sig1=("b")"#,
            r#"sig1=("a\"b")"#,
            r#"sig1=("a\\b")"#,
            "sig1=(\"a\tb\")",
            "sig1=(\"a\x7f\")",
            "sig1=(\"\u{e4}\")",
            r#"sig1=("a");tag="a\\b""#,
            "sig1=(\"a\");tag=\"a\x00\"",
            r#"sig1=("a";sf)"#,
            r#"SIG=("a")"#,
            r#"sig1=("a");created=-1"#,
        ] {
            assert!(super::parse_signature_input(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn byte_sequences_are_read_strictly() {
        assert_eq!(byte_sequence("a=:AQI=:, b=:_-8:", "a").unwrap(), [1, 2]);
        assert_eq!(byte_sequence("a=:AQI=:, b=:_-8:", "b").unwrap(), [0xff, 0xef]);
        for bad in ["a=:AQJ=:", "a=AQI=", "a=:AQI=", "a=:+_8=:", "a=:AQI=:,", "a=:AQI=:;x=1"] {
            assert!(byte_sequence(bad, "a").is_none(), "{bad}");
        }
    }

    /// The pieces from which the test builds random structured fields. Many of these fields are well-formed or nearly
    /// well-formed.
    const PIECES: &str = "a|b|=|=|=(|(|)|);|;|\"x\"| \"y\"|\"@method\"|\"\\\"\"| |  |, |,|\t|created=1|keyid=\"k\"|\
                          tag=?1|017|-1|:AQI=:|:AQJ:|:_-8:";

    fn field() -> impl Strategy<Value = String> {
        let piece = proptest::sample::select(PIECES.split('|').collect::<Vec<_>>());
        let member =
            r#"[ab]{1,2}=\( ?("x"|"y"|"x" "y")? ?\)(;created=1|; created=017)?(;k="v"|;k="w"|;created=2)?"#
                .boxed();
        let digest = r"[ab]=(:AQI=:|:AQI:|:AQJ=:|:_-8:|:-_8=:|:AA==:)".boxed();
        let list = |member: BoxedStrategy<String>| {
            (vec(member, 1..4), "[ \t]?").prop_map(|(members, space)| members.join(&format!(",{space}")))
        };
        prop_oneof![vec(piece, 0..12).prop_map(|pieces| pieces.concat()), list(member), list(digest),]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn sfv_reads_what_we_read(text in field()) {
            let text = text.trim_matches([' ', '\t']);
            if let Some(inputs) = parse_signature_input(text) {
                let theirs = sfv::Parser::parse_dictionary(text.as_bytes()).unwrap();
                prop_assert_eq!(theirs.len(), inputs.len());
                for input in inputs {
                    let Some(ListEntry::InnerList(list)) = theirs.get(input.label) else { panic!("{text}") };
                    let components: Vec<_> = list.items.iter().map(|item| item.bare_item.as_str().unwrap()).collect();
                    prop_assert_eq!(components, input.components);
                    prop_assert_eq!(list.params.len(), input.parameters.len());
                    for (name, value) in input.parameters {
                        let same = match value {
                            ParameterValue::Integer(number) => list.params[name].as_int() == Some(number),
                            ParameterValue::Text(text) => list.params[name].as_str() == Some(text),
                        };
                        prop_assert!(same, "{text}: {name}");
                    }
                    let raw = sfv::Parser::parse_list(input.raw.as_bytes()).unwrap();
                    prop_assert_eq!(&raw, &vec![ListEntry::InnerList(list.clone())]);
                }
            }
            // `sfv` does not decode base64url, so texts with base64url are not compared.
            if let Some(ours) = byte_sequences(text).filter(|_| !text.contains(['-', '_'])) {
                let theirs = sfv::Parser::parse_dictionary(text.as_bytes()).unwrap();
                prop_assert_eq!(theirs.len(), ours.len());
                for (name, bytes) in ours {
                    let Some(ListEntry::Item(item)) = theirs.get(name) else { panic!("{text}") };
                    prop_assert_eq!(item.bare_item.as_byte_seq(), Some(&bytes));
                }
            }
        }
    }

    /// Asserts how `sfv` and this parser differ. Only `sfv` accepts duplicate names, and base64 whose unused last bits
    /// are not zero. Only this parser accepts base64url.
    #[test]
    fn sfv_is_less_strict() {
        for text in [r#"a=("x"), a=("y")"#, r#"a=("x");created=1;created=2"#] {
            assert!(
                parse_signature_input(text).is_none()
                    && sfv::Parser::parse_dictionary(text.as_bytes()).is_ok()
            );
        }
        for text in ["a=:AQI=:, a=:AQM=:", "a=:AQJ=:"] {
            assert!(byte_sequences(text).is_none() && sfv::Parser::parse_dictionary(text.as_bytes()).is_ok());
        }
        assert!(byte_sequences("a=:_-8:").is_some() && sfv::Parser::parse_dictionary(b"a=:_-8:").is_err());
    }
}
