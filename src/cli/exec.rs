//! `exec -- PROGRAM`: the proxy for the life of one child process.
//!
//! The child gets an address and a placeholder, never a secret; whichever of the two ends, the other
//! ends too.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::prepare::{Prepared, prepare};
use super::run::THREADS;
use super::signals::PassedOn;
use super::{Failure, environment, runtime, tenant_of};
use crate::access::Callers;
use crate::app::{Ended, Ports, Shutdown, Sidecar};
use crate::config::Config;
use crate::config::model::{AuditSink, Credential, Listener, Socket};
use crate::os;
use crate::secret::SecretRef;

/// What an SDK that insists on a key is given. The sidecar takes it off each call.
const PLACEHOLDER: &str = "dp_live_placeholder";
/// What may open all of `stores.aws`.
const AWS_KEYS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
];
/// A child whose sidecar failed may take this long to end.
const END_TIME: Duration = Duration::from_secs(10);
/// As shells do: no such program, and one that cannot be started.
const NOT_FOUND: u8 = 127;
const NOT_STARTED: u8 = 126;
/// As shells do: the child was ended by the signal of this number more.
const BY_SIGNAL: i32 = 128;

/// What is run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose calls they are. May be left out where there is only one tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

pub(super) fn exec(path: &Path, args: &Args) -> Result<(), Failure> {
    let mut secrets = Vec::new();
    let (prepared, logging) = prepare(path, |config| {
        secrets = secret_variables(config);
        adapt(config, args.tenant.as_deref())
    })?;
    let runtime = runtime(THREADS)?;
    // On the main thread: the child is tied to the thread that starts it.
    let ended = runtime.block_on(serve(prepared, &args.command, &secrets));
    runtime.shutdown_background();
    drop(logging);
    match ended? {
        0 => Ok(()),
        code => Err(Failure::of_child(code)),
    }
}

/// One listener on a free port, and nothing of ours on the child's standard output.
fn adapt(config: &mut Config, tenant: Option<&str>) -> Result<(), Failure> {
    let tenant = tenant_of(config, tenant)?;
    config.listeners = vec![Listener {
        name: "exec".into(),
        socket: Socket::Tcp(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 0))]),
        tenant: Some(tenant),
        caller_token: None,
        allowed_uids: None,
        tls: None,
        allowed_hosts: Vec::new(),
    }];
    // The child sends no token of its own.
    config.tenants.iter_mut().for_each(|tenant| tenant.callers.clear());
    config.webhooks = None;
    if config.log.audit == AuditSink::Stdout {
        config.log.audit = AuditSink::Stderr;
    }
    Ok(())
}

async fn serve(
    prepared: Prepared,
    command: &[OsString],
    secrets: &[String],
) -> Result<u8, Failure> {
    // The configuration stays as it is for the life of one program.
    let Prepared { mut config, watch: _, metrics, hardened, open_files, dropped, levels: _ } =
        prepared;
    let signals = PassedOn::listen();
    let mut signals =
        signals.map_err(|error| Failure::unusable(format!("cannot listen to signals: {error}")))?;
    // There is no admin listener to send it to.
    config.admin_token = None;
    let sidecar = Sidecar::bind(config, metrics, Ports::ProxyOnly).await;
    let sidecar = sidecar.map_err(|error| Failure::from_error(&error))?.with_dropped_lines(dropped);
    let address = sidecar.addresses().first().map(|(_, address)| *address);
    let address =
        address.ok_or_else(|| Failure::unusable("an address was bound and is not there"))?;
    let started = sidecar.started();
    let (step, shutdown) = watch::channel(Shutdown::No);
    let running = sidecar.run(shutdown);
    tokio::pin!(running);
    tokio::select! {
        _ = &mut running => return Err(broken()),
        signal = signals.next() => {
            // A token may be on its way.
            step.send_replace(Shutdown::Drain);
            tokio::select! {
                Ended::Clean | Ended::Cut { .. } = &mut running => {}
                _ = signals.next() => {}
            }
            return Ok(code_of_signal(signal as i32));
        }
        () = started => {}
    }
    let mut program = program(command)?;
    hardened.spare(&mut program);
    open_files.spare(&mut program);
    let mut child = start(program, address, secrets)?;
    let status = tokio::select! {
        _ = &mut running => {
            end(&mut child).await;
            return Err(broken());
        }
        status = attend(&mut child, &mut signals) => status,
    };
    step.send_replace(Shutdown::Drain);
    tokio::select! {
        Ended::Clean | Ended::Cut { .. } = &mut running => {}
        _ = signals.next() => {}
    }
    let status = status
        .map_err(|error| Failure::failed(format!("the program's end is not known: {error}")))?;
    Ok(code_of(status))
}

fn broken() -> Failure {
    Failure::failed("the sidecar stopped by itself, and the program with it; see the log above")
}

/// The environment variables that hold a secret, by the configuration as it is in the file: also
/// those of parts that `exec` does not run.
fn secret_variables(config: &Config) -> Vec<String> {
    let callers = Callers::secrets(config);
    let client_key = config.upstream.client_cert.as_ref().map(|own| &own.key);
    let endpoints = config.webhooks.iter().flat_map(|webhooks| &webhooks.endpoints);
    let secrets = config.credentials.iter().flat_map(Credential::secrets).map(|(at, _)| at);
    let secrets = secrets
        .chain(&callers)
        .chain(&config.admin_token)
        .chain(client_key)
        .chain(config.stores.vault.iter().filter_map(|vault| vault.auth.secret()))
        .chain(endpoints.flat_map(|endpoint| &endpoint.secrets));
    let names = secrets.filter_map(|at| match at {
        SecretRef::Env { name } => Some(name.clone()),
        _ => None,
    });
    let aws = config.stores.aws.iter().flat_map(|_| AWS_KEYS).map(str::to_owned);
    names.chain(aws).collect()
}

fn program(command: &[OsString]) -> Result<Command, Failure> {
    let (program, args) =
        command.split_first().ok_or_else(|| Failure::unusable("name a program after `--`"))?;
    let mut program = Command::new(program);
    program.args(args).kill_on_drop(true);
    Ok(program)
}

fn start(mut program: Command, address: SocketAddr, secrets: &[String]) -> Result<Child, Failure> {
    for name in secrets {
        program.env_remove(name);
    }
    program.env("DATAPULSE_BASE_URL", format!("http://{address}"));
    program.env("DATAPULSE_API_KEY", PLACEHOLDER);
    // A client that uses a proxy would look for our address from there.
    for name in ["NO_PROXY", "no_proxy"] {
        let others = environment(name).filter(|others| !others.is_empty());
        let all = others.map_or_else(String::new, |others| others + ",") + "127.0.0.1";
        program.env(name, all);
    }
    os::end_with_this_process(&mut program);
    program.spawn().map_err(|error| {
        let missing = error.kind() == io::ErrorKind::NotFound;
        let code = if missing { NOT_FOUND } else { NOT_STARTED };
        let program = program.as_std().get_program().to_string_lossy();
        Failure { code, text: format!("cannot start {program}: {error}") }
    })
}

/// Waits for the child's end, and passes on what is sent to us.
async fn attend(child: &mut Child, signals: &mut PassedOn) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => {
                let from_keys = matches!(signal, os::Signal::SIGINT | os::Signal::SIGQUIT);
                // A terminal has sent it to the child already.
                if !(from_keys && os::in_foreground()) {
                    pass_on(child, signal);
                }
            }
        }
    }
}

fn pass_on(child: &Child, signal: os::Signal) {
    if let Some(Err(error)) = child.id().map(|id| os::send(id, signal)) {
        tracing::warn!(%signal, %error, "cannot pass a signal on");
    }
}

/// Asks the child to end, and ends it if it does not.
async fn end(child: &mut Child) {
    pass_on(child, os::Signal::SIGTERM);
    if tokio::time::timeout(END_TIME, child.wait()).await.is_err() {
        drop(child.kill().await);
    }
}

fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.unwrap_or_else(|| code_of_signal(status.signal().unwrap_or_default()))
}

fn code_of_signal(signal: i32) -> u8 {
    u8::try_from(BY_SIGNAL.saturating_add(signal)).unwrap_or(u8::MAX)
}
