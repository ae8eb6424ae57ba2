//! The proxy: listeners, callbacks from providers (`ingress`), requests of the agent (`egress`), and the server that
//! combines them.
//!
//! pingora provides TLS for listeners, and HTTP/2. The streaming proxy of pingora is not used, because Callgate reads a
//! callback completely, decides, and then delivers the callback completely.

mod addresses;
mod agent_client;
mod components;
mod decode_body;
mod egress;
mod ingress;
pub(crate) mod listen;
mod pem_files;
mod replicas;
pub(crate) mod runtime;
mod server;
mod upkeep;

pub use addresses::StartError;
pub use components::Options;
pub use egress::{NewAuthority, check_authority, create_authority, previous_certificates};
pub use ingress::check_agent;
pub use listen::check_tls;
pub use replicas::{CallbacksApi, MemberAnswer, MemberRequest, Replication};
pub use server::{Prepared, Server};
