//! `callgate schema`: prints the configuration language as JSON Schema for editors, or as the table in
//! `docs/reference.md`.

use std::io::Write as _;

use clap::Args;
use serde_json::{Value, json};

use super::common::EXIT_DATA;
use crate::config::{SCHEMA, from_yaml};

#[derive(Args)]
pub(super) struct SchemaArgs {
    /// Print the Markdown table of docs/reference.md.
    #[arg(long)]
    markdown: bool,
}

/// Returns the configuration language as JSON Schema. Returns `None` if the schema in the program cannot be parsed.
pub fn schema() -> Option<Value> {
    from_yaml(SCHEMA)
}

pub(super) fn print(args: &SchemaArgs) -> u8 {
    let Some(mut schema) = schema() else { return EXIT_DATA };
    allow_variables(&mut schema);
    let text = if args.markdown { reference() } else { format!("{schema:#}\n") };
    u8::from(std::io::stdout().write_all(text.as_bytes()).is_err())
}

/// Changes the schema so that `{env: NAME}` is allowed in place of every text. The schema file omits this alternative,
/// because it would be the same for every text.
fn allow_variables(schema: &mut Value) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(allow_variables),
        Value::Object(members) if members.get("type").is_some_and(|kind| kind == "string") => {
            let mut text = std::mem::take(members);
            for outer in ["description", "default"] {
                if let Some(value) = text.remove(outer) {
                    members.insert(outer.to_owned(), value);
                }
            }
            let variable = json!({ "$ref": "#/$defs/text_or_env" });
            members.insert("anyOf".to_owned(), json!([text, variable]));
        }
        Value::Object(members) => {
            // `{env: NAME}` is not allowed for the name of an environment variable or the path of a secret.
            let inner =
                members.iter_mut().filter(|(name, _)| !matches!(name.as_str(), "secret" | "text_or_env"));
            inner.for_each(|(_, value)| allow_variables(value));
        }
        Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns the Markdown table of the configuration language for `docs/reference.md`, with one row for each key.
pub fn reference() -> String {
    let mut out = "| key | | default |\n|---|---|---|\n".to_owned();
    if let Some(schema) = schema() {
        rows(&schema, &schema, "", &mut out);
    }
    out
}

/// Returns the schema to which `$ref` refers, or the schema itself if it has no `$ref`.
fn resolved<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    let target = schema["$ref"].as_str().and_then(|to| root.pointer(to.trim_start_matches('#')));
    target.unwrap_or(schema)
}

/// Appends the table rows for the keys of a mapping: for each key a row, and then the rows for the keys within its
/// value.
fn rows(root: &Value, schema: &Value, path: &str, out: &mut String) {
    let schema = resolved(root, schema);
    for (key, own) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let target = resolved(root, own);
        let required = schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == key));
        let said = own["description"].as_str().or_else(|| target["description"].as_str()).unwrap_or_default();
        let words = target["enum"].as_array().map(|all| words(all));
        let text =
            [Some(said.trim_end_matches('.').to_owned()), words.map(|words| format!("one of {words}"))];
        let text: Vec<_> = text.into_iter().flatten().filter(|text| !text.is_empty()).collect();
        let default = match (&own["default"], required) {
            (Value::Null, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            (default, _) => word(default),
        };
        out.push_str(&format!("| `{path}` | {} | {default} |\n", text.join("; ").replace('|', "\\|")));
        within(root, target, &path, out);
    }
}

/// Appends the table rows for the keys within a value. These are the keys of the value itself, of its elements if it is
/// a list, of its entries if it is a mapping with arbitrary names, and of each alternative if its schema has `anyOf`.
fn within(root: &Value, schema: &Value, path: &str, out: &mut String) {
    // A reference to a secret has the same keys everywhere. These keys have no rows, because the documentation explains
    // them once, at the top.
    if Some(schema) == root.pointer("/$defs/secret") {
        return;
    }
    rows(root, schema, path, out);
    if schema["items"].is_object() {
        within(root, resolved(root, &schema["items"]), &format!("{path}[]"), out);
    }
    if schema["additionalProperties"].is_object() {
        within(root, resolved(root, &schema["additionalProperties"]), &format!("{path}.NAME"), out);
    }
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        within(root, resolved(root, form), path, out);
    }
}

/// Returns the allowed values of a key as text, separated by commas. Each value occurs once, even if the schema allows
/// it both as a number and as text.
fn words(all: &[Value]) -> String {
    let mut words: Vec<_> = all.iter().map(word).collect();
    let mut seen = std::collections::BTreeSet::new();
    words.retain(|word| seen.insert(word.clone()));
    words.join(", ")
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => format!("`{text}`"),
        Value::Array(all) => format!("[{}]", all.iter().map(word).collect::<Vec<_>>().join(", ")),
        other => format!("`{other}`"),
    }
}
