//! `callgate audit`: reads access logs and reports, for each route, who calls, what was denied, what the agent rejected,
//! and what a route in observe mode would deny in enforce mode.

mod entry;
mod input;
mod log;
mod report;
mod window;

use std::path::PathBuf;

use clap::Args;

use self::window::{Since, Window};
use super::common::{EXIT_DATA, print_json};

#[derive(Args)]
pub(super) struct AuditArgs {
    /// Access logs of Callgate, plain or compressed with gzip, or `-` for standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only requests since this time, or within this duration before the newest request of the logs.
    #[arg(long, value_name = "DURATION|TIME", value_parser = Since::parse)]
    since: Option<Since>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn audit(args: &AuditArgs) -> u8 {
    let mut window = Window::new(args.since);
    for file in &args.files {
        if let Err(error) = input::read(file, &mut window) {
            eprintln!("error: cannot read {}: {error}", input::name(file));
            return EXIT_DATA;
        }
    }
    let log = window.into_log();
    if log.is_foreign() {
        let names: Vec<_> = args.files.iter().map(|file| input::name(file)).collect();
        eprintln!("error: no line of Callgate's access log in {}", names.join(", "));
        return EXIT_DATA;
    }
    if args.json {
        print_json(&report::json(&log));
    } else {
        print!("{}", report::text(&log));
    }
    0
}
