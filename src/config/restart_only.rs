//! The settings that Callgate applies when the process starts, and the decision which changed settings need a restart.

use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::listen::{AdminListener, EgressListener, Listener, Listeners, ReplicaListener, listeners};
use crate::config::store::{self, StoreSettings};
use crate::config::traces::{TraceSettings, traces};
use crate::config::yaml::{Cursor, Fields};
use crate::time::format_duration;

/// The maximum of `shutdown.delay` and of `shutdown.grace`.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3600);

/// The number of hexadecimal characters in the fingerprint of a configuration section.
const FINGERPRINT_CHARS: usize = 12;

/// The settings that Callgate applies when the process starts, before it accepts requests. Only a restart can change
/// the settings that [`Self::differences`] compares. A reload of the configuration can change all other settings, such
/// as the TLS settings of the listeners.
#[derive(Clone, Debug)]
pub struct Startup {
    /// The destination of the access log.
    pub access_log: AccessLog,
    /// The settings of the admin listener. `None` if there is no admin listener.
    pub admin: Option<AdminListener>,
    /// The settings of the egress listener. `None` if there is no egress listener.
    pub egress: Option<EgressListener>,
    /// The settings of the ingress listeners, which accept callbacks.
    pub ingress: Vec<Listener>,
    /// The settings of the replica listener, which accepts requests of other replicas. `None` if the configuration has
    /// no section `replicas`.
    pub replicas: Option<ReplicaListener>,
    /// The time for which Callgate continues to accept connections after the signal SIGTERM.
    pub shutdown_delay: Duration,
    /// The time after `shutdown_delay` in which running requests can end. The process then stops.
    pub shutdown_grace: Duration,
    /// The settings of the ledger.
    pub store: StoreSettings,
    /// True if a change of a configuration file causes a reload. The signal SIGHUP always causes a reload.
    pub watches: bool,
    /// The settings of the collector of trace spans. `None` if Callgate sends no spans.
    pub traces: Option<TraceSettings>,
    /// The number of worker threads. If it is `None`, there is one thread for each processor, but at most two threads.
    pub threads: Option<usize>,
}

impl Startup {
    /// Returns the keys of the settings that only a restart can change and that differ between `self` and `other`.
    pub fn differences(&self, other: &Self) -> Vec<&'static str> {
        let addresses = |startup: &Self| startup.ingress.iter().map(|l| l.address).collect::<Vec<_>>();
        let admin = |startup: &Self| startup.admin.as_ref().map(|admin| admin.address);
        let egress = |startup: &Self| startup.egress.as_ref().map(|egress| egress.address);
        // Delivered callbacks contain the URLs to which the agent sends its answers. These URLs begin with `https` if
        // the egress listener has TLS. A reload therefore cannot turn TLS on or off.
        let has_egress_tls = |startup: &Self| startup.egress.as_ref().map(|egress| egress.tls.is_some());
        let replicas = |startup: &Self| startup.replicas.as_ref().map(|replicas| replicas.listener.address);
        let advertise = |startup: &Self| startup.replicas.as_ref().map(|replicas| replicas.advertise.clone());
        let times = |startup: &Self| (startup.shutdown_delay, startup.shutdown_grace);
        [
            ("access_log", self.access_log == other.access_log),
            ("listen.admin.address", admin(self) == admin(other)),
            ("listen.egress.address", egress(self) == egress(other)),
            ("listen.egress.tls", has_egress_tls(self) == has_egress_tls(other)),
            ("listen.ingress[].address", addresses(self) == addresses(other)),
            ("replicas.address", replicas(self) == replicas(other)),
            ("replicas.advertise", advertise(self) == advertise(other)),
            ("shutdown", times(self) == times(other)),
            ("store", self.store == other.store),
            ("reload", self.watches == other.watches),
            ("traces", self.traces == other.traces),
            ("threads", self.threads == other.threads),
        ]
        .into_iter()
        .filter_map(|(key, same)| (!same).then_some(key))
        .collect()
    }
}

/// The key and the value of a setting that only a restart can change. `callgate check` compares the settings of a
/// running process with the settings of a new configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RestartSetting {
    /// The key of the setting, as [`Startup::differences`] returns it.
    pub key: String,
    /// The value of the setting as text. It contains no secret.
    pub value: String,
}

impl Startup {
    /// Returns each setting that [`Self::differences`] compares, with its value as text. The values of sections that
    /// can contain credentials are fingerprints.
    pub fn restart_settings(&self) -> Vec<RestartSetting> {
        let or_none = |address: Option<String>| address.unwrap_or_else(|| "none".to_owned());
        let ingress: Vec<_> = self.ingress.iter().map(|listener| listener.address.to_string()).collect();
        let (egress, replicas) = (self.egress.as_ref(), self.replicas.as_ref());
        let kind = match (&self.store.path, &self.store.redis) {
            (Some(_), _) => "file",
            (None, Some(_)) => "redis",
            (None, None) => "memory",
        };
        let traces = self.traces.as_ref().map(|traces| fingerprint("on", traces));
        [
            ("access_log", if self.access_log == AccessLog::Off { "off" } else { "stdout" }.to_owned()),
            ("listen.admin.address", or_none(self.admin.as_ref().map(|admin| admin.address.to_string()))),
            ("listen.egress.address", or_none(egress.map(|egress| egress.address.to_string()))),
            (
                "listen.egress.tls",
                if egress.is_some_and(|egress| egress.tls.is_some()) { "on" } else { "off" }.to_owned(),
            ),
            ("listen.ingress[].address", ingress.join(", ")),
            ("replicas.address", or_none(replicas.map(|replicas| replicas.listener.address.to_string()))),
            ("replicas.advertise", or_none(replicas.map(|replicas| replicas.advertise.to_string()))),
            (
                "shutdown",
                format!(
                    "{} and {}",
                    format_duration(self.shutdown_delay),
                    format_duration(self.shutdown_grace)
                ),
            ),
            ("store", fingerprint(kind, &self.store)),
            ("reload", if self.watches { "watch" } else { "signal" }.to_owned()),
            ("traces", traces.unwrap_or_else(|| "off".to_owned())),
            ("threads", self.threads.map_or_else(|| "default".to_owned(), |threads| threads.to_string())),
        ]
        .map(|(key, value)| RestartSetting { key: key.to_owned(), value })
        .into()
    }
}

/// Returns a text that consists of `word` and the fingerprint of a configuration section. The fingerprint is computed
/// from the output of `Debug`, which contains no secret.
fn fingerprint(word: &str, section: &impl std::fmt::Debug) -> String {
    format!("{word} ({})", digest(&format!("{section:?}")))
}

/// Returns the first 12 hexadecimal characters of the SHA-256 hash of a text.
pub(super) fn digest(text: &str) -> String {
    let mut digest = HEXLOWER.encode(&Sha256::digest(text));
    digest.truncate(FINGERPRINT_CHARS);
    digest
}

/// The destination of the access log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccessLog {
    /// Callgate writes no access log.
    Off,
    /// Callgate writes one JSON line per request to standard output.
    Stdout,
}

/// Reads the configuration sections that apply at start: `listen`, `access_log`, `reload`, `shutdown`, `store`,
/// `threads` and `traces`.
pub(super) fn startup(root: &mut Fields<'_>) -> Option<Startup> {
    let words = [("off", AccessLog::Off), ("stdout", AccessLog::Stdout)];
    let access_log = root.optional("access_log").map_or(Some(AccessLog::Stdout), |at| at.one_of(&words));
    let threads = root
        .optional("threads")
        .map_or(Some(None), |at| at.whole_number(1..=256).map(|n| usize::try_from(n).ok()));
    let words = [("watch", true), ("signal", false)];
    let watches = root.optional("reload").map_or(Some(true), |at| at.one_of(&words));
    let traces = root.optional("traces").map(|at| traces(&at));
    let store = store::store(root.optional("store"));
    let shutdown = shutdown(root.optional("shutdown"));
    let listen = root.required("listen").and_then(|at| listeners(&at));
    let (shutdown_delay, shutdown_grace) = shutdown?;
    let Listeners { admin, egress, ingress } = listen?;
    Some(Startup {
        access_log: access_log?,
        admin,
        egress,
        ingress,
        replicas: None,
        shutdown_delay,
        shutdown_grace,
        store: store?,
        threads: threads?,
        traces: traces.map_or(Some(None), |read| read.map(Some))?,
        watches: watches?,
    })
}

/// Reads the configuration section `shutdown`: the delay and the grace period. The sum of the two defaults is less than
/// 30 s. Kubernetes kills a pod that has not stopped after 30 s.
fn shutdown(at: Option<Cursor<'_>>) -> Option<(Duration, Duration)> {
    let (mut delay, mut grace) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(10)));
    if let Some(at) = at {
        let mut fields = at.fields()?;
        let mut read = |key, default| {
            fields.optional(key).map_or(default, |at: Cursor<'_>| match at.duration_or_zero()? {
                long if long > SHUTDOWN_MAX => at.error("longer than an hour", ""),
                duration => Some(duration),
            })
        };
        (delay, grace) = (read("delay", delay), read("grace", grace));
        fields.finish();
    }
    Some((delay?, grace?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::tests::{MINIMAL, mistake, parse};
    use crate::config::{Config, Surroundings};

    #[test]
    fn how_long_stopping_takes() {
        let agent = "agent:";
        let with = |fields: &str| format!("shutdown: {{ {fields} }}\n{agent}");
        mistake(agent, &with("delay: 2h"), "shutdown.delay", "longer than an hour");
        mistake(agent, &with("grace: soon"), "shutdown.grace", "");
        let times = |text: &str| {
            let startup = parse(text).unwrap().startup;
            (startup.shutdown_delay.as_millis(), startup.shutdown_grace)
        };
        assert_eq!(times(MINIMAL), (2000, Duration::from_secs(10)));
        let stated = MINIMAL.replacen(agent, &with("delay: 0s, grace: 30s"), 1);
        assert_eq!(times(&stated), (0, Duration::from_secs(30)));
    }

    #[test]
    fn certificates_and_logins_of_redis_are_no_difference() {
        let store = "store: { kind: redis, redis: { nodes: [a:1], password: { env: KEY }, tls: { authorities: /ca } } }\nagent:";
        let text = MINIMAL.replacen("agent:", store, 1);
        let with = |times: usize, key: &str| {
            let pem = std::fs::read("tests/corpora/tls/tls.crt").unwrap().repeat(times);
            let env = |_: &str| Some(key.repeat(32));
            let surroundings = Surroundings { env: &env, file: &|_| Ok(pem.clone()) };
            Config::parse(&text, &surroundings).unwrap().startup
        };
        let (before, after) = (with(1, "a"), with(2, "b"));
        assert!(before.differences(&after).is_empty());
        assert_eq!(before.restart_settings(), after.restart_settings());
        let settings = before.restart_settings();
        let store = settings.iter().find(|setting| setting.key == "store").unwrap();
        assert!(store.value.starts_with("redis ("), "{}", store.value);
    }

    #[test]
    fn each_setting_that_needs_a_restart_is_a_difference() {
        let agent = "agent:";
        let startup = |text: &str| parse(text).unwrap().startup;
        let tls = "tls: { certificate: tests/corpora/tls/tls.crt, key: tests/corpora/tls/tls.key }";
        let egress = |fields: &str| format!("egress: {{ address: 127.0.0.1:9{fields} }}, admin: {{");
        let before = MINIMAL.replacen("admin: {", &egress(""), 1);
        for (key, from, to) in [
            ("access_log", agent, "access_log: off\nagent:"),
            ("listen.admin.address", "admin: { address: 127.0.0.1:0", "admin: { address: 127.0.0.1:1"),
            ("listen.egress.address", "egress: { address: 127.0.0.1:9", "egress: { address: 127.0.0.1:8"),
            ("listen.egress.tls", "127.0.0.1:9 }", &format!("127.0.0.1:9, {tls} }}")),
            (
                "listen.ingress[].address",
                "ingress: [ { address: 127.0.0.1:0",
                "ingress: [ { address: 127.0.0.1:1",
            ),
            ("shutdown", agent, "shutdown: { delay: 3s }\nagent:"),
            ("shutdown", agent, "shutdown: { grace: 3s }\nagent:"),
            ("store", agent, "store: { kind: memory, interactions_max: 7 }\nagent:"),
            ("reload", agent, "reload: signal\nagent:"),
            ("traces", agent, "traces: { endpoint: \"http://127.0.0.1:4318/v1/traces\" }\nagent:"),
            ("threads", agent, "threads: 3\nagent:"),
        ] {
            assert!(before.contains(from), "{from}");
            let changed = startup(&before.replacen(from, to, 1));
            assert_eq!(startup(&before).differences(&changed), [key], "{to}");
            assert_eq!(changed.differences(&startup(&before)), [key], "{to}");
            // `restart_settings` shows the same difference. `callgate check` compares the results of this function.
            let (old, new) = (startup(&before).restart_settings(), changed.restart_settings());
            let differ: Vec<_> = old.iter().zip(&new).filter(|(old, new)| old != new).collect();
            let [(old, new)] = differ.as_slice() else { panic!("{to}: {differ:?}") };
            assert_eq!((&*old.key, &*new.key), (key, key), "{to}");
        }
        let other_agent = before.replacen("127.0.0.1:8000", "127.0.0.1:8001", 1);
        assert!(startup(&before).differences(&startup(&other_agent)).is_empty());
    }
}
