//! `callgate revoke`: revokes an interaction of a running Callgate, so that its token is denied from now on.

use clap::Args;
use serde_json::Value;

use super::admin_api::{AdminAddress, AdminApi, detail};
use super::common::{EXIT_DATA, EXIT_UNAVAILABLE, printable};
use super::read::ConfigArg;

#[derive(Args)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Address or URL of the admin listener, if it differs from the address in FILE.
    #[arg(long, value_name = "ADDRESS", value_parser = AdminAddress::parse)]
    admin: Option<AdminAddress>,
    /// Id of the interaction, such as int_….
    #[arg(value_name = "INTERACTION", value_parser = id)]
    interaction: String,
}

fn id(text: &str) -> Result<String, String> {
    let is_id =
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if is_id {
        Ok(text.to_owned())
    } else {
        Err("expected the id of an interaction, such as int_…".to_owned())
    }
}

pub(super) fn revoke(args: &RevokeArgs) -> u8 {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let Some(listener) = config.startup.admin else {
        eprintln!("error: {} has no `listen.admin`", args.config.config.display());
        return EXIT_DATA;
    };
    let api = AdminApi::new(listener, args.admin.clone());
    let (status, answer) = match api.send("DELETE", &format!("/callbacks/{}", args.interaction), None) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    let detail = detail(&answer);
    match status {
        204 => {
            println!("{} revoked", args.interaction);
            0
        }
        202 => {
            let members = answer.get("unreachable").and_then(Value::as_array).map(Vec::as_slice);
            let members: Vec<_> =
                members.unwrap_or_default().iter().filter_map(Value::as_str).map(printable).collect();
            eprintln!("error: {} is revoked here, but {detail}: {}", args.interaction, members.join(", "));
            EXIT_UNAVAILABLE
        }
        _ => {
            eprintln!("error: {}: {detail} (HTTP {status} from {})", args.interaction, api.address);
            if status >= 500 { EXIT_UNAVAILABLE } else { EXIT_DATA }
        }
    }
}
