//! `callgate members`: asks a running Callgate which replicas of its installation it has found.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::admin_client::ask;
use super::common::{EXIT_DATA, EXIT_UNAVAILABLE, print_json, printable};
use crate::source::reachable;

#[derive(Args)]
pub(super) struct MembersArgs {
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// File with the token of `listen.admin.token`, if there is one.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn members(args: &MembersArgs) -> u8 {
    let address = reachable(args.admin);
    let token = match args.token.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(token) => token,
        Err(error) => {
            eprintln!("error: cannot read the file of the token: {error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let (status, body) = match ask(address, "/members", token.as_deref().map(str::trim)) {
        Ok(answer) => answer,
        Err(error) => {
            eprintln!("error: no answer from {address}/members: {error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let members = serde_json::from_str::<Value>(&body).ok().filter(|_| status == 200);
    let Some(members) = members else {
        let line = printable(body.lines().next().unwrap_or_default());
        eprintln!("error: {line} (HTTP {status} from {address}/members)");
        return EXIT_UNAVAILABLE;
    };
    if args.json {
        print_json(&members);
        return 0;
    }
    if field(&members, "own").is_null() {
        eprintln!("error: this Callgate has no section `replicas`");
        return EXIT_DATA;
    }
    print!("{}", table(&members));
    0
}

/// Returns a field of a JSON object, or null if the field is missing.
fn field<'v>(value: &'v Value, name: &str) -> &'v Value {
    value.get(name).unwrap_or(&Value::Null)
}

/// Returns the replicas in the response of `GET /members` as a table, with one row for each replica.
fn table(members: &Value) -> String {
    let own = [field(members, "own")];
    let others = field(members, "members").as_array().map(Vec::as_slice).unwrap_or_default();
    let mut rows =
        vec![["ADDRESS", "INCARNATION", "GROUP", "STATE", "STARTED", "HAS LEDGERS OF"].map(str::to_owned)];
    for member in own.into_iter().chain(others) {
        let text = |name: &str| printable(field(member, name).as_str().unwrap_or("-"));
        let inherits = field(member, "inherits").as_array().into_iter().flatten().filter_map(Value::as_str);
        let inherits: Vec<_> = inherits.map(printable).collect();
        let state = match field(member, "presence").as_str() {
            None => "this one",
            Some("present") if *field(member, "stopping") == true => "stopping",
            Some(presence) => presence,
        };
        let inherits = if inherits.is_empty() { "-".to_owned() } else { inherits.join(" ") };
        rows.push([
            text("address"),
            text("incarnation"),
            text("group"),
            printable(state),
            text("started_at"),
            inherits,
        ]);
    }
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<_> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
