//! The command line: one file a command.
//!
//! Exit codes: 0 done, 1 the thing asked for failed, 2 wrong usage, unusable configuration or
//! address. Errors go to standard error: one sentence, and what to do about it.

mod prepare;
mod run;
mod exec;
mod check;
mod explain;
mod status;
mod inject;
mod login;
mod emulator;
mod send_webhook;
mod demo;
mod webhook;
mod completions;
mod signals;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use url::Url;

use crate::config::watch::ConfigWatch;
use crate::config::{self, Config, ConfigWarning, LoadError};
use crate::{telemetry, tls};

/// Apps call localhost without a credential; this adds the right DataPulse credential and forwards.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
struct Args {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "DATAPULSE_SIDECAR_CONFIG",
        default_value = "/etc/datapulse-sidecar/config.yaml"
    )]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy (the default)
    ///
    /// Example: `datapulse-sidecar run --config config/minimal.yaml`
    Run,
    /// The proxy for the life of one program, which gets its address and no secret
    ///
    /// `DATAPULSE_BASE_URL` is the proxy's address on a free port, and `DATAPULSE_API_KEY` a
    /// placeholder. There is no health, admin or other listener. The exit code is the program's
    /// (128 and the signal's number when one ended it; 127: there is no such program). Audit lines
    /// that the configuration sends to standard output go to standard error.
    /// Example: `datapulse-sidecar exec -- python3 report.py`
    Exec(exec::Args),
    /// Validates the configuration and prints every mistake with its line
    ///
    /// Exit code 0: no mistake, 1: mistakes, 2: no readable file.
    /// Example: `datapulse-sidecar check --config config/example.yaml`
    Check(check::Args),
    /// Tells what would become of a call: the level it needs, its credential, its quota
    ///
    /// Nothing is sent to `DataPulse`, and no secret is read. Exit code 1: it would be refused.
    /// Example: `datapulse-sidecar explain GET /v1/datasets --tenant billing
    /// --admin http://127.0.0.1:9465`
    Explain(explain::Args),
    /// Asks a person in a browser, and keeps the refresh token in its store
    ///
    /// OAuth 2.0 authorization code with PKCE. The address is always printed, and the one that the
    /// browser ends up at may be pasted, so that the browser can be on another machine. The token is
    /// never printed; a sidecar that runs uses it from then on.
    /// Example: `datapulse-sidecar login alice --no-browser`
    Login(login::Args),
    /// Shows a running sidecar as a table
    ///
    /// Example: `datapulse-sidecar status --admin http://127.0.0.1:9465`
    Status(status::Args),
    /// Puts the sidecar into Kubernetes manifests: standard input to standard output
    ///
    /// The configuration is that of `--config`; it travels in an annotation. What is not added to stays
    /// byte for byte, and a second run changes nothing. Also a post-renderer of Helm's.
    /// Example: `datapulse-sidecar inject --image registry.example/datapulse-sidecar:0.1.0
    /// --config config.yaml < app.yaml | kubectl apply -f -`
    Inject(inject::Args),
    /// Prints the JSON Schema of the configuration, for editors
    ///
    /// Example: `datapulse-sidecar schema > datapulse-sidecar.schema.json`
    Schema,
    /// A DataPulse on loopback to develop against; not for production
    ///
    /// Example: `datapulse-sidecar emulator --listen 127.0.0.1:9000 --token-life 3s`
    Emulator(emulator::Args),
    /// Emulator and sidecar in one process: calls without a credential, tokens that expire
    ///
    /// Example: `datapulse-sidecar demo --exit`
    Demo(demo::Args),
    /// The signature of a body, and whether one is right
    ///
    /// Example: `datapulse-sidecar webhook sign --secret file:/run/secrets/hook body.json`
    Webhook(webhook::Args),
    /// Prints a completion script for a shell
    ///
    /// Example: `datapulse-sidecar completions bash > /etc/bash_completion.d/datapulse-sidecar`
    Completions(completions::Args),
}

/// A duration within these bounds, which `told` names.
fn within(text: &str, bounds: &RangeInclusive<Duration>, told: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if bounds.contains(&span) { Ok(span) } else { Err(format!("give {told}")) }
}

/// A URL with what only people leave out: `127.0.0.1:9465` is none, and `localhost:9465` one of another
/// scheme.
fn http_url(text: &str) -> Result<Url, String> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(_) | Err(url::ParseError::RelativeUrlWithoutBase) => {
            Err("a URL begins with http:// or https://".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// A command that could not do what it was asked for.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The thing asked for failed.
    fn failed(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// Wrong usage, an unusable configuration, or an address that cannot be bound.
    fn unusable(text: impl Into<String>) -> Self {
        Self { code: 2, text: text.into() }
    }

    /// The child ended with this code, and has said itself why.
    const fn of_child(code: u8) -> Self {
        Self { code, text: String::new() }
    }

    /// As [`Self::unusable`], with the causes of an error in the same sentence.
    fn from_error(error: &dyn std::error::Error) -> Self {
        Self::unusable(telemetry::error_chain(error))
    }
}

/// Reads the command line, does what it says, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    tls::install_provider();
    let args = Args::parse();
    let done = match args.command.unwrap_or(Command::Run) {
        Command::Run => run::run(&args.config),
        Command::Exec(program) => exec::exec(&args.config, &program),
        Command::Check(check) => check::check(&args.config, &check),
        Command::Explain(explain) => explain::explain(&args.config, &explain),
        Command::Login(login) => login::login(&args.config, &login),
        Command::Status(status) => status::status(&status),
        Command::Inject(inject) => inject::inject(&args.config, &inject),
        Command::Schema => hand_out(format!("{}\n", config::schema()).as_bytes()),
        Command::Emulator(args) => emulator::emulator(args),
        Command::Demo(demo) => demo::demo(&demo),
        Command::Webhook(args) => webhook::webhook(&args),
        Command::Completions(completions) => completions::completions(&completions),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                complain(&failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Loads the configuration for a command that needs a valid one.
fn load(path: &std::path::Path) -> Result<(Config, Vec<ConfigWarning>, ConfigWatch), Failure> {
    ConfigWatch::load(path, Arc::new(environment)).map_err(|error| match error {
        LoadError::Unreadable { .. } => Failure::unusable(format!(
            "{}; name a file with --config, or try `datapulse-sidecar demo`",
            telemetry::error_chain(&error)
        )),
        LoadError::Invalid(errors) => Failure::unusable(errors.to_string()),
    })
}

/// The index of the tenant that the command line names, or of the only one.
fn tenant_of(config: &Config, given: Option<&str>) -> Result<usize, Failure> {
    let names = || {
        let names: Vec<&str> = config.tenants.iter().map(|tenant| &*tenant.name).collect();
        names.join(", ")
    };
    match given {
        Some(given) => {
            let found = config.tenants.iter().position(|tenant| &*tenant.name == given);
            found.ok_or_else(|| {
                Failure::unusable(format!(
                    "there is no such tenant; --tenant is one of: {}",
                    names()
                ))
            })
        }
        None if config.tenants.len() == 1 => Ok(0),
        None => Err(Failure::unusable(format!(
            "it depends on who calls: give --tenant, one of: {}",
            names()
        ))),
    }
}

/// A variable of the environment, for `${NAME}` in the configuration.
#[expect(clippy::disallowed_methods, reason = "the command line hands the environment in")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A runtime for a command. Two threads serve tens of thousands of calls a second; a sidecar has
/// rarely more than a fraction of a core.
fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("sidecar")
        .enable_all()
        .build()
        .map_err(|error| Failure::unusable(format!("cannot start the runtime: {error}")))
}

/// Writes to standard output; a reader that left is no error.
fn say(text: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}

/// Writes to standard output what somebody goes on with: half of it would be a failure.
fn hand_out(bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes to standard error.
fn complain(text: &str) {
    use std::io::Write as _;
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}
