//! Tests the guard against lists of addresses and attacks from other projects.

use std::fs;

use super::{AddressClass, Entry, Guard, Refused, Url, classify};

fn vectors(name: &str) -> String {
    fs::read_to_string(format!("tests/vectors/ssrf/{name}")).unwrap()
}

fn guard(entries: &[&str]) -> Guard {
    Guard::new(entries.iter().map(|text| Entry::parse(text).unwrap()).collect())
}

#[test]
fn addresses_of_other_projects_lists_are_classed_as_they_class_them() {
    let file: serde_json::Value = serde_json::from_str(&vectors("addresses.json")).unwrap();
    let mut count = 0;
    // The lists of other projects disagree about allowed addresses, which depend on the configuration of each project.
    // The lists agree about dangerous addresses, so the test uses only these addresses.
    for row in file["addresses"].as_array().unwrap().iter().filter(|row| row["expect"] == "block") {
        let address = row["ip"].as_str().unwrap().parse().unwrap();
        assert!(classify(address).is_some(), "{row}");
        count += 1;
    }
    for row in file["blocked_networks"].as_array().unwrap() {
        for probe in row["probe"].as_array().unwrap() {
            assert!(classify(probe.as_str().unwrap().parse().unwrap()).is_some(), "{probe} of {row}");
            count += 1;
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn every_class_has_an_address() {
    for (class, address) in [
        (AddressClass::CarrierNat, "100.64.0.1"),
        (AddressClass::Embedded, "::ffff:8.8.8.8"),
        (AddressClass::LinkLocal, "169.254.0.1"),
        (AddressClass::LinkLocal, "fe80::1"),
        (AddressClass::Loopback, "127.9.9.9"),
        (AddressClass::Metadata, "169.254.169.254"),
        (AddressClass::Metadata, "168.63.129.16"),
        (AddressClass::Metadata, "fd00:ec2::254"),
        (AddressClass::Multicast, "224.0.0.1"),
        (AddressClass::Nat64, "64:ff9b::8.8.8.8"),
        (AddressClass::Private, "192.168.0.1"),
        (AddressClass::Private, "fd12::1"),
        (AddressClass::Reserved, "240.0.0.1"),
        (AddressClass::Reserved, "5f00::1"),
        (AddressClass::SixToFour, "2002:7f00:1::"),
        (AddressClass::Teredo, "2001:0:7f00:1::"),
        (AddressClass::Unspecified, "0.0.0.0"),
        (AddressClass::Unspecified, "::"),
        (AddressClass::Embedded, "::127.0.0.1"),
        (AddressClass::Embedded, "2a00::5efe:7f00:1"),
    ] {
        assert_eq!(classify(address.parse().unwrap()), Some(class), "{address}");
    }
    for public in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2a00:1450::1", "172.32.0.1", "11.0.0.1"] {
        assert_eq!(classify(public.parse().unwrap()), None, "{public}");
    }
}

#[test]
fn no_url_of_the_attack_lists_is_admitted() {
    let guard = guard(&["booking-service.com"]);
    let text = vectors("patt_urls.txt");
    assert!(text.lines().count() > 80);
    for line in text.lines() {
        assert!(guard.admit(line).is_err(), "{line}");
        // An IP address in an unusual form must not be parsed as a host name. Every parsed address must be classified
        // as not public.
        if let Ok(url) = Url::parse(line) {
            let named = url
                .host()
                .rsplit('.')
                .next()
                .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()));
            assert!(url.address().map_or(named, |address| classify(address).is_some()), "{line}: {url}");
        }
    }
}

#[test]
fn urls_are_read_in_one_way_or_not_at_all() {
    let url = Url::parse("HTTPS://Booking-Service.com:443/a?b=c").unwrap();
    assert_eq!((url.host(), url.port(), url.target()), ("booking-service.com", 443, "/a?b=c"));
    assert_eq!(url.authority(), "booking-service.com");
    assert_eq!(url.to_string(), "https://booking-service.com/a?b=c");
    assert_eq!(Url::parse("http://[::1]:8080?x").unwrap().to_string(), "http://[::1]:8080/?x");
    for bad in [
        "booking-service.com/a",
        "ftp://booking-service.com/",
        "//booking-service.com/",
        "https:booking-service.com",
        "https:///a",
        "https://booking-service.com@evil.com/",
        "https://evil.com\\@booking-service.com/",
        "https://booking-service.com#@evil.com/",
        "https://booking-service.com/a b",
        "https://booking-service.com/\r\nx",
        "https://booking-service.com:0/",
        "https://booking-service.com:65536/",
        "https://booking-service.com:+443/",
        "https://booking-service.com:/",
        "https://booking-service.com./",
        "https://bücking.com/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://1.2.3.0x4/",
        "https://[::1%25lo]/",
        "https://[::1/",
        "https://-a.com/",
        "https://a%2eb.com/",
    ] {
        assert!(Url::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn names_ask_and_networks_may_be_dialled() {
    let listed = guard(&[
        "booking-service.com",
        "internal.example:8443",
        "http://plain.example",
        "10.1.0.0/16",
        "127.0.0.1",
    ]);
    let public = "93.184.215.14".parse().unwrap();
    let judge = |url: &str, address: &str| {
        let url = listed.admit(url)?;
        listed.judge(&url, address.parse().unwrap())
    };
    assert_eq!(judge("https://booking-service.com/x", "93.184.215.14"), Ok(()));
    assert_eq!(judge("https://booking-service.com/x", "10.1.2.3"), Ok(()));
    assert_eq!(judge("http://booking-service.com/x", "10.1.2.3"), Err(Refused::PlainHttp));
    assert_eq!(judge("http://plain.example/x", "10.1.2.3"), Ok(()));
    assert_eq!(judge("http://booking-service.com/x", "93.184.215.14"), Err(Refused::PlainHttp));
    assert_eq!(judge("http://plain.example/x", "93.184.215.14"), Ok(()));
    assert_eq!(
        judge("https://booking-service.com/x", "10.2.0.1"),
        Err(Refused::Address(AddressClass::Private))
    );
    assert_eq!(
        judge("https://booking-service.com/x", "127.0.0.2"),
        Err(Refused::Address(AddressClass::Loopback))
    );
    assert_eq!(judge("https://internal.example:8443/", "10.1.0.1"), Ok(()));
    assert_eq!(listed.admit("https://internal.example/"), Err(Refused::Host));
    assert_eq!(judge("http://127.0.0.1:8080/x", "127.0.0.1"), Ok(()));
    assert_eq!(listed.admit("http://127.0.0.2/"), Err(Refused::Address(AddressClass::Loopback)));
    assert_eq!(listed.admit("https://93.184.215.14/"), Err(Refused::Host));
    assert_eq!(listed.admit("https://booking-service.com.evil.com/"), Err(Refused::Host));
    assert_eq!(listed.admit("https://evil-booking-service.com/"), Err(Refused::Host));
    let home = guard(&["localhost"]);
    let url = home.admit("http://localhost:9000/").unwrap();
    assert_eq!(home.judge(&url, "127.0.0.1".parse().unwrap()), Ok(()));
    assert!(home.judge(&url, "10.0.0.1".parse().unwrap()).is_err());
    assert!(home.judge(&url, public).is_err());
    for bad in ["", "http://", "a b", "https://x/y", "10.0.0.1/8", "x:0", "*.example.com", "user@x"] {
        assert_eq!(Entry::parse(bad), None, "{bad}");
    }
}
