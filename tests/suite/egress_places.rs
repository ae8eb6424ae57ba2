//! The places of the callback URL and token in requests of the agent: lists, `null`, forms, several places, and texts
//! around the token.

use callgate::clock::Clock;
use serde_json::{Value, json};

use crate::harness::{ANSWER, Agent, Callgate, Response, send_to};

const TAKEN: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

const RULES: &[(&str, &str)] = &[
    ("index", "url: /notification_config/0/url, token: /notification_config/0/auth_headers/0"),
    ("dash", "url: /hooks/-/url, token: /hooks/-/token"),
    ("member", "url: /webhook, token: /callback/token"),
    ("keep", "url: /webhook, token: /callback/token, if_present: keep"),
    (
        "several",
        "url: [/callback/url, { header: x-callback-url }, { query: hook }], \
         token: [{ header: x-auth, value: \"Bearer {token}\" }, { body: /callback/auth, value: { scheme: bearer, credentials: \"{token}\" } }], \
         values: [{ body: /mode, value: webhook }]",
    ),
    (
        "form",
        "url: { form: StatusCallback }, token: { form: auth, value: \"Bearer {token}\" }, values: [{ form: Events, value: all }]",
    ),
];

struct World {
    provider: Agent,
    callgate: Callgate,
}

impl World {
    fn new() -> Self {
        let (provider, agent) = (Agent::start(TAKEN), Agent::start(ANSWER));
        let address = provider.address;
        let rule = |(name, places): &(&str, &str)| {
            format!(
                "  - {{ name: {name}, path: /{name}, target: \"http://{address}/{name}\", inject: {{ route: doc, params: {{ id: {{ new: uuid }} }}, {places} }} }}\n"
            )
        };
        let rules: String = RULES.iter().map(rule).collect();
        let text = format!(
            "public_url: https://agent.example.com
listen: {{ ingress: [ {{ address: 127.0.0.1:0 }} ], egress: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}
agent: {{ address: \"{}\" }}
callback_tokens: {{ keys: [ {{ id: k1, algorithm: HS256, secret: {{ env: TOKEN_KEY }} }} ] }}
routes:
  - {{ name: doc, path: \"/doc/{{id}}\", token: {{ kind: callback }}, forward: \"/in/{{id}}\" }}
  - {{ name: url, path: \"/url/{{id}}\", token: {{ kind: callback, from: [query] }}, forward: \"/in/{{id}}\" }}
egress:
{rules}  - {{ name: preset, path: /preset, target: \"http://{address}/preset\", inject: {{ route: url, params: {{ id: {{ new: uuid }} }}, preset: replicate, if_present: keep }} }}
",
            agent.address
        );
        Self { callgate: Callgate::start(&text, Clock::System), provider }
    }

    fn send(&self, path: &str, body: &str) -> Response {
        self.callgate.agent_sends(path, body)
    }

    fn interactions(&self) -> usize {
        self.callgate.admin_get("/callbacks").json()["interactions"].as_array().unwrap().len()
    }

    /// Sends a body, and returns the body that the provider received, with `URL` and `TOKEN` for the values of Callgate.
    fn sent(&self, path: &str, body: &str) -> String {
        let answer = self.send(path, body);
        assert_eq!(answer.status, 202, "{path} {body}: {}", answer.text());
        plain(&String::from_utf8(self.provider.received().pop().unwrap().body.clone()).unwrap())
    }
}

/// Returns the text with `URL` for each callback URL and `TOKEN` for each token.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || "-_.:/?=%".contains(c));
    while let Some(at) =
        ["https://agent.example.com/", "eyJ"].iter().filter_map(|begin| rest.find(*begin)).min()
    {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        out.push_str(if rest.starts_with("eyJ") { "TOKEN" } else { "URL" });
        rest = &rest[rest.find(is_end).unwrap_or(rest.len())..];
    }
    out + rest
}

#[test]
fn indices_of_a_pointer_are_elements_of_lists() {
    let world = World::new();
    let element = r#"{"url":"URL","auth_headers":["TOKEN"]}"#;
    for (body, expected) in [
        (r#"{"id":"d1"}"#, format!(r#"{{"id":"d1","notification_config":[{element}]}}"#)),
        (r#"{"notification_config":[] }"#, format!(r#"{{"notification_config":[{element}] }}"#)),
        (r#"{"notification_config": null}"#, format!(r#"{{"notification_config": [{element}]}}"#)),
        (r#"{"notification_config":[null, 1]}"#, format!(r#"{{"notification_config":[{element}, 1]}}"#)),
        (
            r#"{"notification_config":[{"auth_headers":[], "url":"" }]}"#,
            r#"{"notification_config":[{"auth_headers":["TOKEN"], "url":"URL" }]}"#.to_owned(),
        ),
    ] {
        assert_eq!(world.sent("/index", body), expected, "{body}");
    }
    let element = r#"{"url":"URL","token":"TOKEN"}"#;
    for (body, expected) in [
        (r#"{"id": 1.0e2}"#, format!(r#"{{"id": 1.0e2,"hooks":[{element}]}}"#)),
        (r#"{"hooks":[]}"#, format!(r#"{{"hooks":[{element}]}}"#)),
        (r#"{"hooks":null}"#, format!(r#"{{"hooks":[{element}]}}"#)),
        (r#"{"hooks":[{"url":"mine"}, 7 ]}"#, format!(r#"{{"hooks":[{{"url":"mine"}}, 7,{element} ]}}"#)),
    ] {
        assert_eq!(world.sent("/dash", body), expected, "{body}");
    }
}

#[test]
fn a_pointer_that_does_not_fit_the_lists_of_a_body_sends_nothing() {
    let world = World::new();
    for (path, body, status) in [
        ("/index", r#"{"notification_config":{}}"#, 400),
        ("/index", r#"{"notification_config":{"0":{"url":"x"}}}"#, 400),
        ("/index", r#"{"notification_config":"x"}"#, 400),
        ("/index", r#"{"notification_config":[{"URL":"x"}]}"#, 400),
        ("/index", r#"{"Notification_Config":[]}"#, 400),
        ("/index", r#"{"notification_config":[{"url":"x"}]}"#, 409),
        ("/index", r#"{"notification_config":[{"auth_headers":["x"]}]}"#, 409),
        ("/index", r#"{"notification_config":[{"auth_headers":{"0":1}}]}"#, 400),
        ("/dash", r#"{"hooks":{}}"#, 400),
        ("/dash", r#"{"hooks":{"-":{"url":"x"}}}"#, 400),
        ("/dash", r#"{"Hooks":[]}"#, 400),
        ("/dash", r#"{"hooks":[],"hooks":[]}"#, 400),
        ("/dash", r#"{"hooks":1}"#, 400),
    ] {
        assert_eq!(world.send(path, body).status, status, "{path} {body}");
    }
    assert!(world.provider.received().is_empty() && world.interactions() == 0);
}

#[test]
fn null_and_the_empty_string_are_no_callback() {
    let world = World::new();
    for path in ["/member", "/keep"] {
        for (body, expected) in [
            (r#"{"webhook":null, "x":null}"#, r#"{"webhook":"URL", "x":null,"callback":{"token":"TOKEN"}}"#),
            (r#"{"webhook":"","callback": null}"#, r#"{"webhook":"URL","callback": {"token":"TOKEN"}}"#),
            (
                r#"{"callback":{"token":null },"webhook": ""}"#,
                r#"{"callback":{"token":"TOKEN" },"webhook": "URL"}"#,
            ),
        ] {
            assert_eq!(world.sent(path, body), expected, "{path} {body}");
        }
        let spelled = world.send(path, r#"{"Webhook":null}"#);
        assert_eq!(spelled.json()["reason"], "injection_impossible", "{path}");
    }
    for kept in [r#"{"webhook":false}"#, r#"{"webhook":" "}"#, r#"{"webhook":null,"callback":{"token":0}}"#] {
        assert_eq!(world.send("/member", kept).status, 409, "{kept}");
        assert_eq!(world.sent("/keep", kept), kept);
    }
    let body = r#"{"input":{},"webhook":null}"#;
    let sent: Value = serde_json::from_str(&world.sent("/preset", body)).unwrap();
    assert_eq!((&sent["webhook"], &sent["input"]), (&json!("URL"), &json!({})));
}

#[test]
fn a_rule_has_several_places_and_texts_around_the_token() {
    let world = World::new();
    let egress = world.callgate.egress.unwrap();
    let body = r#"{ "a": 1 }"#;
    let answer =
        send_to(egress, "POST", "/several?a=1&hook=&b=2", &[("x-callback-url", "")], body.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
    let sent = world.provider.received().pop().unwrap();
    let text = plain(&String::from_utf8(sent.body.clone()).unwrap());
    assert_eq!(
        text,
        r#"{ "a": 1,"callback":{"url":"URL","auth":{"scheme":"bearer","credentials":"TOKEN"}},"mode":"webhook" }"#
    );
    assert!(sent.target().starts_with("/several?a=1&b=2&hook=https%3A%2F%2Fagent.example.com%2Fdoc%2F"));
    let [auth] = sent.header("x-auth")[..] else { panic!("{}", sent.head) };
    assert_eq!(plain(auth), "Bearer TOKEN");
    let [url] = sent.header("x-callback-url")[..] else { panic!("{}", sent.head) };
    let target = url.strip_prefix("https://agent.example.com").unwrap();
    let back = send_to(world.callgate.ingress, "POST", target, &[("authorization", auth)], b"{}");
    assert_eq!(back.status, 200);
    // A constant value of the agent is kept, but `null` is not a value.
    for (mode, expected) in [("\"poll\"", "\"poll\""), ("null", "\"webhook\"")] {
        assert!(
            world
                .sent("/several", &format!(r#"{{"mode":{mode}}}"#))
                .contains(&format!(r#""mode":{expected}"#))
        );
    }
    let (sent, minted) = (world.provider.received().len(), world.interactions());
    for (headers, query, body, status) in [
        (("x_auth", "x"), "", "{}", 400),
        (("x-auth", "x"), "", "{}", 409),
        (("x-a", "x"), "?Hook=x", "{}", 400),
        (("x-a", "x"), "?hook=x", "{}", 409),
        (("x-a", "x"), "?hook=&hook=", "{}", 400),
        (("x-a", "x"), "", r#"{"callback":{"AUTH":1}}"#, 400),
        (("x-a", "x"), "", r#"{"callback":{"auth":{}}}"#, 409),
    ] {
        let answer = send_to(egress, "POST", &format!("/several{query}"), &[headers], body.as_bytes());
        assert_eq!(answer.status, status, "{headers:?} {query} {body}");
    }
    assert_eq!((world.provider.received().len(), world.interactions()), (sent, minted));
}

#[test]
fn a_rule_inserts_into_a_form() {
    let world = World::new();
    let egress = world.callgate.egress.unwrap();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let url = "StatusCallback=https%3A%2F%2Fagent.example.com%2Fdoc%2F";
    for (body, before, events) in [
        ("", "", "&Events=all"),
        ("To=%2b1&Body=a+b%20c", "To=%2b1&Body=a+b%20c&", "&Events=all"),
        ("To=1&StatusCallback=&x", "To=1&x&", "&Events=all"),
        ("Events=some&auth=", "Events=some&", ""),
    ] {
        let answer = send_to(egress, "POST", "/form", &form, body.as_bytes());
        assert_eq!(answer.status, 202, "{body}: {}", answer.text());
        let sent = String::from_utf8(world.provider.received().pop().unwrap().body.clone()).unwrap();
        assert!(sent.starts_with(&format!("{before}{url}")), "{sent}");
        let (_, auth) = sent.split_once("&auth=Bearer%20eyJ").unwrap_or_else(|| panic!("{sent}"));
        assert_eq!(auth.find('&').map_or("", |at| &auth[at..]), events, "{sent}");
    }
    let sent = world.provider.received().len();
    for (body, status) in
        [("StatusCallback=x", 409), ("statuscallback=", 400), ("StatusCallback[]=x", 400), ("auth=x", 409)]
    {
        assert_eq!(send_to(egress, "POST", "/form", &form, body.as_bytes()).status, status, "{body}");
    }
    let json = send_to(egress, "POST", "/form", &[("content-type", "application/json")], b"{}");
    assert_eq!(json.json()["reason"], "request_not_form");
    assert_eq!(world.provider.received().len(), sent);
}
