//! Opens connections to nodes.

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, TlsCertificates,
};
use std::time::Duration;

use crate::config::{RedisLogin, RedisSettings};
use crate::secret::Secret;

/// The pause before a second attempt to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Returns a connection to a node. The connection is opened with the first call, and opened again after it was lost.
///
/// # Errors
/// Returns the error of the crate `redis` if the settings are unusable.
pub(super) fn connection(
    settings: &RedisSettings,
    login: &RedisLogin,
    address: &str,
) -> Result<ConnectionManager, RedisError> {
    let client = client(settings, login, address)?;
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(Some(settings.timeout))
        .set_connection_timeout(Some(settings.timeout))
        .set_number_of_retries(1)
        .set_min_delay(RETRY_PAUSE)
        .set_max_delay(RETRY_PAUSE);
    ConnectionManager::new_lazy_with_config(client, config)
}

fn client(settings: &RedisSettings, login: &RedisLogin, address: &str) -> Result<Client, RedisError> {
    let unusable = || RedisError::from((redis::ErrorKind::InvalidClientConfig, "not host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(unusable)?;
    let (host, port) = (host.trim_matches(['[', ']']).to_owned(), port.parse().map_err(|_| unusable())?);
    let at = match &settings.tls {
        None => ConnectionAddr::Tcp(host, port),
        Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
    };
    let info: ConnectionInfo = at.into_connection_info()?;
    let info = info.set_redis_settings(authentication(login));
    match &settings.tls {
        None => Client::open(info),
        Some(tls) => {
            crate::tls_crypto::install();
            let client_tls = tls.client.as_ref().map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.clone(),
                client_key: key.expose().to_vec(),
            });
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: tls.authorities.clone() })
        }
    }
}

fn authentication(login: &RedisLogin) -> RedisConnectionInfo {
    let text = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
    let mut settings = RedisConnectionInfo::default();
    if let Some(username) = &login.username {
        settings = settings.set_username(text(username));
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(text(password));
    }
    settings
}
