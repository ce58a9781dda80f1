//! `login CREDENTIAL`: a person allows it in a browser, and the refresh token goes into its store.
//!
//! Works without a browser here: the address is always printed, and the one that the browser ends up
//! at can be pasted. Neither a code nor a token is ever printed.

mod listener;
mod page;
mod pasted;

use std::cell::Cell;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use url::Url;

use self::listener::Listener;
use self::page::Said;
use super::signals::Signals;
use super::{Failure, complain, load, runtime, say, within};
use crate::app::{Login, LoginError};
use crate::config::Config;
use crate::config::model::{CredentialKind, RefreshToken};
use crate::credential::{Question, Returned};
use crate::os;
use crate::telemetry::{Metrics, error_chain};

/// A person may take between so long and so long.
const TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// Who logs in, and how.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The credential to log in for: one with a `refresh_token`.
    credential: String,
    /// Opens no browser; the address that it ends up at may be given on standard input.
    #[arg(long)]
    no_browser: bool,
    /// How long to wait for an answer: 1s to 1h.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = wait)]
    timeout: Duration,
}

fn wait(text: &str) -> Result<Duration, String> {
    within(text, &TIMEOUT, "1s to 1h")
}

/// An answer to the question, and whom to tell what came of it.
#[derive(Debug)]
struct Arrived {
    returned: Returned,
    told: Option<oneshot::Sender<Said>>,
}

pub(super) fn login(path: &Path, args: &Args) -> Result<(), Failure> {
    let _hardened = os::harden();
    let (config, warnings, _) = load(path)?;
    for warning in &warnings {
        complain(&format!("warning: {warning}"));
    }
    let grant = grant(&config, &args.credential)?;
    let runtime = runtime(2)?;
    let done = runtime.block_on(async {
        let signals = Signals::listen();
        let mut signals = signals
            .map_err(|error| Failure::unusable(format!("cannot listen to signals: {error}")))?;
        let exchanging = Cell::new(false);
        let asking = ask(&config, grant, args, &exchanging);
        tokio::pin!(asking);
        tokio::select! {
            done = &mut asking => return done,
            () = signals.next() => {}
        }
        if !exchanging.get() {
            return Err(Failure::failed("the login was given up"));
        }
        // The token is on its way, and nowhere else.
        complain("The answer has come, and is being kept first; a second signal gives it up.");
        tokio::select! {
            done = asking => done,
            () = signals.next() => Err(Failure::failed("the login was given up, and its token lost")),
        }
    });
    runtime.shutdown_background();
    done
}

/// What the credential of this name may be used for, if people log in for it.
fn grant<'c>(config: &'c Config, name: &str) -> Result<&'c RefreshToken, Failure> {
    let found = config.credentials.iter().find(|credential| &*credential.name == name);
    if let Some(CredentialKind::RefreshToken(grant)) = found.map(|credential| &credential.kind) {
        return Ok(grant);
    }
    let is_one = |kind: &CredentialKind| matches!(kind, CredentialKind::RefreshToken(_));
    let names = config.credentials.iter().filter(|credential| is_one(&credential.kind));
    let names: Vec<&str> = names.map(|credential| &*credential.name).collect();
    let wrong = match found {
        Some(_) => format!("`{name}` has no `refresh_token`, and needs no login"),
        None => format!("there is no credential `{name}`"),
    };
    Err(Failure::unusable(if names.is_empty() {
        format!("{wrong}; give a credential a `refresh_token` to log in for it")
    } else {
        format!("{wrong}; people log in for: {}", names.join(", "))
    }))
}

/// `exchanging` says when the person's answer is there.
async fn ask(
    config: &Config,
    grant: &RefreshToken,
    args: &Args,
    exchanging: &Cell<bool>,
) -> Result<(), Failure> {
    let metrics = Metrics::new().map_err(|error| Failure::from_error(&error))?;
    let login = Login::prepare(config, grant, &metrics).await.map_err(|error| failure(&error))?;
    let (back, listener) = match &config.auth.redirect_uri {
        Some(fixed) => (fixed.clone(), Listener::at(fixed).await),
        None => Listener::bind().await.map(|listener| (listener.url(), Some(listener)))?,
    };
    let question = Arc::new(login.question(back).map_err(|error| failure(&error))?);
    let reads = listener.is_none() || args.no_browser || std::io::stdin().is_terminal();
    invite(&args.credential, question.url(), listener.is_some(), reads);
    if !args.no_browser {
        open_browser(question.url().clone()).await;
    }
    let (arrive, mut arrived) = mpsc::channel(1);
    let listening = listener.map(|listener| listener.serve(Arc::clone(&question), arrive.clone()));
    if reads {
        pasted::read(Arc::clone(&question), arrive.clone())?;
    }
    drop(arrive);
    let next = timeout_at(Instant::now() + args.timeout, arrived.recv()).await;
    later_ones_are_told(arrived);
    let done = match next {
        Ok(Some(Arrived { returned, told })) => {
            exchanging.set(true);
            let done = conclude(&login, &question, &returned).await;
            if let Some(told) = told {
                // Whoever asked may have left.
                let _ = told.send(Said::of(&returned, done.is_ok()));
            }
            done
        }
        Ok(None) => Err(Failure::failed(
            "standard input ended, and the address that the browser was sent to was not in it",
        )),
        Err(_elapsed) => Err(Failure::failed(format!(
            "nobody answered within {}; log in again, and give --timeout for more",
            humantime::format_duration(args.timeout)
        ))),
    };
    if done.is_ok() {
        say(&kept(&args.credential, grant, &login));
    }
    if let Some(listening) = listening {
        listening.stop().await;
    }
    done
}

/// Whoever comes after the first answer, or after the wait, is told so and not kept waiting.
fn later_ones_are_told(mut arrived: mpsc::Receiver<Arrived>) {
    arrived.close();
    while let Ok(Arrived { told, .. }) = arrived.try_recv() {
        if let Some(told) = told {
            // Whoever asked may have left.
            let _ = told.send(Said::Again);
        }
    }
}

/// What a person reads first.
fn invite(name: &str, url: &Url, listens: bool, reads: bool) {
    let mut text = format!("Open this address in a browser to log in for `{name}`:\n\n  {url}\n");
    if listens && reads {
        text += "\nWhere the browser is on another machine, it ends up at an address that does not \
                 open there. Paste that address here:";
    } else if reads {
        text += "\nThen paste here the address that the browser ends up at:";
    }
    say(&text);
}

async fn open_browser(url: Url) {
    let opened = tokio::task::spawn_blocking(move || open::that_detached(url.as_str())).await;
    if !matches!(opened, Ok(Ok(()))) {
        complain("No browser could be opened here: open the address yourself.");
    }
}

async fn conclude(login: &Login, question: &Question, returned: &Returned) -> Result<(), Failure> {
    let text = match returned {
        Returned::Code(code) => {
            return login.finish(question, code).await.map_err(|error| failure(&error));
        }
        Returned::Refused(Some("access_denied")) => {
            "access was denied in the browser; log in again to be asked again".to_owned()
        }
        Returned::Refused(Some(code)) => format!(
            "the authorization server refused ({code}); check `client_id` and `scopes`, and what \
             is registered for the client"
        ),
        Returned::Refused(None) => {
            "the authorization server refused, with none of the reasons that RFC 6749 has"
                .to_owned()
        }
        Returned::OtherIssuer => {
            "another authorization server than `auth.authorize_url`'s answered (`iss`), and its \
             answer was not used"
                .to_owned()
        }
        Returned::NotOurs => "the answer was to another login".to_owned(),
    };
    Err(Failure::failed(text))
}

fn failure(error: &LoginError) -> Failure {
    let mut text = error_chain(error);
    if let Some(advice) = error.advice() {
        text = format!("{text}; {advice}");
    }
    match error {
        LoginError::Start(_) => Failure::unusable(text),
        _ => Failure::failed(text),
    }
}

fn kept(name: &str, grant: &RefreshToken, login: &Login) -> String {
    let when = match login.noticed_within() {
        None => "at once".to_owned(),
        Some(poll) => format!("within {}", humantime::format_duration(poll)),
    };
    format!(
        "`{name}` is logged in: its refresh token is in {}. A sidecar that runs finds it {when}. \
         While it has an access token that is good, it uses that one until the next is due; \
         `POST /credentials/{name}/refresh` at its admin listener gets the next one now.",
        grant.token
    )
}
