//! A trust store for Java: a PKCS #12 file (RFC 7292) with certificates only. The file is neither encrypted nor
//! protected by a password, because certificates are public. Java reads such a file without a password.

/// The DER tag of the type INTEGER (X.690).
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const EXPLICIT_0: u8 = 0xa0;

/// The object identifier `id-data` (RFC 5652) in DER: 1.2.840.113549.1.7.1.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// The object identifier `certBag` (RFC 7292) in DER: 1.2.840.113549.1.12.10.1.3.
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03];
/// The object identifier `x509Certificate` (RFC 2985) in DER: 1.2.840.113549.1.9.22.1.
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
/// The object identifier `friendlyName` (RFC 2985) in DER: 1.2.840.113549.1.9.20. Java uses this attribute as the alias
/// of a certificate.
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
/// Oracle's object identifier `trustedKeyUsage` in DER: 2.16.840.1.113894.746875.1.1. Java trusts only certificates
/// with this attribute.
const TRUSTED_KEY_USAGE: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01];
/// The object identifier `anyExtendedKeyUsage` (RFC 5280) in DER: 2.5.29.37.0.
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// Returns a PKCS #12 trust store with these certificates and their aliases. The aliases must differ, because Java
/// reads only the last of several entries with the same alias.
pub(super) fn pkcs12<'a>(certificates: impl Iterator<Item = (String, &'a [u8])>) -> Vec<u8> {
    let bags: Vec<u8> = certificates.flat_map(|(alias, certificate)| bag(&alias, certificate)).collect();
    let contents = data(&element(SEQUENCE, &bags));
    element(SEQUENCE, &[element(INTEGER, &[3]), data(&element(SEQUENCE, &contents))].concat())
}

/// Returns the `SafeBag` (RFC 7292) of one certificate.
fn bag(alias: &str, certificate: &[u8]) -> Vec<u8> {
    let value = element(EXPLICIT_0, &element(OCTET_STRING, certificate));
    let certificate = element(SEQUENCE, &[element(OBJECT_IDENTIFIER, X509_CERTIFICATE), value].concat());
    let utf16: Vec<u8> = alias.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let attributes = [
        attribute(FRIENDLY_NAME, &element(BMP_STRING, &utf16)),
        attribute(TRUSTED_KEY_USAGE, &element(OBJECT_IDENTIFIER, ANY_USAGE)),
    ]
    .concat();
    let parts =
        [element(OBJECT_IDENTIFIER, CERT_BAG), element(EXPLICIT_0, &certificate), element(SET, &attributes)];
    element(SEQUENCE, &parts.concat())
}

fn attribute(name: &[u8], value: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[element(OBJECT_IDENTIFIER, name), element(SET, value)].concat())
}

/// Returns a `ContentInfo` (RFC 5652) with plain data.
fn data(content: &[u8]) -> Vec<u8> {
    let content = element(EXPLICIT_0, &element(OCTET_STRING, content));
    element(SEQUENCE, &[element(OBJECT_IDENTIFIER, DATA), content].concat())
}

/// Returns a DER element with a definite length.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length: Vec<u8> =
                content.len().to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
            out.push(0x80 | u8::try_from(length.len()).unwrap_or_default());
            out.extend(length);
        }
    }
    out.extend(content);
    out
}
