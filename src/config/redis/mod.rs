//! Reads `store.redis`: the connection to Redis or Valkey. Several processes can share one ledger on a Redis server.

use std::fmt;
use std::time::Duration;

use super::yaml::{Cursor, Fields};
use crate::replica::is_address;
use crate::secret::Secret;

const PREFIX_DEFAULT: &str = "cg";
const TIMEOUT_DEFAULT: Duration = Duration::from_millis(500);
const WAIT_TIMEOUT_DEFAULT: Duration = Duration::from_millis(200);
/// The maximum of `store.redis.timeout` and of `store.redis.wait.timeout`. The maximum is low, because Callgate makes
/// several calls of Redis or Valkey, one after the other, for one callback.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
const NODES_MAX: usize = 16;
const REPLICAS_MAX: u64 = 16;

/// How an installation of Redis or Valkey distributes the ledger over its nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RedisMode {
    /// One node has the whole ledger.
    Single,
    /// The primary node has the whole ledger. The sentinels report the address of the primary. The field is the name of
    /// the primary.
    Sentinel(Box<str>),
    /// A cluster distributes the ledger over its nodes.
    Cluster,
}

/// The credentials of a connection to Redis or Valkey.
#[derive(Clone, Debug, Default)]
pub struct RedisLogin {
    /// The user name. `None` means that Callgate logs in without a user name.
    pub username: Option<Secret>,
    /// The password. `None` means that Callgate logs in without a password.
    pub password: Option<Secret>,
}

/// The TLS settings of the connections to Redis or Valkey. The certificates and the key are in the PEM format.
#[derive(Clone, Debug)]
pub struct RedisTls {
    /// The certificate authorities that issued the certificates of the nodes. `None` means the authorities that the
    /// system trusts.
    pub authorities: Option<Vec<u8>>,
    /// The client certificate of Callgate and its private key. `None` if Callgate presents no certificate.
    pub client: Option<(Vec<u8>, Secret)>,
}

/// The settings of the connection to Redis or Valkey. Several processes can share one ledger on a Redis server.
#[derive(Clone)]
pub struct RedisSettings {
    /// The addresses as `host:port`: of the only node, of the sentinels, or of some nodes of the cluster.
    pub nodes: Vec<Box<str>>,
    /// How the ledger is distributed over the nodes.
    pub mode: RedisMode,
    /// The credentials for connections to the nodes.
    pub login: RedisLogin,
    /// The credentials for connections to the sentinels.
    pub sentinel_login: RedisLogin,
    /// The TLS settings of the connections. `None` means connections without TLS.
    pub tls: Option<RedisTls>,
    /// The prefix of the names of all keys that Callgate uses on Redis or Valkey.
    pub prefix: Box<str>,
    /// The timeout for one call of Redis or Valkey.
    pub timeout: Duration,
    /// The number of Redis replicas that must confirm a change before Callgate acknowledges it.
    pub wait_replicas: u8,
    /// The timeout for the confirmation of a change by the Redis replicas.
    pub wait_timeout: Duration,
}

/// The Redis settings that only a restart can change: nodes, mode, whether the connections use TLS, prefix, timeout,
/// number of confirming replicas, and timeout for their confirmation.
type Compared<'s> = (&'s [Box<str>], &'s RedisMode, bool, &'s str, Duration, u8, Duration);

impl RedisSettings {
    /// Returns the settings that only a restart can change. Logins and certificates can change without a restart, so
    /// they are not included.
    fn compared(&self) -> Compared<'_> {
        let Self { nodes, mode, tls, prefix, timeout, wait_replicas, wait_timeout, .. } = self;
        (nodes, mode, tls.is_some(), prefix, *timeout, *wait_replicas, *wait_timeout)
    }
}

impl PartialEq for RedisSettings {
    fn eq(&self, other: &Self) -> bool {
        self.compared() == other.compared()
    }
}

impl Eq for RedisSettings {}

/// Formats only the settings that only a restart can change. The fingerprint of the section `store` is computed from
/// this text. A changed password therefore does not change the fingerprint.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisSettings").field(&self.compared()).finish()
    }
}

impl RedisLogin {
    fn is_same(&self, other: &Self) -> bool {
        same_secret(self.username.as_ref(), other.username.as_ref())
            && same_secret(self.password.as_ref(), other.password.as_ref())
    }
}

impl RedisSettings {
    /// Reports whether `self` and `other` have the same logins and certificates.
    pub fn has_same_credentials(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (Some(one), Some(other)) => {
                let key = |tls: &RedisTls| tls.client.as_ref().map(|(_, key)| key.clone());
                let certificate = |tls: &RedisTls| tls.client.as_ref().map(|(pem, _)| pem.clone());
                one.authorities == other.authorities
                    && certificate(one) == certificate(other)
                    && same_secret(key(one).as_ref(), key(other).as_ref())
            }
            (one, other) => one.is_none() && other.is_none(),
        };
        tls && self.login.is_same(&other.login) && self.sentinel_login.is_same(&other.sentinel_login)
    }
}

fn same_secret(one: Option<&Secret>, other: Option<&Secret>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.matches(other.expose()),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// Reads `store.redis`: the connection to Redis or Valkey. Several processes can share one ledger on a Redis server.
pub(super) fn redis(at: &Cursor<'_>) -> Option<RedisSettings> {
    let mut fields = at.fields()?;
    let nodes_at = fields.required("nodes");
    let nodes = nodes_at.as_ref().and_then(nodes);
    let words = [("single", 0), ("sentinel", 1), ("cluster", 2)];
    let mode = fields.optional("mode").map_or(Some(0), |at| at.one_of(&words));
    let master_at = fields.optional("master");
    let master = master_at.as_ref().map(Cursor::text);
    let login = login(&mut fields, "username", "password");
    let sentinel_at = ["sentinel_username", "sentinel_password"].into_iter().find(|key| fields.has(key));
    let sentinel_login = self::login(&mut fields, "sentinel_username", "sentinel_password");
    let tls = fields.optional("tls").map(|at| tls(&at));
    let prefix = fields.optional("prefix").map_or(Some(PREFIX_DEFAULT), |at| prefix(&at));
    let timeout = fields.optional("timeout").map_or(Some(TIMEOUT_DEFAULT), |at| short(&at));
    let wait = fields.optional("wait").map_or(Some((0, WAIT_TIMEOUT_DEFAULT)), |at| wait(&at));
    fields.finish();
    let mode = match (mode?, master) {
        (1, Some(master)) => RedisMode::Sentinel(master?.into()),
        (1, None) => {
            return at.error("`mode: sentinel` needs `master`", "the name of the primary at the sentinels");
        }
        (_, Some(_)) => return master_at?.error("`master` is only for `mode: sentinel`", ""),
        (0, None) => RedisMode::Single,
        (_, None) => RedisMode::Cluster,
    };
    if let (Some(key), false) = (sentinel_at, matches!(mode, RedisMode::Sentinel(_))) {
        return at.error(format!("`{key}` is only for `mode: sentinel`"), "");
    }
    let nodes = nodes?;
    if mode == RedisMode::Single && nodes.len() > 1 {
        return nodes_at?.error("`mode: single` has one node", "add `mode: sentinel` or `mode: cluster`");
    }
    let (wait_replicas, wait_timeout) = wait?;
    Some(RedisSettings {
        nodes,
        mode,
        login: login?,
        sentinel_login: sentinel_login?,
        tls: tls.map_or(Some(None), |read| read.map(Some))?,
        prefix: prefix?.into(),
        timeout: timeout?,
        wait_replicas,
        wait_timeout,
    })
}

fn nodes(at: &Cursor<'_>) -> Option<Vec<Box<str>>> {
    let one = |at: &Cursor<'_>| {
        let text = at.text()?;
        if is_address(text) {
            Some(Box::from(text))
        } else {
            at.error("not `host:port`", "such as redis.example.com:6379")
        }
    };
    let list = at.list_or_one()?;
    if list.len() > NODES_MAX {
        return at.error("more than 16 nodes", "some nodes are enough to find the others");
    }
    let read: Vec<Option<Box<str>>> = list.iter().map(one).collect();
    read.into_iter().collect()
}

fn login(fields: &mut Fields<'_>, username: &'static str, password: &'static str) -> Option<RedisLogin> {
    let mut text = |key| match fields.optional(key) {
        None => Some(None),
        Some(at) => {
            let secret = at.password()?;
            match std::str::from_utf8(secret.expose()) {
                Ok(_) => Some(Some(secret)),
                Err(_) => at.error("the secret is not UTF-8", ""),
            }
        }
    };
    let (username_read, password_read) = (text(username), text(password));
    Some(RedisLogin { username: username_read?, password: password_read? })
}

fn tls(at: &Cursor<'_>) -> Option<RedisTls> {
    let mut fields = at.fields()?;
    let authorities = fields.optional("authorities").map(|at| pem(&at, "CERTIFICATE"));
    let certificate = fields.optional("certificate").map(|at| pem(&at, "CERTIFICATE"));
    let key = fields.optional("key").map(|at| pem(&at, "PRIVATE KEY"));
    fields.finish();
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate?, Secret::new(key?))),
        (None, None) => None,
        (Some(_), None) => return at.error("`certificate` needs `key`", ""),
        (None, Some(_)) => return at.error("`key` needs `certificate`", ""),
    };
    Some(RedisTls { authorities: authorities.map_or(Some(None), |read| read.map(Some))?, client })
}

fn pem(at: &Cursor<'_>, what: &str) -> Option<Vec<u8>> {
    let (path, bytes) = at.file()?;
    let has = |marker: &str| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
    if has("-----BEGIN ") && has(what) {
        return Some(bytes);
    }
    at.error(format!("{path} has no `{what}` in PEM"), "")
}

/// Reads `store.redis.prefix`, the prefix of the names of all keys. Braces are not allowed, because a Redis cluster
/// computes the slot of a key from the text between braces.
fn prefix<'n>(at: &Cursor<'n>) -> Option<&'n str> {
    let text = at.text()?;
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    match text.len() {
        1..=64 if text.bytes().all(is_allowed) => Some(text),
        _ => at.error("a prefix has 1 to 64 letters, digits, `_`, `-`, `.` and `:`", "such as cg"),
    }
}

fn short(at: &Cursor<'_>) -> Option<Duration> {
    match at.duration()? {
        duration if duration > TIMEOUT_MAX => {
            at.error("longer than 10s", "a callback waits for several calls")
        }
        duration => Some(duration),
    }
}

fn wait(at: &Cursor<'_>) -> Option<(u8, Duration)> {
    let mut fields = at.fields()?;
    let replicas = fields.optional("replicas").map_or(Some(0), |at| at.whole_number(0..=REPLICAS_MAX));
    let timeout = fields.optional("timeout").map_or(Some(WAIT_TIMEOUT_DEFAULT), |at| short(&at));
    fields.finish();
    Some((u8::try_from(replicas?).ok()?, timeout?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::MINIMAL;
    use crate::config::{Config, Surroundings};

    /// Reads settings in which the file or the environment variable `changed` has another content.
    fn settings(fields: &str, changed: &str) -> RedisSettings {
        let suffix = |name: &str| if name == changed { "b" } else { "a" };
        let env = |name: &str| Some(format!("{name}{}", suffix(name).repeat(32)));
        let file = |name: &str| Ok(format!("-----BEGIN {name}{}", suffix(name)).into_bytes());
        let store = format!("store: {{ kind: redis, redis: {{ nodes: [a:1], {fields} }} }}\nagent:");
        let surroundings = Surroundings { env: &env, file: &file };
        let config = Config::parse(&MINIMAL.replacen("agent:", &store, 1), &surroundings).unwrap();
        config.startup.store.redis.unwrap()
    }

    #[test]
    fn each_login_and_each_certificate_is_compared() {
        let login = "mode: sentinel, master: m, username: { env: A }, password: { env: B }, \
                     sentinel_username: { env: C }, sentinel_password: { env: D }";
        let tls = "tls: { authorities: CERTIFICATE-1, certificate: CERTIFICATE-2, key: PRIVATE KEY }";
        let all = format!("{login}, {tls}");
        let is_same = |one: &RedisSettings, other: &RedisSettings| {
            assert_eq!(one.has_same_credentials(other), other.has_same_credentials(one));
            one.has_same_credentials(other)
        };
        for changed in ["A", "B", "C", "D", "CERTIFICATE-1", "CERTIFICATE-2", "PRIVATE KEY"] {
            assert!(!is_same(&settings(&all, ""), &settings(&all, changed)), "{changed}");
        }
        let some =
            ["", login, tls, &all, "password: { env: B }", "tls: {}", "tls: { authorities: CERTIFICATE-1 }"];
        for (i, one) in some.iter().enumerate() {
            for (j, other) in some.iter().enumerate() {
                assert_eq!(is_same(&settings(one, ""), &settings(other, "")), i == j, "{one} {other}");
            }
        }
    }
}
