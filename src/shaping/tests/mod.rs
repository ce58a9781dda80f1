//! The shaper under a paused clock.

mod waiting;
mod permits;
mod throttles;
mod reload;
mod restart;
mod own_calls;
mod tenants;
mod shadow;
mod moves;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::{Place, Refusal, Shaper};
use crate::config::{self, Config, model};
use crate::credential::KeyPrint;
use crate::os::Boot;
use crate::secret::SecretValue;
use crate::telemetry::Metrics;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One quota, `q`, and tenants that use it, each given as what follows its name.
fn config(quota: &str, tenants: &[&str], more: &str) -> Config {
    let mut text = format!(
        "version: 1\nlisteners: [{{listen: 'localhost:1', tenant: t0}}]\n\
         quotas: {{q: {{{quota}}}}}\n\
         credentials: [{{name: a, level: admin, quota: q, api_key: 'file:/k'}}]\n{more}tenants:\n"
    );
    for (number, tenant) in tenants.iter().enumerate() {
        text += &format!("  - {{name: t{number}, credentials: [a]{tenant}}}\n");
    }
    config::parse(&text, "test", &|_| None).unwrap().0
}

fn shaper_of(config: &Config) -> Arc<Shaper> {
    Arc::new(Shaper::begin(config, &Metrics::new().unwrap(), None))
}

/// 61 a minute (a call a second and a little), for two tenants.
fn shaper() -> Arc<Shaper> {
    shaper_of(&config("limit: 61/min", &["", ""], ""))
}

/// A call that is sent as soon as it may: when, and for which tenant.
async fn call(shaper: Arc<Shaper>, tenant: usize) -> Result<(Duration, usize), Refusal> {
    let (began, deadline) = (Instant::now(), Instant::now() + s(30));
    let mut place = shaper.admit(Some("q"), tenant, deadline)?;
    place.ready(deadline).await?;
    let (permit, ()) = place.depart(deadline, anyway).await?;
    place.answered(&HeaderMap::new());
    Ok((permit.departed_at - began, tenant))
}

/// Nothing else is needed to leave.
const fn anyway() -> Result<(), Refusal> {
    Ok(())
}

async fn placed(shaper: &Shaper) -> Place {
    shaper.admit(Some("q"), 0, Instant::now() + s(30)).unwrap()
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A process that is killed leaves nothing but the file.
struct Machine {
    boot: Boot,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let at = Instant::now().checked_sub(s(1000)).unwrap();
        Self { boot: Boot { id: [1; 16], at }, dir: tempfile::tempdir().unwrap() }
    }

    fn start(&self, quota: &str) -> Arc<Shaper> {
        Arc::new(Shaper::begin(&self.config(quota), &Metrics::new().unwrap(), Some(self.boot)))
    }

    fn config(&self, quota: &str) -> Config {
        let mut config = config(quota, &[""], "");
        config.shaping.state_file = model::StateFile::At(self.dir.path().join("schedule"));
        config
    }

    /// How many calls leave at once.
    async fn burst(shaper: &Arc<Shaper>) -> usize {
        let began = Instant::now();
        for count in 0..10_000 {
            call(Arc::clone(shaper), 0).await.unwrap();
            if began.elapsed() >= Duration::from_millis(5) {
                return count;
            }
        }
        panic!("ten thousand calls have left at once");
    }
}

const STARTER: &str = "limit: 61/min";

/// A call's place, after its attempt left.
async fn departed(shaper: &Shaper) -> Place {
    let mut place = placed(shaper).await;
    let _sent = place.depart(Instant::now() + s(30), anyway).await.unwrap();
    place
}

/// A configuration whose quotas are given whole, and the credential's one.
fn config_of(quotas: &str, quota: &str) -> Config {
    let text = format!(
        "version: 1\nlisteners: [{{listen: 'localhost:1', tenant: t0}}]\n\
         quotas: {{{quotas}}}\n\
         credentials: [{{name: a, level: admin, quota: {quota}, api_key: 'file:/k'}}]\n\
         tenants: [{{name: t0, credentials: [a]}}]\n"
    );
    config::parse(&text, "test", &|_| None).unwrap().0
}

/// A call with the credential's key: when it left.
async fn keyed(shaper: Arc<Shaper>) -> Result<Instant, Refusal> {
    keyed_with(&shaper, "k").await
}

async fn keyed_with(shaper: &Shaper, key: &str) -> Result<Instant, Refusal> {
    let deadline = Instant::now() + s(30);
    let key = |_| KeyPrint::new("", &SecretValue::new(key.into()));
    let mut place = shaper.enter_with(key, (0, 0), deadline, None)?;
    place.ready(deadline).await?;
    let (permit, ()) = place.depart(deadline, anyway).await?;
    place.answered(&HeaderMap::new());
    Ok(permit.departed_at)
}
