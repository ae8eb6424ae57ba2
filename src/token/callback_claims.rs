//! The claims of a callback token, as Callgate writes and reads them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The `typ` in the JWT header of callback tokens.
pub(super) const CALLBACK_TYPE: &str = "callback+jwt";
/// The claim `iss` of callback tokens and assertions.
pub(super) const CALLGATE_ISSUER: &str = "callgate";
/// The version of the claims of callback tokens that do not name an owner.
pub(super) const CALLBACK_VERSION: u8 = 1;
/// The version of the claims of callback tokens that name the owner of the interaction.
pub(super) const OWNED_VERSION: u8 = 2;

/// The claims of a callback token. Unknown claims are errors, because only Callgate writes these tokens.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims<'a> {
    /// The version of the claims: 1, or 2 with the claim `own`.
    pub(super) v: u8,
    #[serde(borrow)]
    pub(super) iss: Cow<'a, str>,
    /// The public URL of the Callgate installation that accepts the token.
    #[serde(borrow)]
    pub(super) aud: Cow<'a, str>,
    /// The id of the interaction.
    #[serde(borrow)]
    pub(super) sub: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) route: Cow<'a, str>,
    /// The values of the path captures, by the names of the captures.
    #[serde(borrow)]
    pub(super) cap: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// The time at which Callgate created the token, in Unix seconds.
    pub(super) iat: i64,
    /// The time at which the token expires, in Unix seconds.
    pub(super) exp: i64,
    /// The number of callbacks that the token allows. If the claim is missing, any number is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) uses: Option<u32>,
    /// The replica of Callgate that owns the interaction, in encrypted form (see
    /// [`OwnerSealer`](crate::replica::OwnerSealer)). Tokens of version 2 have this claim, and tokens of version 1 do
    /// not.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) own: Option<Cow<'a, str>>,
}
