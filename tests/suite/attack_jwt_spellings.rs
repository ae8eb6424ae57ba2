//! Attacks on the signatures and the encoding of JWTs.

use std::collections::BTreeSet;

use data_encoding::{BASE64URL, BASE64URL_NOPAD};

use crate::attack_jwt::{Attacks, NOW, Signer, b64, sign};

// === Signatures ===

pub fn signatures(signer: &Signer, attacks: &mut Attacks) {
    let genuine = signer.genuine();
    let (signed, text) = genuine.rsplit_once('.').unwrap();
    let right = BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let mut add = |what: String, signature: &[u8]| {
        drop(attacks.insert(format!("signature: {what}"), format!("{signed}.{}", b64(signature))))
    };
    for at in 0..right.len() {
        let mut flipped = right.clone();
        flipped[at] ^= 1 << (at % 8);
        add(format!("bit of byte {at} flipped"), &flipped);
        add(format!("cut to {at} bytes"), &right[..at]);
    }
    for more in 1..=4 {
        add(format!("{more} bytes more"), &[right.as_slice(), &vec![0; more]].concat());
        add(format!("{more} zeros in front"), &[vec![0; more], right.clone()].concat());
    }
    add("twice".to_owned(), &right.repeat(2));
    add("backwards".to_owned(), &right.iter().rev().copied().collect::<Vec<_>>());
    for byte in [0x00, 0x01, 0x7f, 0xff] {
        add(format!("all {byte:02x}"), &vec![byte; right.len()]);
    }
    let (first, second) = right.split_at(right.len() / 2);
    let zero = vec![0; first.len()];
    let mut one = zero.clone();
    *one.last_mut().unwrap() = 1;
    for (what, halves) in [
        ("first half zero", [&zero, second]),
        ("second half zero", [first, &zero]),
        ("halves swapped", [second, first]),
        ("first half one", [&one, second]),
        ("second half one", [first, &one]),
        ("both halves one", [&one, &one]),
        ("first half twice", [first, first]),
    ] {
        add(what.to_owned(), &halves.concat());
    }
    special(signer.name, first, second, &mut add);
    let others = [
        ("another key", signed.to_owned()),
        ("another header", signed.replacen('e', "f", 1)),
        ("nothing", String::new()),
    ];
    for (what, text) in others {
        let key = if what == "another key" { &signer.other } else { &signer.key };
        attacks.insert(
            format!("signature: of {what}"),
            format!("{signed}.{}", sign(&text, key, signer.algorithm)),
        );
    }
    // Adds a genuine signature to other contents.
    let payload = signed.split_once('.').unwrap();
    let later = signer.claims().replace(&(NOW + 60).to_string(), &(NOW + 61).to_string());
    attacks.insert("signature: of earlier claims".to_owned(), format!("{}.{}.{text}", payload.0, b64(later)));
    attacks.insert("signature: parts swapped".to_owned(), format!("{}.{}.{text}", payload.1, payload.0));
}

/// Adds signatures with invalid numbers, and with encodings that a JWS does not allow.
fn special(name: &str, first: &[u8], second: &[u8], add: &mut impl FnMut(String, &[u8])) {
    // The group orders of P-256 (RFC 5639 lists it big-endian) and of edwards25519 (RFC 8032, little-endian).
    let order = data_encoding::HEXUPPER
        .decode(b"FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551")
        .unwrap();
    let edwards = data_encoding::HEXLOWER
        .decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
        .unwrap();
    if name == "ES256" {
        for (what, halves) in [
            ("r is the order", [&order, second]),
            ("s is the order", [first, &order]),
            ("both", [&order, &order]),
        ] {
            add(format!("{what}, P-256"), &halves.concat());
        }
        let integer = |half: &[u8]| {
            let pad = if half[0] & 0x80 == 0 { Vec::new() } else { vec![0] };
            [vec![2, (half.len() + pad.len()) as u8], pad, half.to_vec()].concat()
        };
        let inner = [integer(first), integer(second)].concat();
        add("as DER".to_owned(), &[vec![0x30, inner.len() as u8], inner].concat());
        add("DER of zeros".to_owned(), &[0x30, 6, 2, 1, 0, 2, 1, 0]);
    }
    if name == "EdDSA" {
        // S plus the group order is accepted by verifiers that do not check that S is less than the order.
        let mut carry = 0;
        let add_bytes = |(a, b): (&u8, &u8)| {
            let sum = u16::from(*a) + u16::from(*b) + carry;
            carry = sum >> 8;
            sum as u8
        };
        let shifted: Vec<u8> = second.iter().zip(&edwards).map(add_bytes).collect();
        add("S beyond the order".to_owned(), &[first, &shifted].concat());
        let mut identity = vec![0; 32];
        identity[0] = 1;
        add("R the identity, S zero".to_owned(), &[identity, vec![0; 32]].concat());
    }
}

// === Encoding ===

pub fn spellings(signer: &Signer, attacks: &mut Attacks) {
    let genuine = signer.genuine();
    let parts: Vec<&str> = genuine.split('.').collect();
    let mut add = |what: String, token: String| drop(attacks.insert(format!("spelling: {what}"), token));
    for (what, sign) in [
        ("=", "="),
        ("==", "=="),
        ("space", " "),
        ("tab", "\t"),
        ("line end", "\n"),
        ("NUL", "\0"),
        ("%3d", "%3D"),
        ("é", "é"),
        ("+", "+"),
        ("*", "*"),
    ] {
        for (i, part) in parts.iter().enumerate() {
            let mut changed: Vec<String> = parts.iter().map(ToString::to_string).collect();
            for (where_, text) in [
                ("behind", format!("{part}{sign}")),
                ("inside", format!("{}{sign}{}", &part[..8], &part[8..])),
                ("before", format!("{sign}{part}")),
            ] {
                // A space before the whole token is part of the header that contains it.
                if (i, where_, sign) == (0, "before", " ") {
                    continue;
                }
                changed[i] = text;
                add(format!("{what} {where_} part {i}"), changed.join("."));
                if i < 2 {
                    add(format!("{what} {where_} part {i}, signed"), signer.seal(&changed[..2].join(".")));
                }
            }
        }
    }
    trailing_bits(signer, &parts, attacks);
    shapes(signer, &parts, attacks);
    encrypted(signer, attacks);
}

/// Adds tokens with more, fewer or different parts.
fn shapes(signer: &Signer, parts: &[&str], attacks: &mut Attacks) {
    let genuine = signer.genuine();
    let mut add = |what: &str, token: String| drop(attacks.insert(format!("spelling: {what}"), token));
    let [header, payload, signature] = *parts else { panic!() };
    let decoded: Vec<_> = parts.iter().map(|part| BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).collect();
    add(
        "base64 with padding",
        decoded.iter().map(|bytes| BASE64URL.encode(bytes)).collect::<Vec<_>>().join(".") + "=",
    );
    add("not encoded", format!("{}.{}.{signature}", signer.header(), signer.claims()));
    add("encoded twice", decoded.iter().map(|_| b64(b64(&genuine))).collect::<Vec<_>>().join("."));
    add("one part", header.to_owned());
    add("two parts", format!("{header}.{payload}"));
    add("four parts", format!("{genuine}.{signature}"));
    add("five parts", format!("{genuine}.{payload}.{signature}"));
    add("six parts", format!("{genuine}.{genuine}"));
    add("nothing", String::new());
    for dots in 1..6 {
        add(&format!("{dots} dots"), ".".repeat(dots));
        add(&format!("{dots} dots in front"), format!("{}{genuine}", ".".repeat(dots)));
        add(&format!("{dots} dots behind"), format!("{genuine}{}", ".".repeat(dots)));
    }
    add("dots inside", genuine.replace('.', ".."));
    add("no payload", format!("{header}..{signature}"));
    add("detached, signed", signer.seal(&format!("{header}.")));
    add("no header", signer.seal(&format!(".{payload}")));
    add("a list of two", format!("{genuine},{genuine}"));
    add("two with a blank", format!("{genuine} {genuine}"));
    add(
        "JSON, flattened",
        format!(r#"{{"protected":"{header}","payload":"{payload}","signature":"{signature}"}}"#),
    );
    add(
        "JSON, general",
        format!(
            r#"{{"payload":"{payload}","signatures":[{{"protected":"{header}","signature":"{signature}"}}]}}"#
        ),
    );
    add("the scheme twice", format!("Bearer {genuine}"));
    add("in quotes", format!("\"{genuine}\""));
    add("upper case", genuine.to_uppercase());
    add("a megabyte", "A".repeat(1 << 20));
    add("a megabyte of dots", ".".repeat(1 << 20));
    add("a megabyte behind", format!("{genuine}{}", "A".repeat(1 << 20)));
}

/// Adds tokens that claim to be encrypted (JWE).
fn encrypted(signer: &Signer, attacks: &mut Attacks) {
    let genuine = signer.genuine();
    let mut add = |what: &str, token: String| drop(attacks.insert(format!("spelling: {what}"), token));
    for (alg, enc) in [
        ("dir", "A128GCM"),
        ("RSA-OAEP", "A256GCM"),
        ("A128KW", "A128CBC-HS256"),
        ("PBES2-HS256+A128KW", "A128GCM"),
        ("ECDH-ES", "A256GCM"),
    ] {
        let jwe = b64(format!(
            r#"{{"alg":"{alg}","enc":"{enc}","cty":"JWT","p2c":2147483647,"p2s":"AAAA","zip":"DEF"}}"#
        ));
        add(
            &format!("JWE {alg}"),
            format!("{jwe}.{}.{}.{}.{}", b64([0; 32]), b64([0; 12]), b64(&genuine), b64([0; 16])),
        );
        add(
            &format!("JWE {alg} without a key"),
            format!("{jwe}..{}.{}.{}", b64([0; 12]), b64(signer.claims()), b64([0; 16])),
        );
        add(
            &format!("JWE header {alg}, three parts"),
            signer.seal(&format!("{jwe}.{}", b64(signer.claims()))),
        );
    }
}

/// Adds tokens with unused bits set in the last base64 character. Many decoders ignore these bits.
fn trailing_bits(signer: &Signer, parts: &[&str], attacks: &mut Attacks) {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for (i, part) in parts.iter().enumerate() {
        // Spaces at the end of the JSON change its length, so that each possible number of unused bits occurs.
        let lengths = if i == 2 { 0..1 } else { 0..3 };
        for blanks in lengths {
            let mut bytes = BASE64URL_NOPAD.decode(part.as_bytes()).unwrap();
            bytes.extend(vec![b' '; blanks]);
            let text = b64(&bytes);
            let last = ALPHABET.iter().position(|c| *c == text.as_bytes()[text.len() - 1]).unwrap();
            let free = match text.len() % 4 {
                2 => 16,
                3 => 4,
                _ => 1,
            };
            let other: BTreeSet<usize> = (1..free).map(|bits| last | bits).collect();
            for bits in other {
                let respelt = format!("{}{}", &text[..text.len() - 1], char::from(ALPHABET[bits]));
                let mut changed = [parts[0].to_owned(), parts[1].to_owned(), parts[2].to_owned()];
                changed[i] = respelt;
                let token = if i == 2 { changed.join(".") } else { signer.seal(&changed[..2].join(".")) };
                attacks.insert(format!("spelling: bits behind part {i}, {blanks} blanks, {bits}"), token);
            }
        }
    }
}
