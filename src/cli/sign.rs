//! `callgate sign`: signs a request as the provider does, for tests. It works for schemes with a shared secret.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value, json};

use super::common::{EXIT_DATA, EXIT_UNAVAILABLE, moment, now_unless, print_json};
use super::message::Message;
use super::read::ConfigArg;
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
    /// Name of the provider. Its first secret signs the request.
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// File with the request: a raw HTTP/1.1 message.
    #[arg(long, value_name = "FILE.http")]
    request: PathBuf,
    /// Time of the signature: RFC 3339 or Unix seconds. Default: now.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<Timestamp>,
    /// Event id, if the scheme has one. Default: the id in the file, or else a random id.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Interaction whose secret signs the request, for providers with `secrets: derived`.
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
        eprintln!(
            "error: there is no provider {} in the configuration; it has: {}",
            args.provider,
            known.join(", ")
        );
        return EXIT_DATA;
    };
    let Some(verifier) = &provider.verifier else {
        eprintln!("error: the provider {} does not sign", args.provider);
        return EXIT_DATA;
    };
    let Some(id) = args.id.clone().or_else(|| own_id(verifier, &message)).or_else(|| new_id("msg_")) else {
        eprintln!("error: the system's random number generator failed");
        return EXIT_UNAVAILABLE;
    };
    let head = message.head(LOOPBACK);
    let Some(derived) = derived(args, verifier, &config.policy) else {
        eprintln!("error: each interaction has a secret of its own: name the interaction with --interaction");
        return EXIT_DATA;
    };
    let public_url = provider.public_url.as_ref().unwrap_or(&config.policy.ingress.edge().public_url);
    let signed = SignatureContext::new(head, public_url, now_unless(args.at)).with_derived(&derived);
    let body = message.body.clone();
    let Some(SignedRequest { headers, body, target }) = verifier.sign(&signed, &body, &id) else {
        eprintln!(
            "error: this request cannot be signed: only the provider has the key, or the request does not have the \
             form that the scheme requires, or the scheme does not allow the event id {id:?}"
        );
        return EXIT_DATA;
    };
    let changed = *body != *message.body;
    if body.len() != message.body.len() {
        message.set(CONTENT_LENGTH, body.len().into());
    }
    message.body = body.into_owned();
    if args.json {
        print_json(&as_json(&headers, changed.then_some(&*message.body), target.as_deref()));
        return 0;
    }
    for (name, value) in headers {
        message.set(name, value);
    }
    if let Some(target) = target {
        message.set_target(target);
    }
    u8::from(std::io::stdout().write_all(&message.to_bytes()).is_err())
}

/// Returns the event id in the request file. The signed request has this id if the option `--id` is missing.
fn own_id(verifier: &Verifier, message: &Message) -> Option<String> {
    match &verifier.scheme().id {
        Some(EventIdSource::Header(name)) => message.header(name),
        Some(EventIdSource::Query(name)) => message.parameter(name),
        _ => None,
    }
}

/// Returns the signature headers as JSON. The JSON contains the body and the request target only if signing changed
/// them.
fn as_json(headers: &[(HeaderName, HeaderValue)], body: Option<&[u8]>, target: Option<&str>) -> Value {
    let headers =
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()));
    let mut printed = json!({ "headers": headers.collect::<Map<_, _>>() });
    if let (Some(body), Some(printed)) = (body, printed.as_object_mut()) {
        printed.insert("body".to_owned(), String::from_utf8_lossy(body).into());
    }
    if let (Some(target), Some(printed)) = (target, printed.as_object_mut()) {
        printed.insert("target".to_owned(), target.into());
    }
    printed
}

/// Returns the secret of the interaction if the provider signs with secrets that Callgate derives. Returns an empty
/// list for all other providers. Returns `None` if the secret is needed but `--interaction` is missing.
fn derived(args: &SignArgs, verifier: &Verifier, policy: &Policy) -> Option<Vec<Secret>> {
    match (verifier.keys(), &args.interaction, &policy.minting) {
        (VerifierKeys::Derived, Some(interaction), Some(minting)) => {
            Some(vec![minting.minter.secret(interaction)])
        }
        (VerifierKeys::Derived, ..) => None,
        _ => Some(Vec::new()),
    }
}
