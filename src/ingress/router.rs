//! Finds the route for a path. The routes form a tree of path segments, so that the lookup time depends on the path and
//! not on the number of routes. At each segment, a literal is tried before a capture. Routes with a remainder
//! (`{*name}`) are tried after all other routes. This is the order of [`Template::precedence`].

use std::collections::BTreeMap;

use crate::path::{CanonicalPath, Segment, Segments, Template};

/// A tree that contains the path templates of all routes, one node for each path segment.
#[derive(Clone, Debug, Default)]
pub struct Router {
    root: Node,
    has_remainders: bool,
}

#[derive(Clone, Debug, Default)]
struct Node {
    literals: BTreeMap<Box<str>, Node>,
    capture: Option<Box<Node>>,
    route: Option<usize>,
    /// The index of the route whose remainder (`{*name}`) begins at this node. `None` if no remainder begins here.
    remainder: Option<usize>,
}

impl Router {
    /// Adds the path template of the route with this index. If the tree already contains a template that matches the
    /// same paths, the new template is ignored. `Ingress` chooses among the routes with the same path.
    pub fn insert(&mut self, template: &Template, index: usize) {
        let mut node = &mut self.root;
        for segment in template.segments() {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Capture(_) => node.capture.get_or_insert_default(),
                // The remainder is always the last segment.
                Segment::Remainder(_) => {
                    self.has_remainders = true;
                    node.remainder.get_or_insert(index);
                    return;
                }
            };
        }
        node.route.get_or_insert(index);
    }

    /// Returns the index of the route that matches `path`, or `None` if no route matches. `fits` must report whether
    /// the path captures of the route with this index accept the segments of `path`. If `fits` returns false, the
    /// search continues with the next matching route.
    pub fn find(&self, path: &CanonicalPath<'_>, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let found = descend(&self.root, path.segments(), &fits);
        if !self.has_remainders {
            return found;
        }
        found.or_else(|| descend_to_remainder(&self.root, path.segments(), &fits))
    }
}

/// Returns the index of the route with a remainder (`{*name}`) that matches the segments, or `None` if no such route
/// matches. The route with the longest prefix is tried first.
fn descend_to_remainder(
    node: &Node,
    mut segments: Segments<'_>,
    fits: &impl Fn(usize) -> bool,
) -> Option<usize> {
    let segment = segments.next()?;
    let below = |next| descend_to_remainder(next, segments.clone(), fits);
    let literal = node.literals.get(segment).and_then(below);
    let longer = literal.or_else(|| below(node.capture.as_deref()?));
    longer.or_else(|| node.remainder.filter(|index| fits(*index)))
}

fn descend(node: &Node, mut segments: Segments<'_>, fits: &impl Fn(usize) -> bool) -> Option<usize> {
    let Some(segment) = segments.next() else {
        return node.route.filter(|index| fits(*index));
    };
    let literal = node.literals.get(segment).and_then(|next| descend(next, segments.clone(), fits));
    literal.or_else(|| descend(node.capture.as_deref()?, segments, fits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(templates: &[&str], path: &str) -> Option<usize> {
        let templates: Vec<_> = templates.iter().map(|text| Template::parse(text).unwrap()).collect();
        let mut router = Router::default();
        for (index, template) in templates.iter().enumerate() {
            router.insert(template, index);
        }
        let path = CanonicalPath::parse(path).unwrap();
        router.find(&path, |index| templates[index].matches(&path))
    }

    #[test]
    fn the_most_literal_route_wins_from_the_left() {
        let templates = ["/a/{x}/c", "/a/b/{y}", "/a/b/c", "/{any}"];
        assert_eq!(find(&templates, "/a/b/c"), Some(2));
        assert_eq!(find(&templates, "/a/b/d"), Some(1));
        assert_eq!(find(&templates, "/a/z/c"), Some(0));
        assert_eq!(find(&templates, "/q"), Some(3));
    }

    #[test]
    fn a_dead_end_is_walked_back() {
        assert_eq!(find(&["/a/b/c/d", "/a/{x}/c/e", "/{w}/b/c/f"], "/a/b/c/e"), Some(1));
        assert_eq!(find(&["/a/b/c/d", "/a/{x}/c/e", "/{w}/b/c/f"], "/a/b/c/f"), Some(2));
    }

    #[test]
    fn whole_paths_match_or_none() {
        for path in ["/a", "/a/b/", "/a/b/c", "/A/b", "/a/", "/"] {
            assert_eq!(find(&["/a/{x}"], path), if path == "/a/b" { Some(0) } else { None }, "{path}");
        }
        assert_eq!(find(&["/a/{x}"], "/a/%C3%A9"), None);
        assert_eq!(find(&["/a/{x}"], "/a/b:c"), None);
    }

    #[test]
    fn remainders_match_everything_below_a_prefix() {
        let templates = ["/a/{*r}", "/a/b/{*r}", "/{x}/b/c", "/a/{x}"];
        for (path, found) in [
            ("/a/", Some(0)),
            ("/a", None),
            ("/a/b", Some(3)),
            ("/a/b/", Some(1)),
            ("/a/b/c", Some(2)),
            ("/a/b/c/d", Some(1)),
            ("/a/%C3%A9", Some(0)),
            ("/a/x/y/z/", Some(0)),
            ("/b/x/y", None),
        ] {
            assert_eq!(find(&templates, path), found, "{path}");
        }
        assert_eq!(find(&["/{*r}"], "/"), Some(0));
    }

    #[test]
    fn the_tree_finds_what_precedence_ranks_first() {
        let mut texts = Vec::new();
        for a in ["a", "b", "{x}"] {
            texts.push(format!("/{a}/{{*r}}"));
            for b in ["a", "b", "{y}"] {
                texts.push(format!("/{a}/{b}/{{*r}}"));
                for c in ["a", "{z}"] {
                    texts.push(format!("/{a}/{b}/{c}"));
                }
            }
        }
        // Leaves out every third template. Some literals then have no matching route below them, so that the search
        // must try the capture instead.
        let texts: Vec<_> =
            texts.iter().enumerate().filter(|(i, _)| i % 3 != 1).map(|(_, t)| t.as_str()).collect();
        let templates: Vec<_> = texts.iter().map(|text| Template::parse(text).unwrap()).collect();
        for path in [
            "/a/a/a", "/a/b/a", "/b/a/q", "/q/a/a", "/q/b/q", "/a/q/a", "/b/b/b", "/q/q/q", "/a/", "/q/b/",
            "/a/a/a/a", "/b/q",
        ] {
            let canonical = CanonicalPath::parse(path).unwrap();
            let matching = (0..templates.len()).filter(|i| templates[*i].matches(&canonical));
            let first = matching.min_by(|a, b| templates[*a].precedence(&templates[*b]));
            assert_eq!(find(&texts, path), first, "{path}");
        }
    }
}
