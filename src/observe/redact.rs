//! Replaces the segments of a path that could be tokens, for the access log.

use crate::path::redacted_segment;

/// Redacts a path that matches no route, for the access log. Segments that look like a secret are replaced, control and
/// non-ASCII characters are escaped, and only the first 16 segments are returned.
pub fn redact_path(path: &str) -> String {
    path.split('/').map(redacted_segment).take(16).collect::<Vec<_>>().join("/").escape_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_strangers_are_redacted() {
        assert_eq!(redact_path("/webhooks/doc-1"), "/webhooks/doc-1");
        assert_eq!(redact_path("/w/eyJhbGciOi.x.y/z"), "/w/[redacted]/z");
        assert_eq!(redact_path(&format!("/w/{}", "a".repeat(64))), "/w/[redacted]");
        assert_eq!(redact_path("/a\n\u{1b}[31m\"x"), "/a\\n\\u{1b}[31m\\\"x");
    }
}
