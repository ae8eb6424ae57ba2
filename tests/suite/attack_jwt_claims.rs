//! Attacks on the claims of JWTs.

use crate::attack_jwt::{Attacks, ID, ISSUER, NOW, Signer};
use crate::attack_jwt_headers::VALUES;

pub fn claims(signer: &Signer, attacks: &mut Attacks) {
    let base = signer.claims();
    let mut add = |what: String, claims: &str| {
        drop(attacks.insert(format!("claims: {what}"), signer.token(&signer.header(), claims)))
    };
    let member = |name: &str, value: &str| format!(r#""{name}":{value}"#);
    let (iss, aud, sub) = (format!(r#""{ISSUER}""#), format!(r#""{}""#, signer.name), format!(r#""{ID}""#));
    let (exp, now) = ((NOW + 60).to_string(), NOW.to_string());
    let texts = [("iss", iss.as_str()), ("aud", &aud), ("sub", &sub)];
    for (name, right) in texts {
        let bare = right.trim_matches('"');
        let near = [
            format!("[{right},{right}]").replace("[", if name == "aud" { "[1," } else { "[" }),
            format!("[[{right}]]"),
            format!(r#"{{"x":{right}}}"#),
            format!(r#""{bare} ""#),
            format!(r#"" {bare}""#),
            format!(r#""{bare}/""#),
            format!(r#""{bare}\u0000""#),
            format!(r#""{bare}\n""#),
            format!(r#""{bare}x""#),
            format!(r#""x{bare}""#),
            format!(r#""{bare},x""#),
            format!(r#""{}""#, &bare[..bare.len() - 1]),
            format!(r#""{}""#, swap_case(bare)),
            format!(r#""{bare}\u200b""#),
        ];
        let lists =
            if name == "aud" { Vec::new() } else { vec![format!("[{right}]"), format!(r#"["x",{right}]"#)] };
        for value in VALUES.into_iter().map(str::to_owned).chain(near).chain(lists) {
            add(format!("{name} {value}"), &base.replace(&member(name, right), &member(name, &value)));
        }
        add(format!("{name} missing"), &base.replace(&format!("{},", member(name, right)), ""));
        add(
            format!("{name} in other case"),
            &base.replace(&format!(r#""{name}""#), &format!(r#""{}""#, swap_case(name))),
        );
        add(format!("{name} twice"), &base.replace('}', &format!(",{}}}", member(name, right))));
        add(format!("{name} twice, wrong first"), &base.replace('{', &format!(r#"{{"{name}":"x","#)));
        add(format!("{name} twice, wrong last"), &base.replace('}', &format!(r#","{name}":"x"}}"#)));
    }
    add("scope missing".to_owned(), &base.replace(r#""scope":"x","#, ""));
    add("scope null".to_owned(), &base.replace(r#""scope":"x""#, r#""scope":null"#));
    times(&exp, &now, &base, &mut add);
    documents(&base, &mut add);
}

/// Adds claims that are not a JSON object, that repeat a member, or that are too large.
fn documents(base: &str, add: &mut impl FnMut(String, &str)) {
    for (what, text) in [
        ("empty", String::new()),
        ("an empty object", "{}".to_owned()),
        ("a list", format!("[{base}]")),
        ("text", serde_json::to_string(base).unwrap()),
        ("cut off", base[..base.len() - 1].to_owned()),
        ("more behind", format!("{base} x")),
        ("two documents", format!("{base}{base}")),
        ("byte order mark", format!("\u{feff}{base}")),
        ("trailing comma", base.replace('}', ",}")),
        ("NUL behind", format!("{base}\0")),
        ("nested in a claim", format!(r#"{{"claims":{base}}}"#)),
        (
            "nested too deep",
            base.replace('}', &format!(r#","a":{}{}}}"#, "[".repeat(2000), "]".repeat(2000))),
        ),
        ("an unknown member twice", base.replace('}', r#","a":1,"a":2}"#)),
        ("too long", base.replace('}', &format!(r#","a":"{}"}}"#, "a".repeat(8192)))),
        ("much too long", base.replace('}', &format!(r#","a":"{}"}}"#, "a".repeat(1 << 20)))),
    ] {
        add(what.to_owned(), &text);
    }
}

fn swap_case(text: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    text.chars().map(swap).collect()
}

fn times(exp: &str, now: &str, base: &str, add: &mut impl FnMut(String, &str)) {
    let wrong = [
        r#""1767225660""#,
        r#""9999999999""#,
        "[1767225660]",
        r#"{"n":1767225660}"#,
        "1e300",
        "1e11",
        "-1",
        "NaN",
        "Infinity",
        "0x7fffffff",
        "1_767_225_660",
        "+1767225660",
        "01767225660",
    ];
    for (name, right) in [("exp", exp), ("nbf", now), ("iat", now)] {
        let member = format!(r#""{name}":{right}"#);
        let types = VALUES.into_iter().filter(|value| value.starts_with(['n', 't', 'f', '"', '[', '{']));
        for value in types.chain(wrong) {
            add(format!("{name} {value}"), &base.replace(&member, &format!(r#""{name}":{value}"#)));
        }
        add(format!("{name} twice"), &base.replace('}', &format!(r#","{name}":{right}}}"#)));
    }
    for value in [0, 1, NOW - 86_400, NOW - 1, NOW] {
        add(format!("exp at {value}"), &base.replace(exp, &value.to_string()));
    }
    add("exp a moment ago".to_owned(), &base.replace(exp, &format!("{}.999", NOW - 1)));
    add("exp missing".to_owned(), &base.replace(&format!(r#","exp":{exp}"#), ""));
    add("EXP".to_owned(), &base.replace(r#""exp""#, r#""EXP""#));
    for name in ["nbf", "iat"] {
        for value in [NOW + 1, NOW + 60, NOW * 2, 9_999_999_999] {
            add(
                format!("{name} at {value}"),
                &base.replace(&format!(r#""{name}":{now}"#), &format!(r#""{name}":{value}"#)),
            );
        }
    }
}
