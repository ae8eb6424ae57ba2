//! Decides which messages of a provider belong to the same event. Two messages with the same values of all
//! [`IdentityPart`]s belong to the same event, and the second message is a duplicate.

use super::identity_part::{DuplicateRule, IdentityPart};
use super::scheme::{Proof, Scheme};

impl Scheme {
    /// Returns the default identity parts of the scheme, which apply if the configuration lists none. Messages with the
    /// same values of all these parts belong to the same event.
    ///
    /// - If the event id is signed, the id is the only part. The signature is not a part, because a provider may sign
    ///   each retry anew.
    /// - If the event id is not signed, the id and the signature are the parts. With the id alone, Callgate would not
    ///   deliver the second of two different messages with the same id.
    /// - If there is no event id and the signature covers a time, the signature is the only part.
    /// - If there is no event id and the signature covers no time, there are no parts, because two events with the same
    ///   body could have the same signature.
    ///
    /// A signature that can be the same for many messages is never a part.
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

    /// Reports whether the signature of the scheme covers `part` of a message.
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

    /// Reports whether messages of this scheme have an event id.
    pub fn has_id(&self) -> bool {
        self.id.is_some() || matches!(&self.proof, Proof::Jwt(jwt) if jwt.id.is_some())
    }

    /// Reports whether messages of this scheme have a signature. A shared secret is not a signature, because it is the
    /// same in every message.
    pub fn has_signature(&self) -> bool {
        !matches!(self.proof, Proof::None | Proof::SharedSecret(_))
    }

    /// Reports whether different messages have different signatures. A signature that covers no part of the body can
    /// be the same for many messages.
    pub fn signature_is_per_message(&self) -> bool {
        let covers = self.covers();
        self.has_signature() && (covers.body || covers.members)
    }

    /// Reports whether the scheme can distinguish messages of different events. Also returns true for
    /// [`DuplicateRule::Deliver`], because every message is then delivered.
    pub fn tells_events_apart(&self) -> bool {
        match self.duplicates {
            DuplicateRule::Identity => !self.identity.is_empty(),
            DuplicateRule::Signature => self.has_id() || self.signature_is_per_message(),
            DuplicateRule::Deliver => true,
        }
    }

    /// Reports whether an attacker who has recorded a message can change the message so that it counts as another
    /// event. This is possible if the signature does not cover all identity parts.
    pub fn accepts_changed_replays(&self) -> bool {
        let has_unsigned_parts = self.identity.iter().any(|part| !self.signs_part(part));
        self.has_signature() && self.duplicates == DuplicateRule::Identity && has_unsigned_parts
    }

    /// Returns a description of how duplicates are recognized, for people.
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

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::json::Pointer;
    use crate::signature::proofs::SharedSecretPlace;
    use crate::signature::request_parts::EventIdSource;
    use crate::signature::scheme::tests::signature_over;

    #[test]
    fn the_parts_and_the_rule_are_described() {
        let parts = [
            IdentityPart::Body,
            IdentityPart::Header(HeaderName::from_static("x-a")),
            IdentityPart::Id,
            IdentityPart::Member(Pointer::parse("/a/b").unwrap()),
            IdentityPart::Signature,
        ];
        for (duplicates, identity, expected) in [
            (DuplicateRule::Identity, &parts[..], "body + x-a + id + /a/b + signature"),
            (DuplicateRule::Identity, &parts[2..3], "id"),
            (DuplicateRule::Identity, &[], "nothing: all are delivered"),
            (DuplicateRule::Signature, &parts[..], "the id, or the signature"),
            (DuplicateRule::Deliver, &parts[..], "nothing: all are delivered"),
        ] {
            let scheme = Scheme { duplicates, identity: identity.to_vec(), ..Scheme::unsigned() };
            assert_eq!(scheme.describe_identity(), expected, "{duplicates:?}");
        }
    }

    #[test]
    fn the_duplicate_rule_needs_something_that_tells_events_apart() {
        use DuplicateRule::{Deliver, Identity, Signature};
        let id = || Some(EventIdSource::Header(HeaderName::from_static("x-id")));
        let (body, header) = ("{body}", "{header:x-a}");
        for (duplicates, identity, id, content, expected) in [
            (Identity, vec![IdentityPart::Body], None, body, true),
            (Identity, vec![], id(), body, false),
            (Signature, vec![], id(), body, true),
            (Signature, vec![], id(), header, true),
            (Signature, vec![], None, body, true),
            (Signature, vec![IdentityPart::Body], None, header, false),
            (Deliver, vec![], None, header, true),
        ] {
            let proof = signature_over(content);
            let scheme = Scheme { duplicates, identity, id, proof, ..Scheme::unsigned() };
            assert_eq!(scheme.tells_events_apart(), expected, "{scheme:?}");
        }
    }

    #[test]
    fn a_shared_secret_is_not_a_signature() {
        for (proof, has_signature) in [
            (Proof::None, false),
            (Proof::SharedSecret(SharedSecretPlace::Basic), false),
            (Proof::Sns, true),
            (signature_over("{body}"), true),
        ] {
            let scheme = Scheme { proof, ..Scheme::unsigned() };
            assert_eq!(scheme.has_signature(), has_signature, "{:?}", scheme.proof);
            assert_eq!(scheme.signature_is_per_message(), has_signature, "{:?}", scheme.proof);
        }
    }

    #[test]
    fn a_signature_over_neither_the_body_nor_a_member_can_be_the_same_for_many_messages() {
        for (content, is_per_message) in
            [("{body}", true), ("{body:/a}", true), ("{method}{url}", false), ("{header:x-a}", false)]
        {
            let scheme = Scheme { proof: signature_over(content), ..Scheme::unsigned() };
            assert_eq!(scheme.signature_is_per_message(), is_per_message, "{content}");
        }
    }

    #[test]
    fn a_replay_can_be_changed_into_another_event_only_by_parts_that_are_not_signed() {
        let header = || IdentityPart::Header(HeaderName::from_static("x-a"));
        let member = || IdentityPart::Member(Pointer::parse("/a").unwrap());
        for (content, part, accepts) in [
            ("{body}", header(), true),
            ("{header:x-a}{body}", header(), false),
            ("{body}", member(), false),
            ("{body:/a}", member(), false),
            ("{body:/b}", member(), true),
            ("{body}", IdentityPart::Body, false),
            ("{body:/a}", IdentityPart::Body, true),
            ("{body}", IdentityPart::Signature, false),
            ("{body}", IdentityPart::Id, true),
        ] {
            // One unsigned identity part makes a changed replay possible, even if the other parts are signed.
            for identity in [vec![part.clone()], vec![IdentityPart::Signature, part.clone()]] {
                let scheme = Scheme { proof: signature_over(content), identity, ..Scheme::unsigned() };
                assert_eq!(scheme.accepts_changed_replays(), accepts, "{content} {:?}", scheme.identity);
                // These two duplicate rules do not use the identity parts, so no changed replay is reported.
                for duplicates in [DuplicateRule::Signature, DuplicateRule::Deliver] {
                    let scheme = Scheme { duplicates, ..scheme.clone() };
                    assert!(!scheme.accepts_changed_replays(), "{content} {duplicates:?}");
                }
                // A shared secret is not a signature, so no changed replay is reported.
                let proof = Proof::SharedSecret(SharedSecretPlace::Basic);
                assert!(!Scheme { proof, ..scheme }.accepts_changed_replays());
            }
        }
    }
}
