//! Decodes a request body in steps, so that other tasks can run in between.

use crate::denial::Denial;
use crate::http::MemoryReservation;
use crate::ingress::Admitted;
use crate::request::RequestHead;
use crate::trail::Trail;

/// Decodes the request body, if the provider's setting `decode` lists the content coding of the body. The task yields
/// after each step, because a body of 64 MiB takes some hundred milliseconds. The memory of the decoded body is added
/// to `reservation`.
///
/// # Errors
/// Returns `body_too_large`, `body_undecodable`, or `overloaded` if there is not enough memory.
pub(crate) async fn decode_body(
    admitted: &mut Admitted,
    head: &RequestHead<'_>,
    body: &[u8],
    reservation: &mut MemoryReservation,
    trail: &mut Trail,
) -> Result<(), Denial> {
    let Some(mut decoder) = admitted.body_decoder(head, body) else { return Ok(()) };
    let mut grow = |bytes: u64| reservation.grow_to((body.len() as u64).saturating_add(bytes));
    let result = loop {
        match decoder.step(&mut grow) {
            Ok(false) => tokio::task::yield_now().await,
            Ok(true) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    admitted.decoded(decoder, body, result, trail)
}
