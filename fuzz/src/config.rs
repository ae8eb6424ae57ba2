//! Configurations: whatever is read is refused in words, or usable; and a key that nobody knows is never passed over.

use callgate::path::{CanonicalPath, TOKEN_CAPTURE};
use callgate::policy::MintRequest;

use super::{NOW, read};

/// The input is a configuration.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let config = match read(text) {
        Ok(config) => config,
        Err(words) => {
            assert!(!words.trim().is_empty());
            // No secret is repeated where something is wrong with it.
            assert!(!words.contains(super::KEY) || text.contains(super::KEY));
            return false;
        }
    };
    assert!(read(&format!("{text}\nzzz_nobody_knows: 1\n")).is_err(), "an unknown key was passed over");
    for route in config.policy.ingress.routes() {
        let filled = route.path.fill(|_| Some("x")).expect("short values fill every template");
        let path = CanonicalPath::parse(&filled).expect("a canonical path");
        assert!(route.path.matches(&path));
        let names: Vec<_> = route.path.names().filter(|name| *name != TOKEN_CAPTURE).collect();
        let parameters: Vec<_> = names.iter().map(|name| (*name, "x")).collect();
        let request = MintRequest { route: &route.name, parameters: &parameters, ttl: None, uses: None };
        if let Ok(minted) = config.policy.mint(&request, "int_1", NOW) {
            assert!(minted.expires > NOW && minted.callback_url.starts_with("http"));
        }
    }
    true
}
