//! Cases of egress rules in the pure core: the request that the provider receives, or the reason why it receives none.

use std::net::{IpAddr, Ipv4Addr};

use callgate::config::Config;
use callgate::egress::{Callback, Plan};
use callgate::request::RequestHead;
use callgate::time::Timestamp;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};
use libtest_mimic::Trial;

use super::environment::parse;

const CONFIG: &str = r#"
public_url: https://agent.example.com
listen: { ingress: [ { address: "127.0.0.1:0" } ], egress: { address: "127.0.0.1:0" } }
agent: { address: "127.0.0.1:1" }
callback_tokens: { keys: [ { id: k1, algorithm: HS256, secret: { env: TOKEN_KEY } } ] }
providers: { a2a: { preset: a2a } }
routes:
  - { name: r, path: "/w/{id}", token: { kind: callback, from: [bearer] }, forward: "/i/{id}" }
  - { name: a, path: "/a/{id}", provider: a2a, token: { kind: callback, from: [ { header: x-a2a-notification-token } ] }, forward: "/i/{id}" }
  - { name: s, path: "/s/{*rest}", token: { kind: callback, from: [bearer] }, forward: "/i/{rest}" }
egress:
  - { name: plain, path: /plain, target: "https://provider.example.com/in?fixed=1", body_max: 1KiB, headers: { x-key: { env: STATIC } } }
  - { name: captured, path: "/captured/{name}", target: "https://provider.example.com/to/{name}" }
  - { name: json, path: /json, target: "https://provider.example.com/in", response: /id, inject: { route: r, params: { id: /id }, url: /callback/url, token: /callback/token } }
  - { name: keep, path: /keep, target: "https://provider.example.com/in", inject: { route: r, params: { id: { header: x-id } }, url: /url, token: { header: x-token }, if_present: keep } }
  - { name: keep-query, path: "/keep-query/{name}", target: "https://provider.example.com/in?a=b", inject: { route: r, params: { id: { path: name } }, url: { query: cb }, token: { header: x-token }, if_present: keep } }
  - { name: keep-form, path: "/keep-form/{name}", target: "https://provider.example.com/in", inject: { route: r, params: { id: { path: name } }, url: { form: cb }, token: { header: x-token }, if_present: keep } }
  - { name: query, path: "/query/{name}", target: "https://provider.example.com/in?a=b", inject: { route: r, params: { id: { path: name } }, url: { query: cb }, token: { header: x-token } } }
  - { name: parameter, path: /parameter, target: "https://provider.example.com/in", inject: { route: r, params: { id: { query: id } }, url: { query: cb }, token: { header: x-token } } }
  - { name: fresh, path: /fresh, target: "https://provider.example.com/in", inject: { route: r, params: { id: { new: uuid } }, url: { header: x-url }, token: { header: x-token } } }
  - { name: when, path: /when, target: "https://provider.example.com/in", inject: { route: r, params: { id: { new: uuid } }, url: { header: x-url }, token: { header: x-token }, when: { body: { /mode: [long, true], /n: 7 } } } }
  - { name: a2a, path: /a2a, target: "https://provider.example.com/in", inject: { route: a, params: { id: { new: uuid } }, preset: a2a } }
  - { name: below-a2a, path: "/a2a/{*rest}", target: "https://provider.example.com/{rest}", inject: { route: a, params: { id: { new: uuid } }, preset: a2a } }
  - { name: constant, path: /constant, target: "https://provider.example.com/in", inject: { route: r, params: { id: /id }, preset: camara } }
  - { name: below, path: "/api/{*rest}", methods: [GET, POST, PUT], target: "https://provider.example.com/base/{rest}", headers: { x-key: { env: STATIC } } }
  - { name: longer, path: "/api/v2/{*rest}", target: "https://provider.example.com/new/{rest}" }
  - { name: single, path: "/api/{id}", target: "https://provider.example.com/single/{id}" }
  - { name: teams, path: "/teams/{team}/{*rest}", target: "https://provider.example.com/{team}/{rest}" }
  - { name: below-json, path: "/json/{*rest}", methods: [GET, POST], target: "https://provider.example.com/{rest}", response: /id, inject: { route: r, params: { id: /id }, url: /url, token: /token } }
  - { name: below-form, path: "/form/{*rest}", target: "https://provider.example.com/{rest}", inject: { route: r, params: { id: { new: uuid } }, url: { form: url }, token: { form: token } } }
  - { name: below-header, path: "/header/{*rest}", methods: [GET, POST], target: "https://provider.example.com/{rest}", inject: { route: r, params: { id: { new: uuid } }, url: { header: x-url }, token: { header: x-token } } }
  - { name: below-value, path: "/value/{*rest}", target: "https://provider.example.com/{rest}", inject: { route: r, params: { id: /id }, url: { header: x-url }, token: { header: x-token } } }
  - { name: below-path, path: "/path/{*rest}", target: "https://provider.example.com/{rest}", inject: { route: s, params: { rest: { path: rest } }, url: { header: x-url }, token: { header: x-token } } }
"#;

/// A request of the agent, and what becomes of it.
struct Case {
    name: &'static str,
    method: &'static str,
    target: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    /// The request to the provider with `|` for the ends of lines, behind the captures of its callback. If no request is
    /// sent, the reason.
    expect: &'static str,
}

const POST: Case = Case { name: "", method: "POST", target: "", headers: &[], body: "", expect: "" };

const CASES: &[Case] = &[
    Case {
        name: "a rule without a callback",
        target: "/plain",
        headers: &[
            ("x-a", "1"),
            ("x-key", "mine"),
            ("callgate-x", "1"),
            ("accept-encoding", "gzip"),
            ("connection", "x-b"),
            ("x-b", "2"),
        ],
        body: "any",
        expect: "kept: false|POST /in?fixed=1 HTTP/1.1|host: provider.example.com|x-a: 1|accept-encoding: gzip|x-key: a static secret|content-length: 3||any",
        ..POST
    },
    Case {
        name: "the query of the agent follows the query of the target",
        target: "/plain?b=%20",
        expect: "kept: false|POST /in?fixed=1&b=%20 HTTP/1.1|host: provider.example.com|x-key: a static secret|content-length: 0||",
        ..POST
    },
    Case {
        name: "a method that the rule does not accept",
        method: "DELETE",
        target: "/captured/nm",
        expect: "method_not_allowed",
        ..POST
    },
    Case {
        name: "a capture in the target",
        target: "/captured/nm?q",
        expect: "kept: false|POST /to/nm?q HTTP/1.1|host: provider.example.com|content-length: 0||",
        ..POST
    },
    Case { name: "no rule", target: "/other", expect: "rule_unknown", ..POST },
    Case { name: "a path with a dot segment", target: "/plain/../json", expect: "path_malformed", ..POST },
    Case {
        name: "a query with a forbidden character",
        target: "/plain?a\tb",
        expect: "path_malformed",
        ..POST
    },
    Case {
        name: "a body of the largest size",
        target: "/plain",
        headers: &[("content-length", "1024")],
        expect: "kept: false|POST /in?fixed=1 HTTP/1.1|host: provider.example.com|x-key: a static secret|content-length: 0||",
        ..POST
    },
    Case {
        name: "a body that is too large",
        target: "/plain",
        headers: &[("content-length", "1025")],
        expect: "body_too_large",
        ..POST
    },
    Case {
        name: "a callback in a JSON body",
        target: "/json",
        headers: &[("accept-encoding", "gzip"), ("accept", "a/b")],
        body: r#"{"id":"d1"}"#,
        expect: r#"id=d1|POST /in HTTP/1.1|host: provider.example.com|accept: a/b|content-length: 52||{"id":"d1","callback":{"url":"URL","token":"TOKEN"}}"#,
        ..POST
    },
    Case {
        name: "a place with a value",
        target: "/json",
        body: r#"{"id":"d1","callback":{"url":1}}"#,
        expect: "callback_present",
        ..POST
    },
    Case {
        name: "a place with a value at the second insertion",
        target: "/json",
        body: r#"{"id":"d1","callback":{"token":1}}"#,
        expect: "callback_present",
        ..POST
    },
    Case {
        name: "another spelling of the place",
        target: "/json",
        body: r#"{"id":"d1","Callback":{"url":1}}"#,
        expect: "injection_impossible",
        ..POST
    },
    Case {
        name: "no value for the capture",
        target: "/json",
        body: "{}",
        expect: "parameter_unusable",
        ..POST
    },
    Case {
        name: "a value that no path can contain",
        target: "/json",
        body: r#"{"id":".."}"#,
        expect: "parameter_unusable",
        ..POST
    },
    Case { name: "a body that is not JSON", target: "/json", body: "{", expect: "request_not_json", ..POST },
    Case {
        name: "a callback of the agent is kept",
        target: "/keep",
        headers: &[("x-token", "mine"), ("x-id", "d1")],
        body: "{}",
        expect: "kept: true|POST /in HTTP/1.1|host: provider.example.com|x-token: mine|x-id: d1|content-length: 2||{}",
        ..POST
    },
    Case {
        name: "a callback of the agent in the body is kept",
        target: "/keep",
        headers: &[("x-id", "d1")],
        body: r#"{"url":"mine"}"#,
        expect: r#"kept: true|POST /in HTTP/1.1|host: provider.example.com|x-id: d1|content-length: 14||{"url":"mine"}"#,
        ..POST
    },
    Case {
        name: "null in the body is replaced",
        target: "/keep",
        headers: &[("x-id", "d1")],
        body: r#"{"url":null}"#,
        expect: r#"id=d1|POST /in HTTP/1.1|host: provider.example.com|x-id: d1|x-token: TOKEN|content-length: 13||{"url":"URL"}"#,
        ..POST
    },
    Case {
        name: "an empty text in the body is replaced",
        target: "/keep",
        headers: &[("x-id", "d1")],
        body: r#"{"url":""}"#,
        expect: r#"id=d1|POST /in HTTP/1.1|host: provider.example.com|x-id: d1|x-token: TOKEN|content-length: 13||{"url":"URL"}"#,
        ..POST
    },
    Case {
        name: "an empty header is replaced",
        target: "/keep",
        headers: &[("x-token", ""), ("x-id", "d1")],
        body: "{}",
        expect: r#"id=d1|POST /in HTTP/1.1|host: provider.example.com|x-id: d1|x-token: TOKEN|content-length: 13||{"url":"URL"}"#,
        ..POST
    },
    Case {
        name: "a callback of the agent in the query is kept",
        target: "/keep-query/d1?cb=mine",
        expect: "kept: true|POST /in?a=b&cb=mine HTTP/1.1|host: provider.example.com|content-length: 0||",
        ..POST
    },
    Case {
        name: "an empty parameter is replaced",
        target: "/keep-query/d1?cb=&c=d",
        expect: "id=d1|POST /in?a=b&c=d&cb=URL HTTP/1.1|host: provider.example.com|x-token: TOKEN|content-length: 0||",
        ..POST
    },
    Case {
        name: "a callback of the agent in a form is kept",
        target: "/keep-form/d1",
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: "cb=mine",
        expect: "kept: true|POST /in HTTP/1.1|host: provider.example.com|content-type: application/x-www-form-urlencoded|content-length: 7||cb=mine",
        ..POST
    },
    Case {
        name: "an empty form field is replaced",
        target: "/keep-form/d1",
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: "cb=&c=d",
        expect: "id=d1|POST /in HTTP/1.1|host: provider.example.com|content-type: application/x-www-form-urlencoded|x-token: TOKEN|content-length: 10||c=d&cb=URL",
        ..POST
    },
    Case {
        name: "a callback in the body and in a header",
        target: "/keep",
        headers: &[("x-id", "d1")],
        body: "{}",
        expect: r#"id=d1|POST /in HTTP/1.1|host: provider.example.com|x-id: d1|x-token: TOKEN|content-length: 13||{"url":"URL"}"#,
        ..POST
    },
    Case {
        name: "two values of a header",
        target: "/keep",
        headers: &[("x-id", "d1"), ("x-id", "d2")],
        body: "{}",
        expect: "parameter_unusable",
        ..POST
    },
    Case {
        name: "a header with an underscore",
        target: "/keep",
        headers: &[("x-id", "d1"), ("x_token", "mine")],
        body: "{}",
        expect: "injection_impossible",
        ..POST
    },
    Case {
        name: "a callback in the query",
        target: "/query/d1?c=d",
        expect: "id=d1|POST /in?a=b&c=d&cb=URL HTTP/1.1|host: provider.example.com|x-token: TOKEN|content-length: 0||",
        ..POST
    },
    Case {
        name: "a parameter with a value",
        target: "/query/d1?cb=mine",
        expect: "callback_present",
        ..POST
    },
    Case {
        name: "the capture is a parameter",
        target: "/parameter?id=d%2D1",
        expect: "id=d-1|POST /in?id=d%2D1&cb=URL HTTP/1.1|host: provider.example.com|x-token: TOKEN|content-length: 0||",
        ..POST
    },
    Case {
        name: "two parameters of the same name",
        target: "/parameter?id=1&id=2",
        expect: "parameter_unusable",
        ..POST
    },
    Case { name: "no query", target: "/parameter", expect: "parameter_unusable", ..POST },
    Case {
        name: "the capture is a new id",
        target: "/fresh",
        expect: "id=NEW|POST /in HTTP/1.1|host: provider.example.com|x-url: URL|x-token: TOKEN|content-length: 0||",
        ..POST
    },
    Case {
        name: "a body that meets the condition",
        target: "/when",
        headers: &[("content-type", "application/json")],
        body: r#"{"mode":"long","n":7}"#,
        expect: r#"id=NEW|POST /in HTTP/1.1|host: provider.example.com|content-type: application/json|x-url: URL|x-token: TOKEN|content-length: 21||{"mode":"long","n":7}"#,
        ..POST
    },
    Case {
        name: "a body with one of two values of the condition",
        target: "/when",
        headers: &[("content-type", "application/json")],
        body: r#"{"mode":"long","n":8}"#,
        expect: r#"kept: false|POST /in HTTP/1.1|host: provider.example.com|content-type: application/json|content-length: 21||{"mode":"long","n":8}"#,
        ..POST
    },
    Case {
        name: "a body without a value of the condition",
        target: "/when",
        headers: &[("content-type", "application/json")],
        body: r#"{"mode":true}"#,
        expect: r#"kept: false|POST /in HTTP/1.1|host: provider.example.com|content-type: application/json|content-length: 13||{"mode":true}"#,
        ..POST
    },
    Case {
        name: "a body with a value of the condition twice",
        target: "/when",
        headers: &[("content-type", "application/json")],
        body: r#"{"mode":"short","mode":"short","n":7}"#,
        expect: r#"id=NEW|POST /in HTTP/1.1|host: provider.example.com|content-type: application/json|x-url: URL|x-token: TOKEN|content-length: 37||{"mode":"short","mode":"short","n":7}"#,
        ..POST
    },
    Case {
        name: "a body of another type, although its text meets the condition",
        target: "/when",
        headers: &[("content-type", "text/plain")],
        body: r#"{"mode":"long","n":7}"#,
        expect: r#"kept: false|POST /in HTTP/1.1|host: provider.example.com|content-type: text/plain|content-length: 21||{"mode":"long","n":7}"#,
        ..POST
    },
    Case {
        name: "a method that the preset names second",
        target: "/a2a",
        body: r#"{"method":"message/send"}"#,
        expect: r#"id=NEW|POST /in HTTP/1.1|host: provider.example.com|content-length: 109||{"method":"message/send","params":{"configuration":{"pushNotificationConfig":{"url":"URL","token":"TOKEN"}}}}"#,
        ..POST
    },
    Case {
        name: "a rule for a single path ignores the path in the condition of the preset",
        target: "/a2a",
        body: r#"{"method":"other"}"#,
        expect: r#"id=NEW|POST /in HTTP/1.1|host: provider.example.com|content-length: 95||{"method":"other","configuration":{"taskPushNotificationConfig":{"url":"URL","token":"TOKEN"}}}"#,
        ..POST
    },
    Case {
        name: "a path that the preset names below a prefix",
        target: "/a2a/v1/message:stream",
        headers: &[("content-type", "application/json")],
        body: r#"{"a":1}"#,
        expect: r#"id=NEW|POST /v1/message:stream HTTP/1.1|host: provider.example.com|content-type: application/json|content-length: 84||{"a":1,"configuration":{"taskPushNotificationConfig":{"url":"URL","token":"TOKEN"}}}"#,
        ..POST
    },
    Case {
        name: "a path that the preset does not name below a prefix",
        target: "/a2a/v1/message:cancel",
        headers: &[("content-type", "application/json")],
        body: r#"{"a":1}"#,
        expect: r#"kept: false|POST /v1/message:cancel HTTP/1.1|host: provider.example.com|content-type: application/json|content-length: 7||{"a":1}"#,
        ..POST
    },
    Case {
        name: "constant values",
        target: "/constant",
        body: r#"{"id":"d1"}"#,
        expect: r#"id=d1|POST /in HTTP/1.1|host: provider.example.com|content-length: 170||{"id":"d1","sink":"URL","sinkCredential":{"credentialType":"ACCESSTOKEN","accessToken":"TOKEN","accessTokenExpiresUtc":"2026-01-01T01:00:00Z","accessTokenType":"bearer"}}"#,
        ..POST
    },
    Case {
        name: "constant values that the agent has set",
        target: "/constant",
        body: r#"{"id":"d1","sinkCredential":{"credentialType":"OTHER"}}"#,
        expect: r#"id=d1|POST /in HTTP/1.1|host: provider.example.com|content-length: 164||{"id":"d1","sinkCredential":{"credentialType":"OTHER","accessToken":"TOKEN","accessTokenExpiresUtc":"2026-01-01T01:00:00Z","accessTokenType":"bearer"},"sink":"URL"}"#,
        ..POST
    },
    Case {
        name: "everything below a prefix",
        method: "PUT",
        target: "/api/v1/files/a:b/%c3%A9%20%7E/?q=%2e%2e/../x",
        body: "any",
        expect: "kept: false|PUT /base/v1/files/a:b/%c3%A9%20%7E/?q=%2e%2e/../x HTTP/1.1|host: provider.example.com|x-key: a static secret|content-length: 3||any",
        ..POST
    },
    Case {
        name: "a prefix with its slash",
        method: "GET",
        target: "/api/",
        expect: "kept: false|GET /base/ HTTP/1.1|host: provider.example.com|x-key: a static secret||",
        ..POST
    },
    Case {
        name: "a prefix without its slash",
        method: "GET",
        target: "/api",
        expect: "rule_unknown",
        ..POST
    },
    Case {
        name: "a longer prefix wins",
        target: "/api/v2/x",
        expect: "kept: false|POST /new/x HTTP/1.1|host: provider.example.com|content-length: 0||",
        ..POST
    },
    Case {
        name: "a single capture wins over a prefix",
        target: "/api/v2",
        expect: "kept: false|POST /single/v2 HTTP/1.1|host: provider.example.com|content-length: 0||",
        ..POST
    },
    Case {
        name: "a method that only the prefix accepts",
        method: "GET",
        target: "/api/v2",
        expect: "kept: false|GET /base/v2 HTTP/1.1|host: provider.example.com|x-key: a static secret||",
        ..POST
    },
    Case {
        name: "a method that neither rule accepts",
        method: "DELETE",
        target: "/api/v2",
        expect: "method_not_allowed",
        ..POST
    },
    Case {
        name: "a method that only the shorter prefix accepts",
        method: "GET",
        target: "/api/v2/x",
        expect: "kept: false|GET /base/v2/x HTTP/1.1|host: provider.example.com|x-key: a static secret||",
        ..POST
    },
    Case {
        name: "a capture before the remainder",
        target: "/teams/t1/a/b",
        expect: "kept: false|POST /t1/a/b HTTP/1.1|host: provider.example.com|content-length: 0||",
        ..POST
    },
    Case {
        name: "a method that the prefix does not accept",
        method: "DELETE",
        target: "/api/v1/x",
        expect: "method_not_allowed",
        ..POST
    },
    Case { name: "dot segments below a prefix", target: "/api/a/../b", expect: "path_malformed", ..POST },
    Case {
        name: "encoded dot segments below a prefix",
        target: "/api/a/%2e%2e/b",
        expect: "path_malformed",
        ..POST
    },
    Case { name: "an encoded slash below a prefix", target: "/api/a%2fb", expect: "path_malformed", ..POST },
    Case { name: "an empty segment below a prefix", target: "/api/a//b", expect: "path_malformed", ..POST },
    Case {
        name: "no callback without a body",
        method: "GET",
        target: "/json/v1/models",
        headers: &[("accept-encoding", "gzip"), ("content-type", "application/json")],
        expect: "kept: false|GET /v1/models HTTP/1.1|host: provider.example.com|accept-encoding: gzip|content-type: application/json||",
        ..POST
    },
    Case {
        name: "no callback in a body of another type",
        target: "/json/v1/files",
        headers: &[("content-type", "multipart/form-data; boundary=b")],
        body: "--b",
        expect: "kept: false|POST /v1/files HTTP/1.1|host: provider.example.com|content-type: multipart/form-data; boundary=b|content-length: 3||--b",
        ..POST
    },
    Case {
        name: "a callback in a JSON body below a prefix",
        target: "/json/v1/jobs",
        headers: &[("content-type", "application/json; charset=utf-8"), ("accept-encoding", "gzip")],
        body: r#"{"id":"d1"}"#,
        expect: r#"id=d1|POST /v1/jobs HTTP/1.1|host: provider.example.com|content-type: application/json; charset=utf-8|content-length: 39||{"id":"d1","url":"URL","token":"TOKEN"}"#,
        ..POST
    },
    Case {
        name: "a JSON body below a prefix without the value of the capture",
        target: "/json/v1/jobs",
        headers: &[("content-type", "application/merge-patch+json")],
        body: "{}",
        expect: "parameter_unusable",
        ..POST
    },
    Case {
        name: "a callback in a form below a prefix",
        target: "/form/jobs",
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: "a=b",
        expect: "id=NEW|POST /jobs HTTP/1.1|host: provider.example.com|content-type: application/x-www-form-urlencoded|content-length: 23||a=b&url=URL&token=TOKEN",
        ..POST
    },
    Case {
        name: "no callback in JSON where a form is expected",
        target: "/form/jobs",
        headers: &[("content-type", "application/json")],
        body: "{}",
        expect: "kept: false|POST /jobs HTTP/1.1|host: provider.example.com|content-type: application/json|content-length: 2||{}",
        ..POST
    },
    Case {
        name: "a callback in headers below a prefix",
        target: "/header/jobs",
        headers: &[("content-type", "application/json")],
        body: "{}",
        expect: "id=NEW|POST /jobs HTTP/1.1|host: provider.example.com|content-type: application/json|x-url: URL|x-token: TOKEN|content-length: 2||{}",
        ..POST
    },
    Case {
        name: "a callback in headers of a form below a prefix",
        target: "/header/jobs",
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: "a=b",
        expect: "id=NEW|POST /jobs HTTP/1.1|host: provider.example.com|content-type: application/x-www-form-urlencoded|x-url: URL|x-token: TOKEN|content-length: 3||a=b",
        ..POST
    },
    Case {
        name: "a callback in headers with a value of the body below a prefix",
        target: "/value/jobs",
        headers: &[("content-type", "application/json")],
        body: r#"{"id":"d1"}"#,
        expect: r#"id=d1|POST /jobs HTTP/1.1|host: provider.example.com|content-type: application/json|x-url: URL|x-token: TOKEN|content-length: 11||{"id":"d1"}"#,
        ..POST
    },
    Case {
        name: "no callback with a value of the body in a form below a prefix",
        target: "/value/jobs",
        headers: &[("content-type", "application/x-www-form-urlencoded")],
        body: "id=d1",
        expect: "kept: false|POST /jobs HTTP/1.1|host: provider.example.com|content-type: application/x-www-form-urlencoded|content-length: 5||id=d1",
        ..POST
    },
    Case {
        name: "no callback in headers without a body",
        method: "GET",
        target: "/header/jobs",
        expect: "kept: false|GET /jobs HTTP/1.1|host: provider.example.com||",
        ..POST
    },
    Case {
        name: "a remainder is the value of a remainder",
        target: "/path/a/%62/:c",
        headers: &[("content-type", "application/json")],
        body: "{}",
        expect: "rest=a/b/:c|POST /a/%62/:c HTTP/1.1|host: provider.example.com|content-type: application/json|x-url: URL|x-token: TOKEN|content-length: 2||{}",
        ..POST
    },
];

/// Returns one test for each case.
pub fn trials() -> impl Iterator<Item = Trial> {
    CASES.iter().map(|case| {
        Trial::test(format!("egress::{}", case.name), || {
            assert_eq!(case.outcome(&parse(CONFIG)), case.expect);
            Ok(())
        })
    })
}

impl Case {
    fn outcome(&self, config: &Config) -> String {
        self.sent(config).unwrap_or_else(|denial| denial.code().to_owned()).replace("\r\n", "|")
    }

    fn sent(&self, config: &Config) -> Result<String, callgate::denial::Denial> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if !self.body.is_empty() {
            headers.insert(CONTENT_LENGTH, self.body.len().into());
        }
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (head, body) = (RequestHead::new(self.method, self.target, &headers, peer), self.body.as_bytes());
        let (rule, captures) = config.policy.egress.find(&head).map_err(|unruled| unruled.refusal.denial)?;
        let plan =
            rule.plan(&head, body, &captures, || "NEW".to_owned()).map_err(|refusal| refusal.denial)?;
        let expires = Timestamp::parse("2026-01-01T01:00:00Z").unwrap();
        let callback = Callback { url: "URL", token: "TOKEN", secret: "SECRET", expires };
        let (first, callback) = match plan {
            Plan::Pass { kept } => (format!("kept: {kept}"), None),
            Plan::Mint(values) => {
                let values: Vec<_> = values.iter().map(|(name, value)| format!("{name}={value}")).collect();
                (values.join(" "), Some(callback))
            }
        };
        let outgoing =
            rule.request(&head, body, &captures, callback.as_ref()).map_err(|refusal| refusal.denial)?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let declared = headers.get(CONTENT_LENGTH).map_or("0", |value| value.to_str().unwrap());
        if rule.injection(&head).is_none() && declared == self.body.len().to_string() {
            let unchanged =
                rule.unchanged(&head, http::Version::HTTP_11, &captures).map_err(|refusal| refusal.denial)?;
            assert_eq!((text(&unchanged.head), &unchanged.url), (text(&outgoing.head), &outgoing.url));
        }
        Ok(format!("{first}\r\n{}{}", text(&outgoing.head), text(&outgoing.body)))
    }
}
