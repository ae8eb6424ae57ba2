//! Amazon SNS: the signed content is made of members of the body, which of them depends on the kind of message.
//! Source: <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>.

use data_encoding::BASE64;
use http::HeaderName;

use super::content::members;
use super::mac::Tag;
use super::public::PublicAlgorithm;
use super::{KeySet, Signed};
use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find};
use crate::secret::Secret;
use crate::time::Timestamp;
use sha2::{Digest, Sha256};

const TOPIC: HeaderName = HeaderName::from_static("x-amz-sns-topic-arn");
const KIND: HeaderName = HeaderName::from_static("x-amz-sns-message-type");

/// How old a message may be: SNS retries for an hour.
const PAST: std::time::Duration = std::time::Duration::from_secs(3600);
const FUTURE: std::time::Duration = std::time::Duration::from_secs(300);

/// Verifies a message of one of `topics`.
pub(super) fn verify(
    signed: &Signed<'_>,
    topics: &[Secret],
    keys: &KeySet,
    body: &[u8],
    now: Timestamp,
) -> Result<Vec<Tag>, Refusal> {
    let malformed = |detail: &'static str| Refusal::new(Denial::SignatureMalformed, detail);
    let claim = |detail: &'static str| Refusal::new(Denial::SignatureClaim, detail);
    let word = |name: &str| member(body, name);
    let kind = word("Type")?.ok_or_else(|| malformed("the body has no Type"))?;
    let topic = word("TopicArn")?.ok_or_else(|| malformed("the body has no TopicArn"))?;
    if !topics.iter().any(|ours| ours.matches(topic.as_bytes())) {
        return Err(claim("the message is of another topic"));
    }
    // The headers are not signed: whoever reads them instead of the body must not be misled.
    for (name, value) in [(TOPIC, &topic), (KIND, &kind)] {
        if signed.head.headers.get_all(&name).iter().any(|header| header.as_bytes() != value.as_bytes()) {
            return Err(claim("a header of the message says something else than its body"));
        }
    }
    let names: &[&str] = match kind.as_str() {
        "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
        "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
            &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        }
        _ => return Err(malformed("a Type that SNS does not have")),
    };
    let mut content = String::new();
    for name in names {
        match word(name)? {
            Some(value) => content.push_str(&format!("{name}\n{value}\n")),
            None if *name == "Subject" => {}
            None => return Err(malformed("a member that is signed is missing")),
        }
    }
    let algorithm = match word("SignatureVersion")?.as_deref() {
        Some("1") => PublicAlgorithm::RsaPkcs1Sha1,
        Some("2") => PublicAlgorithm::RsaPkcs1Sha256,
        _ => return Err(malformed("a SignatureVersion that SNS does not have")),
    };
    let signature = word("Signature")?.and_then(|text| BASE64.decode(text.as_bytes()).ok());
    let signature = signature.ok_or_else(|| malformed("the body has no Signature"))?;
    let mut valid = keys.keys().iter().filter(|key| key.is_valid_at(now));
    if !valid.any(|key| algorithm.verifies(key, content.as_bytes(), &signature)) {
        return Err(Refusal::new(
            Denial::SignatureMismatch,
            "the signature does not verify under the certificate",
        ));
    }
    let at = word("Timestamp")?.and_then(|text| Timestamp::parse(&text));
    super::timestamp::within(at.ok_or_else(|| malformed("an unreadable Timestamp"))?, now, PAST, FUTURE)?;
    Ok(vec![Tag::new(&Sha256::digest(content))])
}

/// A member of the body that is text; `None` where it is missing or null.
fn member(body: &[u8], name: &str) -> Result<Option<String>, Refusal> {
    let pointer = Pointer::parse(&format!("/{name}"))
        .ok_or_else(|| Refusal::new(Denial::SignatureMalformed, "no name of a member"))?;
    let found = find(body, &[&pointer])
        .map_err(|_| Refusal::new(Denial::SignatureMalformed, "the body is not JSON"))?;
    match found.first() {
        Some(Found::Missing) | None => Ok(None),
        Some(Found::One(raw)) if raw.get() == "null" => Ok(None),
        Some(_) => Ok(members(body, &[&pointer])?.first().map(ToString::to_string)),
    }
}
