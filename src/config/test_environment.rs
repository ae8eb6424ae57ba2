//! The environment variables of the test configurations.

/// Returns the value of an environment variable that test configurations name.
pub(super) fn env(name: &str) -> Option<String> {
    match name {
        "KEY" => Some("k".repeat(32)),
        "OTHER_KEY" => Some("o".repeat(32)),
        "SHORT" => Some("short".to_owned()),
        "EMPTY" => Some(String::new()),
        "PADDED" => Some("  a secret with blanks ".to_owned()),
        "QUOTED" => Some("\"a secret in quotes\"".to_owned()),
        "MARKED" => Some("\u{feff}a secret after a mark".to_owned()),
        "ENDED" => Some("a secret and a newline\n".to_owned()),
        "STRIPE_KEY" => Some("sk_live_0123456789".to_owned()),
        "SLACK_TOKEN" => Some("xoxb-0123456789abc".to_owned()),
        "SUPABASE" => Some("v1,whsec_AAAAAAAAAAAAAAAAAAAA".to_owned()),
        "URLSAFE" => Some("whsec_AAAAAAAAAAAAAA-_AAAA".to_owned()),
        "TORN" => Some("whsec_AAAAAAAAAAAAAAAAAAAAA".to_owned()),
        "LINES" => Some("two lines\nof a secret".to_owned()),
        "SECRET" | "OTHER" => Some(format!("{name} of a provider")),
        "AGENT_ADDRESS" => Some("127.0.0.1:8001".to_owned()),
        "NETWORK" => Some("10.0.0.0/8".to_owned()),
        "PUBLISHED" => Some("published".to_owned()),
        "SECONDS" => Some("2s".to_owned()),
        "SHARED_FILE" => Some("tests/corpora/config/shared.yaml".to_owned()),
        "SIZE" => Some("64MiB".to_owned()),
        // The value of a variable with the name `BYTES_N` is a secret of N bytes.
        _ => Some("b".repeat(name.strip_prefix("BYTES_")?.parse().ok()?)),
    }
}
