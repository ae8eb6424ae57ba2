//! What Callgate reads or replaces in the responses of providers.

mod agent_card;
mod learn_id;
mod location;
