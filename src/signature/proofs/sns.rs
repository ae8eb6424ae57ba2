//! Messages of Amazon SNS. The signed content consists of values of the JSON body. The type of the message determines
//! which values are signed. Source: <https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html>.

use data_encoding::BASE64;
use http::HeaderName;

use crate::denial::{Denial, Refusal};
use crate::json::{Found, Pointer, find_strict};
use crate::secret::Secret;
use crate::signature::context::SignatureContext;
use crate::signature::keys::{AuthenticationTag, KeySet, PublicKeyAlgorithm};
use crate::signature::request_parts::check_tolerance;
use crate::time::Timestamp;
use sha2::{Digest, Sha256};

const TOPIC: HeaderName = HeaderName::from_static("x-amz-sns-topic-arn");
const KIND: HeaderName = HeaderName::from_static("x-amz-sns-message-type");

/// The maximum accepted age of an SNS message. SNS retries a delivery for an hour.
const PAST: std::time::Duration = std::time::Duration::from_secs(3600);
/// The maximum time by which the timestamp of an SNS message may be ahead of Callgate's clock.
const FUTURE: std::time::Duration = std::time::Duration::from_secs(300);

/// The JSON keys of an SNS message that Callgate reads: the keys whose values can be signed, and the keys that
/// describe the signature.
const MEMBERS: [&str; 10] = [
    "Message",
    "MessageId",
    "Subject",
    "SubscribeURL",
    "Timestamp",
    "Token",
    "TopicArn",
    "Type",
    "SignatureVersion",
    "Signature",
];

/// A parsed SNS message, whose signature has not been verified yet.
pub(in crate::signature) struct SnsMessage {
    content: String,
    algorithm: PublicKeyAlgorithm,
    signature: Vec<u8>,
    at: Timestamp,
}

impl SnsMessage {
    /// The longest time for which the same SNS message may be accepted again after its arrival.
    pub(in crate::signature) const REPLAY_WINDOW: std::time::Duration = PAST.saturating_add(FUTURE);

    /// Parses an SNS message. Its topic must be one of `topics`.
    ///
    /// # Errors
    /// Returns `signature_malformed` if a value is missing or malformed, and `signature_claim` if the topic is not one
    /// of `topics`, or if a header differs from the body.
    pub(in crate::signature) fn parse(
        context: &SignatureContext<'_>,
        topics: &[Secret],
        body: &[u8],
    ) -> Result<Self, Refusal> {
        let members = members(body)?;
        let word = |name: &str| {
            let at = MEMBERS.iter().position(|member| *member == name)?;
            members.get(at)?.as_deref()
        };
        let (Some(kind), Some(topic)) = (word("Type"), word("TopicArn")) else {
            return Err(malformed("the body has no `Type` or no `TopicArn`"));
        };
        if !topics.iter().any(|ours| ours.matches(topic.as_bytes())) {
            return Err(claim("the topic of the message is not configured"));
        }
        // The headers are not signed, and an agent may read them instead of the body. A header that differs from the
        // body is therefore an error.
        for (name, value) in [(TOPIC, topic), (KIND, kind)] {
            let all = context.head.headers.get_all(&name);
            if all.iter().any(|header| header.as_bytes() != value.as_bytes()) {
                return Err(claim("a header of the message differs from the body"));
            }
        }
        let names: &[&str] = match kind {
            "Notification" => &["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"],
            "SubscriptionConfirmation" | "UnsubscribeConfirmation" => {
                &["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
            }
            _ => return Err(malformed("the `Type` of the message is unknown")),
        };
        let mut content = String::new();
        for name in names {
            match word(name) {
                // Line breaks separate the values in the signed content. A line break inside a value could therefore
                // end this value and begin a forged value.
                Some(value) if *name != "Message" && value.contains('\n') => {
                    return Err(malformed("a signed member contains a line break"));
                }
                Some(value) => content.push_str(&format!("{name}\n{value}\n")),
                None if *name == "Subject" => {}
                None => return Err(malformed("a signed member is missing")),
            }
        }
        let algorithm = match word("SignatureVersion") {
            Some("1") => PublicKeyAlgorithm::RsaPkcs1Sha1,
            Some("2") => PublicKeyAlgorithm::RsaPkcs1Sha256,
            _ => return Err(malformed("the `SignatureVersion` of the message is unknown")),
        };
        let signature = word("Signature").and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let signature = signature.ok_or_else(|| malformed("the body has no `Signature` in base64"))?;
        let at = word("Timestamp").and_then(Timestamp::parse);
        let at = at.ok_or_else(|| malformed("the body has no valid `Timestamp`"))?;
        Ok(Self { content, algorithm, signature, at })
    }

    /// Verifies the signature of the message with the public key of a certificate, and checks the timestamp. Returns
    /// the authentication tags of the message.
    ///
    /// # Errors
    /// Returns `signature_mismatch`, `signature_too_old` or `signature_too_new`.
    pub(in crate::signature) fn verify(
        &self,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<Vec<AuthenticationTag>, Refusal> {
        let content = self.content.as_bytes();
        if !keys.usable(now).any(|key| self.algorithm.verifies(key, content, &self.signature)) {
            let detail = "the certificate does not verify the signature";
            return Err(Refusal::new(Denial::SignatureMismatch, detail));
        }
        check_tolerance(self.at, now, PAST, FUTURE)?;
        keys.prove();
        Ok(vec![AuthenticationTag::new(&Sha256::digest(content))])
    }
}

/// Returns the value of each JSON key in [`MEMBERS`], in the same order. A value is `None` if the key is missing or
/// its value is null.
///
/// # Errors
/// Returns `signature_malformed` if a key occurs twice, or if a value is not a string.
fn members(body: &[u8]) -> Result<Vec<Option<Box<str>>>, Refusal> {
    let text = |name: &&str| {
        let pointer = Pointer::parse(&format!("/{name}"))
            .ok_or_else(|| malformed("a member name is not a JSON pointer"))?;
        match find_strict(body, &pointer).map_err(|_| malformed("the body is not JSON"))? {
            Found::Missing => Ok(None),
            Found::One(raw) if raw.get() == "null" => Ok(None),
            found @ Found::One(raw) if raw.get().starts_with('"') => Ok(found.word()),
            Found::One(_) => Err(malformed("a signed member is not a string")),
            Found::Doubled => Err(malformed(
                "a signed member occurs twice, or another member name differs from it only in case",
            )),
        }
    };
    MEMBERS.iter().map(text).collect()
}

fn malformed(detail: &'static str) -> Refusal {
    Refusal::new(Denial::SignatureMalformed, detail)
}

fn claim(detail: &'static str) -> Refusal {
    Refusal::new(Denial::SignatureClaim, detail)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::request::RequestHead;

    const ARN: &str = "arn:aws:sns:eu-west-1:1:t";

    fn parse(headers: &[(HeaderName, &'static str)], body: &str) -> Result<SnsMessage, Denial> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        let head = RequestHead::new("POST", "/", &map, std::net::IpAddr::from([127, 0, 0, 1]));
        let context = SignatureContext::new(head, "", Timestamp::from_unix_secs(0));
        let topics = [Secret::new(ARN.as_bytes().to_vec())];
        SnsMessage::parse(&context, &topics, body.as_bytes()).map_err(|refusal| refusal.denial)
    }

    /// Returns the JSON text of a valid SNS message in which the text `to` replaces the text `from`.
    fn message(from: &str, to: &str) -> String {
        let text = format!(
            r#"{{"Type":"Notification","TopicArn":"{ARN}","Message":"m","MessageId":"i","Subject":"s","Timestamp":"2026-01-01T00:00:00Z","SignatureVersion":"1","Signature":"AAAA"}}"#
        );
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    }

    #[test]
    fn the_unsigned_headers_agree_with_the_signed_body() {
        let plain = message("", "");
        for good in
            [&[][..], &[(TOPIC, ARN)], &[(KIND, "Notification")], &[(TOPIC, ARN), (KIND, "Notification")]]
        {
            assert!(parse(good, &plain).is_ok(), "{good:?}");
        }
        for bad in [
            &[(TOPIC, "arn:aws:sns:eu-west-1:1:other")][..],
            &[(TOPIC, "")],
            &[(TOPIC, ARN), (TOPIC, "arn:aws:sns:eu-west-1:1:other")],
            &[(KIND, "SubscriptionConfirmation")],
            &[(KIND, "notification")],
            &[(TOPIC, ARN), (KIND, "Notification"), (KIND, "SubscriptionConfirmation")],
        ] {
            assert_eq!(parse(bad, &plain).err(), Some(Denial::SignatureClaim), "{bad:?}");
        }
    }

    #[test]
    fn a_message_has_all_its_signed_members_once_and_in_one_line() {
        for (from, to, denial) in [
            (r#""Message":"m","#, "", Denial::SignatureMalformed),
            (r#""MessageId":"i","#, "", Denial::SignatureMalformed),
            (r#""Timestamp":"2026-01-01T00:00:00Z","#, "", Denial::SignatureMalformed),
            (r#""Timestamp":"2026-01-01T00:00:00Z""#, r#""Timestamp":"today""#, Denial::SignatureMalformed),
            (r#""Signature":"AAAA""#, r#""Signature":"A""#, Denial::SignatureMalformed),
            (r#""SignatureVersion":"1""#, r#""SignatureVersion":"3""#, Denial::SignatureMalformed),
            (r#""Type":"Notification","#, "", Denial::SignatureMalformed),
            (r#""Type":"Notification""#, r#""Type":"Other""#, Denial::SignatureMalformed),
            (r#""Type":"Notification""#, r#""Type":"SubscriptionConfirmation""#, Denial::SignatureMalformed),
            (r#""Subject":"s""#, r#""Subject":"s\nTimestamp""#, Denial::SignatureMalformed),
            (r#""Subject":"s""#, r#""Subject":"s","Subject":"s""#, Denial::SignatureMalformed),
            (r#""Subject":"s""#, r#""Subject":1"#, Denial::SignatureMalformed),
            (":t\"", ":u\"", Denial::SignatureClaim),
        ] {
            assert_eq!(parse(&[], &message(from, to)).err(), Some(denial), "{from} {to}");
        }
        assert!(parse(&[], &message(r#""Subject":"s","#, "")).is_ok());
        assert!(parse(&[], &message(r#""Message":"m""#, r#""Message":"m\nn""#)).is_ok());
    }
}
