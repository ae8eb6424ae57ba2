//! Decodes compressed bodies (bodies with a content coding) before they are checked.

use super::decide::Admitted;
use super::head_checks::Decoding;
use crate::body::content_coding::{BodyDecoder, ContentCoding, DecodeError};
use crate::denial::Denial;
use crate::request::RequestHead;
use crate::trail::{Check, Trail};

impl Admitted {
    /// Decodes the body, if the provider's setting `decode` lists the content coding of the body. Does nothing if the
    /// body was decoded before. `grow` must reserve memory for the decoded body, and must return false if there is not
    /// enough memory. The argument of `grow` is the number of bytes that the decoded body needs so far.
    ///
    /// # Errors
    /// Returns `body_too_large` or `body_undecodable`. Returns `overloaded` if `grow` returns false. In observe mode,
    /// the denial is only recorded.
    pub fn decode_body(
        &mut self,
        head: &RequestHead<'_>,
        body: &[u8],
        grow: &mut dyn FnMut(u64) -> bool,
        trail: &mut Trail,
    ) -> Result<(), Denial> {
        let Some(mut decoder) = self.body_decoder(head, body) else { return Ok(()) };
        let result = loop {
            match decoder.step(grow) {
                Ok(false) => {}
                Ok(true) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.decoded(decoder, body, result, trail)
    }

    /// Returns a decoder for the body. Returns `None` if the body was decoded before, or if the provider's setting
    /// `decode` does not list the content coding of the body. After the last step of the decoder, the caller must pass
    /// the decoder to [`Self::decoded`].
    pub fn body_decoder<'b>(&mut self, head: &RequestHead<'_>, body: &'b [u8]) -> Option<BodyDecoder<'b>> {
        if self.found.decoding != Decoding::Pending {
            return None;
        }
        self.found.decoding = Decoding::Done;
        let coding = ContentCoding::of(head).filter(|_| !body.is_empty())?;
        let is_listed =
            self.route.provider.as_ref().is_some_and(|provider| provider.decode.contains(&coding));
        is_listed.then(|| BodyDecoder::new(coding, body, self.body_bytes_max()))
    }

    /// Stores the decoded body, or denies the request if decoding failed. `decoder` is the value that
    /// [`Self::body_decoder`] returned, and `result` is the result of the decoder's last step.
    ///
    /// # Errors
    /// Returns `body_too_large`, `body_undecodable` or `overloaded` if decoding failed and the route is in enforce
    /// mode.
    pub fn decoded(
        &mut self,
        decoder: BodyDecoder<'_>,
        body: &[u8],
        result: Result<(), DecodeError>,
        trail: &mut Trail,
    ) -> Result<(), Denial> {
        let coding = decoder.coding();
        let (denial, detail) = match result {
            Ok(()) => {
                self.found.coding = Some(coding);
                self.found.decoded = decoder.into_decoded();
                return Ok(());
            }
            Err(DecodeError::Malformed) => {
                (Denial::BodyUndecodable, format!("the body is not valid {coding}"))
            }
            Err(DecodeError::NoMemory) => {
                (Denial::Overloaded, format!("no memory is left to decode the {coding}"))
            }
            Err(DecodeError::TooLarge(limit)) => {
                let why = match limit < self.body_bytes_max() {
                    true => "; above 64 KiB, a body may decode to at most 256 times its size",
                    false => "",
                };
                let detail = format!("more than {limit} bytes in {} bytes of {coding}{why}", body.len());
                (Denial::BodyTooLarge, detail)
            }
        };
        let denial = trail.deny(Check::Body, denial, || detail);
        self.found.decoding = Decoding::Failed;
        self.heed::<()>(Err(denial)).map(|_| ())
    }

    /// Reports whether the agent receives the decoded body instead of the received body.
    pub(super) fn delivers_decoded(&self) -> bool {
        self.found.coding.is_some() && !self.route.observes()
    }
}
