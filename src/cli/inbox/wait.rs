//! `callgate wait`: prints the callbacks of an interaction while they arrive, and exits with its outcome.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use data_encoding::BASE64;
use serde_json::Value;

use crate::cli::admin_api::{AdminApi, encoded};
use crate::cli::admin_client::{Request, send};
use crate::cli::common::{EXIT_UNAVAILABLE, write_bytes};
use crate::cli::read::ConfigArg;
use crate::source::reachable;

/// How long Callgate waits for callbacks before it responds to one request of `callgate wait`, as the value of the
/// query parameter `wait`.
const WAIT: &str = "20s";
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval at which `callgate wait` requests the state of an interaction. The command does this if Callgate has no
/// egress listener, or only one with TLS, from which it cannot read the callbacks.
const LOOK: Duration = Duration::from_millis(500);

/// The outcomes of an interaction, each with the exit code of `callgate wait`.
const OUTCOMES: [(&str, u8); 5] =
    [("done", 0), ("failed", 1), ("expired", 2), ("revoked", 3), ("not_sent", 4)];

#[derive(Args)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Id of the interaction.
    interaction: String,
}

pub(crate) fn wait(args: &WaitArgs) -> u8 {
    let waited = match args.config.load() {
        Ok(config) => match config.startup.egress.filter(|egress| egress.tls.is_none()) {
            Some(egress) => watch(reachable(egress.address), &args.interaction),
            None => poll(&args.config, &args.interaction),
        },
        Err(code) => Err(code),
    };
    waited.unwrap_or_else(|code| code)
}

fn outcome(state: &str) -> Option<u8> {
    OUTCOMES.iter().find(|(name, _)| *name == state).map(|(_, code)| *code)
}

/// Prints the callbacks of an interaction while they arrive, until the interaction ends. Requests the callbacks from
/// the egress listener at `address`, without leasing or acknowledging them. Returns the exit code.
fn watch(address: SocketAddr, interaction: &str) -> Result<u8, u8> {
    let mut after = 0;
    loop {
        let path = format!("/callbacks/{}/events?watch=true&after={after}&wait={WAIT}", encoded(interaction));
        let request = Request { patience: PATIENCE, ..Request::to("GET", &path) };
        let (status, text) = send(address, &request).map_err(|error| {
            eprintln!("error: no answer from {address}: {error}");
            EXIT_UNAVAILABLE
        })?;
        match status {
            204 => continue,
            200 => {}
            404 => {
                eprintln!("error: the interaction {interaction} is unknown");
                return Err(EXIT_UNAVAILABLE);
            }
            _ => {
                eprintln!("error: HTTP {status} from {address}");
                return Err(EXIT_UNAVAILABLE);
            }
        }
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let events = answer.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
        for event in &events {
            print(event);
            after = event.get("n").and_then(Value::as_u64).unwrap_or(after).max(after);
        }
        if let Some(code) = answer.get("ended").and_then(Value::as_str).and_then(outcome)
            && events.is_empty()
        {
            return Ok(code);
        }
    }
}

/// Prints the body of a callback, and a line feed. On a terminal, control characters are replaced.
fn print(event: &Value) {
    let text = event.get("body").and_then(Value::as_str).map(|text| text.as_bytes().to_vec());
    let encoded = event.get("body_base64").and_then(Value::as_str);
    let body = text.or_else(|| BASE64.decode(encoded?.as_bytes()).ok()).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let is_terminal = out.is_terminal();
    // The reader of the output may have closed the pipe. The exit code still shows the outcome.
    let _ = write_bytes(&mut out, &body, is_terminal);
}

/// Requests the state of an interaction from the admin listener until the interaction has ended. The bodies of
/// callbacks are not printed. Returns the exit code.
fn poll(config: &ConfigArg, interaction: &str) -> Result<u8, u8> {
    let api = AdminApi::of(config)?;
    loop {
        let path = format!("/callbacks/{}", encoded(interaction));
        let view = api.ask("GET", &path, None).map_err(|_| EXIT_UNAVAILABLE)?;
        if let Some(code) = view.get("state").and_then(Value::as_str).and_then(outcome) {
            return Ok(code);
        }
        std::thread::sleep(LOOK);
    }
}
