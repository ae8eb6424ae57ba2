//! `callgate inbox` and `callgate wait`: the callbacks in the inbox of a running Callgate. Both commands read the
//! addresses of its listeners from the configuration.

mod wait;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::admin_api::{AdminApi, encoded};
use super::common::{EXIT_USAGE, counted, print_json, printable};
use super::read::ConfigArg;

pub(super) use wait::{WaitArgs, wait};

#[derive(Args)]
pub(super) struct InboxArgs {
    #[command(subcommand)]
    command: InboxCommand,
}

#[derive(Subcommand)]
enum InboxCommand {
    /// List the messages, oldest first.
    List {
        #[command(flatten)]
        config: ConfigArg,
        /// Only messages of this route.
        #[arg(long, value_name = "ROUTE")]
        route: Option<String>,
        /// Only messages in this state: due, leased, delivered or dead.
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        /// Only messages of this interaction.
        #[arg(long, value_name = "INTERACTION")]
        interaction: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show one message, with its body if `listen.admin.bodies` is true.
    Show {
        #[command(flatten)]
        config: ConfigArg,
        /// Id of the message.
        id: String,
    },
    /// Make a dead or delivered message due again, or all dead messages that the options select.
    Replay {
        #[command(flatten)]
        config: ConfigArg,
        /// Ids of the messages. Without ids, use --route, --state, --since or --all.
        ids: Vec<String>,
        /// All messages of this route.
        #[arg(long, value_name = "ROUTE", conflicts_with = "ids")]
        route: Option<String>,
        /// All messages in this state: dead or delivered.
        #[arg(long, value_name = "STATE", conflicts_with = "ids")]
        state: Option<String>,
        /// All messages that were settled since this time, or within this duration.
        #[arg(long, value_name = "TIME", conflicts_with = "ids")]
        since: Option<String>,
        /// All dead messages.
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Spread the messages, such as 10/s.
        #[arg(long, value_name = "RATE", conflicts_with = "ids")]
        rate: Option<String>,
    },
    /// Remove messages for good.
    Drop {
        #[command(flatten)]
        config: ConfigArg,
        /// Ids of the messages.
        #[arg(required = true)]
        ids: Vec<String>,
    },
}

pub(super) fn inbox(args: &InboxArgs) -> u8 {
    run(&args.command).err().unwrap_or(0)
}

fn run(command: &InboxCommand) -> Result<(), u8> {
    match command {
        InboxCommand::List { config, route, state, interaction, json } => {
            let filter = [("route", route), ("state", state), ("interaction", interaction)];
            let filter: Vec<_> = filter
                .iter()
                .filter_map(|(name, value)| Some(format!("&{name}={}", encoded(value.as_ref()?))))
                .collect();
            list(&AdminApi::of(config)?, &filter.concat(), *json)
        }
        InboxCommand::Show { config, id } => {
            print_json(&AdminApi::of(config)?.ask("GET", &format!("/inbox/{}", encoded(id)), None)?);
            Ok(())
        }
        InboxCommand::Replay { config, ids, .. } if !ids.is_empty() => {
            let api = AdminApi::of(config)?;
            for id in ids {
                api.ask("POST", &format!("/inbox/{}/replay", encoded(id)), None)?;
                println!("{id} is due again");
            }
            Ok(())
        }
        InboxCommand::Replay { route: None, state: None, since: None, all: false, .. } => {
            eprintln!(
                "error: which messages? Give their ids, or --route ROUTE, --state STATE, --since TIME, or --all for all \
                 dead messages"
            );
            Err(EXIT_USAGE)
        }
        InboxCommand::Replay { config, route, state, since, rate, .. } => {
            let wanted = json!({ "route": route, "state": state, "since": since, "rate": rate });
            let answer = AdminApi::of(config)?.ask("POST", "/inbox/replay", Some(&wanted))?;
            let count = answer.get("replayed").and_then(Value::as_u64).unwrap_or(0);
            println!("{} due again", counted(usize::try_from(count).unwrap_or(usize::MAX), "message"));
            Ok(())
        }
        InboxCommand::Drop { config, ids } => {
            let api = AdminApi::of(config)?;
            for id in ids {
                api.ask("DELETE", &format!("/inbox/{}", encoded(id)), None)?;
                println!("{id} is removed");
            }
            Ok(())
        }
    }
}

/// Prints all messages in the inbox that match the filter. Requests the messages from the admin listener page by page.
fn list(api: &AdminApi, filter: &str, as_json: bool) -> Result<(), u8> {
    let (mut after, mut all) = (0, Vec::new());
    loop {
        let page = api.ask("GET", &format!("/inbox?limit=1000&after={after}{filter}"), None)?;
        let messages = page.get("messages").and_then(Value::as_array).cloned().unwrap_or_default();
        if as_json {
            all.extend(messages);
        } else {
            if after == 0 {
                println!(
                    "{:<40} {:<10} {:<14} {:>8} {:<24} {:<30} ROUTE",
                    "ID", "STATE", "CAUSE", "ATTEMPTS", "RECEIVED", "INTERACTION"
                );
            }
            messages.iter().for_each(line);
        }
        match page.get("next").and_then(Value::as_u64) {
            Some(next) => after = next,
            None => break,
        }
    }
    if as_json {
        print_json(&Value::from(all));
    }
    Ok(())
}

fn line(message: &Value) {
    let text = |name: &str| printable(message.get(name).and_then(Value::as_str).unwrap_or("-"));
    let attempts = message.get("attempts").and_then(Value::as_u64).unwrap_or(0);
    println!(
        "{:<40} {:<10} {:<14} {attempts:>8} {:<24} {:<30} {}",
        text("id"),
        text("state"),
        text("cause"),
        text("received_at"),
        text("interaction"),
        text("route")
    );
}
