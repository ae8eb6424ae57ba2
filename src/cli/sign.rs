//! `callgate sign`: a request as the provider would send it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use http::header::CONTENT_LENGTH;
use serde_json::json;

use super::{ConfigArg, EXIT_DATA, EXIT_UNAVAILABLE, Message, moment, now_unless, print_json};
use crate::policy::Policy;
use crate::random::new_id;
use crate::secret::Secret;
use crate::signature::{EventIdSource, SignatureContext, SignedRequest, Verifier, VerifierKeys};
use crate::source::LOOPBACK;
use crate::time::Timestamp;

#[derive(Args)]
pub(super) struct SignArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// The provider whose first secret signs.
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// The request: a raw HTTP/1.1 message.
    #[arg(long, value_name = "FILE.http")]
    request: PathBuf,
    /// When it is supposed to be signed: RFC 3339 or Unix seconds. Now, unless given.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// The event id, where the scheme has one. A random one, unless given.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The interaction whose own secret signs, for providers that are given one.
    #[arg(long, value_name = "ID")]
    interaction: Option<String>,
    /// Print the signature headers as JSON instead of the message.
    #[arg(long)]
    json: bool,
}

pub(super) fn sign(args: &SignArgs) -> u8 {
    let config = match args.config.load() {
        Ok(config) => config,
        Err(code) => return code,
    };
    let mut message = match Message::read(&args.request) {
        Ok(message) => message,
        Err(error) => {
            eprintln!("error: {error}");
            return EXIT_DATA;
        }
    };
    let Some(provider) = config.policy.provider(&args.provider) else {
        let known: Vec<_> = config.policy.providers.iter().map(|provider| &*provider.name).collect();
        eprintln!("error: there is no provider {}; known are: {}", args.provider, known.join(", "));
        return EXIT_DATA;
    };
    let Some(verifier) = &provider.verifier else {
        eprintln!("error: the provider {} does not sign", args.provider);
        return EXIT_DATA;
    };
    // The id in the file, if there is one, is the one the provider gave it.
    let named =
        verifier.scheme().id.as_ref().and_then(EventIdSource::header).and_then(|name| message.header(name));
    let Some(id) = args.id.clone().or(named).or_else(|| new_id("msg_")) else {
        eprintln!("error: the system has no randomness to give");
        return EXIT_UNAVAILABLE;
    };
    let head = message.head(LOOPBACK);
    let Some(derived) = derived(args, verifier, &config.policy) else {
        eprintln!("error: the secret is one interaction's own: say which with --interaction");
        return EXIT_DATA;
    };
    let public_url = &config.policy.ingress.edge().public_url;
    let signed = SignatureContext::new(head, public_url, now_unless(args.at)).with_derived(&derived);
    let body = message.body.clone();
    let Some(SignedRequest { headers, body }) = verifier.sign(&signed, &body, &id) else {
        eprintln!(
            "error: this cannot be signed: the key is the provider's alone, the request is not in its form, or it takes \
             no event id like {id:?}"
        );
        return EXIT_DATA;
    };
    let changed = *body != *message.body;
    if body.len() != message.body.len() {
        message.set(CONTENT_LENGTH, body.len().into());
    }
    message.body = body.into_owned();
    if args.json {
        let shown =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()));
        let mut printed = json!({ "headers": shown.collect::<serde_json::Map<_, _>>() });
        if changed && let Some(printed) = printed.as_object_mut() {
            printed.insert("body".to_owned(), String::from_utf8_lossy(&message.body).into());
        }
        print_json(&printed);
        return 0;
    }
    for (name, value) in headers {
        message.set(name, value);
    }
    u8::from(std::io::stdout().write_all(&message.to_bytes()).is_err())
}

/// The interaction's own secret, where the provider signs with one. `None`: the interaction is not said.
fn derived(args: &SignArgs, verifier: &Verifier, policy: &Policy) -> Option<Vec<Secret>> {
    match (verifier.keys(), &args.interaction, &policy.minting) {
        (VerifierKeys::Derived, Some(interaction), Some(minting)) => {
            Some(vec![minting.minter.secret(interaction)])
        }
        (VerifierKeys::Derived, ..) => None,
        _ => Some(Vec::new()),
    }
}
