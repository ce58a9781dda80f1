//! A pod without a cluster: what Helm renders, run as plain processes in the kubelet's order.
//!
//! Volumes are folders, and paths in arguments, variables and configuration are those of the folders;
//! there are no namespaces and no images. A `ConfigMap` or Secret changes as the kubelet does it, by
//! a symbolic link that is swapped.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Duration, Instant, timeout};

use super::{PATIENCE, Process};

/// What Helm renders.
pub(crate) struct Release(Vec<Value>);

impl Release {
    /// The example app with these values.
    pub(crate) async fn of_example(values: &Value) -> Self {
        Self::of("examples", None, values).await
    }

    /// The gateway as one of its `ci/` files sets it up, but for these values.
    pub(crate) async fn of_gateway(setup: &str, values: &Value) -> Self {
        let file = format!("datapulse-sidecar/ci/{setup}-values.yaml");
        Self::of("datapulse-sidecar", Some(&file), values).await
    }

    async fn of(chart: &str, setup: Option<&str>, values: &Value) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let helm = root.join("target/tools/bin/helm4");
        assert!(helm.exists(), "no Helm in target/tools: run tools/setup.sh test");
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("values.yaml");
        std::fs::write(&file, values.to_string()).expect("written");
        let mut helm = Command::new(helm);
        helm.args(["template", "release", chart, "--namespace", "apps"]);
        helm.args(setup.into_iter().flat_map(|setup| ["--values", setup]));
        helm.current_dir(root.join("charts"));
        let output = helm.arg("--values").arg(&file).output().await.expect("helm runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        Self(serde_saphyr::from_multiple(&text).expect("YAML"))
    }

    /// The first object of this kind.
    pub(crate) fn object(&self, kind: &str) -> &Value {
        self.0.iter().find(|object| object["kind"] == kind).expect("the chart has one")
    }

    fn config(&self) -> &str {
        let text = |object: &'_ Value| object["data"]["config.yaml"].is_string();
        let object = self.0.iter().find(|object| text(object)).expect("the chart has one");
        object["data"]["config.yaml"].as_str().expect("text")
    }
}

/// A pod of a workload: its volumes, and the sidecar once it runs.
pub(crate) struct Pod {
    spec: Value,
    dir: TempDir,
    revisions: u32,
    /// The sidecar, once it was started.
    pub(crate) sidecar: Option<Process>,
    client: reqwest::Client,
}

impl Pod {
    /// The pod of the workload of this kind, with the Secrets' files.
    pub(crate) fn new(release: &Release, kind: &str, secrets: &[(&str, &[(&str, &str)])]) -> Self {
        let spec = release.object(kind)["spec"]["template"]["spec"].clone();
        let dir = tempfile::tempdir().expect("a folder");
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let client = client.expect("a client");
        let mut pod = Self { spec, dir, revisions: 0, sidecar: None, client };
        for volume in pod.spec["volumes"].as_array().cloned().unwrap_or_default() {
            let name = volume["name"].as_str().expect("a name");
            std::fs::create_dir_all(pod.folder(name)).expect("made");
            if let Some(secret) = volume["secret"]["secretName"].as_str() {
                let files =
                    secrets.iter().find(|(name, _)| *name == secret).map(|(_, files)| *files);
                pod.publish(name, files.unwrap_or_default());
            }
        }
        pod.reconfigure(release);
        pod
    }

    fn folder(&self, volume: &str) -> PathBuf {
        self.dir.path().join(volume)
    }

    /// The `ConfigMap` of this release takes the place of the one before.
    pub(crate) fn reconfigure(&mut self, release: &Release) {
        let config = self.local(release.config());
        self.publish("datapulse-sidecar-config", &[("config.yaml", &config)]);
    }

    /// Files of a volume, as the kubelet writes them: a new folder, and `..data` points to it.
    pub(crate) fn publish(&mut self, volume: &str, files: &[(&str, &str)]) {
        self.revisions += 1;
        let folder = self.folder(volume);
        let revision = format!("..revision_{}", self.revisions);
        std::fs::create_dir_all(folder.join(&revision)).expect("made");
        for (name, content) in files {
            std::fs::write(folder.join(&revision).join(name), content).expect("written");
            let link = folder.join(name);
            if link.symlink_metadata().is_err() {
                symlink(Path::new("..data").join(name), link).expect("linked");
            }
        }
        symlink(&revision, folder.join("..data_tmp")).expect("linked");
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("swapped");
    }

    /// A text with the container's paths, with the folders' in their place.
    fn local(&self, text: &str) -> String {
        let mut mounts: BTreeMap<&str, String> = BTreeMap::new();
        for mount in self.sidecar_spec()["volumeMounts"].as_array().expect("mounts") {
            let name = mount["name"].as_str().expect("a name");
            let folder = self.folder(name).display().to_string();
            mounts.insert(mount["mountPath"].as_str().expect("a path"), folder);
        }
        mounts.iter().rev().fold(text.to_owned(), |text, (path, folder)| text.replace(path, folder))
    }

    fn sidecar_spec(&self) -> &Value {
        // A gateway is the only container; beside an app, it is a native sidecar.
        let native = self.spec["initContainers"].is_array();
        let list = if native { "initContainers" } else { "containers" };
        let first = &self.spec[list][0];
        assert_eq!(first["name"], "datapulse-sidecar");
        assert_eq!(first["restartPolicy"], if native { "Always".into() } else { Value::Null });
        first
    }

    /// Starts the sidecar as its container says.
    pub(crate) fn start_sidecar(&mut self) {
        let spec = self.sidecar_spec();
        let args = spec["args"].as_array().expect("arguments").iter();
        let args: Vec<_> = args.map(|arg| self.local(arg.as_str().expect("text"))).collect();
        let mut command = Command::new(env!("CARGO_BIN_EXE_datapulse-sidecar"));
        command.args(args).env_clear();
        for variable in spec["env"].as_array().expect("variables") {
            let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
            let value = match field {
                Some("metadata.name") => "app-0",
                Some("metadata.namespace") => "apps",
                _ => variable["value"].as_str().expect("a value"),
            };
            command.env(variable["name"].as_str().expect("a name"), value);
        }
        self.sidecar = Some(Process::start(command));
    }

    /// Asks as the startup probe does until it succeeds; how many times it did not.
    pub(crate) async fn startup(&self) -> u64 {
        self.probed("startupProbe").await
    }

    /// As [`Self::startup`], by another probe.
    pub(crate) async fn probed(&self, probe: &str) -> u64 {
        let probe = &self.sidecar_spec()[probe];
        let path = probe["httpGet"]["path"].as_str().expect("a path");
        let period = probe["periodSeconds"].as_u64().expect("a period");
        let most = probe["failureThreshold"].as_u64().expect("a threshold");
        let mut failures = 0;
        let mut next = Instant::now();
        while self.health(path).await != Some(200) {
            failures += 1;
            assert!(failures < most, "the kubelet would give up");
            next += Duration::from_secs(period);
            tokio::time::sleep_until(next).await; // tidy: passes time because the probe has a period
        }
        failures
    }

    /// The status of a path on the port of the probes, where it answers.
    pub(crate) async fn health(&self, path: &str) -> Option<u16> {
        let answer = self.client.get(self.health_url(path)).send().await.ok()?;
        Some(answer.status().as_u16())
    }

    /// The metrics as they are now.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.client.get(self.health_url("/metrics")).send().await;
        answer.expect("it runs").text().await.expect("text")
    }

    /// The address of a path on the port of the probes.
    pub(crate) fn health_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port("sidecar-health"))
    }

    /// The number of a port of the container.
    pub(crate) fn port(&self, name: &str) -> u16 {
        let ports = self.sidecar_spec()["ports"].as_array().expect("ports");
        let port = ports.iter().find(|port| port["name"] == name).expect("a port of this name");
        port["containerPort"].as_u64().and_then(|port| port.try_into().ok()).expect("a port")
    }

    /// Runs a script as the app, with the variables of the app's container, until it ends.
    pub(crate) async fn app(&self, script: &str) -> (Option<i32>, String) {
        let mut app = Command::new("python3");
        app.args(["-c", script]).env_remove("http_proxy").env_remove("HTTP_PROXY");
        for variable in self.spec["containers"][0]["env"].as_array().expect("variables") {
            let (name, value) = (&variable["name"], &variable["value"]);
            app.env(name.as_str().expect("a name"), value.as_str().expect("a value"));
        }
        let mut app = Process::start(app);
        let code = app.ended().await.code();
        (code, [app.stdout.lines().join("\n"), app.stderr.lines().join("\n")].concat())
    }

    /// The app has ended: SIGTERM, and the grace period. The sidecar's exit code.
    pub(crate) async fn terminate(&mut self) -> Option<i32> {
        self.sidecar.as_ref().expect("it runs").signal("TERM").await;
        self.terminated().await
    }

    /// SIGTERM was sent: the grace period. The sidecar's exit code.
    pub(crate) async fn terminated(&mut self) -> Option<i32> {
        let grace = self.spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let mut sidecar = self.sidecar.take().expect("it runs");
        let ended = timeout(Duration::from_secs(grace), sidecar.ended()).await;
        ended.expect("within the grace period").code()
    }

    /// The container is killed, and started again as its restart policy says.
    pub(crate) async fn crash(&mut self) {
        let mut sidecar = self.sidecar.take().expect("it runs");
        sidecar.signal("KILL").await;
        assert_eq!(sidecar.ended().await.code(), None);
        self.start_sidecar();
    }
}
