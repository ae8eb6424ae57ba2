//! Reads `listen.egress.proxy`, the settings of the egress listener as the agent's forward proxy.

use std::sync::Arc;
use std::time::Duration;

use super::tls::pem;
use crate::config::yaml::{Cursor, Fields};
use crate::egress::{AuthorityFiles, ForwardProxy, HostPattern};
use crate::guard::Guard;

/// The default of `listen.egress.proxy.ports`, the ports to which the forward proxy opens tunnels.
const PORTS: [u16; 1] = [443];
/// The default of `listen.egress.proxy.tunnels_max`, the maximum number of simultaneous tunnels.
const TUNNELS_MAX_DEFAULT: usize = 1000;
/// The default of `listen.egress.proxy.idle`, the time after which an idle tunnel is closed.
const IDLE_DEFAULT: Duration = Duration::from_secs(3600);
/// The minimum length of the secret `listen.egress.proxy.password`, in bytes.
const PASSWORD_BYTES_MIN: usize = 16;

/// Reads `listen.egress.proxy`, the settings of the egress listener as the agent's forward proxy.
pub(super) fn proxy(at: &Cursor<'_>) -> Option<Arc<ForwardProxy>> {
    let mut fields = at.fields()?;
    let words = [("refuse", false), ("tunnel", true)];
    let tunnels_others = fields.optional("others").map_or(Some(false), |at| at.one_of(&words));
    let tunnel = listed(&mut fields, "tunnel", Vec::new(), |at| {
        let text = at.text()?;
        HostPattern::parse(text).or_else(|| {
            at.error(format!("`{text}` is not a host"), "such as api.example.com or *.example.com")
        })
    });
    let ports = listed(&mut fields, "ports", PORTS.to_vec(), |at| {
        at.whole_number(1..=65535).and_then(|port| u16::try_from(port).ok())
    });
    let networks = fields.optional("allow_private").map_or(Some(Vec::new()), |at| at.networks());
    let bundle = fields.required("bundle").and_then(|at| match at.text()? {
        path if path.starts_with('/') => Some(path.into()),
        _ => at.error("the path of the folder is not absolute", "such as /run/callgate/trust"),
    });
    let authority = fields.optional("ca").map(|at| authority(&at));
    let password = fields.optional("password").map(|at| password(&at));
    let tunnels_max = fields.optional("tunnels_max").map_or(Some(TUNNELS_MAX_DEFAULT), |at| {
        at.whole_number(1..=1_000_000).and_then(|number| usize::try_from(number).ok())
    });
    let idle = fields.optional("idle").map_or(Some(IDLE_DEFAULT), |at| at.duration());
    fields.finish();
    Some(Arc::new(ForwardProxy {
        tunnels_others: tunnels_others?,
        tunnel: tunnel?,
        ports: ports?,
        guard: Guard::public_and(networks?),
        bundle: bundle?,
        authority: authority.map_or(Some(None), |read| read.map(Some))?,
        password: password.map_or(Some(None), |read| read.map(Some))?,
        tunnels_max: tunnels_max?,
        idle: idle?,
    }))
}

/// Reads the list at `key`. The function `one` reads each element of the list. Returns `default` if the key is missing.
fn listed<T>(
    fields: &mut Fields<'_>,
    key: &'static str,
    default: Vec<T>,
    one: impl Fn(&Cursor<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(at) = fields.optional(key) else { return Some(default) };
    let read: Vec<_> = at.list()?.iter().map(one).collect();
    read.into_iter().collect()
}

/// Reads the setting `password` of the forward proxy. The password is a part of a URL in the agent's environment
/// variables, so all its characters must be allowed in a URL without an encoding.
fn password(at: &Cursor<'_>) -> Option<crate::secret::Secret> {
    let secret = at.secret()?;
    let is_plain = secret.expose().iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b));
    if secret.len() < PASSWORD_BYTES_MIN {
        return at.error("the password is shorter than 16 bytes", "openssl rand -hex 32");
    }
    if is_plain {
        Some(secret)
    } else {
        at.error("the password has characters that a URL cannot contain", "openssl rand -hex 32")
    }
}

/// Reads the setting `ca` of the forward proxy: the paths of the certificate and the private key of a certificate
/// authority. This function does not check that the private key belongs to the certificate. Callgate checks this before
/// it uses the certificate.
fn authority(at: &Cursor<'_>) -> Option<AuthorityFiles> {
    let mut fields = at.fields()?;
    let certificate = fields.required("certificate").and_then(|at| pem(&at, "CERTIFICATE"));
    let key = fields.required("key").and_then(|at| pem(&at, "PRIVATE KEY"));
    fields.finish();
    Some(AuthorityFiles { certificate: certificate?, key: key? })
}
