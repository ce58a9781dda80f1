//! `emulator`: a DataPulse to develop against.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::signals::Signals;
use super::{Failure, runtime, say, send_webhook, within};
use crate::emulator::{
    ClientKey, Emulator, Kind, Limit, Rate, RateHeaders, Settings, TOKEN_LIFE, new_key,
};

/// What the emulator is to be like.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Where it listens; loopback only, unless --beyond-loopback is given too.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// How long its tokens live: 1s to 24h.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = token_life)]
    token_life: Duration,
    /// A limit for each credential: 100 (a minute) or 10/s. Off by default.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<Rate>,
    /// How the limit is counted.
    #[arg(long, value_name = "KIND", default_value = "fixed_window", value_parser = kind)]
    limiter: Kind,
    /// Tells in each answer what is left of the limit: policy (`RateLimit` and `RateLimit-Policy`),
    /// split (`RateLimit-Remaining` and others), or x (`X-RateLimit-Remaining` and others).
    #[arg(long, value_name = "STYLE", requires = "limit", value_parser = rate_headers)]
    rate_headers: Option<RateHeaders>,
    /// Writes the key file of a service account of level admin there, for `service_account.key`.
    #[arg(long, value_name = "FILE")]
    service_account: Option<PathBuf>,
    /// Refresh tokens are good for ever, instead of once each.
    #[arg(long)]
    no_rotation: bool,
    /// Lets others reach it. Its credentials are public.
    #[arg(long)]
    beyond_loopback: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Sends a delivery as DataPulse does, or a bad one
    ///
    /// Prints the answer. Exit code 0: it was taken (2xx), 1: it was not.
    /// Example: `datapulse-sidecar emulator send-webhook --secret env:HOOK --bad forged
    /// http://127.0.0.1:8090/webhooks/datapulse`
    SendWebhook(Box<send_webhook::Args>),
}

fn token_life(text: &str) -> Result<Duration, String> {
    within(text, &TOKEN_LIFE, "1s to 24h")
}

fn rate(text: &str) -> Result<Rate, &'static str> {
    Rate::parse(text).ok_or("write a number a minute, such as 100, or a number a second: 10/s")
}

fn kind(text: &str) -> Result<Kind, &'static str> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_unknown| "one of fixed_window, sliding_log, sliding_counter, token_bucket")
}

fn rate_headers(text: &str) -> Result<RateHeaders, &'static str> {
    RateHeaders::parse(text).ok_or("one of policy, split, x")
}

pub(super) fn emulator(args: Args) -> Result<(), Failure> {
    match &args.action {
        Some(Action::SendWebhook(delivery)) => send_webhook::send_webhook(delivery),
        None => runtime(2)?.block_on(serve(args)),
    }
}

async fn serve(args: Args) -> Result<(), Failure> {
    let client_keys = args.service_account.as_deref().map(service_account).transpose()?;
    let settings = Settings {
        client_keys: client_keys.into_iter().collect(),
        rotate_refresh_tokens: !args.no_rotation,
        token_life: args.token_life,
        rate_headers: args.rate_headers,
        limit: args.limit.map(|rate| Limit { kind: args.limiter, rate }),
        beyond_loopback: args.beyond_loopback,
        ..Settings::default()
    };
    let signals = Signals::listen();
    let mut signals =
        signals.map_err(|error| Failure::unusable(format!("cannot listen to signals: {error}")))?;
    let emulator = Emulator::bind(args.listen, settings.clone()).await.map_err(|error| {
        Failure::unusable(format!(
            "cannot listen on {}: {error}; choose another --listen",
            args.listen
        ))
    })?;
    say(&greeting(emulator.address(), &settings));
    let (stop, stopped) = watch::channel(false);
    let running = emulator.run(stopped);
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => {}
        () = signals.next() => {
            stop.send_replace(true);
            running.await;
        }
    }
    Ok(())
}

/// A key of this run: its file for the sidecar, its public half for the emulator.
fn service_account(file: &Path) -> Result<ClientKey, Failure> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let client = "emulator-admin".to_owned();
    let Some((pem, jwk)) = new_key() else {
        return Err(Failure::unusable("the system gives no randomness for a key"));
    };
    let text = serde_json::json!({"client_id": client, "private_key": pem}).to_string();
    let mut options = std::fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o600).open(file);
    opened
        .and_then(|mut open| std::io::Write::write_all(&mut open, text.as_bytes()))
        .map_err(|error| Failure::unusable(format!("cannot write {}: {error}", file.display())))?;
    Ok(ClientKey { client, jwk })
}

/// What a developer needs to use it. The secrets are the emulator's own and open nothing else.
fn greeting(address: SocketAddr, settings: &Settings) -> String {
    let mut text =
        format!("DataPulse emulator on http://{address} (not for production)\n\nAPI keys\n");
    for key in &settings.keys {
        text += &format!("  {:<12} {}\n", key.level.as_str(), key.key);
    }
    text += "OAuth clients (client credentials at /oauth/token; people at /oauth/authorize)\n";
    for client in &settings.clients {
        let secret = client.secret.as_deref().unwrap_or("no secret: for people alone");
        text += &format!("  {:<12} {} / {secret}\n", client.level.as_str(), client.id);
    }
    text += &format!(
        "\ntry: curl http://{address}/v1/datasets -H 'Authorization: Bearer dp_live_emulator_read_only'\n"
    );
    text += &format!("     curl http://{address}/_emulator/counters");
    text
}
