//! `callgate ca`: creates the certificate authority of the forward proxy.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::common::{EXIT_DATA, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::clock::Clock;
use crate::egress::HostPattern;
use crate::file::{FILE_BYTES_MAX, read};
use crate::guard::Url;
use crate::proxy::{create_authority, previous_certificates};

#[derive(Args)]
pub(in crate::cli) struct CaArgs {
    /// Names of the intercepted hosts: those in the `target` of rules with `proxied: true`. The authority can issue
    /// certificates for no other hosts, except names below these.
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<String>,
    /// Folder for `ca.crt` and `ca.key`. It is created if it does not exist. Existing files are not replaced.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// The `ca.crt` of the authority that the new one replaces. Its certificates are added to the new `ca.crt`, so that
    /// agents trust both. Can be repeated.
    #[arg(long, value_name = "FILE")]
    previous: Vec<PathBuf>,
}

pub(in crate::cli) fn ca(args: &CaArgs) -> u8 {
    let is_name = |host: &str| {
        let url = Url::parse(&format!("https://{host}"));
        HostPattern::parse(host).is_some() && url.is_ok_and(|url| url.address().is_none())
    };
    if let Some(host) = args.hosts.iter().find(|host| !is_name(host)) {
        eprintln!("error: `{host}` is not the name of a host, such as api.example.com");
        return EXIT_USAGE;
    }
    let mut hosts: Vec<Box<str>> = args.hosts.iter().map(|host| host.to_ascii_lowercase().into()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let previous = match args.previous.iter().map(|file| previous(file)).collect::<Result<String, _>>() {
        Ok(previous) => previous,
        Err(error) => {
            eprintln!("error: --previous: {error}");
            return EXIT_DATA;
        }
    };
    let authority = match create_authority(&hosts, Clock::System.now()) {
        Ok(authority) => authority,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_UNAVAILABLE;
        }
    };
    let certificates = authority.certificate + &previous;
    // The key is written first: a certificate without its key would prevent the next attempt.
    let files = [("ca.key", 0o600, &authority.key), ("ca.crt", 0o644, &certificates)];
    if let Some((name, ..)) = files.iter().find(|(name, ..)| args.out.join(name).exists()) {
        eprintln!("error: {} exists; Callgate does not replace it", args.out.join(name).display());
        return EXIT_DATA;
    }
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&args.out) {
        eprintln!("error: the folder {} cannot be created: {error}", args.out.display());
        return EXIT_UNAVAILABLE;
    }
    for (name, mode, text) in files {
        let path = args.out.join(name);
        if let Err(error) = create(&path, mode, text) {
            eprintln!("error: {} cannot be written: {error}", path.display());
            return EXIT_UNAVAILABLE;
        }
    }
    println!(
        "wrote {} and {}, valid for 400 days, for {}",
        args.out.join("ca.crt").display(),
        args.out.join("ca.key").display(),
        hosts.join(", ")
    );
    0
}

/// Returns the certificates in the `ca.crt` of an earlier authority, in PEM.
fn previous(file: &Path) -> Result<String, String> {
    let path = file.display().to_string();
    let content = read(file, FILE_BYTES_MAX).map_err(|error| format!("cannot read {path}: {error}"))?;
    previous_certificates(&path, &content)
}

fn create(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
