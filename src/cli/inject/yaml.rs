//! YAML as Kubernetes reads it, which is version 1.1, by a library that reads 1.2: the differences are `0644`,
//! `yes` and their kin.

use serde_yaml::{Mapping, Value};

/// Fields of a pod that are modes of files, in octal.
const MODES: [&str; 2] = ["defaultMode", "mode"];
/// Fields of workloads that are true or false.
const SWITCHES: [&str; 21] = [
    "allowPrivilegeEscalation",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostUsers",
    "optional",
    "paused",
    "privileged",
    "publishNotReadyAddresses",
    "readOnly",
    "readOnlyRootFilesystem",
    "runAsNonRoot",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stdin",
    "stdinOnce",
    "suspend",
    "tty",
    "hostProcess",
];
/// What version 1.1 takes for true, and for false; each also capitalised and in capitals.
const YES: [&str; 3] = ["y", "yes", "on"];
const NO: [&str; 3] = ["n", "no", "off"];
/// Text that version 1.1 takes for an operator.
const OPERATORS: [&str; 2] = ["<<", "="];
/// Mappings whose keys are anybody's and whose values are text.
const FREE: [&str; 4] = ["annotations", "labels", "matchLabels", "nodeSelector"];
/// Marks text that the library would write without the quotes it needs. Nobody writes this.
const MARK: &str = "__callgate_quoted__";

/// Reads one document, merge keys applied.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| format!("not YAML: {error}"))?;
    value.apply_merge().map_err(|error| format!("not YAML: {error}"))?;
    settle(&mut value);
    Ok(value)
}

/// Gives modes and switches the values that version 1.1 gives them; as text neither would be valid.
fn settle(value: &mut Value) {
    match value {
        Value::Sequence(items) => items.iter_mut().for_each(settle),
        Value::Mapping(fields) => {
            for (key, value) in fields.iter_mut() {
                let key = key.as_str().unwrap_or_default();
                if FREE.contains(&key) {
                    continue;
                }
                let meant = value.as_str().and_then(|text| meant(key, text));
                match meant {
                    Some(meant) => *value = meant,
                    None => settle(value),
                }
            }
        }
        _ => {}
    }
}

fn meant(key: &str, text: &str) -> Option<Value> {
    if MODES.contains(&key) && text.starts_with('0') {
        return u64::from_str_radix(text, 8).ok().map(Value::from);
    }
    if !SWITCHES.contains(&key) {
        return None;
    }
    let small = text.to_ascii_lowercase();
    if YES.contains(&small.as_str()) {
        return Some(Value::from(true));
    }
    NO.contains(&small.as_str()).then(|| Value::from(false))
}

/// Writes it so that both versions read the same.
pub(super) fn write(value: &Value) -> Result<String, String> {
    let text = serde_yaml::to_string(&marked(value)).map_err(|error| error.to_string())?;
    Ok(text.replace(MARK, "\""))
}

fn marked(value: &Value) -> Value {
    match value {
        Value::String(text) if needs_quotes(text) => Value::from(format!("{MARK}{text}{MARK}")),
        Value::Sequence(items) => items.iter().map(marked).collect::<Vec<_>>().into(),
        Value::Mapping(fields) => {
            fields.iter().map(|(key, value)| (marked(key), marked(value))).collect::<Mapping>().into()
        }
        other => other.clone(),
    }
}

/// Whether version 1.1 takes it for something else than text: a word for true or false, an operator, or anything
/// like a number or a date, of which there are many.
fn needs_quotes(text: &str) -> bool {
    let small = text.to_ascii_lowercase();
    let is_word = [&YES[..], &NO, &OPERATORS].iter().any(|words| words.contains(&small.as_str()));
    let begins_so = text.starts_with(|c: char| c.is_ascii_digit() || ".+-".contains(c));
    let is_numeric = |c: char| c.is_ascii_hexdigit() || "_.:+- xXoOtTzZ".contains(c);
    is_word || (begins_so && text.contains(|c: char| c.is_ascii_digit()) && text.chars().all(is_numeric))
}
