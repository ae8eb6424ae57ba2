//! The integration tests, in one binary. Each module starts Callgate with real sockets, in this process or as the real
//! binary.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

mod actions;
mod admin_actions;
mod agent_faults;
mod agents;
mod assertion;
mod attack_configs;
mod attack_configs_text;
mod attack_jwt;
mod attack_jwt_claims;
mod attack_jwt_headers;
mod attack_jwt_spellings;
mod attack_paths;
mod attack_spoof;
mod audit;
mod bodies;
mod capture;
#[path = "../core/case.rs"]
mod case;
mod chaos;
mod check;
mod check_against;
mod command_line;
mod conventions;
mod crash;
mod custom_schemes;
mod decisions;
mod deep_yaml;
mod desync;
mod dev;
mod disk;
mod egress;
mod egress_a2a;
mod egress_places;
mod egress_prefix;
mod egress_tls;
mod engine;
mod engine_proxy;
#[path = "../core/environment.rs"]
mod environment;
mod event_log;
mod events;
mod every_route;
mod fetch;
mod first_configuration;
mod forward_proxy;
mod framing;
mod h2_strict;
mod h2_wire;
mod harness;
mod health;
mod health_checks;
mod hop_by_hop;
mod http2;
mod inbox;
mod include;
mod inject;
mod inject_checks;
mod inject_many;
mod inject_replicas;
mod kept_connections;
mod ledger;
mod ledger_file;
mod ledger_scale;
mod ledger_search;
mod limits;
mod matching;
mod named;
mod notices;
mod observing;
mod opaque_tokens;
mod outbound_proxy;
mod page;
mod partial_partitions;
mod process;
mod properties;
mod providers;
mod readme;
mod reload;
mod replica_faults;
mod replica_log;
mod replica_tls;
mod replicas;
mod reuse_under_load;
mod run_folder;
mod schema;
mod seeds;
mod shared_chaos;
mod shared_failover;
mod shared_faults;
mod shared_full;
mod shared_history;
mod shared_ledger;
mod shared_matching;
#[path = "../../src/random/splitmix.rs"]
mod splitmix;
mod stopping;
mod store_backup;
mod store_copy;
mod streams;
mod terminal;
mod tls;
mod tls_tickets;
mod traces;
#[path = "../core/vectors.rs"]
#[allow(dead_code, reason = "the test binary `decisions` verifies the vectors")]
mod vectors;
mod webhook;
mod webhook_hostile;
mod webhook_names;
mod webhook_objects;
mod webhook_settled;
