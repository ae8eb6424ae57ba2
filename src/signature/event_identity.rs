//! Which messages of a provider are the same event. Two messages with the same [`IdentityPart`]s are the same event, and
//! the second one is a duplicate.

use super::identity_part::{DuplicateRule, IdentityPart};
use super::scheme::{Proof, Scheme};

impl Scheme {
    /// Returns the parts that a scheme without its own list has.
    ///
    /// - A signed id is enough: a provider that signs each retry anew keeps the id.
    /// - An id that is not signed counts together with the signature. Otherwise two different messages with the same
    ///   id would be one event, although only one of them was delivered.
    /// - Without an id, a signature over a time tells events apart. A signature over the body alone does not: two
    ///   events may have the same body.
    pub fn default_identity(&self) -> Vec<IdentityPart> {
        match (self.has_id(), self.signs_id()) {
            (true, true) => vec![IdentityPart::Id],
            (true, false) if self.signature_is_per_message() => {
                vec![IdentityPart::Id, IdentityPart::Signature]
            }
            (true, false) => vec![IdentityPart::Id],
            (false, _) if self.covers().time && self.signature_is_per_message() => {
                vec![IdentityPart::Signature]
            }
            (false, _) => Vec::new(),
        }
    }

    /// Reports whether the signature covers a part.
    pub fn signs_part(&self, part: &IdentityPart) -> bool {
        let covers = self.covers();
        match part {
            IdentityPart::Body => covers.body,
            IdentityPart::Header(name) => self.signs_header(name),
            IdentityPart::Id => covers.id,
            IdentityPart::Member(pointer) => match &self.proof {
                Proof::Content(scheme) => covers.body || scheme.content.signs_member(pointer),
                Proof::Sns => true,
                _ => covers.body,
            },
            IdentityPart::Signature => self.has_signature(),
        }
    }

    /// Reports whether messages of this provider have an event id.
    pub fn has_id(&self) -> bool {
        self.id.is_some() || matches!(&self.proof, Proof::Jwt(jwt) if jwt.id.is_some())
    }

    /// Reports whether a message has a signature. A shared secret is none: it is the same in every message.
    pub fn has_signature(&self) -> bool {
        !matches!(self.proof, Proof::None | Proof::SharedSecret(_))
    }

    /// Reports whether different messages have different signatures. A JWT that does not cover the body can serve for
    /// many messages.
    fn signature_is_per_message(&self) -> bool {
        self.has_signature() && (self.covers().body || !matches!(self.proof, Proof::Jwt(_)))
    }

    /// Reports whether the signature is a second way to recognize a duplicate. Whoever captured a message could change
    /// parts that are not signed. If the signature covers a time, genuine messages have different signatures, so a
    /// second message with the same signature is a replay.
    pub fn recognizes_replays_by_signature(&self) -> bool {
        let parts = &self.identity;
        self.covers().time
            && self.signature_is_per_message()
            && !parts.contains(&IdentityPart::Signature)
            && !parts.iter().all(|part| self.signs_part(part))
    }

    /// Reports whether two messages with different events can be told apart.
    pub fn tells_events_apart(&self) -> bool {
        match self.duplicates {
            DuplicateRule::Identity => !self.identity.is_empty(),
            DuplicateRule::Signature => self.has_id() || self.has_signature(),
            DuplicateRule::Deliver => true,
        }
    }

    /// Reports whether somebody who captured a message can send it again as another event: parts of its identity are
    /// not signed, and nothing else recognizes the repetition.
    pub fn accepts_changed_replays(&self) -> bool {
        let unsigned = self.identity.iter().any(|part| !self.signs_part(part));
        self.has_signature()
            && self.duplicates == DuplicateRule::Identity
            && unsigned
            && !self.recognizes_replays_by_signature()
    }

    /// Describes how duplicates are recognized, for people.
    pub fn describe_identity(&self) -> String {
        match self.duplicates {
            DuplicateRule::Deliver => "nothing: all are delivered".to_owned(),
            DuplicateRule::Signature => "the id, or the signature".to_owned(),
            DuplicateRule::Identity if self.identity.is_empty() => "nothing: all are delivered".to_owned(),
            DuplicateRule::Identity => {
                let parts: Vec<_> = self.identity.iter().map(IdentityPart::describe).collect();
                parts.join(" + ")
            }
        }
    }
}
