//! Reads the configuration section `client_address`: the trusted proxies, and the header in which they send the client
//! address.

use crate::config::provider::{Addresses, EDGES, address_list, edge};
use crate::config::yaml::{Cursor, did_you_mean, shown};
use crate::source::{AddressHeader, Allowlist, ClientAddress, Networks};

/// Reads the configuration section `client_address`: `{trusted_proxies, header}`, or `{edge: NAME}`, optionally with
/// `trusted_proxies` for proxies that are not part of the edge.
pub(crate) fn client_address(at: &Cursor<'_>) -> Option<ClientAddress> {
    let mut fields = at.fields()?;
    let known_edge = fields.optional("edge").map(|at| {
        let name = at.text()?;
        let known: Vec<_> = EDGES.iter().map(|edge| edge.name).collect();
        match edge(name) {
            Some(edge) => Some((at.clone(), edge)),
            None => at.error(format!("{} is not a known edge", shown(name)), did_you_mean(name, &known)),
        }
    });
    let mut read = |key| fields.optional(key).map(|at| at.networks());
    let proxies = read("trusted_proxies");
    let header_at = fields.optional("header");
    let proxies_said = fields.has("trusted_proxies");
    fields.finish();
    let mut fixed = proxies.map_or(Some(Vec::new()), |read| read)?;
    let mut lists = Vec::new();
    let header = match (known_edge, header_at) {
        (None, Some(at)) if proxies_said => at.header_name()?,
        (None, None) => return at.error("`header` is missing", ""),
        (None, Some(_)) => return at.error("`trusted_proxies` is missing", ""),
        (Some(_), Some(at)) => return at.error("the edge has its own header", "remove `header`"),
        (Some(read), None) => {
            let (at, (header, addresses)) = read?;
            match addresses {
                Addresses::Feed(url, selection) => lists.push(at.feed(address_list(url, selection))),
                Addresses::Fixed(networks) => fixed.extend(networks.nets()),
            }
            header
        }
    };
    let fixed = Networks::new(fixed);
    if fixed.is_everything() {
        at.warn("every address is a trusted proxy: any caller can state any client address");
    }
    let trusted_proxies = Allowlist { fixed, feeds: lists };
    Some(ClientAddress { trusted_proxies, header: AddressHeader::from_name(header) })
}
