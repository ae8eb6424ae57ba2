//! Decodes bodies with a content coding, before their checks.

use super::decide::Admitted;
use super::gate::Decoding;
use crate::body::content_coding::{ContentCoding, DecodeError};
use crate::denial::Denial;
use crate::request::RequestHead;
use crate::trail::{Check, Trail};

impl Admitted {
    /// Decodes the body, if the provider's setting `decode` lists its content coding. [`Self::decide_body`] calls this
    /// function unless the caller has called it. `grow` reserves memory: it receives the number of bytes that the decoded
    /// body needs so far.
    ///
    /// # Errors
    /// `body_too_large`, `body_undecodable`, or `overloaded` if `grow` returns false.
    pub fn decode_body(
        &mut self,
        head: &RequestHead<'_>,
        body: &[u8],
        grow: &mut dyn FnMut(u64) -> bool,
        trail: &mut Trail,
    ) -> Result<(), Denial> {
        if self.found.decoding != Decoding::Pending {
            return Ok(());
        }
        self.found.decoding = Decoding::Done;
        let listed = |coding: &ContentCoding| {
            self.route.provider.as_ref().is_some_and(|provider| provider.decode.contains(coding))
        };
        let coding = ContentCoding::of(head).filter(|coding| listed(coding) && !body.is_empty());
        let Some(coding) = coding else { return Ok(()) };
        let bytes_max = self.body_bytes_max();
        match coding.decode(body, bytes_max, grow) {
            Ok(decoded) => {
                self.found.coding = Some(coding);
                self.found.decoded = decoded;
                Ok(())
            }
            Err(error) => {
                let (denial, detail) = match error {
                    DecodeError::Malformed => {
                        (Denial::BodyUndecodable, format!("the body is not valid {coding}"))
                    }
                    DecodeError::NoMemory => {
                        (Denial::Overloaded, format!("no memory is left to decode the {coding}"))
                    }
                    DecodeError::TooLarge(limit) => {
                        let why = match limit < bytes_max {
                            true => "; above 64 KiB, a body may decode to at most 256 times its size",
                            false => "",
                        };
                        let detail =
                            format!("more than {limit} bytes in {} bytes of {coding}{why}", body.len());
                        (Denial::BodyTooLarge, detail)
                    }
                };
                let denial = trail.deny(Check::Body, denial, || detail);
                self.found.decoding = Decoding::Failed;
                self.heed::<()>(Err(denial)).map(|_| ())
            }
        }
    }

    /// Reports whether the agent receives the decoded body.
    pub(super) fn delivers_decoded(&self) -> bool {
        self.found.coding.is_some() && !self.route.observes()
    }
}
