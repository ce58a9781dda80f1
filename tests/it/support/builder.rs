//! Says how a [`Rig`] is to be, then starts it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use datapulse_sidecar::config::model::Level;
use datapulse_sidecar::emulator::Fault;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::emulator::DataPulse;
use super::{CANARY, Process, Rig};

/// What differs from the defaults.
pub(crate) struct Builder {
    emulator: DataPulse,
    dir: TempDir,
    config: Value,
    wait_for_start: bool,
    env: Vec<(String, String)>,
    /// What a shell does before it becomes the sidecar.
    shell: Option<String>,
}

/// DataPulse and a configuration for it.
pub(crate) struct Stage {
    pub(crate) emulator: DataPulse,
    pub(crate) dir: TempDir,
    /// The path of the configuration.
    pub(crate) config: String,
    _tasks: JoinSet<()>,
}

impl Builder {
    pub(super) async fn new() -> Self {
        datapulse_sidecar::tls::install_provider();
        let dir = tempfile::tempdir().expect("a folder");
        let secret = |name: &str, value: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, format!("{value}\n")).expect("written");
            format!("file:{}", path.display())
        };
        let emulator = DataPulse::bind().await;
        let base = format!("http://{}", emulator.address());
        let config = json!({
            "version": 1,
            "listeners": [{"listen": "localhost:0"}],
            "upstream": {"base_url": base, "allow_plaintext": true},
            "auth": {"token_url": format!("{base}/oauth/token")},
            "credentials": [
                {"name": "reader", "level": "read_only",
                 "api_key": secret("reader", &format!("dp_live_{CANARY}_reader"))},
                {"name": "etl", "level": "read_write", "client_credentials": {
                    "client_id": "etl", "client_secret": secret("etl", &format!("{CANARY}-etl"))}},
                {"name": "root", "level": "admin",
                 "api_key": secret("root", &format!("dp_live_{CANARY}_root"))},
            ],
            "health": {"listen": "127.0.0.1:0"},
            "admin": {"listen": "127.0.0.1:0"},
            // By default, whatever folder the machine has for it: shared by all of its sidecars.
            "shaping": {"state_file": "none"},
            "log": {"level": "trace", "format": "json", "audit": "stdout"},
        });
        Self { emulator, dir, config, wait_for_start: true, env: Vec::new(), shell: None }
    }

    /// Where certificates and the like may be put.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The emulator's port.
    pub(crate) const fn upstream_port(&self) -> u16 {
        self.emulator.address().port()
    }

    /// A service account that the emulator knows; its key file.
    pub(crate) fn add_service_account(&self, id: &str, level: Level) -> String {
        self.emulator.add_service_account(id, level)
    }

    /// A refresh token that a person granted this client.
    pub(crate) fn grant(&self, client: &str) -> String {
        self.emulator.grant(client)
    }

    /// Whether refresh tokens are good once.
    pub(crate) fn set_rotation(&self, rotates: bool) {
        self.emulator.set_rotation(rotates);
    }

    /// Goes wrong as described, from the start.
    pub(crate) fn fault(self, fault: Fault) -> Self {
        self.emulator.fault(fault);
        self
    }

    /// This token is accepted, for reading.
    pub(crate) fn accept(&self, name: &str, key: &str) {
        self.emulator.accept(name, key);
    }

    /// The emulator's routes, to be served in another way.
    pub(crate) fn router(&self) -> Router {
        self.emulator.router()
    }

    /// Changes the configuration: mappings are merged, everything else is replaced.
    pub(crate) fn config(mut self, yaml: &str) -> Self {
        let change: Value = serde_saphyr::from_str(yaml).expect("the test's own YAML");
        merge(&mut self.config, change);
        self
    }

    /// As [`Self::config`]; `${DIR}` is the folder with the secrets.
    pub(crate) fn config_in_dir(self, yaml: &str) -> Self {
        let yaml = yaml.replace("${DIR}", &self.dir.path().display().to_string());
        self.config(&yaml)
    }

    pub(crate) fn log_level(self, level: &str) -> Self {
        self.config(&format!("log: {{level: {level}}}\n"))
    }

    pub(crate) fn token_life(self, life: Duration) -> Self {
        self.emulator.set_token_life(life);
        self
    }

    /// Sets a variable of the sidecar's environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The sidecar begins as a shell that first does this: limits, redirections, signals.
    pub(crate) fn shell(mut self, script: &str) -> Self {
        self.shell = Some(script.replace("${DIR}", &self.dir.path().display().to_string()));
        self
    }

    /// The variables so far, for another command than `run`.
    pub(crate) fn take_env(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.env)
    }

    /// The tenant has no admin credential.
    pub(crate) fn without_admin(mut self) -> Self {
        self.config["credentials"].as_array_mut().expect("a list").truncate(2);
        self
    }

    /// Calls go to another upstream than the emulator.
    pub(crate) fn upstream(self, address: SocketAddr) -> Self {
        self.config(&format!("upstream: {{base_url: \"http://{address}\"}}\n"))
    }

    /// Token requests fail until [`DataPulse::heal`].
    pub(crate) fn without_authorization_server(self) -> Self {
        self.emulator.fail_token_endpoint(503);
        self.unready()
    }

    pub(crate) fn token_endpoint_answers(self, what: &str) -> Self {
        self.emulator.odd_token_answers(what);
        self.unready()
    }

    pub(crate) fn token_endpoint_expires_in(self, json: &str) -> Self {
        self.emulator.token_expires_in(json);
        self
    }

    /// Does not wait until each credential is usable.
    pub(crate) fn unready(mut self) -> Self {
        self.wait_for_start = false;
        self
    }

    /// The emulator and a configuration, without a sidecar.
    pub(crate) fn stage(mut self) -> Stage {
        let path = self.dir.path().join("config.yaml");
        // JSON is YAML.
        std::fs::write(&path, self.config.to_string()).expect("written");
        let mut tasks = JoinSet::new();
        tasks.spawn(self.emulator.serve());
        let config = path.to_str().expect("UTF-8").to_owned();
        Stage { emulator: self.emulator, dir: self.dir, config, _tasks: tasks }
    }

    pub(crate) async fn start(mut self) -> Rig {
        let (env, shell) = (std::mem::take(&mut self.env), self.shell.take());
        let wait_for_start = self.wait_for_start;
        let json = self.config.clone();
        let Stage { emulator, dir, config, _tasks } = self.stage();
        let Started { sidecar, address, health, admin } =
            Started::from(&config, &env, shell.as_deref()).await;
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client");
        let rig = Rig {
            emulator,
            address,
            client,
            health,
            admin,
            key_file: dir.path().join("reader"),
            config: json,
            sidecar,
            dir,
            _tasks,
        };
        if wait_for_start {
            rig.log("each required credential is usable").await;
        }
        rig
    }
}

/// A process that says where it listens.
pub(super) struct Started {
    pub(super) sidecar: Process,
    pub(super) address: SocketAddr,
    pub(super) health: SocketAddr,
    pub(super) admin: SocketAddr,
}

impl Started {
    pub(super) async fn from(config: &str, env: &[(String, String)], shell: Option<&str>) -> Self {
        let args = ["run", "--config", config];
        let sidecar = match shell {
            Some(script) => Process::sidecar_after(script, &args),
            None => Process::sidecar_in(&args, env),
        };
        let line = sidecar.stderr.line(|line| line.contains("apps can call")).await;
        let address: SocketAddr = field(&line, "address");
        let line = sidecar.stderr.line(|line| line.contains("health and metrics")).await;
        Self { sidecar, address, health: field(&line, "health"), admin: field(&line, "admin") }
    }
}

fn field<T: std::str::FromStr<Err: std::fmt::Debug>>(line: &str, name: &str) -> T {
    let line: Value = serde_json::from_str(line).expect("a JSON line");
    line[name].as_str().expect("the field is there").parse().expect("it parses")
}

pub(super) fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}
