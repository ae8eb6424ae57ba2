//! `callgate mint`: a callback URL and its token, from the configuration alone.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{ConfigArg, EXIT_DATA, EXIT_UNAVAILABLE, moment, now_unless, print_json, random_id};
use crate::time::{Timestamp, parse_duration};

#[derive(Args)]
pub(super) struct MintArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The route.
    #[arg(long, value_name = "NAME")]
    route: String,
    /// A value for one of the route's captures; once for each.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    params: Vec<(String, String)>,
    /// How long it lives, such as 2h. What the configuration says, unless given.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,
    /// When it is supposed to be made: RFC 3339 or Unix seconds. Now, unless given.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a number and one of ms, s, m, h, d, such as 2h".to_owned())
}

pub(super) fn mint(args: &MintArgs) -> u8 {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some(interaction) = random_id("int_") else {
        eprintln!("error: the system has no randomness to give");
        return EXIT_UNAVAILABLE;
    };
    let parameters: Vec<_> =
        args.params.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let minted = config.policy.mint(&args.route, &parameters, &interaction, now_unless(args.at), args.ttl);
    let minted = match minted {
        Ok(minted) => minted,
        Err(fault) => {
            eprintln!("error: route {}: {fault}", args.route);
            return EXIT_DATA;
        }
    };
    if args.json {
        print_json(&json!({
            "interaction": minted.interaction,
            "callback_url": minted.callback_url,
            "callback_token": minted.callback_token,
            "expires_at": minted.expires.to_string(),
        }));
    } else {
        println!("interaction     {}", minted.interaction);
        println!("callback_url    {}", minted.callback_url);
        println!("callback_token  {}", minted.callback_token);
        println!("expires_at      {}", minted.expires);
    }
    0
}
