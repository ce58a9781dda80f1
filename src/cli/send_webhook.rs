//! `emulator send-webhook`: a delivery as DataPulse sends it, or a bad one.

use std::path::PathBuf;

use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error, StrDeserializer};

use super::webhook::{at_hand, body, signing_key};
use super::{Failure, http_url, runtime, say};
use crate::emulator::{Delivery, FLAWS, Flaw};
use crate::secret::{SecretRef, SecretValue};
use crate::telemetry::{error_chain, trace};
use crate::tls::{self, Roots};
use crate::webhook::signature::SigningKey;

/// What is shown of an answer's body, in bytes.
const SHOWN_BYTES_MAX: usize = 4096;

/// Which delivery, and where to.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it goes: a URL with the endpoint's path.
    #[arg(value_parser = http_url)]
    to: url::Url,
    /// Where the secret that signs it is: `file:PATH`, `file:PATH#KEY` or `env:NAME`.
    #[arg(long, value_name = "REFERENCE", value_parser = at_hand)]
    secret: SecretRef,
    /// What is wrong with it: unsigned, forged, tampered, sha1, short or twice.
    #[arg(long, value_name = "FLAW", value_parser = flaw)]
    bad: Option<Flaw>,
    /// The type of the event.
    #[arg(long, value_name = "TYPE", default_value = "dataset.updated")]
    event: String,
    /// `X-Datapulse-Delivery`. Default: a new one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How often the same delivery is sent.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    times: u16,
    /// A file with another body; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
}

fn flaw(text: &str) -> Result<Flaw, String> {
    let text: StrDeserializer<'_, Error> = text.into_deserializer();
    Flaw::deserialize(text).map_err(|_unknown| format!("one of {}", FLAWS.join(", ")))
}

pub(super) fn send_webhook(args: &Args) -> Result<(), Failure> {
    let key = signing_key(&args.secret)?;
    let id = args.id.clone().unwrap_or_else(trace::new_request_id);
    let body = match &args.body {
        Some(file) => body(Some(file))?,
        None => Delivery::event(&args.event, &id),
    };
    let Some(mut delivery) = Delivery::signed(body, &id, &key) else {
        return Err(Failure::unusable("--id cannot stand in a header"));
    };
    if let Some(flaw) = args.bad {
        let forger = SigningKey::new(&SecretValue::new(b"a secret of nobody's".to_vec()));
        let forger = forger.map_err(|error| Failure::from_error(&error))?;
        delivery = delivery.with(flaw, &forger);
    }
    runtime(1)?.block_on(send(args, &delivery))
}

async fn send(args: &Args, delivery: &Delivery) -> Result<(), Failure> {
    let roots = if args.to.scheme() == "https" { Roots::load(None) } else { Ok(Roots::none()) };
    let http = roots.and_then(|roots| tls::http_client(&roots));
    let http = http.map_err(|error| Failure::from_error(&error))?;
    let mut refused = 0;
    for _ in 0..args.times {
        let answer = delivery.send(&http, args.to.clone()).await.map_err(|error| {
            let cause = error_chain(&error.without_url());
            Failure::failed(format!("no answer: {cause}; is the sidecar running with `webhooks`?"))
        })?;
        let status = answer.status();
        refused += u16::from(!status.is_success());
        let body = tls::read_capped(answer, SHOWN_BYTES_MAX).await.unwrap_or_default();
        say(&format!("{status} {}", String::from_utf8_lossy(&body).trim_end()));
    }
    match refused {
        0 => Ok(()),
        _ => Err(Failure::failed(format!("{refused} of {} were not taken", args.times))),
    }
}
