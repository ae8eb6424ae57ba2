//! What a scheme protects, read off its data: the table of the providers is made of this.

use super::{Cipher, Part, Proof, Scheme, TokenPlace};

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

impl Scheme {
    /// What the signature covers.
    pub fn covers(&self) -> Covers {
        match &self.proof {
            Proof::Content(scheme) => {
                let content = &scheme.content;
                let id = match &self.id {
                    None => false,
                    Some(super::IdSource::Body(_)) => content.covers_body(),
                    Some(super::IdSource::Header(name)) => {
                        content.uses_id() || content.headers().any(|header| header == name)
                    }
                };
                Covers {
                    body: content.covers_body(),
                    members: content.members().next().is_some(),
                    time: scheme.timestamp.is_some(),
                    id,
                    url: content.parts().contains(&Part::Url),
                }
            }
            Proof::Jwt(jwt) => Covers {
                body: jwt.body_hash.is_some(),
                members: false,
                time: jwt.expires || jwt.max_age.is_some(),
                id: jwt.id.is_some(),
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
            Proof::Sns => Covers { body: false, members: true, time: true, id: true, url: false },
            Proof::Nothing | Proof::Token(_) => Covers::default(),
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
