//! What every pod with a sidecar is like: restricted, apart, and without what breaks life cycles.

use std::fs;
use std::time::Duration;

use datapulse_sidecar::{app, config};
use serde_json::{Value, json};

use crate::support::{Helm, Setup, items, none, objects, path, pod, title, word};

/// Every pod of every set-up, with where it is from.
fn pods() -> Vec<(String, Value)> {
    let mut pods = Vec::new();
    for setup in Setup::all() {
        for object in setup.objects() {
            if let Some(pod) = pod(&object) {
                pods.push((format!("{}: {}", setup.name(), title(&object)), pod.clone()));
            }
        }
    }
    assert!(pods.len() > 20, "{} pods", pods.len());
    pods
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(pod, "/spec/initContainers").iter().chain(items(pod, "/spec/containers"))
}

/// Kubernetes' own list, "restricted" of the Pod Security standards.
#[test]
fn every_pod_is_restricted() {
    let mut wrong = Vec::new();
    for (at, pod) in pods() {
        let mut bad = |what: &str| wrong.push(format!("{at}: {what}"));
        for open in ["hostNetwork", "hostPID", "hostIPC"] {
            if pod.pointer(&format!("/spec/{open}")) == Some(&Value::Bool(true)) {
                bad(open);
            }
        }
        let kinds = ["name", "configMap", "emptyDir", "projected", "secret", "downwardAPI", "csi"];
        for volume in items(&pod, "/spec/volumes") {
            let keys = volume.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
            keys.filter(|key| !kinds.contains(key)).for_each(&mut bad);
        }
        for container in containers(&pod) {
            restricted(&pod, container).into_iter().for_each(&mut bad);
        }
    }
    none(&wrong);
}

fn restricted(pod: &Value, container: &Value) -> Vec<&'static str> {
    let own = |key: &str| container.pointer(&format!("/securityContext/{key}"));
    let either =
        |key: &str| own(key).or_else(|| pod.pointer(&format!("/spec/securityContext/{key}")));
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what| wrong.extend((!holds).then_some(what));
    must(own("allowPrivilegeEscalation") == Some(&Value::Bool(false)), "privilege escalation");
    must(own("privileged").is_none_or(|p| p == &Value::Bool(false)), "privileged");
    must(
        own("capabilities/drop").is_some_and(|d| d == &serde_json::json!(["ALL"])),
        "capabilities",
    );
    must(own("capabilities/add").is_none(), "more capabilities");
    must(either("runAsNonRoot") == Some(&Value::Bool(true)), "runs as root");
    must(either("runAsUser").is_none_or(|user| user != &Value::from(0)), "user 0");
    let profile = either("seccompProfile/type").and_then(Value::as_str);
    must(matches!(profile, Some("RuntimeDefault" | "Localhost")), "seccomp");
    must(!items(container, "/ports").iter().any(|p| p.get("hostPort").is_some()), "host port");
    wrong
}

#[test]
fn the_sidecar_is_first_native_and_without_what_breaks_life_cycles() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (at, pod) in pods().into_iter().filter(|(at, _)| at.starts_with("examples")) {
        let sidecar = &items(&pod, "/spec/initContainers")[0];
        seen += 1;
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{at}: {what}"));
            }
        };
        must(word(sidecar, "/name") == "datapulse-sidecar", "is not first");
        must(word(sidecar, "/restartPolicy") == "Always", "is not native");
        must(word(sidecar, "/startupProbe/httpGet/path") == "/startupz", "startup probe");
        must(word(sidecar, "/livenessProbe/httpGet/path") == "/livez", "liveness probe");
        must(sidecar.get("readinessProbe").is_none(), "a store's outage would unready the app");
        must(sidecar.get("lifecycle").is_none(), "a preStop hook runs while the app still calls");
        must(sidecar.pointer("/resources/limits/cpu").is_none(), "a CPU limit slows every call");
        must(
            pod.pointer("/spec/automountServiceAccountToken") == Some(&Value::Bool(false)),
            "the app has a token of the API server's",
        );
    }
    none(&wrong);
    assert!(seen >= 9);
}

#[test]
fn only_the_sidecar_mounts_its_volumes() {
    let mut wrong = Vec::new();
    for (at, pod) in pods() {
        for container in containers(&pod).filter(|c| word(c, "/name") != "datapulse-sidecar") {
            for mount in items(container, "/volumeMounts") {
                if word(mount, "/name").starts_with("datapulse-sidecar-") {
                    wrong.push(format!("{at}: {}", word(container, "/name")));
                }
            }
        }
        let volumes = items(&pod, "/spec/volumes");
        for mount in containers(&pod).flat_map(|c| items(c, "/volumeMounts")) {
            if !volumes.iter().any(|volume| word(volume, "/name") == word(mount, "/name")) {
                wrong.push(format!("{at}: no volume {}", word(mount, "/name")));
            }
        }
    }
    none(&wrong);
}

#[test]
fn the_token_for_vault_is_for_vault_alone_and_short_lived() {
    let mut seen = 0;
    for (at, pod) in pods() {
        for source in
            items(&pod, "/spec/volumes").iter().flat_map(|v| items(v, "/projected/sources"))
        {
            assert_eq!(word(source, "/serviceAccountToken/audience"), "vault", "{at}");
            let life = source.pointer("/serviceAccountToken/expirationSeconds");
            assert_eq!(life.and_then(Value::as_i64), Some(600), "{at}");
            seen += 1;
        }
    }
    assert!(seen >= 3);
}

/// What the binary does between SIGTERM and its end is over before the kubelet kills it.
#[test]
fn a_gateways_pod_may_take_as_long_to_end_as_its_binary() {
    let setups = Setup::of("datapulse-sidecar");
    let mut runs: Vec<_> = setups.iter().map(|setup| (setup, json!({}))).collect();
    let default = setups.iter().find(|s| s.name().ends_with("/default")).expect("the file");
    for span in ["10m", "1h30m", "2h 37min", "1.5h", "90 seconds", "1d", "1 min 500ms", "3s"] {
        let rule = json!({"methods": ["GET"], "path": "/v1/exports/**", "level": "read_only",
                          "request_timeout": span});
        runs.push((default, json!({"config": {"policy": [rule]}})));
    }
    let upstream = json!({"config": {"upstream": {"request_timeout": "2m"}}});
    runs.push((default, upstream));
    runs.push((default, json!({"drain": {"max": "8s"}})));
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    for (setup, more) in runs {
        fs::write(&file, more.to_string()).expect("written");
        let args = ["--values", path(&setup.values), "--values", path(&file)];
        let rendered = Helm::Four.template(setup.chart, &args);
        let objects = objects(&rendered.unwrap_or_else(|e| panic!("{}: {e}", setup.name())));
        let config = objects.iter().find_map(|o| o.pointer("/data/config.yaml")?.as_str());
        let config = config::parse(config.expect("it has one"), "config.yaml", &|_| None);
        let (config, _) = config.unwrap_or_else(|e| panic!("{}: {e}", setup.name()));
        let most = config.drain.max + config.answer_time() + app::LAST_WRITE_MAX;
        let at = "/spec/template/spec/terminationGracePeriodSeconds";
        let grace = objects.iter().find_map(|object| object.pointer(at)?.as_u64());
        let grace = Duration::from_secs(grace.expect("it is said"));
        let at_most = most + Duration::from_secs(2);
        assert!(grace >= most && grace <= at_most, "{}: {more}: {grace:?}", setup.name());
    }
}

#[test]
fn a_cloud_identity_reaches_the_sidecar_alone() {
    let (at, pod) = pods().into_iter().find(|(at, _)| at.starts_with("examples/aws")).expect("it");
    let skipped = word(&pod, "/metadata/annotations/eks.amazonaws.com~1skip-containers");
    assert_eq!(skipped, "app", "{at}");
}
