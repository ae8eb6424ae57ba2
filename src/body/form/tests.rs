//! Tests of urlencoded forms and multipart forms.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{FormError, PlusSign, form_fields, is_field_name, query_parameters, with_field};
use crate::request::RequestHead;

fn headers(content_type: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_str(content_type).unwrap());
    headers
}

fn head(headers: &HeaderMap) -> RequestHead<'_> {
    RequestHead::new("POST", "/", headers, IpAddr::from([127, 0, 0, 1]))
}

/// Returns the values of the fields `timestamp`, `token` and `signature` as text. `-` stands for a missing field.
fn read(content_type: &str, body: &str) -> Result<String, FormError> {
    let headers = headers(content_type);
    let fields = form_fields(&head(&headers), body.as_bytes(), &["timestamp", "token", "signature"])?;
    Ok(fields.iter().map(|value| value.as_deref().unwrap_or("-")).collect::<Vec<_>>().join("|"))
}

const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=b0";

fn part(disposition: &str, value: &str) -> String {
    format!("--b0\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n")
}

fn multipart(parts: &[(&str, &str)]) -> String {
    let parts: String = parts.iter().map(|(disposition, value)| part(disposition, value)).collect();
    format!("{parts}--b0--\r\n")
}

#[test]
fn fields_of_urlencoded_forms_are_read() {
    assert_eq!(read(FORM, "timestamp=12&token=a%2Bb+c&subject=hi;there").unwrap(), "12|a+b c|-");
    assert_eq!(
        read(&format!("{FORM}; charset=utf-8"), "&&signature=%C3%A9&&sign%61ture2=x").unwrap(),
        "-|-|é"
    );
    assert_eq!(read(FORM, "").unwrap(), "-|-|-");
    assert_eq!(read(FORM, "token").unwrap(), "-||-");
}

#[test]
fn urlencoded_forms_with_two_meanings_are_denied() {
    for body in [
        "token=a&token=b",
        "token=a&Token=b",
        "token=a&tok%65n=b",
        "Token=a",
        "token[]=a",
        "token%5B0%5D=a",
        "+token=a",
        "token=a;b",
        "x=1;token=a",
        "token=%ff",
        "token=%00",
        "token=%zz",
        "token=a b",
        "token=é",
    ] {
        assert_eq!(read(FORM, body), Err(FormError::Ambiguous("token".into())), "{body}");
    }
    for body in ["%u0074oken=a", "a%=1", "_charset_=utf-16&token=a"] {
        assert!(matches!(read(FORM, body), Err(FormError::Malformed(_))), "{body}");
    }
    assert!(matches!(read(FORM, &"a=1&".repeat(1001)), Err(FormError::Malformed(_))));
    assert_eq!(read(FORM, &"a=1&".repeat(1000)).unwrap(), "-|-|-");
}

#[test]
fn fields_of_multipart_forms_are_read() {
    let body = multipart(&[
        ("name=\"timestamp\"", "12"),
        ("name=token", "a+b%20c"),
        ("name=\"file\"; filename=\"token; name=x.txt\"", "--b1\r\n--\r\nname=\"token\"\r\n\r\n"),
        ("name=\"tok en\"", ""),
    ]);
    assert_eq!(read(MULTIPART, &body).unwrap(), "12|a+b%20c|-");
    assert_eq!(read("Multipart/Form-Data; charset=utf-8; boundary=\"b0\"", &body).unwrap(), "12|a+b%20c|-");
    let typed = body.replace("name=token\r\n", "name=token\r\nContent-Type: text/plain; charset=UTF-8\r\n");
    assert_eq!(read(MULTIPART, &typed).unwrap(), "12|a+b%20c|-");
    assert_eq!(read(MULTIPART, "--b0--").unwrap(), "-|-|-");
}

#[test]
fn multipart_forms_with_two_meanings_are_denied() {
    let token = part("name=\"token\"", "a");
    let with = |text: &str| read(MULTIPART, &format!("{token}{text}--b0--\r\n"));
    for other in [
        part("name=\"token\"", "b"),
        part("name=\"Token\"", "b"),
        part("name=\"token[]\"", "b"),
        part("name=\" token\"", "b"),
        part("name=token", "b"),
    ] {
        assert_eq!(with(&other), Err(FormError::Ambiguous("token".into())), "{other}");
    }
    for other in [
        part("name=\"x\"; name=\"token\"", "b"),
        part("name=\"x\\\"; name=\\\"token\"", "b"),
        part("name=\"x\"; name*=utf-8''token", "b"),
        part("filename=\"x\"", "b"),
        "--b0\r\nContent-Disposition: attachment; name=\"x\"\r\n\r\nb\r\n".to_owned(),
        "--b0\r\nContent-Disposition: form-data; name=\"x\"\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nb\r\n"
            .to_owned(),
        "--b0\r\nContent-Disposition: form-data;\r\n name=\"token\"\r\n\r\nb\r\n".to_owned(),
        "--b0\r\nContent-Disposition: form-data; name=\"x\"\nX: name=\"token\"\r\n\r\nb\r\n".to_owned(),
        "--b0\r\nContent-Type: multipart/mixed; boundary=b1\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nb\r\n"
            .to_owned(),
        "--b0\r\nContent-Type: text/plain\r\n\r\nb\r\n".to_owned(),
        "--b0\nContent-Disposition: form-data; name=\"x\"\r\n\r\nb\r\n".to_owned(),
        "--b0 \r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nb\r\n".to_owned(),
        part("name=\"x\"", "\n--b0\nContent-Disposition: form-data; name=\"token\"\n\nb\n"),
        part("name=\"x\"", "\r\n--b0x"),
        part("name=\"x\"", "--b0"),
    ] {
        assert!(matches!(with(&other), Err(FormError::Malformed(_))), "{other}: {:?}", with(&other));
    }
    for body in ["", "preamble\r\n--b0--", "--b0--\r\nepilogue", "--b0\r\n\r\n", "--b0"] {
        assert!(matches!(read(MULTIPART, body), Err(FormError::Malformed(_))), "{body:?}");
    }
    let many: Vec<_> = (0..1001).map(|_| ("name=\"a\"", "")).collect();
    assert!(matches!(read(MULTIPART, &multipart(&many)), Err(FormError::Malformed(_))));
}

#[test]
fn wanted_parts_that_programs_decode_are_denied() {
    for line in [
        "Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: quoted-printable",
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type: application/json",
    ] {
        let body =
            format!("--b0\r\nContent-Disposition: form-data; name=\"token\"\r\n{line}\r\n\r\na\r\n--b0--");
        assert_eq!(read(MULTIPART, &body), Err(FormError::Ambiguous("token".into())), "{line}");
    }
    for disposition in ["name=\"token\"; filename=\"x\"", "name=\"token\"; filename*=utf-8''x"] {
        let body = multipart(&[(disposition, "a")]);
        assert_eq!(read(MULTIPART, &body), Err(FormError::Ambiguous("token".into())), "{disposition}");
    }
}

#[test]
fn bodies_of_other_types_are_no_forms() {
    for content_type in ["application/json", "text/plain", "multipart/mixed; boundary=b0"] {
        assert_eq!(read(content_type, "token=a"), Err(FormError::NotForm), "{content_type}");
    }
    for content_type in [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=b0; boundary*=utf-8''b1",
        "multipart/form-data; boundary=b0; boundary*0=b; boundary*1=1",
        "multipart/form-data; boundary=\"a\\b\"",
        "multipart/form-data; boundary=\"a \"",
    ] {
        assert!(matches!(read(content_type, "token=a"), Err(FormError::Malformed(_))), "{content_type}");
    }
    let mut two = headers(FORM);
    two.append("content-type", HeaderValue::from_static(MULTIPART));
    assert_eq!(form_fields(&head(&two), b"token=a", &["token"]), Err(FormError::NotForm));
}

#[test]
fn parameters_of_queries_are_read() {
    let one = |query, plus| {
        query_parameters(query, &["data.id"], plus).map(|found| found[0].as_deref().map(str::to_owned))
    };
    assert_eq!(one("type=a+b&data.id=1%202", PlusSign::Ambiguous), Ok(Some("1 2".to_owned())));
    assert_eq!(one("data.id=a+b", PlusSign::Literal), Ok(Some("a+b".to_owned())));
    assert_eq!(one("", PlusSign::Literal), Ok(None));
    for query in ["data.id=a+b", "data_id=1", "data.id=1&DATA.ID=1", "data.id=1&data%2Eid=1", "a;data.id=1"] {
        assert_eq!(one(query, PlusSign::Ambiguous), Err(FormError::Ambiguous("data.id".into())), "{query}");
    }
}

#[test]
fn a_field_can_be_set() {
    let form = headers(FORM);
    let set = with_field(&head(&form), b"a=1&token=old", "token", "n+w").unwrap();
    assert_eq!(String::from_utf8(set).unwrap(), "a=1&token=n%2Bw");
    let headers = headers(MULTIPART);
    let set =
        with_field(&head(&headers), multipart(&[("name=\"a\"", "1")]).as_bytes(), "token", "x").unwrap();
    let fields = form_fields(&head(&headers), &set, &["a", "token"]).unwrap();
    assert_eq!(fields, [Some("1".into()), Some("x".into())]);
    assert!(with_field(&head(&headers), &set, "token", "y").is_none());
}

/// Sends a form with a name that some programs read as `token`, such as `token%00`. The form must be malformed. PHP
/// truncates names at NUL and removes apostrophes.
#[test]
fn names_that_programs_change_are_malformed() {
    for name in ["token%00", "token%00x", "%0atoken", "'token'", "'token", "token'"] {
        let result = read(FORM, &format!("token=a&{name}=b"));
        assert!(matches!(result, Err(FormError::Malformed(_))), "{name}: {result:?}");
    }
    let part = |name: &str| format!("--b0\r\nContent-Disposition: form-data; name={name}\r\n\r\nx\r\n");
    let result = read(MULTIPART, &format!("{}{}--b0--\r\n", part("token"), part("'token'")));
    assert!(matches!(result, Err(FormError::Malformed(_))), "{result:?}");
}

#[test]
fn names_with_syntax_are_no_field_names() {
    for name in ["token", "data.id", "body-plain", "X_1", "sub:name"] {
        assert!(is_field_name(name), "{name}");
    }
    for name in ["", "a b", "a[b]", "a%20", "a+b", "a=b", "a&b", "a;b", "é", "a\"", "{a}"] {
        assert!(!is_field_name(name), "{name}");
    }
}

/// Pieces of multipart bodies. Many random sequences of these pieces are well-formed or nearly well-formed.
const PIECES: &str = "--b0|--b0--|\r\n|\r\n\r\n|\n|Content-Disposition: form-data; name=\"token\"|Content-Disposition: \
                      form-data; name=token|; filename=\"x\"|Content-Type: text/plain|: |token|a|\"|\\|--| |;|=";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// Reads random multipart bodies. If a body is accepted, a tolerant parser must find the same value of the field
    /// `token`, and no second value.
    #[test]
    fn an_accepted_multipart_body_has_one_value(pieces in vec(select(PIECES.split('|').collect::<Vec<_>>()), 0..24)) {
        let inner = pieces.concat();
        for body in [inner.clone(), format!("--b0\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\n{inner}\r\n--b0--")] {
            let Ok(fields) = read(MULTIPART, &body) else { continue };
            let token = fields.split('|').nth(1).unwrap().to_owned();
            // A tolerant parser splits at every delimiter, with any line ending, and searches for the name.
            let parts = body.split("--b0").filter(|part| {
                let head = part.replace("\r\n", "\n");
                let head = head.split("\n\n").next().unwrap_or_default().to_owned();
                head.contains("name=\"token\"") || head.contains("name=token")
            });
            let values: Vec<_> = parts.map(|part| part.split_once("\r\n\r\n").map_or("", |(_, value)| value)).collect();
            match values.as_slice() {
                [] => prop_assert_eq!(token, "-"),
                [value] => prop_assert_eq!(value.strip_suffix("\r\n").unwrap_or(value), token),
                several => prop_assert!(false, "{:?} in {:?}", several, body),
            }
        }
    }

    /// Sets the field `token` of a form with `with_field`. Reading the field must return the same value.
    #[test]
    fn what_is_written_is_read(value in "[ -~]{0,20}", other in "[a-z&=+%;]{0,8}") {
        let headers = headers(FORM);
        let form = with_field(&head(&headers), format!("x={}", other.replace(['&', '%', ';'], "")).as_bytes(), "token", &value);
        let form = form.unwrap();
        let fields = form_fields(&head(&headers), &form, &["token"]).unwrap();
        prop_assert_eq!(fields[0].as_deref(), Some(value.as_str()));
    }
}
