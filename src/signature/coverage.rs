//! What a scheme protects, read off its data: the table of the providers is made of this.

use super::content::Part;
use super::keys::Cipher;
use super::proofs::TokenPlace;
use super::request_parts::IdSource;
use super::scheme::{Proof, Scheme};

/// What a signature covers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Covers {
    /// The whole body.
    pub body: bool,
    /// Only some members of the body.
    pub members: bool,
    /// A time, which is held against the clock.
    pub time: bool,
    /// The event's id.
    pub id: bool,
    /// The address it was sent to.
    pub url: bool,
}

impl Covers {
    /// In words.
    pub fn words(self) -> Vec<&'static str> {
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
    /// What the signature covers.
    pub fn covers(&self) -> Covers {
        match &self.proof {
            Proof::Content(scheme) => {
                let content = &scheme.content;
                Covers {
                    body: content.covers_body(),
                    members: content.members().next().is_some(),
                    time: scheme.timestamp.is_some(),
                    id: self.signs_id(),
                    url: content.parts().contains(&Part::Url),
                }
            }
            Proof::Jwt(jwt) => Covers {
                body: jwt.body_hash.is_some(),
                members: false,
                time: jwt.expires || jwt.max_age.is_some(),
                id: self.signs_id(),
                url: self.uses_url(),
            },
            Proof::Message(message) => {
                let has = |name: &str| message.components.iter().any(|component| **component == *name);
                Covers {
                    body: message.covers_body(),
                    members: false,
                    time: true,
                    id: false,
                    url: has("@target-uri") || has("@path"),
                }
            }
            Proof::Sns => Covers { body: false, members: true, time: true, id: self.signs_id(), url: false },
            Proof::Nothing | Proof::Token(_) => Covers::default(),
        }
    }

    /// Whether the id of the event is under the signature, so that nobody can change it.
    pub fn signs_id(&self) -> bool {
        match (&self.proof, &self.id) {
            (Proof::Jwt(jwt), None) => jwt.id.is_some(),
            (Proof::Jwt(jwt), Some(IdSource::Body(_))) => jwt.body_hash.is_some(),
            (Proof::Content(scheme), Some(IdSource::Header(name))) => {
                scheme.content.uses_id() || scheme.content.headers().any(|header| header == name)
            }
            (Proof::Content(scheme), Some(IdSource::Body(pointer))) => {
                scheme.content.covers_body() || scheme.content.signs_member(pointer)
            }
            (Proof::Message(message), Some(IdSource::Body(_))) => message.covers_body(),
            (Proof::Sns, _) => true,
            _ => false,
        }
    }

    /// The scheme in a few words.
    pub fn words(&self) -> String {
        match &self.proof {
            Proof::Content(scheme) => match scheme.cipher {
                Cipher::Mac(algorithm) => algorithm.name().to_owned(),
                Cipher::Public(algorithm) => algorithm.name().to_owned(),
            },
            Proof::Jwt(jwt) => format!("JWT, {}", jwt.algorithms.join(" or ")),
            Proof::Message(_) => "HTTP message signature".to_owned(),
            Proof::Nothing => "none".to_owned(),
            Proof::Sns => "RSA with SHA-1 or SHA-256".to_owned(),
            Proof::Token(TokenPlace::Basic) => "basic authentication".to_owned(),
            Proof::Token(_) => "shared token".to_owned(),
        }
    }
}
