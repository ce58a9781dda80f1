//! `demo`: emulator and sidecar in one process, with traffic that holds no credential.
//!
//! The secrets are the emulator's own; nothing outside the machine is called.

mod quota;
mod report;
mod secrets;
mod traffic;
mod webhooks;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::signals::Signals;
use super::{Failure, runtime, say};
use crate::app::{Ended, Ports, Shutdown, Sidecar};
use crate::config;
use crate::config::model::Level;
use crate::emulator::{Control, Emulator, Key, Settings};
use crate::telemetry::Metrics;
use report::Report;
use secrets::Secrets;
use traffic::Traffic;
use webhooks::App;

/// So short that tokens expire while one looks on.
const TOKEN_LIFE: Duration = Duration::from_secs(3);
/// The traffic ends after this many tokens ...
const GENERATIONS: u64 = 6;
/// ... and this long, whichever comes later, ...
const AT_LEAST: Duration = Duration::from_secs(10);
/// ... but never later than this.
const AT_MOST: Duration = Duration::from_secs(60);

/// No call of the last part waits longer for its turn.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The key with the small quota.
const STARTER_KEY: &str = "dp_live_emulator_starter";

/// How the demo is run.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Leaves after the report, with 0 if everything went well, else 1.
    #[arg(long)]
    exit: bool,
    /// Where the sidecar listens.
    #[arg(long, value_name = "ADDRESS", default_value = "localhost:8080")]
    listen: String,
    /// How long a quota is asked for twice what it holds; 0s leaves that part out.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    quota_for: Duration,
    #[command(flatten)]
    secrets: secrets::Args,
}

pub(super) fn demo(args: &Args) -> Result<(), Failure> {
    runtime(2)?.block_on(run(args))
}

/// Everything that runs beside the traffic.
struct Stage {
    control: Arc<Control>,
    emulator: SocketAddr,
    sidecar: SocketAddr,
    /// Where the app calls whose quota is small.
    small: SocketAddr,
    admin: SocketAddr,
    health: SocketAddr,
    /// Where deliveries arrive, and the app that they are for.
    webhooks: SocketAddr,
    app: webhooks::Running,
    /// The emulator, and the app.
    background: JoinSet<()>,
    /// The sidecar.
    running: JoinSet<Ended>,
    step: watch::Sender<Shutdown>,
    /// Kept, because the emulator ends with it.
    _stop: watch::Sender<bool>,
}

async fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::listen();
    let mut signals =
        signals.map_err(|error| Failure::unusable(format!("cannot listen to signals: {error}")))?;
    let secrets = Secrets::write(&args.secrets).await?;
    let mut stage = set_up(args, &secrets).await?;
    say(&opening(&stage, &secrets, args.quota_for));
    let report = tokio::select! {
        report = each_part(&stage, &secrets, args.quota_for) => report?,
        () = signals.next() => return Ok(()),
    };
    say(&report.text(&stage));
    if !args.exit {
        say("\nIt keeps running: Ctrl-C ends it.");
        signals.next().await;
    }
    stage.step.send_replace(Shutdown::Drain);
    tokio::select! {
        _ = stage.running.join_next() => {}
        () = signals.next() => {}
    }
    stage.background.shutdown().await;
    if report.is_good() { Ok(()) } else { Err(Failure::failed("the demo did not go as it should")) }
}

/// Tokens that are replaced under calls, then webhooks, then a quota that is full.
async fn each_part(
    stage: &Stage,
    secrets: &Secrets,
    quota_for: Duration,
) -> Result<Report, Failure> {
    let bar = progress();
    let (report, rotated) = tokio::try_join!(drive(stage, &bar), secrets.rotate(stage, &bar))?;
    let report = report.with_rotation(rotated).with_webhooks(webhooks::drive(stage).await?);
    if quota_for.is_zero() {
        return Ok(report);
    }
    say(&format!(
        "next: a Starter quota, {} calls a minute, asked for twice as many for {} s; what cannot \
         leave within {} s is refused at once",
        quota::LIMIT,
        quota_for.as_secs(),
        WAIT_MAX.as_secs(),
    ));
    Ok(report.with_quota(quota::drive(stage, quota_for).await?))
}

async fn set_up(args: &Args, secrets: &Secrets) -> Result<Stage, Failure> {
    let mut settings = Settings { token_life: TOKEN_LIFE, ..Settings::default() };
    let (name, key) = ("starter".to_owned(), STARTER_KEY.to_owned());
    settings.keys.push(Key { name, key, level: Level::ReadOnly });
    let emulator = Emulator::bind((Ipv4Addr::LOCALHOST, 0).into(), settings).await;
    let emulator = emulator.map_err(|error| Failure::from_error(&error))?;
    let (control, address) = (emulator.control(), emulator.address());
    let (stop, stopped) = watch::channel(false);
    let mut background = JoinSet::new();
    background.spawn(emulator.run(stopped));
    let app = App::bind().await?;
    let text = secrets.config(&args.listen, address, &app);
    let (config, _warnings) = config::parse(&text, "built-in", &|_name| None)
        .map_err(|errors| Failure::unusable(format!("--listen {}: {errors}", args.listen)))?;
    let metrics = Metrics::new().map_err(|error| Failure::from_error(&error))?;
    let sidecar = Sidecar::bind(config, metrics, Ports::All).await;
    let sidecar = sidecar.map_err(|error| {
        let said = Failure::from_error(&error).text;
        Failure::unusable(format!("{said} Try --listen localhost:18080"))
    })?;
    let addresses: Vec<SocketAddr> = sidecar.addresses().into_iter().map(|(_, at)| at).collect();
    let (Some(bound), Some(small), Some(admin), Some(health), Some(webhooks)) = (
        addresses.first().copied(),
        addresses.last().copied(),
        sidecar.admin_address(),
        sidecar.health_address(),
        sidecar.webhooks_address(),
    ) else {
        return Err(Failure::unusable("an address was bound and is not there"));
    };
    let (app, serving) = app.run();
    background.spawn(serving);
    let (step, shutdown) = watch::channel(Shutdown::No);
    let mut running = JoinSet::new();
    running.spawn(sidecar.run(shutdown));
    Ok(Stage {
        control,
        emulator: address,
        sidecar: bound,
        small,
        admin,
        health,
        webhooks,
        app,
        background,
        running,
        step,
        _stop: stop,
    })
}

fn opening(stage: &Stage, secrets: &Secrets, quota_for: Duration) -> String {
    let second = match quota_for.as_secs() {
        0 => String::new(),
        seconds => format!(", then a quota is kept for {seconds} s"),
    };
    format!(
        "DataPulse emulator on {}, tokens live {} s\nsidecar on localhost:{}; the app sends no \
         credential; its secrets are in {secrets}\ntokens are replaced under calls for about 15 s, \
         webhooks arrive{second}; Ctrl-C leaves",
        stage.emulator,
        TOKEN_LIFE.as_secs(),
        stage.sidecar.port()
    )
}

/// How many tokens were used so far, on a terminal.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(GENERATIONS);
    let style = ProgressStyle::with_template("{elapsed:>4} [{bar:30}] token {pos} of {len}  {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Makes traffic until enough tokens were used, and shows how far it is.
async fn drive(stage: &Stage, bar: &ProgressBar) -> Result<Report, Failure> {
    let traffic = Traffic::start(stage.sidecar, stage.emulator);
    let traffic = traffic.map_err(|error| Failure::from_error(&error))?;
    let began = Instant::now();
    let mut tick = interval(Duration::from_millis(200));
    let mut told = 0;
    loop {
        tick.tick().await;
        let generations = generations_used(&stage.control);
        let count = traffic.count();
        bar.set_position(generations.min(GENERATIONS));
        let so_far = format!("{} calls, {} failed", count.made, count.failed);
        // Without a terminal there is no bar: a line now and then says as much.
        if bar.is_hidden() && generations > told {
            say(&format!("token {generations} of {GENERATIONS}: {so_far}"));
            told = generations;
        }
        bar.set_message(so_far);
        let took = began.elapsed();
        if (generations >= GENERATIONS && took >= AT_LEAST) || took >= AT_MOST {
            break;
        }
    }
    bar.finish_and_clear();
    let took = began.elapsed();
    let generations = generations_used(&stage.control);
    let anonymous = stage.control.counters().anonymous;
    Ok(Report::new(traffic.stop().await, took, generations, anonymous))
}

/// Different tokens that arrived in calls.
fn generations_used(control: &Control) -> u64 {
    let counters = control.counters();
    let tokens = counters.by_credential.keys().filter(|name| name.contains('/')).count();
    u64::try_from(tokens).unwrap_or(u64::MAX)
}
