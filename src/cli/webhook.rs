//! `webhook sign` and `webhook verify`: the signature of a body, for debugging.
//!
//! A secret comes by reference, never on the command line, where others can read it.

use std::io::Read as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;

use super::{Failure, runtime, say};
use crate::secret::{SecretRef, SecretRefError};
use crate::store::{SecretStore, Stores};
use crate::telemetry::{Metrics, error_chain};
use crate::webhook::signature::{self, Signature, SigningKey};

/// The largest body that is read, in bytes: that of a delivery.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What to do with a signature.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Prints what stands in `X-Datapulse-Signature` for a body
    ///
    /// Example: `datapulse-sidecar webhook sign --secret file:/run/secrets/hook body.json`
    Sign {
        /// Where the secret is: `file:PATH`, `file:PATH#KEY` or `env:NAME`.
        #[arg(long, value_name = "REFERENCE", value_parser = at_hand)]
        secret: SecretRef,
        /// The body, byte for byte; without it, or as `-`, standard input.
        file: Option<PathBuf>,
    },
    /// Says whether a signature is right
    ///
    /// Exit code 0: it is, 1: it is not.
    /// Example: `curl -s … | datapulse-sidecar webhook verify --secret env:HOOK --signature sha256=…`
    Verify {
        /// Where a secret is; may be given more than once.
        #[arg(long, value_name = "REFERENCE", required = true, value_parser = at_hand)]
        secret: Vec<SecretRef>,
        /// The header's value.
        #[arg(long, value_name = "VALUE")]
        signature: String,
        /// The body, byte for byte; without it, or as `-`, standard input.
        file: Option<PathBuf>,
    },
}

pub(super) fn webhook(args: &Args) -> Result<(), Failure> {
    match &args.action {
        Action::Sign { secret, file } => {
            let key = signing_key(secret)?;
            say(&key.sign(&body(file.as_ref())?));
            Ok(())
        }
        Action::Verify { secret, signature, file } => {
            let keys = secret.iter().map(signing_key).collect::<Result<Vec<_>, _>>()?;
            let body = body(file.as_ref())?;
            let right = Signature::parse(signature.as_bytes())
                .and_then(|signature| signature::verify(&body, signature, &keys));
            right.map_err(|error| {
                Failure::failed(format!(
                    "not verified: {error} (a body of {} bytes; it has to be as it was sent, not \
                     written anew)",
                    body.len()
                ))
            })?;
            say("verified");
            Ok(())
        }
    }
}

/// A reference to a secret that is had without a store.
pub(super) fn at_hand(text: &str) -> Result<SecretRef, String> {
    if !text.starts_with("file:") && !text.starts_with("env:") {
        return Err(
            "this command asks neither Vault nor AWS: put the secret into a file that you \
                    alone can read, and give file:PATH, file:PATH#KEY or env:NAME"
                .to_owned(),
        );
    }
    text.parse().map_err(|error: SecretRefError| error.to_string())
}

/// The secret behind a reference, fit to sign with.
pub(super) fn signing_key(at: &SecretRef) -> Result<SigningKey, Failure> {
    let metrics = Metrics::new().map_err(|error| Failure::from_error(&error))?;
    let stores: Arc<dyn SecretStore> = Arc::new(Stores::new(&metrics));
    let read = runtime(1)?.block_on(stores.read(at));
    let read = read.map_err(|error| Failure::unusable(error_chain(&error)))?;
    SigningKey::new(&read.value).map_err(|short| Failure::unusable(format!("{at}: {short}")))
}

/// A body as it is, in a file or on standard input.
pub(super) fn body(file: Option<&PathBuf>) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::unusable(format!("the body cannot be read: {error}; name a file, or send it in"))
    };
    let mut bytes = Vec::new();
    let read = match file.filter(|file| file.as_os_str() != "-") {
        Some(file) => {
            let open = std::fs::File::open(file).map_err(failed)?;
            open.take(BODY_BYTES_MAX + 1).read_to_end(&mut bytes)
        }
        None => std::io::stdin().lock().take(BODY_BYTES_MAX + 1).read_to_end(&mut bytes),
    };
    let read = u64::try_from(read.map_err(failed)?).unwrap_or(u64::MAX);
    if read > BODY_BYTES_MAX {
        return Err(Failure::unusable("the body is larger than 16 MiB, which no endpoint takes"));
    }
    Ok(bytes)
}
