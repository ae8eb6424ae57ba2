//! Reads the setting `headers`: which headers of the caller reach the agent.

use std::sync::Arc;

use crate::config::repeated::repeated;
use crate::config::yaml::Cursor;
use crate::ingress::{HeaderAllowlist, is_always_removed};

/// Reads the setting `headers: { allow: [NAME, ...] }` of a route or of the configuration. Returns `default` if the
/// setting is missing.
pub(in crate::config) fn passed_headers(
    at: Option<Cursor<'_>>,
    default: Option<&Arc<HeaderAllowlist>>,
) -> Option<Option<Arc<HeaderAllowlist>>> {
    let Some(at) = at else { return Some(default.cloned()) };
    let mut fields = at.fields()?;
    let allow = fields.required("allow");
    fields.finish();
    let list = allow?.list()?;
    let read: Vec<_> = list
        .iter()
        .map(|at| {
            if at.text()?.contains('*') {
                return at.error("`*` is not supported here", "write the complete name of each header");
            }
            let name = at.header_name()?;
            if is_always_removed(&name) {
                let hint = "Callgate removes or replaces this header on every route; remove it from the list";
                return at.error(format!("{name} never reaches the agent"), hint);
            }
            Some(name)
        })
        .collect();
    for (i, _) in repeated(&read, |a, b| a.as_ref().map(|a| a.as_str()).cmp(&b.as_ref().map(|b| b.as_str())))
    {
        if let (Some(at), Some(Some(name))) = (list.get(i), read.get(i)) {
            return at.error(format!("{name} occurs twice"), "");
        }
    }
    let names = read.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Some(Arc::new(HeaderAllowlist::new(names))))
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{MINIMAL, mistake, parse};

    #[test]
    fn a_list_of_the_route_replaces_the_list_of_the_file() {
        let text = MINIMAL.replace("agent: {", "headers: { allow: [X-Both, x-file] }\nagent: {");
        let names = |text: &str| -> Option<Vec<String>> {
            let config = parse(text).unwrap();
            let [route] = config.policy.ingress.routes() else { panic!("one route") };
            route.passed_headers.as_ref().map(|allowed| allowed.names().map(str::to_owned).collect())
        };
        let always = ["content-encoding", "content-language", "content-type", "traceparent"];
        assert_eq!(names(MINIMAL), None);
        assert_eq!(names(&text), Some(owned([&always, &["x-both", "x-file"]])));
        let text = text
            .replace("forward: /i/{id}", "forward: /i/{id}\n    headers: { allow: [x-own, Content-Type] }");
        assert_eq!(names(&text), Some(owned([&always, &["x-own"]])));
    }

    #[test]
    fn names_that_cannot_be_allowed() {
        let file = |list: &str| format!("headers: {{ allow: {list} }}\nagent: {{");
        mistake("agent: {", &file("[x-a, x b]"), "headers.allow[1]", "not a header name");
        mistake("agent: {", &file("[x_a]"), "headers.allow[0]", "not a header name");
        mistake("agent: {", &file("[x.a]"), "headers.allow[0]", "never reaches the agent");
        mistake("agent: {", &file("[]"), "headers.allow", "empty");
        mistake("agent: {", &file("x-a"), "headers.allow", "a list");
        mistake("agent: {", &file("[x-a, X-B, X-A]"), "headers.allow[2]", "x-a occurs twice");
        mistake("agent: {", "headers: {}\nagent: {", "headers", "`allow` is missing");
        mistake("agent: {", "headers: { deny: [a], allow: [x-a] }\nagent: {", "headers.deny", "unknown key");
        for name in [
            "X-Forwarded-For",
            "via",
            "host",
            "Content-Length",
            "connection",
            "Callgate-Route",
            "ssl-client-cert",
        ] {
            let route = format!("forward: /i/{{id}}\n    headers: {{ allow: [{name}] }}");
            mistake("forward: /i/{id}", &route, "routes[0].headers.allow[0]", "never reaches the agent");
        }
    }

    fn owned(groups: [&[&str]; 2]) -> Vec<String> {
        groups.concat().into_iter().map(str::to_owned).collect()
    }
}
