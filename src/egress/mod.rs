//! The egress core: it finds the egress rule for a request of the agent, decides which callback the request needs, and
//! writes the request to the provider. It has no side effects: it does not resolve names, connect, mint tokens or read
//! a clock.
//!
//! [`Egress::find`] finds the rule. [`Rule::plan`] decides whether a callback must be minted, and for which values of
//! the path captures. [`Rule::request`] inserts the callback URL and token into the request. All other parts of the
//! body and the query stay unchanged. [`Rule::unchanged`] writes the head of a request that gets no callback, so that
//! its body can be sent while it arrives. [`Rule::local_location`] and [`relayed_location`] replace URLs in redirects,
//! and [`CardPlace::localize`] replaces URLs in agent cards, so that the next request also passes through the egress
//! listener. [`EventIds`] finds the provider's task id in an event stream.
//!
//! If Callgate is the agent's proxy, [`ForwardProxy`] decides which hosts the agent may reach, and
//! [`Egress::find_by_url`] finds the rule.

mod agent_card;
mod callback_request;
mod event_ids;
mod forward_proxy;
mod host_in_tunnel;
mod inject;
mod location;
mod place;
mod redirect;
mod rule;
mod rules_by_url;
mod shape;
mod write;

pub use agent_card::{CardPlace, INTERFACES_MAX, LocalCard};
pub use callback_request::{BodyKind, CallbackRequest, RequestCondition};
pub use event_ids::{EventIds, id_at};
pub use forward_proxy::{AuthorityFiles, ForwardProxy, HostPattern, Unmatched};
pub use host_in_tunnel::{check_same_origin, target_origin, tunnel_target};
pub use inject::{Inject, ValueSource};
pub use location::relayed_location;
pub use place::{Insertion, InsertionPlace};
pub use rule::{Egress, Plan, Rule, Target, Unruled};
pub use rules_by_url::{CONNECT_TIMEOUT, DIRECT_HOSTS, OTHERS, UNMATCHED, is_direct};
pub use shape::{Callback, Segment, Shape, Slot};
pub use write::{Outgoing, Unchanged, answer_head};
