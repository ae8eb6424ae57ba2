//! Configurations that are broken as text: truncated, indented with tabs, with repeated keys, or with aliases that
//! expand.

use crate::attack_configs::{Tally, stride};

/// Configurations that must be rejected, independent of the rest of the file.
struct Hostile {
    what: &'static str,
    text: String,
}

/// Reads changed texts of a configuration. `number` is the number of the configuration, so that the samples differ.
pub fn texts(number: usize, name: &str, good: &str, tally: &mut Tally) {
    let stride = stride(8);
    // A configuration that is cut off may still be valid. It only has to be read without a failure.
    for at in (0..good.len()).step_by((good.len() / 60 + 1) * stride).filter(|at| good.is_char_boundary(*at))
    {
        tally.read(&format!("{name}: cut off at {at}"), &good[..at]);
        tally.read(&format!("{name}: from {at} on"), &good[at..]);
    }
    for (i, line) in good.lines().enumerate().skip(number % stride).step_by(stride) {
        let replaced = |with: &str| -> String {
            good.lines()
                .enumerate()
                .map(|(n, l)| if n == i { format!("{with}\n") } else { format!("{l}\n") })
                .collect()
        };
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let tabbed = replaced(&format!("{}{trimmed}", "\t".repeat(indent)));
        let tab = tally.read(&format!("{name}: tabs in line {i}"), &tabbed);
        // Within brackets, tabs are allowed as white space. Everywhere else, a tab is not an indentation.
        if indent > 0
            && trimmed.starts_with("- ")
            && !trimmed.contains(['{', '[', ']', '}'])
            && matches!(tab, Some(Ok(_)))
        {
            tally.wrong.push(format!("{name}: tabs in line {i} accepted"));
        }
        for with in [
            format!(" {line}"),
            String::new(),
            line.replacen(':', "", 1),
            line.replace('"', "'"),
            format!("{line} &a"),
            format!("{line}\u{feff}"),
        ] {
            tally.read(&format!("{name}: line {i} is {with:?}"), &replaced(&with));
        }
        let doubled = tally.read(&format!("{name}: line {i} twice"), &replaced(&format!("{line}\n{line}")));
        let is_key = trimmed.split_once(": ").is_some_and(|(key, value)| {
            key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
                && !value.ends_with(['{', '[', ','])
                && !value.is_empty()
        });
        if is_key && matches!(doubled, Some(Ok(_))) {
            tally.wrong.push(format!("{name}: line {i} twice accepted: {line}"));
        }
    }
    if !number.is_multiple_of(stride) {
        return;
    }
    for Hostile { what, text } in hostile(good) {
        if matches!(tally.read(&format!("{name}: {what}"), &text), Some(Ok(_))) {
            tally.wrong.push(format!("{name}: {what} accepted"));
        }
    }
}

/// Returns a "billion laughs" document: `levels` of aliases, each of which repeats the previous one nine times.
fn laughs(levels: usize) -> String {
    let mut text = "x0: &x0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n".to_owned();
    for level in 1..levels {
        let alias = vec![format!("*x{}", level - 1); 9].join(",");
        text.push_str(&format!("x{level}: &x{level} [{alias}]\n"));
    }
    text
}

fn hostile(good: &str) -> Vec<Hostile> {
    let hostile = |what, text| Hostile { what, text };
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<String>();
    vec![
        hostile("nothing", String::new()),
        hostile("only a comment", "# callgate\n".to_owned()),
        hostile("two documents", format!("{good}\n---\n{good}")),
        hostile("a second document that is empty", format!("{good}\n---\na: 1\n")),
        hostile(
            "all of it in a list",
            good.lines().map(|line| format!("  {line}\n")).collect::<String>().replacen("  ", "- ", 1),
        ),
        hostile("a merge key", format!("x: &x {{ explain_denials: true }}\n<<: *x\n{good}")),
        hostile("a merge key at the end", format!("{good}\n<<: {{ explain_denials: true }}\n")),
        hostile("an anchor nobody knows", format!("{good}\nx: *nobody\n")),
        hostile("an alias of itself", format!("{good}\nx: &x [*x]\n")),
        hostile("a tag", format!("{good}\nexplain_denials: !!python/object/apply:os.system [id]\n")),
        hostile("a tag on the root", format!("!callgate\n{good}")),
        hostile("binary", format!("{good}\nexplain_denials: !!binary dHJ1ZQ==\n")),
        hostile("a key that is a list", format!("{good}\n? [a, b]\n: c\n")),
        hostile("a key that is null", format!("{good}\n~: c\n")),
        hostile("a key that is empty", format!("{good}\n\"\": c\n")),
        hostile("a known key in upper case", format!("{good}\nEXPLAIN_DENIALS: true\n")),
        hostile("a known key with a blank", format!("{good}\n\"explain_denials \": true\n")),
        hostile("a known key in other letters", format!("{good}\n\"explain_den\u{456}als\": true\n")),
        hostile("twice the same text", format!("{good}\n{good}")),
        hostile("NUL", format!("{good}\nx: \0\n")),
        hostile("a control character", format!("{good}\nx: \u{1}\n")),
        hostile("few laughs", format!("{good}\n{}", laughs(3))),
        hostile("a billion laughs", format!("{good}\n{}", laughs(9))),
        hostile("laughs in front", format!("{}{good}", laughs(12))),
        hostile("laughs where routes are", format!("{}routes: *x8\n", laughs(9))),
        hostile("deep lists", format!("{good}\nx: {}{}\n", "[".repeat(4_000), "]".repeat(4_000))),
        hostile("deep mappings", format!("{good}\nx: {}1{}\n", "{a: ".repeat(4_000), "}".repeat(4_000))),
        hostile("deep block", format!("{good}\n{}", many(300, &|i| format!("{}a:\n", " ".repeat(i))))),
        hostile("deep dashes", format!("{good}\nx:\n  {}\n", "- ".repeat(5_000))),
        hostile("an open quote", format!("{good}\nx: \"{}", "a".repeat(100_000))),
        hostile("a long key", format!("{good}\n{}: 1\n", "a".repeat(900))),
        hostile("a very long key", format!("{good}\n\"{}\": 1\n", "a".repeat(900_000))),
        hostile("a very long value", format!("{good}\nx: {}\n", "a".repeat(3_000_000))),
        hostile("many unknown keys", format!("{good}\n{}", many(3_000, &|i| format!("key{i}: 1\n")))),
        hostile(
            "many unknown keys in one line",
            format!("{good}\nlimits: {{ {} }}\n", many(3_000, &|i| format!("key{i}: 1, "))),
        ),
        hostile(
            "many wrong routes",
            format!("{good}\nrouten: [ {} ]\n", many(3_000, &|_| "{}, ".to_owned())),
        ),
        hostile("many broken routes", broken_routes(3_000)),
        hostile("too large", format!("{good}\n#{}", "a".repeat(5 << 20))),
        hostile(
            "a number beyond all",
            format!("{good}\nlimits: {{ body_deadline: {} }}\n", "9".repeat(5_000)),
        ),
        hostile("many comments", format!("{good}\nx: 1\n{}", "#\n".repeat(500_000))),
        hostile("many anchors", format!("{good}\nx: [ {} ]\n", many(20_000, &|i| format!("&a{i} 1, ")))),
        hostile("many aliases", format!("{good}\nx: [ &a 1, {} ]\n", many(20_000, &|_| "*a, ".to_owned()))),
    ]
}

/// Returns a configuration in which every route has a mistake.
pub fn broken_routes(count: usize) -> String {
    let route = |i| format!("  - {{ name: r{i}, path: \"/r{i}/{{a}}\", forward: /in, pathh: x }}\n");
    let routes: String = (0..count).map(route).collect();
    format!(
        "listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ] }}\nagent: {{ address: 127.0.0.1:1 }}\nroutes:\n{routes}"
    )
}
