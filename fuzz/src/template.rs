//! Path templates: what fills one is captured from it, and what is captured fills it.

use std::cmp::Ordering;

use callgate::path::{CanonicalPath, TOKEN_CAPTURE, Template};

/// A line with a template, a line with another one, a line with a path, and lines with values.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut lines = text.split('\n');
    let Some(Ok(template)) = lines.next().map(Template::parse) else { return false };
    let again = Template::parse(template.as_str()).expect("as written");
    assert_eq!(again, template);
    assert_eq!(template.precedence(&template), Ordering::Equal);
    let other = Template::parse(lines.next().unwrap_or_default());
    let path = CanonicalPath::parse(lines.next().unwrap_or_default());
    if let Ok(path) = &path {
        matched(&template, path);
    }
    if let Ok(other) = &other {
        let back = other.precedence(&template).reverse();
        assert_eq!(template.precedence(other), back, "an order");
        // Of one shape are those that match the same paths.
        if let Ok(path) = &path
            && template.same_shape(other)
            && !template.has(TOKEN_CAPTURE)
            && !other.has(TOKEN_CAPTURE)
        {
            assert_eq!(template.matches(path), other.matches(path));
        }
    }
    let values: Vec<_> = lines.collect();
    let value = |name: &str| {
        let at = template.names().position(|n| n == name)?;
        values.get(at).copied()
    };
    let Some(filled) = template.fill(value) else { return false };
    let path = CanonicalPath::parse(&filled).expect("a filled template is a path");
    assert_eq!(path.as_str(), filled, "a filled template is canonical");
    assert!(template.matches(&path));
    let captures = template.capture(&path);
    for name in template.names() {
        assert_eq!(captures.value(name), value(name), "{name}");
    }
    true
}

fn matched(template: &Template, path: &CanonicalPath<'_>) {
    if !template.matches(path) {
        return;
    }
    let captures = template.capture(path);
    let filled = template.fill(|name| captures.value(name));
    assert_eq!(filled.as_deref(), Some(path.as_str()), "what was captured fills the template again");
    if let Some(token) = captures.value(TOKEN_CAPTURE)
        && path.as_str().matches(token).count() == 1
        && !"[token]".contains(token)
    {
        assert!(!captures.redacted_path().contains(token), "the token is shown");
    }
}
