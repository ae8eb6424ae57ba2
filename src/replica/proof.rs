//! The proof of a request between replicas: the header `Callgate-Replica`. It contains a MAC over the method, the
//! target, the SHA-256 of the body, and the other fields of the header.
//!
//! In a request, the header has these fields, separated by `;`: `v1`, the Unix time, the replica ids of sender and
//! receiver (`-` if the receiver is unknown), the client of the callback (`-` for requests to the API of the replica
//! listener), a nonce, the SHA-256 of the body, and the MAC. In a response, the header has the fields `v1`, the
//! outcome, the replica id of the sender, and a MAC over these fields, the status and the nonce of the request. A
//! response without a valid proof is not from a replica.

use std::fmt;
use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use hmac::{Hmac, Mac};
use http::HeaderName;
use sha2::{Digest, Sha256};

use super::incarnation::Incarnation;
use super::seal::derived;
use super::vouched::Vouched;
use crate::secret::Secret;
use crate::time::Timestamp;

/// The name of the header that contains the proof of a request or response between replicas.
pub const REPLICA: HeaderName = HeaderName::from_static("callgate-replica");
/// The maximum difference between the time of a proof and the receiver's clock, in both directions.
pub const AGE_MAX: Duration = Duration::from_secs(30);

/// The label from which the MAC key is derived (domain separation).
const PURPOSE: &[u8] = b"callgate proof between replicas, version 1";
const VERSION: &str = "v1";
/// The maximum length in bytes of the header with a proof. A client certificate can have several long names.
pub const HEADER_BYTES_MAX: usize = 32 << 10;

/// The contents of the proof of a request between replicas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Proof {
    /// The time at which the request was sent.
    pub time: Timestamp,
    /// The id of the replica that sent the request.
    pub from: Incarnation,
    /// The id of the replica that must receive the request. `None` means any replica.
    pub to: Option<Incarnation>,
    /// The client that sent the callback. `None` for requests to the API of the replica listener.
    pub client: Option<Vouched>,
    /// The nonce of the request. The receiver accepts each nonce only once.
    pub nonce: u128,
    /// The SHA-256 of the request body.
    pub body_sha256: [u8; 32],
}

/// The outcome of a request between replicas. The names of the outcomes are also the values of a metric label.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The receiver processed the request. The response comes from the receiver or from its agent.
    Answered,
    /// The time of the request differs too much from the receiver's clock.
    Clock,
    /// The request was addressed to another replica, and not to the receiver.
    Mistaken,
    /// The receiver has moved the interaction of the callback to another replica.
    Moved,
    /// The receiver denied the callback, although the sender had permitted it.
    Refused,
    /// The receiver is stopping. The request can be sent again.
    Stopping,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::Clock, Self::Mistaken, Self::Moved, Self::Refused, Self::Stopping];

    /// Returns the stable name of the outcome, for headers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Clock => "clock",
            Self::Mistaken => "mistaken",
            Self::Moved => "moved",
            Self::Refused => "refused",
            Self::Stopping => "stopping",
        }
    }
}

/// Creates the proof of the response to one request between replicas. The status of the response is needed only when
/// [`Self::header`] is called.
#[derive(Clone, Debug)]
pub struct ResponseProof {
    prover: Prover,
    own: Incarnation,
    nonce: u128,
    outcome: Outcome,
}

impl ResponseProof {
    /// Creates the proof of the response from the process `own` to the request with this nonce.
    pub fn new(prover: Prover, own: Incarnation, nonce: u128) -> Self {
        Self { prover, own, nonce, outcome: Outcome::Answered }
    }

    /// Returns this proof with `outcome` as its outcome.
    #[must_use]
    pub fn with_outcome(self, outcome: Outcome) -> Self {
        Self { outcome, ..self }
    }

    /// Returns the value of the header `Callgate-Replica` for a response with this status.
    pub fn header(&self, status: u16) -> Option<String> {
        self.prover.prove_response(self.outcome, self.own, status, self.nonce)
    }
}

/// The reason why the proof of a request between replicas is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProofError {
    /// The header is missing, occurs twice or is not well-formed.
    Malformed,
    /// No configured secret produces this MAC, or the MAC is for another request.
    Mac,
    /// The time of the proof differs too much from the receiver's clock.
    Time,
    /// The body does not have the SHA-256 that the proof contains.
    Body,
}

impl fmt::Display for ProofError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "there is no proof of a member, or it has another form",
            Self::Mac => "none of `replicas.secrets` made the proof of this request",
            Self::Time => "the proof is more than 30 s older or newer than this host's clock",
            Self::Body => "the body is not the one that the proof covers",
        })
    }
}

/// Creates and verifies the proofs of requests and responses between replicas.
#[derive(Clone)]
pub struct Prover {
    /// The HMAC state for each configured secret. The first secret creates proofs, and all secrets verify proofs.
    macs: Vec<Hmac<Sha256>>,
}

/// Formats only the name of the type, because the MAC keys are secret.
impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prover")
    }
}

impl Prover {
    /// Creates a prover. The first secret creates proofs, and all secrets verify proofs.
    pub fn new(secrets: &[Secret]) -> Self {
        let mac = |secret: &Secret| Hmac::new_from_slice(&derived(secret, PURPOSE)?).ok();
        Self { macs: secrets.iter().filter_map(mac).collect() }
    }

    /// Returns the value of the header `Callgate-Replica` for a request.
    pub fn prove(&self, proof: &Proof, method: &str, target: &str) -> Option<String> {
        let fields = proof.fields();
        let tag = self.signed([b"request", method.as_bytes(), target.as_bytes(), fields.as_bytes()])?;
        Some(format!("{fields};{tag}"))
    }

    /// Verifies the MAC in the header `Callgate-Replica` of a request. The caller must also check the time, the
    /// receiver, the nonce and the body.
    ///
    /// # Errors
    /// Returns [`ProofError::Malformed`] if the header is not well-formed, and [`ProofError::Mac`] if no secret
    /// produces the MAC.
    pub fn verify(&self, header: &str, method: &str, target: &str) -> Result<Proof, ProofError> {
        if header.len() > HEADER_BYTES_MAX {
            return Err(ProofError::Malformed);
        }
        let (fields, tag) = header.rsplit_once(';').ok_or(ProofError::Malformed)?;
        let proof = Proof::parse(fields).ok_or(ProofError::Malformed)?;
        let parts = [b"request", method.as_bytes(), target.as_bytes(), fields.as_bytes()];
        if !self.is_signed(parts, tag) {
            return Err(ProofError::Mac);
        }
        Ok(proof)
    }

    /// Returns the value of the header `Callgate-Replica` for a response.
    pub fn prove_response(
        &self,
        outcome: Outcome,
        from: Incarnation,
        status: u16,
        nonce: u128,
    ) -> Option<String> {
        let fields = format!("{VERSION};{};{from}", outcome.name());
        let tag = self.signed(response_parts(&fields, &status.to_be_bytes(), &nonce.to_be_bytes()))?;
        Some(format!("{fields};{tag}"))
    }

    /// Verifies the header `Callgate-Replica` of a response. Returns the outcome and the id of the replica that
    /// responded, or `None` if the response is not from a replica.
    pub fn verify_response(&self, header: &str, status: u16, nonce: u128) -> Option<(Outcome, Incarnation)> {
        let (fields, tag) = header.rsplit_once(';')?;
        let (status, nonce) = (status.to_be_bytes(), nonce.to_be_bytes());
        if !self.is_signed(response_parts(fields, &status, &nonce), tag) {
            return None;
        }
        let mut words = fields.split(';').skip(1);
        let (name, from) = (words.next()?, words.next()?);
        let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.name() == name)?;
        Some((outcome, Incarnation::parse(from)?))
    }

    fn signed(&self, parts: [&[u8]; 4]) -> Option<String> {
        let mut mac = self.macs.first()?.clone();
        update(&mut mac, parts);
        Some(BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()))
    }

    /// Reports whether one of the secrets produces this MAC for these parts. Compares in constant time.
    fn is_signed(&self, parts: [&[u8]; 4], tag: &str) -> bool {
        let Ok(tag) = BASE64URL_NOPAD.decode(tag.as_bytes()) else { return false };
        self.macs.iter().any(|mac| {
            let mut mac = mac.clone();
            update(&mut mac, parts);
            mac.verify_slice(&tag).is_ok()
        })
    }
}

fn response_parts<'p>(fields: &'p str, status: &'p [u8; 2], nonce: &'p [u8; 16]) -> [&'p [u8]; 4] {
    [b"response", fields.as_bytes(), status, nonce]
}

/// Feeds parts into a MAC. The length of each part precedes the part, so that different parts never result in the same
/// bytes.
fn update(mac: &mut Hmac<Sha256>, parts: [&[u8]; 4]) {
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
}

impl Proof {
    /// Creates the proof of a request with this body. Returns `None` if the operating system provides no random
    /// numbers.
    pub fn new(
        time: Timestamp,
        from: Incarnation,
        to: Option<Incarnation>,
        client: Option<Vouched>,
        body: &[u8],
    ) -> Option<Self> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok()?;
        let (nonce, body_sha256) = (u128::from_be_bytes(nonce), Sha256::digest(body).into());
        Some(Self { time, from, to, client, nonce, body_sha256 })
    }

    /// Checks that the time of the proof is at most [`AGE_MAX`] before or after `now`.
    ///
    /// # Errors
    /// Returns [`ProofError::Time`] if the difference is larger.
    pub fn check_time(&self, now: Timestamp) -> Result<(), ProofError> {
        let age_ms = now.unix_ms().abs_diff(self.time.unix_ms());
        if u128::from(age_ms) > AGE_MAX.as_millis() { Err(ProofError::Time) } else { Ok(()) }
    }

    /// Checks that the proof covers this body.
    ///
    /// # Errors
    /// Returns [`ProofError::Body`] if the SHA-256 of the body differs.
    pub fn check_body(&self, body: &[u8]) -> Result<(), ProofError> {
        if self.body_sha256 == <[u8; 32]>::from(Sha256::digest(body)) {
            Ok(())
        } else {
            Err(ProofError::Body)
        }
    }

    fn fields(&self) -> String {
        let to = self.to.map_or_else(|| "-".to_owned(), |to| to.to_string());
        let client = self.client.as_ref().map_or_else(|| "-".to_owned(), Vouched::to_text);
        let nonce = HEXLOWER.encode(&self.nonce.to_be_bytes());
        let body = BASE64URL_NOPAD.encode(&self.body_sha256);
        format!("{VERSION};{};{};{to};{client};{nonce};{body}", self.time.unix_secs(), self.from)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(';');
        let mut next = || fields.next();
        if next()? != VERSION {
            return None;
        }
        let time = next()?;
        // A time must consist of digits only, so that each time has exactly one text form.
        let time = Some(time).filter(|time| time.bytes().all(|byte| byte.is_ascii_digit()))?;
        let time = Timestamp::from_unix_secs(time.parse::<u32>().ok()?.into());
        let from = Incarnation::parse(next()?)?;
        let to = match next()? {
            "-" => None,
            to => Some(Incarnation::parse(to)?),
        };
        let client = match next()? {
            "-" => None,
            client => Some(Vouched::parse(client)?),
        };
        let nonce: [u8; 16] = HEXLOWER.decode(next()?.as_bytes()).ok()?.try_into().ok()?;
        let body_sha256 = BASE64URL_NOPAD.decode(next()?.as_bytes()).ok()?.try_into().ok()?;
        if fields.next().is_some() {
            return None;
        }
        Some(Self { time, from, to, client, nonce: u128::from_be_bytes(nonce), body_sha256 })
    }
}

#[cfg(test)]
#[path = "proof_tests.rs"]
mod tests;
