//! Combines routes that have the same path and different request methods.

use http::Method;

use crate::config::yaml::Cursor;
use crate::ingress::Route;

/// Sets `path_methods` of each route to the methods of all routes with the same path. Reports an error for each route
/// with a path and a method that an earlier route accepts as well.
pub(super) fn combine(routes: &mut [&mut (Cursor<'_>, Route)]) {
    // The sort is stable, so routes with the same path stay in the order of the file.
    routes.sort_by(|(_, a), (_, b)| a.path.precedence(&b.path));
    for group in routes.chunk_by_mut(|(_, a), (_, b)| a.path.same_shape(&b.path)) {
        let mut methods: Vec<Method> = Vec::new();
        for i in 0..group.len() {
            let (earlier, later) = group.split_at(i);
            let Some((at, route)) = later.first().map(|entry| (&entry.0, &entry.1)) else { continue };
            for (_, other) in earlier.iter().map(|entry| &**entry) {
                if report(at, route, other).is_none() {
                    break;
                }
            }
            methods.extend(route.methods.iter().cloned());
        }
        for (_, route) in group.iter_mut().map(|entry| &mut **entry) {
            route.path_methods.clone_from(&methods);
        }
    }
}

/// Compares two routes with the same path. Reports an error and returns `None` if a request could match both routes.
fn report(at: &Cursor<'_>, route: &Route, other: &Route) -> Option<()> {
    if let Some(method) = route.methods.iter().find(|method| other.methods.contains(method)) {
        let message = format!("matches the same paths and methods as the route {}", other.name);
        let hint = format!(
            "{} and {} cannot be told apart, because both accept {method}",
            other.path.as_str(),
            route.path.as_str()
        );
        return at.error(message, hint);
    }
    // Two routes of the same provider reply to the same handshakes. A handshake would therefore match both routes.
    if route.provider_name() == other.provider_name() {
        return Some(());
    }
    for (shaking, taking) in [(route, other), (other, route)] {
        let handshakes = shaking.verifier().map(|verifier| verifier.scheme().handshakes.as_slice());
        let mut handshakes = handshakes.unwrap_or_default().iter();
        if let Some(shake) = handshakes.find(|shake| taking.methods.contains(&shake.method)) {
            let message = format!(
                "the route {} would receive the handshake {} of the route {} with the same path",
                taking.name, shake.name, shaking.name
            );
            return at.error(message, format!("remove {} from `methods`, or use another path", shake.method));
        }
    }
    Some(())
}
