//! What is added to a pod: one container, its volumes, and how the pod is marked.

use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde_json::Value;
use thiserror::Error;

use super::manifest::{Entry, Node};
use super::quotas::begin_paced;
use crate::config::Config;

/// The container's name, which nothing else in a pod may have.
pub(super) const NAME: &str = "datapulse-sidecar";
pub(super) const CONTAINER: &str = include_str!("container.yaml");
pub(super) const VOLUMES: &str = include_str!("volumes.yaml");
/// Where Vault's login finds the pod's token, and what for it is made.
const VAULT_MOUNT: &str = "/var/run/secrets/vault";
/// `container.yaml`'s startup probe gives up after 60 s; what opens is asked a few seconds later.
const STARTUP_TIMEOUT_MAX: Duration = Duration::from_secs(55);
/// All annotations of a pod together have 256 KiB.
const CONFIG_BYTES_MAX: usize = 200 * 1024;

/// What is added, the same for each pod.
#[derive(Debug, Clone)]
pub struct Sidecar {
    container: Vec<String>,
    volumes: Vec<String>,
    config: String,
    revision: String,
    /// The configuration has a store in AWS: the identity is for the sidecar alone.
    uses_aws: bool,
    /// A limited quota, all of it for each process.
    takes_whole_quota: bool,
}

/// Why a configuration cannot travel in a pod.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SidecarError {
    /// It would not fit: embed the sidecar with a `ConfigMap` (datapulse-sidecar-lib).
    #[error("the configuration has more than 200 KiB, too much for a pod's annotation")]
    TooLarge,
    /// Listen on `[::]:9464`.
    #[error("health.listen is a loopback address, which the kubelet cannot probe; use [::]:9464")]
    Unprobeable,
    /// The app would never start while a store is down.
    #[error("startup_timeout: the kubelet kills what has not started after 60 s; 55s at most")]
    StartsTooLate,
    /// Vault's token is mounted elsewhere.
    #[error("stores.vault.auth.token_file: the pod's token will be {VAULT_MOUNT}/token; say so")]
    TokenElsewhere,
    /// It is for whoever wrote it to say.
    #[error(
        "quotas: write `cold_start: paced` into each with a limit (a new pod does not know what the \
         one before it sent)"
    )]
    NotPaced,
    /// A name that is none.
    #[error("a secret is given as NAME=/ABSOLUTE/PATH, with the name of a Secret")]
    BadSecret,
}

impl Sidecar {
    /// From an image, the text of a configuration and what it means, and Secrets that the sidecar
    /// alone mounts (`NAME=/path`).
    ///
    /// # Errors
    /// When a pod could not carry the configuration, or could not be probed.
    pub fn new(
        image: &str,
        text: &str,
        config: &Config,
        secrets: &[String],
    ) -> Result<Self, SidecarError> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(SidecarError::TooLarge);
        }
        if config.health_listen.ip().is_loopback() {
            return Err(SidecarError::Unprobeable);
        }
        if config.startup_timeout > STARTUP_TIMEOUT_MAX {
            return Err(SidecarError::StartsTooLate);
        }
        let whole =
            |quota: &crate::config::model::Quota| quota.limit.is_some() && quota.share >= 1.0;
        let written = Written::read(text);
        let mut sidecar = Self {
            container: lines(CONTAINER, image, config.health_listen.port()),
            volumes: lines(VOLUMES, image, 0),
            config: begin_paced(text, config).map_err(|_no_place| SidecarError::NotPaced)?,
            revision: String::new(),
            uses_aws: written.uses_aws,
            takes_whole_quota: !written.has_fleet && config.quotas.values().any(whole),
        };
        if let Some(file) = written.vault_token_file {
            if file != format!("{VAULT_MOUNT}/token") {
                return Err(SidecarError::TokenElsewhere);
            }
            sidecar.mount_vault_token();
        }
        for secret in secrets {
            sidecar.mount_secret(secret)?;
        }
        sidecar.revision = sidecar.hash();
        Ok(sidecar)
    }

    fn mount_vault_token(&mut self) {
        self.mount("datapulse-sidecar-vault-token", VAULT_MOUNT);
        self.volumes.extend(
            [
                "- name: datapulse-sidecar-vault-token",
                "  projected:",
                "    sources:",
                "      - serviceAccountToken: {audience: vault, expirationSeconds: 600, path: token}",
            ]
            .map(str::to_owned),
        );
    }

    fn mount_secret(&mut self, given: &str) -> Result<(), SidecarError> {
        let (name, path) = given.split_once('=').ok_or(SidecarError::BadSecret)?;
        let of_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let is_name = (1..=40).contains(&name.len()) && name.bytes().all(of_name);
        let of_path = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.');
        let is_path = path.starts_with('/') && path.len() > 1 && path.bytes().all(of_path);
        if !is_name || !is_path {
            return Err(SidecarError::BadSecret);
        }
        self.mount(&format!("datapulse-sidecar-{name}"), path);
        self.volumes.push(format!("- name: datapulse-sidecar-{name}"));
        self.volumes.push(format!("  secret: {{secretName: {name}}}"));
        Ok(())
    }

    /// The mounts are the container's last key.
    fn mount(&mut self, volume: &str, path: &str) {
        self.container.push(format!("  - {{name: {volume}, mountPath: {path}, readOnly: true}}"));
    }

    /// Changes with the container and with the configuration.
    fn hash(&self) -> String {
        let all = format!("{}\n{}", self.container.join("\n"), self.config);
        let digest = digest(&SHA256, all.as_bytes());
        let hash: String = digest.as_ref().iter().take(5).map(|b| format!("{b:02x}")).collect();
        format!("{}-{hash}", env!("CARGO_PKG_VERSION"))
    }

    /// One item of `initContainers`.
    pub(super) fn container(&self) -> Vec<String> {
        let (first, rest) = self.container.split_first().map_or((NAME, &[][..]), |(f, r)| (f, r));
        let rest = rest.iter().map(|line| format!("  {line}"));
        std::iter::once(format!("- {first}")).chain(rest).collect()
    }

    /// The items of `volumes`.
    pub(super) fn volumes(&self) -> Vec<String> {
        self.volumes.clone()
    }

    /// The entries of `annotations`, in a pod with these other containers.
    pub(super) fn annotations(&self, others: &[&str]) -> Vec<String> {
        let mut lines = vec![format!("sidecar.datapulse.ai/revision: {}", self.revision)];
        if self.uses_aws {
            let others = Value::from(others.join(","));
            lines.push(format!("eks.amazonaws.com/skip-containers: {others}"));
        }
        // How deep the text is indented is said, as its first line may begin with a space.
        lines.push("sidecar.datapulse.ai/config: |2".to_owned());
        let text = self.config.trim_end().lines().map(str::trim_end);
        lines.extend(
            text.map(|line| if line.is_empty() { String::new() } else { format!("  {line}") }),
        );
        lines
    }
}

fn lines(template: &str, image: &str, port: u16) -> Vec<String> {
    let image = Value::from(image).to_string();
    let text = template.replace("${IMAGE}", &image).replace("${PORT}", &port.to_string());
    text.lines().map(str::to_owned).collect()
}

/// What the text of a configuration says about the pod around it.
#[derive(Default)]
struct Written {
    /// Vault's login is by the pod's own token.
    vault_token_file: Option<String>,
    uses_aws: bool,
    has_fleet: bool,
}

impl Written {
    fn read(text: &str) -> Self {
        // It was read before, so that it can be read.
        let config: Value = serde_saphyr::from_str(text).unwrap_or_default();
        let vault = config.pointer("/stores/vault/auth");
        let word = |key: &str| vault.and_then(|auth| auth.get(key)).and_then(Value::as_str);
        let by_token = matches!(word("method"), Some("kubernetes" | "jwt"));
        let file = word("token_file").unwrap_or_default().to_owned();
        Self {
            vault_token_file: by_token.then_some(file),
            uses_aws: config.pointer("/stores/aws").is_some(),
            has_fleet: config.pointer("/shaping/fleet").is_some_and(|fleet| !fleet.is_null()),
        }
    }
}

/// An object with a pod in it.
pub(super) struct Workload<'n> {
    /// Kind and name.
    pub(super) title: String,
    pub(super) object: &'n Node,
    /// The key that the pod's template is behind; none where the object is a pod.
    pub(super) parent: Option<&'n Entry>,
    /// Metadata and spec.
    pub(super) pod: &'n Node,
}

impl Workload<'_> {
    /// Why the sidecar cannot be in this pod. The guard of the injector's chart refuses the same.
    pub(super) fn unfit(&self, sidecar: &Sidecar) -> Option<&'static str> {
        let on = |key: &str| self.pod.text(&["spec", key]) == "true";
        if on("shareProcessNamespace") {
            return Some("shareProcessNamespace lets other containers read the sidecar's tokens");
        }
        if on("hostNetwork") || on("hostPID") {
            return Some("hostNetwork and hostPID open the sidecar to everything on the node");
        }
        let volumes = self.pod.items(&["spec", "volumes"]).iter();
        if volumes.map(|item| item.value.text(&["name"])).any(|name| name.starts_with(NAME)) {
            return Some("a volume has a name that begins with datapulse-sidecar, as ours do");
        }
        if self.has_replicas() && sidecar.takes_whole_quota {
            return Some(
                "it has several pods, and each would use the whole quota and meet 429 in half of \
                 its calls: give the configuration's quotas a `share`",
            );
        }
        if self.surges() && sidecar.takes_whole_quota {
            return Some(
                "while it is updated two of its pods call at once, and each would use the whole \
                 quota and meet 429: give the configuration's quotas a `share` (1/2), or the \
                 Deployment `strategy: {type: Recreate}`",
            );
        }
        None
    }

    /// The next pod begins before the last one has ended.
    fn surges(&self) -> bool {
        self.object.text(&["kind"]) == "Deployment"
            && self.object.text(&["spec", "strategy", "type"]) != "Recreate"
            && !matches!(
                self.object.text(&["spec", "strategy", "rollingUpdate", "maxSurge"]),
                "0" | "0%"
            )
    }

    fn has_replicas(&self) -> bool {
        let counts: [&[&str]; 3] = [
            &["spec", "replicas"],
            &["spec", "parallelism"],
            &["spec", "jobTemplate", "spec", "parallelism"],
        ];
        let number = |at: &&[&str]| self.object.text(at).parse().unwrap_or(1_u32);
        self.object.text(&["kind"]) == "DaemonSet" || counts.iter().any(|at| number(at) > 1)
    }

    /// Every container there is beside the sidecar.
    pub(super) fn container_names(&self) -> Vec<&str> {
        ["containers", "initContainers"]
            .into_iter()
            .flat_map(|list| self.pod.items(&["spec", list]))
            .map(|item| item.value.text(&["name"]))
            .collect()
    }
}
