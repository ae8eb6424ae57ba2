//! The few forms of structured fields (RFC 8941) that message signatures use: dictionaries of byte sequences, and of
//! lists of strings with parameters.

use data_encoding::{BASE64, BASE64URL_NOPAD};

/// Most labels in one header.
const LABELS_MAX: usize = 8;
/// Most components or parameters of one signature.
const ITEMS_MAX: usize = 32;

/// One signature of `Signature-Input`.
#[derive(Debug)]
pub(in crate::signature) struct SignatureInput<'t> {
    pub(in crate::signature) label: &'t str,
    pub(in crate::signature) components: Vec<&'t str>,
    parameters: Vec<(&'t str, ParameterValue<'t>)>,
    /// List and parameters as they stand.
    pub(in crate::signature) raw: &'t str,
}

#[derive(Clone, Copy, Debug)]
enum ParameterValue<'t> {
    Integer(i64),
    Text(&'t str),
}

impl<'t> SignatureInput<'t> {
    /// A parameter that is text.
    pub(in crate::signature) fn text(&self, name: &str) -> Option<&'t str> {
        self.parameters.iter().find_map(|(n, value)| match value {
            ParameterValue::Text(text) if *n == name => Some(*text),
            _ => None,
        })
    }

    /// A parameter that is a whole number.
    pub(in crate::signature) fn integer(&self, name: &str) -> Option<i64> {
        self.parameters.iter().find_map(|(n, value)| match value {
            ParameterValue::Integer(number) if *n == name => Some(*number),
            _ => None,
        })
    }
}

/// Reads `Signature-Input`. Labels, components and parameters each once.
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

/// What follows a member of a dictionary: nothing, or another one.
fn next(after: &str) -> Option<Option<&str>> {
    let after = after.trim_start_matches([' ', '\t']);
    if after.is_empty() {
        return Some(None);
    }
    let following = after.strip_prefix(',')?.trim_start_matches([' ', '\t']);
    (!following.is_empty()).then_some(Some(following))
}

/// `("@method" "content-digest")`; components with parameters of their own are not read.
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

/// A string without escapes: nothing that is signed with needs one.
fn string(text: &str) -> Option<(&str, &str)> {
    let (inside, after) = text.strip_prefix('"')?.split_once('"')?;
    let plain = inside.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'\\');
    plain.then_some((inside, after))
}

fn is_key(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b))
}

/// A dictionary of byte sequences: `sig1=:…:, sig2=:…:`.
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

/// The bytes of one member.
pub(in crate::signature) fn byte_sequence(text: &str, label: &str) -> Option<Vec<u8>> {
    byte_sequences(text)?.into_iter().find(|(name, _)| *name == label).map(|(_, bytes)| bytes)
}

/// Base64 as the RFC has it, or base64url without padding, as some senders write it; never a mixture.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).or_else(|_| BASE64URL_NOPAD.decode(text.as_bytes())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_read_strictly() {
        let text =
            r#"sig1=("@method" "content-digest");created=17;keyid="k 1";alg="ed25519", b=();created=1"#;
        let inputs = parse_signature_input(text).unwrap();
        assert_eq!(inputs.len(), 2);
        assert_eq!(inputs[0].components, ["@method", "content-digest"]);
        assert_eq!((inputs[0].integer("created"), inputs[0].text("keyid")), (Some(17), Some("k 1")));
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
}
