//! `callgate store`: copies a ledger to another store, and makes and restores backups of a ledger's file.

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};

use super::common::{EXIT_DATA, EXIT_UNAVAILABLE, EXIT_USAGE, counted, printable};
use super::read::ConfigArg;
use crate::clock::Clock;
use crate::observe::Metrics;
use crate::store::{BackupError, CopyError, CopyReport, Lost, back_up, copy_ledger, restore_ledger};

/// The exit code if the command would lose data.
const EXIT_REFUSED: u8 = 1;

#[derive(Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Copy the ledger of one configuration to that of another one, such as from a file to Redis. All processes that
    /// use one of the ledgers must be stopped. The copy can be repeated. Exits with 1 if the other ledger cannot take
    /// everything.
    Copy(CopyArgs),
    /// Write a backup of a ledger's file. The process that uses the ledger must be stopped.
    Backup(BackupArgs),
    /// Replace a ledger's file by a backup. The process that uses the ledger must be stopped. Exits with 1 if the
    /// ledger is newer than the backup.
    Restore(RestoreArgs),
}

#[derive(Args)]
struct CopyArgs {
    /// Configuration whose ledger is copied.
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Configuration whose ledger receives the copy.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Copy even if something cannot be copied.
    #[arg(long)]
    allow_loss: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct BackupArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The backup. An earlier backup is replaced.
    #[arg(long, value_name = "PATH")]
    to: PathBuf,
}

#[derive(Args)]
struct RestoreArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The backup.
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
    /// Replace the ledger even if it is newer than the backup, or damaged. The old ledger is renamed: its name
    /// gets the suffix `.former`.
    #[arg(long)]
    force: bool,
}

pub(super) fn store(args: &StoreArgs) -> u8 {
    match &args.command {
        StoreCommand::Copy(args) => copy(args),
        StoreCommand::Backup(args) => backup(args),
        StoreCommand::Restore(args) => restore(args),
    }
}

fn fail(code: u8, message: impl std::fmt::Display) -> u8 {
    // The message can contain text of a Redis server or of a backup file.
    eprintln!("error: {}", printable(&message.to_string()));
    code
}

// === Copies ===

fn copy(args: &CopyArgs) -> u8 {
    let load = |config: &PathBuf| ConfigArg { config: config.clone() }.load();
    let (from, to) = match (load(&args.from), load(&args.to)) {
        (Ok(from), Ok(to)) => (from.startup.store, to.startup.store),
        (Err(code), _) | (_, Err(code)) => return code,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(runtime), Ok(metrics)) = (runtime, Metrics::new()) else {
        return fail(EXIT_UNAVAILABLE, "the system has no resources left");
    };
    match runtime.block_on(copy_ledger(&from, &to, args.allow_loss, &Arc::new(metrics))) {
        Ok(report) => {
            if args.json {
                super::common::print_json(&json(&report));
            } else {
                print!("{}", text(&report));
            }
            if report.added + report.updated + report.unchanged + report.newer + report.merged
                > to.interactions_max
            {
                eprintln!(
                    "warn: {}: the ledger has more interactions than `store.interactions_max`",
                    args.to.display()
                );
            }
            0
        }
        Err(CopyError::Unusable(reason)) => fail(EXIT_USAGE, reason),
        Err(CopyError::Unavailable(reason)) => fail(EXIT_UNAVAILABLE, reason),
        Err(CopyError::Loses(lost)) => {
            let lost = lost_text(lost);
            fail(
                EXIT_REFUSED,
                format!("{lost} cannot be copied. Nothing was copied. `--allow-loss` copies the rest"),
            )
        }
    }
}

fn text(report: &CopyReport) -> String {
    let CopyReport { added, updated, unchanged, newer, merged, .. } = *report;
    let mut lines = vec![
        format!(
            "{}: {added} added, {updated} updated, {unchanged} unchanged",
            counted(added + updated + unchanged + newer + merged, "interaction")
        ),
        counted(report.events, "delivered event"),
        counted(report.provider_ids, "provider id"),
        counted(report.messages, "message"),
    ];
    if newer > 0 {
        lines.push(format!(
            "{} newer in the other ledger: left as it is there",
            counted(newer, "interaction")
        ));
    }
    if merged > 0 {
        lines.push(format!("{} used with both ledgers: merged", counted(merged, "interaction")));
    }
    if !report.lost.is_nothing() {
        lines.push(format!("not copied: {}", lost_text(report.lost)));
    }
    lines.join("\n") + "\n"
}

fn lost_text(lost: Lost) -> String {
    let mut parts = Vec::new();
    if lost.messages > 0 {
        parts.push(format!("{} of the inbox", counted(lost.messages, "message")));
    }
    if lost.events > 0 {
        parts.push(counted(lost.events, "delivered event"));
    }
    parts.join(" and ")
}

fn json(report: &CopyReport) -> serde_json::Value {
    serde_json::json!({
        "interactions": {
            "added": report.added, "updated": report.updated, "unchanged": report.unchanged,
            "newer": report.newer, "merged": report.merged,
        },
        "events": report.events,
        "provider_ids": report.provider_ids,
        "messages": report.messages,
        "not_copied": { "messages": report.lost.messages, "events": report.lost.events },
    })
}

// === Backups ===

/// Returns the path of the ledger file of a configuration. If the ledger is not in a file, prints an error and returns
/// the exit code.
fn ledger(config: &ConfigArg) -> Result<Box<str>, u8> {
    let store = config.load()?.startup.store;
    store.path.ok_or_else(|| {
        let file = config.config.display();
        fail(EXIT_USAGE, format!("the ledger of {file} is not in a file (`store.kind: file`)"))
    })
}

fn explain(error: &BackupError, path: &str) -> u8 {
    match error {
        BackupError::InUse => fail(
            EXIT_UNAVAILABLE,
            format!(
                "the ledger {path} is in use: while a process writes it, a copy of the file would not be consistent. \
                 Stop the process, repeat the command, and start the process again"
            ),
        ),
        BackupError::Damaged(reason) => fail(EXIT_DATA, format!("the backup cannot be restored: {reason}")),
        BackupError::Newer(reason) => fail(EXIT_REFUSED, format!("{reason}. `--force` replaces it")),
        BackupError::Failed(reason) => fail(EXIT_UNAVAILABLE, reason),
    }
}

fn backup(args: &BackupArgs) -> u8 {
    let path = match ledger(&args.config) {
        Ok(path) => path,
        Err(code) => return code,
    };
    match back_up(&path, &args.to, Clock::System.now()) {
        Ok(backup) => {
            let (interactions, bytes) = (counted(backup.interactions, "interaction"), backup.bytes);
            println!("{}: {interactions}, {bytes} bytes", args.to.display());
            0
        }
        Err(error) => explain(&error, &path),
    }
}

fn restore(args: &RestoreArgs) -> u8 {
    let path = match ledger(&args.config) {
        Ok(path) => path,
        Err(code) => return code,
    };
    match restore_ledger(&path, &args.from, args.force) {
        Ok(restored) => {
            println!("{path}: {} of {}", counted(restored.interactions, "interaction"), restored.made);
            if let Some(former) = restored.former {
                println!("the former ledger is {}", former.display());
            }
            0
        }
        Err(error) => explain(&error, &path),
    }
}
