//! The environment variables of the test configurations.

use std::collections::HashMap;

use callgate::config::{Config, Surroundings};

/// The secrets of the test configurations, by environment variable.
pub fn env(name: &str) -> Option<String> {
    let known = HashMap::from([
        ("TOKEN_KEY", "0123456789abcdef0123456789abcdef"),
        ("OLD_TOKEN_KEY", "fedcba9876543210fedcba9876543210"),
        ("FOREIGN_KEY", "a key that is not configured at all"),
        ("JWT_KEY", "the key of somebody else's issuer"),
        ("HMAC_SECRET", "hush"),
        ("OLD_HMAC_SECRET", "hush, formerly"),
        ("WHSEC", "whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="),
        ("API_KEY_AND_SECRET", "APIkey:a secret of thirty-two bytes, more"),
        ("ED25519_PUBLIC", "PtroYJ/1anP4GGP7sv/DVk9HQVYC+xLboxf98CI4tDM="),
        ("HEX_KEY", "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056"),
        (
            "JWKS",
            r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","alg":"ES256","x":"jBLSfGDkO-rjWoKjB9EE5H_aiqnSTWUqcljqlFtM0zA","y":"uNpP4Kk8K_vP85ojcaUJCWi7Uvy1GH03JPDlf9f4oIo"}]}"#,
        ),
        ("BASE64_KEY", "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="),
        ("SUPABASE", "v1,whsec_AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="),
        ("STATIC", "a static secret"),
        ("OLD_STATIC", "a static secret of old"),
        ("AUTHORIZATION", "Bearer a static secret"),
        ("LIVEKIT_SECRET", "a secret of thirty-two bytes, more"),
    ]);
    known.get(name).map(|value| (*value).to_owned())
}

/// Compiles a configuration.
pub fn parse(text: &str) -> Config {
    let surroundings = Surroundings { env: &env, file: &|path| std::fs::read(path) };
    match Config::parse(text, &surroundings) {
        Ok(config) => config,
        Err(errors) => panic!("{text}\n{}", errors.iter().map(|e| format!("{e}\n")).collect::<String>()),
    }
}
