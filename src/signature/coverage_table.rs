//! The parts of a request that the signature of a scheme protects. The table in `docs/providers.md` shows these parts
//! for every preset.

use super::content::ContentPart;
use super::keys::SignatureAlgorithm;
use super::proofs::SharedSecretPlace;
use super::request_parts::EventIdSource;
use super::scheme::{Proof, Scheme};

/// The parts of a request that a signature protects.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SignatureCoverage {
    /// True if the signature covers the whole body.
    pub body: bool,
    /// True if the signature covers individual JSON values or form fields of the body.
    pub members: bool,
    /// True if the signature covers a timestamp, which Callgate compares with its clock.
    pub time: bool,
    /// True if the signature covers the event id.
    pub id: bool,
    /// True if the signature covers the URL that the provider called, or at least its path.
    pub url: bool,
}

impl SignatureCoverage {
    /// Returns the names of the parts that the signature covers, for people.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (self.body, "body"),
            (self.members && !self.body, "members of the body"),
            (self.time, "time"),
            (self.id, "id"),
            (self.url, "URL"),
        ];
        all.into_iter().filter(|(yes, _)| *yes).map(|(_, what)| what).collect()
    }
}

impl Scheme {
    /// Returns the parts of a request that the signature covers.
    pub fn covers(&self) -> SignatureCoverage {
        match &self.proof {
            Proof::Content(scheme) => {
                let content = &scheme.content;
                SignatureCoverage {
                    body: content.covers_body(),
                    members: content.body_parts_count() > 0,
                    time: scheme.timestamp.is_some(),
                    id: self.signs_id(),
                    url: content
                        .parts()
                        .iter()
                        .any(|part| matches!(part, ContentPart::Path | ContentPart::Url)),
                }
            }
            Proof::Jwt(jwt) => SignatureCoverage {
                body: jwt.covers_body(),
                members: false,
                time: jwt.expires || jwt.max_age.is_some(),
                id: self.signs_id(),
                url: self.uses_url(),
            },
            Proof::MessageSignature(message) => {
                let has = |name: &str| message.components.iter().any(|component| **component == *name);
                SignatureCoverage {
                    body: message.covers_body(),
                    members: false,
                    time: true,
                    id: false,
                    url: has("@target-uri") || has("@path"),
                }
            }
            Proof::Sns => {
                SignatureCoverage { body: false, members: true, time: true, id: self.signs_id(), url: false }
            }
            Proof::None | Proof::SharedSecret(_) => SignatureCoverage::default(),
        }
    }

    /// Reports whether the signature covers the event id.
    pub fn signs_id(&self) -> bool {
        match (&self.proof, &self.id) {
            (Proof::Jwt(jwt), None) => jwt.id.is_some(),
            (Proof::Jwt(jwt), Some(EventIdSource::Body(_) | EventIdSource::Form(_))) => jwt.covers_body(),
            (Proof::Content(scheme), Some(EventIdSource::Header(name))) => {
                scheme.content.uses_id() || scheme.content.headers().any(|header| header == name)
            }
            (Proof::Content(scheme), Some(EventIdSource::Query(name))) => {
                scheme.content.uses_id() || scheme.content.signs_parameter(name)
            }
            (Proof::Content(scheme), Some(EventIdSource::Form(name))) => {
                scheme.content.covers_body() || scheme.content.signs_field(name)
            }
            (Proof::Content(scheme), Some(EventIdSource::Body(pointer))) => {
                scheme.content.covers_body() || scheme.content.signs_member(pointer)
            }
            (Proof::MessageSignature(message), Some(EventIdSource::Body(_) | EventIdSource::Form(_))) => {
                message.covers_body()
            }
            (Proof::Sns, _) => true,
            _ => false,
        }
    }

    /// Returns a short name of the signature scheme, for people, such as `hmac-sha256`.
    pub fn summary(&self) -> String {
        match &self.proof {
            Proof::Content(scheme) => match scheme.algorithm {
                SignatureAlgorithm::Mac(algorithm) => algorithm.name().to_owned(),
                SignatureAlgorithm::Public(algorithm) => algorithm.name().to_owned(),
            },
            Proof::Jwt(jwt) => format!("JWT, {}", jwt.algorithms.join(" or ")),
            Proof::MessageSignature(_) => "HTTP message signature".to_owned(),
            Proof::None => "none".to_owned(),
            Proof::Sns => "RSA with SHA-1 or SHA-256".to_owned(),
            Proof::SharedSecret(SharedSecretPlace::Basic) => "basic authentication".to_owned(),
            Proof::SharedSecret(_) => "shared token".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SignatureCoverage;

    #[test]
    fn each_covered_part_has_a_name() {
        let none = SignatureCoverage::default();
        for (covers, names) in [
            (none, &[][..]),
            (SignatureCoverage { body: true, ..none }, &["body"]),
            (SignatureCoverage { members: true, ..none }, &["members of the body"]),
            (SignatureCoverage { body: true, members: true, ..none }, &["body"]),
            (SignatureCoverage { time: true, ..none }, &["time"]),
            (SignatureCoverage { id: true, ..none }, &["id"]),
            (SignatureCoverage { url: true, ..none }, &["URL"]),
            (
                SignatureCoverage { body: true, members: false, time: true, id: true, url: true },
                &["body", "time", "id", "URL"],
            ),
        ] {
            assert_eq!(covers.names(), names, "{covers:?}");
        }
    }
}
