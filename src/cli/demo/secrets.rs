//! Where the demo's secrets are: in files, or in a Vault in memory that is there for the demo alone.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::{Instant, interval, sleep, timeout};
use url::{Host, Url};

use super::super::{Failure, say};
use super::webhooks::App;
use super::{STARTER_KEY, Stage, WAIT_MAX, quota, webhooks};
use crate::config::model::Level;
use crate::emulator::{Key, Settings};
use crate::tls::{self, Roots};

/// The secret in Vault.
const PATH: &str = "secret/datapulse/demo";
/// How often Vault is looked at: so short that one sees it.
const POLL: Duration = Duration::from_secs(2);
/// The key is replaced after this long.
const ROTATE_AFTER: Duration = Duration::from_secs(4);
/// It is in use well before this.
const ROTATE_MAX: Duration = Duration::from_secs(20);
/// The key that takes the first one's place.
const ROTATED: &str = "rotated";

/// Whether a Vault is there, and how the demo gets in.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Keeps the secrets in this Vault or OpenBao on the same machine, such as
    /// `http://127.0.0.1:8200`, whose KV v2 is at `secret/`.
    #[arg(long, value_name = "URL", requires = "vault_token", value_parser = on_this_machine)]
    vault: Option<Url>,
    /// The file of a token that may write there.
    #[arg(long, value_name = "FILE", requires = "vault")]
    vault_token: Option<PathBuf>,
}

/// The secrets, each under its name.
pub(super) struct Secrets {
    dir: TempDir,
    vault: Option<Vault>,
}

struct Vault {
    address: String,
    token_file: PathBuf,
}

impl Secrets {
    /// Puts them where they belong.
    pub(super) async fn write(args: &Args) -> Result<Self, Failure> {
        let failed = |error| Failure::unusable(format!("cannot write the demo's secrets: {error}"));
        let dir = tempfile::tempdir().map_err(failed)?;
        let vault = args.vault.clone().zip(args.vault_token.clone());
        let vault = vault.map(|(address, token_file)| Vault {
            address: address.as_str().trim_end_matches('/').to_owned(),
            token_file,
        });
        let all = all(None);
        match &vault {
            Some(vault) => vault.put(&all).await?,
            None => {
                for (name, value) in &all {
                    std::fs::write(dir.path().join(name), value).map_err(failed)?;
                }
            }
        }
        Ok(Self { dir, vault })
    }

    fn reference(&self, name: &str) -> String {
        match &self.vault {
            Some(_) => format!("vault:{PATH}#{name}"),
            None => format!("file:{}", self.dir.path().join(name).display()),
        }
    }

    /// The section of the stores, where there is one.
    fn stores(&self) -> String {
        let section = |vault: &Vault| {
            format!(
                "stores: {{vault: {{address: \"{}\", poll: {}s, auth: {{method: token, token: \
                 \"file:{}\"}}}}}}\n",
                vault.address,
                POLL.as_secs(),
                vault.token_file.display()
            )
        };
        self.vault.as_ref().map_or_else(String::new, section)
    }

    /// The built-in configuration: what a user would write, with free ports.
    pub(super) fn config(&self, listen: &str, emulator: SocketAddr, app: &App) -> String {
        let (limit, wait) = (quota::LIMIT, WAIT_MAX.as_secs());
        let [api_key, client_secret, starter, hook] =
            ["api-key", "client-secret", "starter-key", "webhook-secret"]
                .map(|name| self.reference(name));
        let (stores, webhooks) = (self.stores(), app.config(&hook));
        format!(
            "version: 1
listeners: [{{listen: \"{listen}\", tenant: app}}, {{listen: \"127.0.0.1:0\", tenant: small}}]
upstream: {{base_url: \"http://{emulator}\", allow_plaintext: true}}
auth: {{token_url: \"http://{emulator}/oauth/token\"}}
{stores}credentials:
  - {{name: reader, level: read_only, api_key: \"{api_key}\"}}
  - name: etl
    level: read_write
    client_credentials: {{client_id: emulator-read_write, client_secret: \"{client_secret}\"}}
  - {{name: starter, level: read_only, quota: starter, api_key: \"{starter}\"}}
quotas: {{starter: {{limit: {limit}/min}}}}
shaping: {{max_wait: {wait}s, state_file: none}}
tenants: [{{name: app, credentials: [reader, etl]}}, {{name: small, credentials: [starter]}}]
{webhooks}health: {{listen: \"127.0.0.1:0\"}}
admin: {{listen: \"127.0.0.1:0\"}}
"
        )
    }

    /// Replaces the app's key in Vault while calls are made, and tells beside the bar when the new one
    /// is in use: how long that took.
    pub(super) async fn rotate(
        &self,
        stage: &Stage,
        bar: &ProgressBar,
    ) -> Result<Option<Duration>, Failure> {
        let Some(vault) = &self.vault else { return Ok(None) };
        sleep(ROTATE_AFTER).await;
        let (name, key) = (ROTATED.to_owned(), format!("dp_live_emulator_{ROTATED}"));
        stage.control.add_key(Key { name, key: key.clone(), level: Level::ReadOnly });
        vault.put(&all(Some(&key))).await?;
        let began = Instant::now();
        let used = async {
            let mut tick = interval(Duration::from_millis(20));
            while !stage.control.counters().by_credential.contains_key(ROTATED) {
                tick.tick().await;
            }
        };
        let in_time = timeout(ROTATE_MAX, used).await;
        in_time.map_err(|_late| Failure::failed("the key that was replaced is not used"))?;
        let took = began.elapsed();
        let text = format!(
            "a new API key was written to Vault ({PATH}, another version), and is in use {:.1} s \
             later; Vault is asked every {} s",
            took.as_secs_f64(),
            POLL.as_secs()
        );
        bar.suspend(|| say(&text));
        Ok(Some(took))
    }
}

/// Where they are.
impl fmt::Display for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vault {
            Some(vault) => write!(f, "Vault at {} ({PATH})", vault.address),
            None => f.write_str("files"),
        }
    }
}

/// Every secret by its name, with another API key than the emulator's own where one is given.
fn all(api_key: Option<&str>) -> Vec<(&'static str, String)> {
    let settings = Settings::default();
    let key = settings.keys.iter().find(|key| key.level == Level::ReadOnly);
    let mut clients = settings.clients.iter().filter(|client| client.level == Level::ReadWrite);
    let client = clients.find_map(|client| client.secret.clone());
    let own = key.map(|key| key.key.clone()).unwrap_or_default();
    vec![
        ("api-key", api_key.map_or(own, str::to_owned)),
        ("client-secret", client.unwrap_or_default()),
        ("starter-key", STARTER_KEY.to_owned()),
        ("webhook-secret", webhooks::SECRET.to_owned()),
    ]
}

impl Vault {
    /// Writes a version of the secret.
    async fn put(&self, fields: &[(&'static str, String)]) -> Result<(), Failure> {
        let fields: serde_json::Map<_, _> =
            fields.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let (mount, path) = PATH.split_once('/').unwrap_or((PATH, ""));
        let url = format!("{}/v1/{mount}/data/{path}", self.address);
        let client = tls::http_client(&Roots::none()).map_err(|e| Failure::from_error(&e))?;
        let token = read(&self.token_file)?;
        let request = client.post(&url).header("x-vault-token", token.trim_end());
        let answer = request.json(&json!({"data": fields})).send().await;
        let refused = |said: String| {
            Failure::unusable(format!("{} does not take the demo's secrets: {said}", self.address))
        };
        let answer =
            answer.map_err(|error| refused(format!("no answer ({})", tls::failure(&error))))?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(refused(status.to_string())) }
    }
}

/// The demo's token travels in plain text, and so goes nowhere else.
fn on_this_machine(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_no_url| "expected a URL".to_owned())?;
    let is_near = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    if url.scheme() == "http" && is_near && url.path() == "/" && url.query().is_none() {
        Ok(url)
    } else {
        Err("expected http and an address of this machine, such as http://127.0.0.1:8200"
            .to_owned())
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::unusable(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_vault_leaves_no_machine() {
        for near in ["http://127.0.0.1:8200", "http://localhost:8200/", "http://[::1]:8200"] {
            assert!(on_this_machine(near).is_ok(), "{near}");
        }
        for other in [
            "http://vault.example:8200",
            "https://127.0.0.1:8200",
            "http://127.0.0.1.example:8200",
            "http://127.0.0.1:8200/v1",
            "http://localhost:8200?x=1",
            "127.0.0.1:8200",
        ] {
            assert!(on_this_machine(other).is_err(), "{other}");
        }
    }
}
