//! Unit tests of path templates.

use super::*;

#[test]
fn a_template_fills_and_captures() {
    let template = Template::parse("/w/{a}/x/{b}").unwrap();
    assert_eq!(template.fill(|n| Some(if n == "a" { "1" } else { "two" })).unwrap(), "/w/1/x/two");
    let path = CanonicalPath::parse("/w/1/x/two").unwrap();
    let captures = template.capture(&path);
    assert_eq!(captures.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "two")]);
}

#[test]
fn values_that_could_not_be_captured_do_not_fill() {
    let template = Template::parse("/w/{a}").unwrap();
    for bad in ["", ".", "..", "a/b", "a%2fb", "a b", "é", "a?b", &"a".repeat(256)] {
        assert_eq!(template.fill(|_| Some(bad)), None, "{bad:?}");
    }
    assert_eq!(template.fill(|_| None), None);
}

#[test]
fn the_token_is_captured_but_not_shown() {
    let template = Template::parse("/w/{a}/{callback_token}/end").unwrap();
    let captures = template.capture(&CanonicalPath::parse("/w/1/eyJ.x.y/end").unwrap());
    assert_eq!(captures.value("callback_token"), Some("eyJ.x.y"));
    assert_eq!(captures.iter().collect::<Vec<_>>(), [("a", "1")]);
    assert_eq!(captures.redacted_path(), "/w/1/[token]/end");
    assert!(!format!("{captures:?}").contains("eyJ"));
}

#[test]
fn bad_templates_are_refused() {
    for bad in ["", "w", "/a/{b", "/a/b}", "/a/x{b}", "/{a}{b}", "/{}", "/{A}", "/{1a}", "/{a}/{a}", "/a//b"]
    {
        assert!(Template::parse(bad).is_err(), "{bad:?}");
    }
    for bad in ["/a/../b", "/a%41", "/a;b", "/a?b", "/a b"] {
        assert!(matches!(Template::parse(bad), Err(TemplateFault::Path(_))), "{bad:?}");
    }
}

#[test]
fn literals_go_before_captures() {
    let t = |text| Template::parse(text).unwrap();
    assert_eq!(t("/a/b").precedence(&t("/a/{x}")), Ordering::Less);
    assert_eq!(t("/{x}/b").precedence(&t("/a/{x}")), Ordering::Greater);
    assert!(t("/a/{x}").same_shape(&t("/a/{y}")));
    assert!(!t("/a/{x}").same_shape(&t("/a/{x}/c")));
}

#[test]
fn a_remainder_captures_everything_below_a_prefix() {
    let template = Template::parse("/p/{team}/{*rest}").unwrap();
    assert_eq!(template.names().collect::<Vec<_>>(), ["team", "rest"]);
    for (path, rest) in [
        ("/p/t/", Some("")),
        ("/p/t/v1", Some("v1")),
        ("/p/t/v1/models/", Some("v1/models/")),
        ("/p/t/a:b@c/%20,=&$!/x", Some("a:b@c/%20,=&$!/x")),
        ("/p/t", None),
        ("/p/", None),
        ("/q/t/v1", None),
    ] {
        let path = CanonicalPath::parse(path).unwrap();
        assert_eq!(template.matches(&path), rest.is_some(), "{path:?}");
        let captures = rest.map(|_| template.capture(&path));
        assert_eq!(captures.as_ref().and_then(|captures| captures.value("rest")), rest, "{path:?}");
        if let Some(captures) = captures {
            assert_eq!(captures.value("team"), Some("t"));
            assert_eq!(template.fill(|name| captures.value(name)).as_deref(), Some(path.as_str()));
        }
    }
    for bad in ["/x", "..", "a/../b", "a//b", "a%2fb", "a;b", "a?b", "a b", "é", "a%"] {
        let value = |name: &str| Some(if name == "rest" { bad } else { "t" });
        assert_eq!(template.fill(value), None, "{bad:?}");
        assert!(!template.accepts("rest", bad));
    }
    assert!(template.accepts("rest", "") && template.accepts("rest", "a/%C3%A9"));
    assert!(!template.accepts("rest", "a/%c3%a9") && !template.accepts("rest", "%61"), "not canonical");
    assert!(template.accepts("rest", &"a".repeat(1024)) && !template.accepts("rest", &"a".repeat(1025)));
    assert!(!template.accepts("team", "a/b"));
}

#[test]
fn the_raw_remainder_keeps_its_spelling() {
    let template = Template::parse("/p/{team}/{*rest}").unwrap();
    for (raw, rest) in [("/p/%74/%7Ex/%c3%a9/", "%7Ex/%c3%a9/"), ("/p/t/", ""), ("/%70/t/a", "a")] {
        assert!(template.matches(&CanonicalPath::parse(raw).unwrap()));
        assert_eq!(template.raw_remainder(raw), Some(rest));
    }
    assert_eq!(Template::parse("/p/{a}").unwrap().raw_remainder("/p/x"), None);
}

#[test]
fn stars_are_not_wildcards() {
    use TemplateFault as F;
    for (text, fault) in [
        ("/a/*", F::Star("*".to_owned())),
        ("/*", F::Star("*".to_owned())),
        ("/a*/b", F::Star("a*".to_owned())),
        ("/a/**", F::Star("**".to_owned())),
        ("/a/{x*}", F::Star("{x*}".to_owned())),
        ("/a/{**}", F::Star("{**}".to_owned())),
        ("/a/x{*r}", F::Star("x{*r}".to_owned())),
        ("/a/{*}", F::Name(String::new())),
        ("/a/{*R}", F::Name("R".to_owned())),
        ("/a/{*callback_token}", F::Name("callback_token".to_owned())),
        ("/a/{*r}/b", F::Remainder("r".to_owned())),
        ("/a/{*r}/", F::Remainder("r".to_owned())),
        ("/{*r}/{*s}", F::Remainder("r".to_owned())),
        ("/{r}/{*r}", F::Doubled("r".to_owned())),
    ] {
        assert_eq!(Template::parse(text), Err(fault), "{text}");
    }
}

#[test]
fn a_remainder_fills_the_end_of_another_template() {
    let path = Template::parse("/p/{team}/{*rest}").unwrap();
    let filled = |text| Template::parse(text).unwrap().filled_from(&path);
    let value = |name: &str| Some(if name == "rest" { "a/b" } else { "t" });
    assert_eq!(filled("/x/{team}/{rest}").unwrap().fill(value).as_deref(), Some("/x/t/a/b"));
    assert_eq!(filled("/x/{team}").unwrap().fill(value).as_deref(), Some("/x/t"));
    assert_eq!(filled("/{rest}/x"), Err(TemplateFault::Remainder("rest".to_owned())));
    assert_eq!(filled("/x/{*rest}"), Err(TemplateFault::Star("{*rest}".to_owned())));
}

#[test]
fn remainders_go_last() {
    let t = |text| Template::parse(text).unwrap();
    assert_eq!(t("/{x}/{y}").precedence(&t("/a/{*r}")), Ordering::Less, "single captures go first");
    assert_eq!(t("/a/b/{*r}").precedence(&t("/a/{*r}")), Ordering::Less);
    assert_eq!(t("/a/{x}/{*r}").precedence(&t("/a/{*r}")), Ordering::Less);
    assert_eq!(t("/a/b/{*r}").precedence(&t("/a/{x}/{*r}")), Ordering::Less);
    assert!(t("/a/{*r}").same_shape(&t("/a/{*s}")));
    assert!(!t("/a/{*r}").same_shape(&t("/a/{s}")));
}
