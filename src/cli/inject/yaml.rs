//! Reads and writes manifests in YAML. Kubernetes must read the written text in the same way as the original text.
//!
//! Kubernetes reads YAML 1.1, and the YAML library reads version 1.2. The two versions differ about scalars without
//! quotes, such as `0644` and `yes`, and about the merge key `<<`.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess as _, Visitor,
};
use serde_yaml::value::{Tag, TaggedValue};

pub(super) use serde_yaml::{Mapping, Sequence, Value};

use crate::config::{Outline, check_depth, has_alias};

/// Words that YAML 1.1 reads as true, in addition to `true` and `y`. `Yes` and `YES` are true, too.
const TRUE: [&str; 2] = ["yes", "on"];
const FALSE: [&str; 2] = ["no", "off"];
/// Words that some readers of YAML 1.1 read as text, and other readers as another type, if the words have no quotes.
const AMBIGUOUS: [&str; 4] = ["y", "n", "=", MERGE];
/// The merge key of YAML 1.1. Its value is a mapping, whose keys are added to the mapping that contains the merge key.
/// Keys that exist already are not replaced.
const MERGE: &str = "<<";
/// The tag of an unquoted text, such as `y`, that YAML parsers interpret differently. The tag exists only in memory.
/// The text is written as it was read, without quotes.
const AS_READ: &str = "!callgate.dev/plain";
/// The maximum length of the record that `callgate inject` writes into an annotation, in bytes. The record contains the
/// previous values of a few environment variables.
const RECORD_BYTES_MAX: usize = 64 << 10;
/// The maximum size of the values in a record, as a multiple of the length of its YAML text. The size of a value is one
/// byte more than its text. Without aliases, one byte of YAML text makes at most three values.
const RECORD_GROWTH_MAX: usize = 4;
/// The error about a record with aliases.
const ALIASES: &str = "it has YAML aliases, which `callgate inject` does not write";

/// Reads one YAML document, and applies its merge keys.
pub(super) fn read(text: &str) -> Result<Value, String> {
    check_nesting(text).map_err(|error| format!("not YAML: {error}"))?;
    let outline = Outline::parse(text);
    let reader = Reader { outline: &outline, at: outline.root() };
    reader.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| format!("not YAML: {error}"))
}

/// Converts a JSON value into the value of a YAML document.
pub(super) fn from_json(value: &serde_json::Value) -> Result<Value, String> {
    serde_yaml::to_value(value).map_err(|error| error.to_string())
}

fn check_nesting(text: &str) -> Result<(), String> {
    check_depth(text).map_err(|(message, at)| format!("{message}, at line {}", at.line))
}

/// Deserializes a record that [`to_text`] wrote. Limits its length and depth, and refuses aliases, because anybody can
/// write such a text.
pub(super) fn from_text<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    if text.len() > RECORD_BYTES_MAX {
        return Err(format!("it is longer than {} KiB", RECORD_BYTES_MAX >> 10));
    }
    check_nesting(text)?;
    if has_alias(text) {
        return Err(ALIASES.to_owned());
    }
    // `has_alias` may miss an alias that the YAML library accepts, so the size of the values is limited as well.
    let left = Cell::new((text.len() + 1) * RECORD_GROWTH_MAX);
    let size = Size { left: &left }.deserialize(serde_yaml::Deserializer::from_str(text));
    size.map_err(|error| error.to_string())?;
    serde_yaml::from_str(text).map_err(|error| error.to_string())
}

/// Measures the values in a YAML document without building them. Fails if they are too large, because aliases can make
/// a short text very large.
#[derive(Clone, Copy)]
struct Size<'s> {
    /// The number of bytes that the remaining values may have.
    left: &'s Cell<usize>,
}

impl Size<'_> {
    fn add<E: Error>(self, bytes: usize) -> Result<(), E> {
        self.left.set(self.left.get().checked_sub(bytes + 1).ok_or_else(|| E::custom(ALIASES))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Size<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Size<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any value")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.add(0)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.add(0)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.add(0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.add(0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.add(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.add(0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.add(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        self.add(0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key_seed(self)?.is_some() {
            fields.next_value_seed(self)?;
        }
        self.add(0)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<(), A::Error> {
        let (_, contents) = variant.variant::<IgnoredAny>()?;
        contents.newtype_variant_seed(self)
    }
}

/// Serializes a record as YAML. `callgate inject` writes the result into an annotation.
pub(super) fn to_text<T: serde::Serialize>(record: &T) -> Result<String, String> {
    serde_yaml::to_string(record).map_err(|error| error.to_string())
}

/// Builds the YAML value at one position of a document. The library provides the contents of a scalar. The outline of
/// the document shows whether the scalar has quotes.
#[derive(Clone, Copy)]
struct Reader<'o> {
    outline: &'o Outline,
    at: Option<usize>,
}

impl Reader<'_> {
    fn inner<E: Error>(self, at: Option<usize>) -> Result<Self, E> {
        match at {
            Some(_) => Ok(Self { at, ..self }),
            None => Err(E::custom("a value that two YAML parsers read differently")),
        }
    }

    fn scalar<E: Error>(self, text: &str) -> Result<Value, E> {
        let at = self.inner(self.at.filter(|at| self.outline.is_plain(*at).is_some()))?;
        let is_plain = at.at.and_then(|at| self.outline.is_plain(at)) == Some(true);
        Ok(if is_plain { resolved(text) } else { text.into() })
    }
}

/// Returns the value that Kubernetes reads from a YAML scalar that has neither quotes nor a tag.
fn resolved(text: &str) -> Value {
    let is_one_of = |words: [&str; 2]| {
        let first = |word: &str| word.get(..1).unwrap_or_default().to_ascii_uppercase();
        let capitalised = |word: &str| first(word) + word.get(1..).unwrap_or_default();
        words
            .iter()
            .any(|word| text == *word || text == capitalised(word) || text == word.to_ascii_uppercase())
    };
    if is_one_of(TRUE) {
        return true.into();
    }
    if is_one_of(FALSE) {
        return false.into();
    }
    let digits = text.replace('_', "");
    let number = match text.chars().next() {
        Some('0') => u64::from_str_radix(&digits, 8).ok(),
        Some('1'..='9') => digits.parse().ok(),
        _ => None,
    };
    if let Some(number) = number {
        return number.into();
    }
    if needs_quotes(text) { as_read(text) } else { text.into() }
}

/// Reports whether Kubernetes reads a YAML value as true.
pub(super) fn is_true(value: &Value) -> bool {
    // Kubernetes reads `y` without quotes as true. Other parsers read it as text.
    value.as_bool() == Some(true) || *value == as_read("y") || *value == as_read("Y")
}

fn as_read(text: &str) -> Value {
    tagged(Tag::new(AS_READ), text.into())
}

fn tagged(tag: Tag, value: Value) -> Value {
    Value::Tagged(Box::new(TaggedValue { tag, value }))
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    /// Returns null for a text that contains no document.
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.scalar(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        loop {
            let at = self.at.and_then(|list| self.outline.item(list, all.len()));
            // After the last item, `at` is `None`. The library then returns no further element, so `at` is not used.
            match items.next_element_seed(Self { at, ..self })? {
                Some(item) => all.push(item),
                None => return Ok(all.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let (mut all, mut merged, merge) = (Mapping::new(), None, as_read(MERGE));
        for index in 0.. {
            let entry = self.at.and_then(|map| self.outline.entry(map, index));
            let Some(key) = fields.next_key_seed(Self { at: entry.map(|(key, _)| key), ..self })? else {
                break;
            };
            let value = fields.next_value_seed(self.inner(entry.map(|(_, value)| value))?)?;
            let is_twice = if key == merge {
                merged.replace((value, all.len())).is_some()
            } else {
                all.insert(key, value).is_some()
            };
            if is_twice {
                return Err(A::Error::custom("a key is twice in a mapping"));
            }
        }
        if let Some((merged, at)) = merged {
            merge_into(&mut all, merged, at).map_err(A::Error::custom)?;
        }
        Ok(all.into())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<Value, A::Error> {
        let (tag, contents) = variant.variant::<String>()?;
        let tag = Tag::new(tag);
        if tag == AS_READ {
            return Err(A::Error::custom(format!("the tag {AS_READ} is reserved")));
        }
        Ok(tagged(tag, contents.newtype_variant_seed(self)?))
    }
}

/// Copies the keys of `merged` into `fields`, except keys that `fields` already contains. `merged` is the value of the
/// merge key `<<` of the mapping `fields`, and `at` is the position of the merge key. Merge keys within `merged` are
/// already applied.
///
/// # Errors
/// Returns a message if a key before the merge key has different values in `fields` and `merged`. Kubernetes would use
/// the value in `merged`, and other parsers the value in `fields`.
fn merge_into(fields: &mut Mapping, merged: Value, at: usize) -> Result<(), String> {
    let merged = match merged {
        Value::Sequence(items) => items,
        one => vec![one],
    };
    let before: Mapping = fields.iter().take(at).map(|(key, value)| (key.clone(), value.clone())).collect();
    for each in merged {
        let Value::Mapping(each) = each else {
            return Err(format!("the value of `{MERGE}` is neither a mapping nor a list of mappings"));
        };
        for (key, value) in each {
            if before.get(&key).is_some_and(|own| *own != value) {
                return Err(format!(
                    "`{}` is before the `{MERGE}` that has it, too: readers disagree about the one that counts; put `{MERGE}` first",
                    key.as_str().unwrap_or_default()
                ));
            }
            fields.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// Returns a value as YAML text that parsers of versions 1.1 and 1.2 read in the same way.
pub(super) fn write(value: &Value) -> Result<String, String> {
    let written = |value: &Value| serde_yaml::to_string(value).map_err(|error| error.to_string());
    let plain = written(value)?;
    // The marks must not occur in the document, because all occurrences of them are replaced.
    let mark = |mut mark: String| {
        while plain.contains(&mark) {
            mark.push('_');
        }
        mark
    };
    let (quote, bare) = (mark("__callgate_quoted__".to_owned()), mark("__callgate_bare__".to_owned()));
    Ok(written(&marked(value, &quote, &bare))?.replace(&quote, "\"").replace(&bare, ""))
}

/// Puts marks around texts for which the YAML library could choose the wrong quotes. The mark `quote` is for a text
/// that needs quotes, and the mark `bare` is for a text that must have none. [`write`] replaces `quote` with a quote,
/// and removes `bare`.
fn marked(value: &Value, quote: &str, bare: &str) -> Value {
    let again = |value: &Value| marked(value, quote, bare);
    match value {
        Value::String(text) if needs_quotes(text) => format!("{quote}{text}{quote}").into(),
        Value::Tagged(it) if it.tag == AS_READ => match it.value.as_str() {
            Some(text) if needs_quotes(text) => format!("{bare}{text}{bare}").into(),
            _ => it.value.clone(),
        },
        Value::Tagged(it) => tagged(it.tag.clone(), again(&it.value)),
        Value::Sequence(items) => items.iter().map(again).collect::<Vec<_>>().into(),
        Value::Mapping(fields) => {
            fields.iter().map(|(key, value)| (again(key), again(value))).collect::<Mapping>().into()
        }
        other => other.clone(),
    }
}

/// Reports whether a parser of YAML 1.1 reads a text without quotes as a boolean, a merge key, or one of the many forms
/// of numbers and dates. Returns false for a text with `: `, which is quoted in every version of YAML.
fn needs_quotes(text: &str) -> bool {
    let small = text.to_ascii_lowercase();
    let is_word = [&TRUE[..], &FALSE, &AMBIGUOUS].iter().any(|words| words.contains(&small.as_str()));
    let begins_so = text.starts_with(|c: char| c.is_ascii_digit() || ".+-".contains(c));
    let is_numeric = |c: char| c.is_ascii_hexdigit() || "_.:+- xXoOtTzZ".contains(c);
    let is_like_a_number =
        begins_so && text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(is_numeric);
    is_word || (is_like_a_number && !text.contains(": "))
}

/// Returns the value of the key `name` of an element of a list.
pub(super) fn name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

/// The maximum length of a name in a message, in characters. It is the maximum length of a name in Kubernetes.
const NAME_CHARS_MAX: usize = 253;

/// Returns a name for a message: at most the first 253 characters.
pub(in crate::cli) fn shortened(name: &str) -> &str {
    let end = name.char_indices().nth(NAME_CHARS_MAX).map_or(name.len(), |(end, _)| end);
    name.get(..end).unwrap_or_default()
}

/// Reports whether a text is longer than any name in Kubernetes.
pub(super) fn is_too_long(name: &str) -> bool {
    shortened(name).len() < name.len()
}
