//! Tests of content templates.

use super::*;

#[test]
fn templates_are_read() {
    let content = ContentTemplate::parse("{id}.{timestamp}.{body}").unwrap();
    assert_eq!(content.parts().len(), 5);
    assert_eq!(content.as_str(), "{id}.{timestamp}.{body}");
    assert!(content.uses_id() && content.uses_timestamp());
    assert_eq!(content.byte_after_id(), Some(b'.'));
    let content = ContentTemplate::parse("{method}{url}{header:X-A}{body}").unwrap();
    assert_eq!(content.parts().get(2), Some(&ContentPart::Header(HeaderName::from_static("x-a"))));
}

#[test]
fn templates_with_mistakes_are_refused() {
    assert!(!ContentTemplate::parse("{timestamp}{body:/a}").unwrap().covers_body());
    assert!(ContentTemplate::parse("{body}").unwrap().covers_body());
    assert_eq!(ContentTemplate::parse("{body"), Err(ContentTemplateError::Brace));
    assert_eq!(ContentTemplate::parse("body}{body}"), Err(ContentTemplateError::Brace));
    for unknown in [
        "{Body}",
        "{header:}{body}",
        "{header:a_b}{body}",
        "{body:a}",
        "{form:}",
        "{form:a[b]}",
        "{query:}",
        "{query:a b}",
        "{query:a\nb}",
        "{query:a\0}",
        "{query:a\u{7f}}",
        "{form:a\r\nb}",
        "{header:a\nb}",
    ] {
        assert!(
            matches!(ContentTemplate::parse(unknown), Err(ContentTemplateError::Unknown(_))),
            "{unknown}"
        );
    }
}

#[test]
fn a_part_is_formatted_as_it_is_written() {
    let text = "a{body}{body_sha256}{canonical_json}{crc32}{form:f}{form}{header:x-h}{id}{body:/m}{method}{path}{query:q}{secret}{timestamp}{url}";
    let content = ContentTemplate::parse(text).unwrap();
    assert_eq!(content.parts().iter().map(ToString::to_string).collect::<String>(), text);
}
