//! YAML as Kubernetes reads it, which is version 1.1, by a library that reads 1.2: the differences are `0644`,
//! `yes` and their kin, where they stand without quotes, and the merge key `<<`.

use std::fmt;

use serde::de::{DeserializeSeed, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess as _, Visitor};
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

/// What every reader of version 1.1 takes for true, and for false; each also capitalised and in capitals.
const YES: [&str; 2] = ["yes", "on"];
const NO: [&str; 2] = ["no", "off"];
/// What is something else than text to some readers of version 1.1, and text to others.
const DOUBTFUL: [&str; 4] = ["y", "n", "=", MERGE];
/// The key whose value gives a mapping what it does not have itself.
const MERGE: &str = "<<";
/// The tag, while it is in memory, of what readers disagree about and what therefore is written as it was read:
/// without quotes.
const PLAIN: &str = "!callgate.dev/plain";

/// Reads one document, merge keys applied.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let reader = Reader { text };
    reader.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| format!("not YAML: {error}"))
}

/// Builds values of this text, which tells what is quoted in it: the library does not.
#[derive(Clone, Copy)]
struct Reader<'t> {
    text: &'t str,
}

impl Reader<'_> {
    /// Whether this part of the text stands there without quotes, and without a tag that makes it text.
    fn is_plain(self, part: &str) -> bool {
        let at = part.as_ptr().addr().checked_sub(self.text.as_ptr().addr());
        let Some(before) = at.and_then(|at| self.text.get(..at)) else { return false };
        // A tag is on the same line and of the same item; what else begins with `!` is a comment or text.
        let item = before.rsplit(['\n', '[', '{', ',']).next().unwrap_or_default();
        let mut words = item.split_whitespace().rev().skip_while(|word| word.starts_with('&'));
        !before.ends_with(['"', '\'']) && !words.next().is_some_and(|word| word.starts_with('!'))
    }
}

/// What text without quotes means.
fn resolved(text: &str) -> Value {
    let small = text.to_ascii_lowercase();
    if YES.contains(&small.as_str()) {
        return true.into();
    }
    if NO.contains(&small.as_str()) {
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
    if needs_quotes(text) { plain(text) } else { text.into() }
}

/// Whether Kubernetes takes it for true.
pub(super) fn is_true(value: &Value) -> bool {
    // Its own reader does so with a bare `y`, others do not.
    value.as_bool() == Some(true) || *value == plain("y") || *value == plain("Y")
}

fn plain(text: &str) -> Value {
    tagged(Tag::new(PLAIN), text.into())
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

    /// There is no document.
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

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    /// Whatever can be without quotes comes this way: the library lends what it need not change.
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value, E> {
        Ok(if self.is_plain(text) { resolved(text) } else { text.into() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            all.push(item);
        }
        Ok(all.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let (mut all, mut merged, merge) = (Mapping::new(), None, plain(MERGE));
        while let Some(key) = fields.next_key_seed(self)? {
            let value = fields.next_value_seed(self)?;
            let is_twice = if key == merge {
                merged.replace((value, all.len())).is_some()
            } else {
                all.insert(key, value).is_some()
            };
            if is_twice {
                return Err(A::Error::custom("a key is there twice in a mapping"));
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
        if tag == PLAIN {
            return Err(A::Error::custom(format!("the tag {PLAIN} is none to be written")));
        }
        Ok(tagged(tag, contents.newtype_variant_seed(self)?))
    }
}

/// Adds what the mapping does not have itself. Mappings are read from within, so the merge keys of what is merged
/// are applied already. What stands before the merge key, which is at this place, is not to be in both: the reader of
/// Kubernetes lets the merged one win, against what is agreed on.
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
                    "`{}` is before the `{MERGE}` that has it too: which one counts is not agreed on; put `{MERGE}` first",
                    key.as_str().unwrap_or_default()
                ));
            }
            fields.entry(key).or_insert(value);
        }
    }
    Ok(())
}

/// Writes it so that both versions read the same.
pub(super) fn write(value: &Value) -> Result<String, String> {
    let written = |value: &Value| serde_yaml::to_string(value).map_err(|error| error.to_string());
    let plain = written(value)?;
    // Neither is within any text, so that nothing but what is marked here changes.
    let mark = |mut mark: String| {
        while plain.contains(&mark) {
            mark.push('_');
        }
        mark
    };
    let (quote, bare) = (mark("__callgate_quoted__".to_owned()), mark("__callgate_bare__".to_owned()));
    Ok(written(&marked(value, &quote, &bare))?.replace(&quote, "\"").replace(&bare, ""))
}

/// Puts marks around text that the library would write without the quotes it needs, or with some that it must not
/// have.
fn marked(value: &Value, quote: &str, bare: &str) -> Value {
    let again = |value: &Value| marked(value, quote, bare);
    match value {
        Value::String(text) if needs_quotes(text) => format!("{quote}{text}{quote}").into(),
        Value::Tagged(it) if it.tag == PLAIN => match it.value.as_str() {
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

/// Whether a reader of version 1.1 takes it for something else than text: a word for true or false, an operator, or
/// anything like a number or a date, of which there are many. Text with `: ` in it is quoted in every version.
fn needs_quotes(text: &str) -> bool {
    let small = text.to_ascii_lowercase();
    let is_word = [&YES[..], &NO, &DOUBTFUL].iter().any(|words| words.contains(&small.as_str()));
    let begins_so = text.starts_with(|c: char| c.is_ascii_digit() || ".+-".contains(c));
    let is_numeric = |c: char| c.is_ascii_hexdigit() || "_.:+- xXoOtTzZ".contains(c);
    let is_like_a_number =
        begins_so && text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(is_numeric);
    is_word || (is_like_a_number && !text.contains(": "))
}
