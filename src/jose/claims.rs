//! The claims of a JWT (RFC 7519), with strict types. Duplicate claims are an error.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::denial::{Denial, Refusal};
use crate::time::Timestamp;

/// The claims of a JWT, as a map from names to JSON values.
pub(crate) struct Claims {
    members: BTreeMap<String, Value>,
}

impl Claims {
    /// Returns the claim `name` as a JSON value of any type, or `None` if the claim is missing.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// Returns the NumericDate claim `name` (RFC 7519 section 2) as a time, or `None` if the claim is missing. Any
    /// JSON number of seconds from 0 to below 1e11 is valid, with or without a fraction.
    pub(crate) fn moment(&self, name: &str) -> Result<Option<Timestamp>, Refusal> {
        let Some(value) = self.members.get(name) else { return Ok(None) };
        let secs = value.as_f64().filter(|secs| (0.0..1e11).contains(secs));
        match secs {
            Some(secs) => Ok(Some(Timestamp::from_unix_ms((secs * 1000.0) as i64))),
            None => Err(Refusal::new(Denial::TokenClaim, format!("{name} is not a number of seconds"))),
        }
    }

    /// Returns the string claim `name`, or `None` if the claim is missing.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Refusal::new(Denial::TokenClaim, format!("{name} is not a string"))),
        }
    }

    /// Returns the audiences in the claim `aud`, which is a string or a list of strings. Returns an empty list if
    /// `aud` is missing.
    pub(crate) fn audience(&self) -> Result<Vec<&str>, Refusal> {
        let wrong = || Refusal::new(Denial::TokenClaim, "aud is not a string or a list of strings");
        match self.members.get("aud") {
            None => Ok(Vec::new()),
            Some(Value::String(text)) => Ok(vec![text]),
            Some(Value::Array(list)) => list.iter().map(|aud| aud.as_str().ok_or_else(wrong)).collect(),
            Some(_) => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with each member once")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a member occurs twice"));
                    }
                }
                Ok(Claims { members })
            }
        }
        deserializer.deserialize_map(Members)
    }
}
