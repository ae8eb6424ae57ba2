//! Computes the MAC of a message with each secret of the provider, until a MAC is equal to a MAC in the request.

use super::presented::PresentedSignature;
use super::signature_over_content::SignedBodyParts;
use super::verifier::Verifier;
use crate::denial::{Denial, Refusal};
use crate::request::RequestHead;
use crate::secret::Secret;
use crate::signature::content::{ContentPart, ContentScheme, ContentValues, alternative_port};
use crate::signature::context::SignatureContext;
use crate::signature::keys::{AuthenticationTag, MacKey, VerifierKeys};
use crate::signature::scheme::Proof;

impl Verifier {
    /// Computes the MAC of a message with one secret after the other, until a computed MAC is in `presented_macs`, the
    /// list of the MACs in the request. Returns all computed MACs. The last computed MAC is in the request. Returns
    /// `None` if no computed MAC is in the request.
    pub(super) fn find_mac(
        &self,
        scheme: &ContentScheme,
        presented_macs: &[AuthenticationTag],
        presented: &PresentedSignature,
        context: &SignatureContext<'_>,
        body: &[u8],
        parts: &SignedBodyParts<'_>,
    ) -> Result<Option<Vec<AuthenticationTag>>, Refusal> {
        let derived: Vec<_>;
        let mac_keys = match &self.keys {
            VerifierKeys::Derived => {
                derived = context.derived.iter().filter_map(|secret| self.mac_key(secret)).collect();
                &derived
            }
            VerifierKeys::Learned(id) => {
                let secret = context.keyring.secret(*id).ok_or_else(|| {
                    let detail = "the provider has not sent its secret in a handshake yet";
                    Refusal::new(Denial::KeysUnavailable, detail)
                })?;
                derived = self.mac_key(secret).into_iter().collect();
                &derived
            }
            _ => &self.mac_keys,
        };
        // The response time may reveal how many secrets were tried. It must not reveal the position of the first
        // different byte in a MAC.
        let is_presented = |tag: &AuthenticationTag| presented_macs.iter().any(|mac| tag.matches(mac));
        let signs_form = scheme.content.parts().contains(&ContentPart::Form);
        let mut tags = Vec::with_capacity(mac_keys.len());
        for key in mac_keys {
            let tag = self.mac(scheme, key, presented, context, body, parts)?;
            let mut matched = is_presented(&tag);
            tags.push(tag);
            if !matched && signs_form {
                let other = alternative_port(context.public_url);
                let context = SignatureContext { public_url: &other, ..*context };
                let tag = self.mac(scheme, key, presented, &context, body, parts)?;
                matched = is_presented(&tag);
                tags.push(tag);
            }
            if matched {
                return Ok(Some(tags));
            }
        }
        Ok(None)
    }

    /// Returns the position of the secret that verified a message, beginning with 1. `tags` are the authentication
    /// tags of the verified message. Returns `None` unless several secrets for MACs, or several shared secrets that the
    /// provider sends, are configured.
    pub fn matched_secret(
        &self,
        head: &RequestHead<'_>,
        body: &[u8],
        tags: &[AuthenticationTag],
    ) -> Option<usize> {
        let scheme = match &self.scheme.proof {
            Proof::Content(scheme) => scheme,
            Proof::SharedSecret(place) if self.secrets.len() > 1 => {
                let in_head = place.check_head(head, &self.secrets).ok()?;
                return in_head.or(place.check_body(head, body, &self.secrets).ok()?);
            }
            _ => return None,
        };
        let has_own = !matches!(self.keys, VerifierKeys::Derived | VerifierKeys::Learned(_));
        // `find_mac` computes one tag for each secret that it tries. If the template contains `{form}`, `find_mac`
        // computes two tags for each secret: with and without the port in the URL. The last secret can have only one
        // tag.
        let tags_per_secret = if scheme.content.parts().contains(&ContentPart::Form) { 2 } else { 1 };
        (has_own && self.mac_keys.len() > 1).then(|| tags.len().div_ceil(tags_per_secret))
    }

    /// Returns the MAC key that is computed from a secret, together with the secret. Returns `None` if the scheme uses
    /// no MAC, or if the secret is malformed.
    pub(super) fn mac_key(&self, secret: &Secret) -> Option<(MacKey, Secret)> {
        let keyed = MacKey::new(self.scheme.mac_algorithm()?, &self.scheme.secret_format, secret).ok()?;
        Some((keyed, secret.clone()))
    }

    /// Returns the MAC of a message, computed with one secret.
    ///
    /// # Errors
    /// Returns a [`Refusal`] if a query parameter of the signed content is missing or ambiguous.
    pub(super) fn mac(
        &self,
        scheme: &ContentScheme,
        (keyed, secret): &(MacKey, Secret),
        presented: &PresentedSignature,
        context: &SignatureContext<'_>,
        body: &[u8],
        parts: &SignedBodyParts<'_>,
    ) -> Result<AuthenticationTag, Refusal> {
        let mut mac = keyed.start();
        let values = ContentValues {
            context,
            body,
            timestamp: &parts.timestamp,
            id: presented.id.as_ref(),
            secret: secret.expose(),
            body_parts: &parts.values,
            target: &parts.target,
            normalized_body: &parts.normalized_body,
        };
        scheme.content.write(&values, &mut |bytes| mac.update(bytes))?;
        Ok(mac.finish())
    }
}
