//! Attacks on the headers of JWTs.

use data_encoding::BASE64;
use jsonwebtoken::{Algorithm, EncodingKey};

use crate::attack_jwt::{Attacks, SHARED, Signer, b64, sign};

/// JSON values of every type. None of them is valid for any tested member.
pub const VALUES: [&str; 16] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "1.5",
    r#""""#,
    r#"" ""#,
    r#""x""#,
    "[]",
    "{}",
    r#"["x"]"#,
    r#"{"x":1}"#,
    r#""\u0000""#,
    "9007199254740993",
];

const TYPES: &[&str] = &[
    r#""JWE""#,
    r#""JWS""#,
    r#""at+jwt""#,
    r#""dpop+jwt""#,
    r#""callback+jwt""#,
    r#""assertion+jwt""#,
    r#""JWT ""#,
    r#"" JWT""#,
    r#""application/application/jwt""#,
    r#""text/jwt""#,
    r#""jwt;x=1""#,
    r#"["JWT"]"#,
];

const KEY_IDS: &[&str] = &[
    r#""../../../../dev/null""#,
    r#""/dev/null""#,
    r#""' OR '1'='1""#,
    r#""x|id""#,
    r#""file:///etc/passwd""#,
    r#""https://evil.example.com""#,
    r#"["HS256","RS256","ES256","EdDSA"]"#,
    r#""hs256""#,
    r#""HS256 ""#,
    r#""HS256\u0000""#,
    r#""*""#,
];

pub fn headers(signer: &Signer, attacks: &mut Attacks) {
    let (name, claims) = (signer.name, signer.claims());
    let mut add = |what: String, header: &str| {
        drop(attacks.insert(format!("header: {what}"), signer.token(header, &claims)))
    };
    // Members that would supply a key or change how the token is processed. Every value is denied.
    let url = r#""https://evil.example.com/keys""#;
    let jwk = r#"{"kty":"oct","k":"AAAA"}"#;
    for member in ["b64", "crit", "enc", "jku", "jwk", "p2c", "x5c", "x5u", "zip"] {
        let list =
            [r#"["exp"]"#, r#"["b64"]"#, r#"["x5c"]"#, url, jwk, r#""DEF""#, r#""A128GCM""#, "1000000"];
        for value in VALUES.into_iter().chain(list) {
            add(
                format!("{member} {value}"),
                &format!(r#"{{"alg":"{name}","kid":"{name}","{member}":{value}}}"#),
            );
            add(format!("{member} first {value}"), &format!(r#"{{"{member}":{value},"alg":"{name}"}}"#));
        }
    }
    for typ in VALUES.iter().chain(TYPES) {
        add(format!("typ {typ}"), &format!(r#"{{"alg":"{name}","typ":{typ}}}"#));
    }
    for kid in VALUES.iter().chain(KEY_IDS) {
        add(format!("kid {kid}"), &format!(r#"{{"alg":"{name}","kid":{kid}}}"#));
    }
    algorithms(signer, attacks);
    doubled_headers(signer, attacks);
    confusions(signer, attacks);
}

/// Adds names that differ from the name of this algorithm.
const ALGORITHMS: &[&str] = &[
    "none",
    "None",
    "NONE",
    "nOnE",
    "",
    " ",
    "null",
    "HS384",
    "HS512",
    "RS384",
    "RS512",
    "PS256",
    "ES384",
    "ES512",
    "ES256K",
    "Ed25519",
    "Ed448",
    "HMAC",
    "dir",
    "A128KW",
    "RSA-OAEP",
    "ECDH-ES",
    "PBES2-HS256+A128KW",
    "HS1",
    "RS1",
    "HS256",
    "RS256",
    "EdDSA",
    "ES256",
    "hs256",
    "rs256",
    "eddsa",
    "es256",
];

fn algorithms(signer: &Signer, attacks: &mut Attacks) {
    let (name, claims) = (signer.name, signer.claims());
    for alg in ALGORITHMS.iter().filter(|alg| **alg != name) {
        for header in [format!(r#"{{"alg":"{alg}","kid":"{name}"}}"#), format!(r#"{{"alg":"{alg}"}}"#)] {
            attacks.insert(format!("header: {header}"), signer.token(&header, &claims));
        }
        let unsigned = format!("{}.{}", b64(format!(r#"{{"alg":"{alg}"}}"#)), b64(&claims));
        add_unsigned(alg, &unsigned, signer, attacks);
    }
}

fn add_unsigned(alg: &str, unsigned: &str, signer: &Signer, attacks: &mut Attacks) {
    attacks.insert(format!("header: alg {alg}, empty signature"), format!("{unsigned}."));
    attacks.insert(format!("header: alg {alg}, no signature"), unsigned.to_owned());
    let shared = EncodingKey::from_secret(SHARED.as_bytes());
    // The shared key belongs to the route for HS256, so it is no attack there.
    if signer.name != "HS256" {
        attacks.insert(
            format!("header: alg {alg}, a MAC"),
            format!("{unsigned}.{}", sign(unsigned, &shared, Algorithm::HS256)),
        );
    }
}

fn doubled_headers(signer: &Signer, attacks: &mut Attacks) {
    let name = signer.name;
    let one = signer.header();
    for (what, header) in [
        ("alg twice", format!(r#"{{"alg":"none","alg":"{name}"}}"#)),
        ("alg twice, none last", format!(r#"{{"alg":"{name}","alg":"none"}}"#)),
        ("the same alg twice", format!(r#"{{"alg":"{name}","alg":"{name}"}}"#)),
        ("alg twice, escaped", format!(r#"{{"alg":"{name}","\u0061lg":"{name}"}}"#)),
        ("kid twice", format!(r#"{{"alg":"{name}","kid":"z","kid":"{name}"}}"#)),
        ("kid twice, the same", format!(r#"{{"alg":"{name}","kid":"{name}","kid":"{name}"}}"#)),
        ("typ twice", format!(r#"{{"alg":"{name}","typ":"JWT","typ":"JWT"}}"#)),
        ("crit escaped", format!(r#"{{"alg":"{name}","cr\u0069t":["exp"]}}"#)),
        ("no alg", r#"{"typ":"JWT"}"#.to_owned()),
        ("Alg", format!(r#"{{"Alg":"{name}"}}"#)),
        ("ALG", format!(r#"{{"ALG":"{name}"}}"#)),
        ("empty", String::new()),
        ("empty object", "{}".to_owned()),
        ("a list", format!("[{one}]")),
        ("text", r#""JWT""#.to_owned()),
        ("null", "null".to_owned()),
        ("an array of members", format!(r#"["{name}","JWT","{name}"]"#)),
        ("cut off", one[..one.len() - 1].to_owned()),
        ("more behind", format!("{one}x")),
        ("two documents", format!("{one}{one}")),
        ("byte order mark", format!("\u{feff}{one}")),
        ("trailing comma", one.replace('}', ",}")),
        ("comment", one.replace('}', "/**/}")),
        ("single quotes", one.replace('"', "'")),
        ("NUL behind", format!("{one}\0")),
        ("nested", format!("{}1{}", r#"{"a":"#.repeat(2000), "}".repeat(2000))),
    ] {
        attacks.insert(format!("header: {what}"), signer.token(&header, &signer.claims()));
    }
    let utf16: Vec<u8> = one.encode_utf16().flat_map(u16::to_be_bytes).collect();
    attacks.insert(
        "header: UTF-16".to_owned(),
        signer.seal(&format!("{}.{}", b64(utf16), b64(signer.claims()))),
    );
    let latin: Vec<u8> = one.bytes().chain([0xff]).collect();
    attacks.insert(
        "header: not UTF-8".to_owned(),
        signer.seal(&format!("{}.{}", b64(latin), b64(signer.claims()))),
    );
}

/// Adds tokens with a MAC whose key is a public key or a part of it, and signatures with another hash under the same
/// private key.
fn confusions(signer: &Signer, attacks: &mut Attacks) {
    let mut materials: Vec<Vec<u8>> =
        vec![b" ".to_vec(), vec![0], vec![0; 32], b"secret".to_vec(), b"null".to_vec(), b"\n".to_vec()];
    for file in ["rsa.pub.pem", "ec.pub.pem", "ed.pub.pem"] {
        let pem = std::fs::read(format!("tests/corpora/jwt/{file}")).unwrap();
        let text = String::from_utf8(pem.clone()).unwrap();
        let inner: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let der = BASE64.decode(inner.as_bytes()).unwrap();
        materials.extend([text.trim_end().into(), text.replace('\n', "\r\n").into(), inner.into(), pem]);
        materials.extend([der[der.len() - 32..].to_vec(), der[der.len().saturating_sub(65)..].to_vec(), der]);
    }
    for (i, material) in materials.iter().enumerate() {
        let key = EncodingKey::from_secret(material);
        for (alg, algorithm) in
            [("HS256", Algorithm::HS256), ("HS384", Algorithm::HS384), ("HS512", Algorithm::HS512)]
        {
            for kid in [format!(r#","kid":"{}""#, signer.name), String::new()] {
                let signed =
                    format!("{}.{}", b64(format!(r#"{{"alg":"{alg}"{kid}}}"#)), b64(signer.claims()));
                let token = format!("{signed}.{}", sign(&signed, &key, algorithm));
                attacks.insert(format!("confusion: {alg} under material {i}{kid}"), token);
            }
        }
    }
    for (family, alg, algorithm) in [
        ("RS256", "RS384", Algorithm::RS384),
        ("RS256", "RS512", Algorithm::RS512),
        ("RS256", "PS256", Algorithm::PS256),
        ("RS256", "PS512", Algorithm::PS512),
        ("HS256", "HS384", Algorithm::HS384),
        ("HS256", "HS512", Algorithm::HS512),
    ] {
        if family != signer.name {
            continue;
        }
        for said in [alg, family] {
            let signed = format!("{}.{}", b64(format!(r#"{{"alg":"{said}"}}"#)), b64(signer.claims()));
            attacks.insert(
                format!("confusion: {alg} that says {said}"),
                format!("{signed}.{}", sign(&signed, &signer.key, algorithm)),
            );
        }
    }
}
