use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Sidecar, inject};
use crate::config;
use crate::config::model::ColdStart;
use crate::shaping::state_file;
use crate::{proxy, webhook};

const CONFIG: &str = "\
# what apps may use
version: 1
listeners: [{listen: localhost:8080}]
credentials:
  - {name: reader, level: read_only, api_key: file:/var/run/datapulse-key/key}
";

fn sidecar_of(text: &str) -> Sidecar {
    let (config, _) = config::parse(text, "config.yaml", &|_| None).unwrap();
    let secrets = ["key=/var/run/datapulse-key".to_owned()];
    Sidecar::new("registry.example/datapulse-sidecar:0.1.0", text, &config, &secrets).unwrap()
}

fn sidecar() -> Sidecar {
    sidecar_of(CONFIG)
}

fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/manifests");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_input = |f: &PathBuf| f.extension().is_some_and(|e| e == "yaml" || e == "json");
    let mut files: Vec<_> = files.filter(is_input).collect();
    files.sort();
    assert!(files.len() > 3);
    files
}

/// `NAME.yaml` becomes `NAME.injected`; write the result there when it is meant to change.
#[test]
fn the_sidecar_is_added_and_a_second_run_changes_nothing() {
    for file in golden() {
        let text = fs::read_to_string(&file).unwrap();
        let out = inject(&text, &sidecar(), &[]).unwrap();
        let wanted = fs::read_to_string(file.with_extension("injected")).unwrap_or_default();
        assert!(out == wanted, "{}: it is now\n{out}", file.display());
        assert_eq!(inject(&out, &sidecar(), &[]).unwrap(), out);
    }
}

/// No line is lost or changed, but where `{}`, `[]` or `null` made room, and in braces.
#[test]
fn what_is_not_added_to_stays_as_it_was() {
    let in_braces = ["braces.yaml", "kubectl-get.json", "kubectl-create-job.json"];
    let blocks = |file: &PathBuf| !in_braces.iter().any(|name| file.ends_with(name));
    for file in golden().into_iter().filter(blocks) {
        let text = fs::read_to_string(&file).unwrap();
        let out = inject(&text, &sidecar(), &[]).unwrap();
        let mut after = out.lines();
        for line in text.lines() {
            let bare = [" {}", " []", " null", " ~"]
                .into_iter()
                .fold(line.to_owned(), |line, room| line.replacen(room, "", 1));
            assert!(after.any(|l| l == line || l == bare), "{}: {line}", file.display());
        }
    }
}

/// Without what was added, the text is the one before; and JSON stays JSON.
#[test]
fn what_stands_in_braces_stays_there_byte_for_byte() {
    let file = golden().into_iter().find(|file| file.ends_with("kubectl-get.json")).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let out = inject(&text, &sidecar(), &[]).unwrap();
    let mut rest = out.as_str();
    for piece in text.split_inclusive(['{', '[']) {
        let at = rest.find(piece).unwrap_or_else(|| panic!("{piece:?} is lost"));
        rest = &rest[at + piece.len()..];
    }
    assert_eq!(rest, "");
    let read = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let (before, mut after) = (read(&text), read(&out));
    let (app, empty) = ("/items/0/spec/template", "/items/2");
    for pod in [app, empty] {
        let pod = after.pointer_mut(pod).unwrap();
        assert_eq!(pod["metadata"]["annotations"].as_object().unwrap().len(), 2);
        pod["metadata"]["labels"].as_object_mut().unwrap().remove("sidecar.datapulse.ai/inject");
        for list in ["initContainers", "volumes"] {
            let ours =
                |item: &Value| item["name"].as_str().unwrap().starts_with("datapulse-sidecar");
            let list = pod["spec"][list].as_array_mut().unwrap();
            list.retain(|item| !ours(item));
            assert!(list.is_empty());
        }
    }
    let app = after.pointer_mut(app).unwrap();
    app["metadata"].as_object_mut().unwrap().remove("annotations");
    for list in ["initContainers", "volumes"] {
        app["spec"].as_object_mut().unwrap().remove(list);
    }
    after.pointer_mut(empty).unwrap()["metadata"]["annotations"] = serde_json::json!({});
    assert_eq!(after, before);
}

#[test]
fn null_in_braces_makes_room() {
    let text = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\", \
                \"annotations\": null}, \"spec\": {\"volumes\": null, \"containers\": []}}";
    let out: Value = serde_json::from_str(&inject(text, &sidecar(), &[]).unwrap()).unwrap();
    assert_eq!(out["metadata"]["annotations"]["sidecar.datapulse.ai/config"], CONFIG);
    assert_eq!(out["spec"]["volumes"].as_array().unwrap().len(), 4);
}

#[test]
fn every_pod_has_it_first_and_everything_else_as_before() {
    for file in golden() {
        let read = |text: &str| -> Vec<Value> { serde_saphyr::from_multiple(text).unwrap() };
        let text = fs::read_to_string(&file).unwrap();
        let out = inject(&text, &sidecar(), &[]).unwrap();
        let (before, after) = (read(&text), read(&out));
        assert_eq!(before.len(), after.len());
        for pod in after.iter().flat_map(pods) {
            let first = &pod["spec"]["initContainers"][0];
            assert_eq!(first["name"], "datapulse-sidecar", "{}", file.display());
            if first["image"] == "registry.example/datapulse-sidecar:0.1.0" {
                assert_eq!(first["restartPolicy"], "Always");
                let annotation = &pod["metadata"]["annotations"]["sidecar.datapulse.ai/config"];
                assert_eq!(annotation, CONFIG);
                assert_eq!(pod["metadata"]["labels"]["sidecar.datapulse.ai/inject"], "embedded");
            }
        }
    }
}

fn pods(object: &Value) -> Vec<Value> {
    let at = match object["kind"].as_str().unwrap_or_default() {
        "List" => return object["items"].as_array().unwrap().iter().flat_map(pods).collect(),
        "Pod" => "",
        "Deployment" | "StatefulSet" => "/spec/template",
        "Job" if object["apiVersion"] == "batch/v1" => "/spec/template",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => return Vec::new(),
    };
    vec![object.pointer(at).unwrap().clone()]
}

#[track_caller]
fn refused(manifest: &str, sentence: &str) {
    let error = inject(manifest, &sidecar(), &[]).expect_err(manifest).to_string();
    assert!(error.contains(sentence), "{error}");
}

#[test]
fn what_nothing_can_be_added_to_is_refused_with_its_line() {
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: &l {a: b}, annotations: *l}\nspec: {}\n",
        "line 3: nothing can be added to `annotations`: it is an alias",
    );
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {<<: {hostname: x}, containers: []}\n",
        "line 4: nothing can be added to `spec`",
    );
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: &l\n    a: b\n  annotations: *l\nspec:\n  containers: []\n",
        "line 7: nothing can be added to `annotations`: it is an alias, or merged",
    );
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  <<: {hostname: x}\n  containers: []\n",
        "line 5: nothing can be added to `spec`",
    );
    refused("a: [\n", "this is not YAML");
    refused(&"---\na: b\n".repeat(100_001), "line 200001: too much for one go");
    let one = format!("all:\n- &a {{{}}}\n", "k: v, ".repeat(250));
    let many = format!("{one}{}", "- *a\n".repeat(20_000));
    refused(&many, "too much for one go");
}

#[test]
fn a_cluster_full_of_manifests_is_read_at_once() {
    let data: String = (0..260).map(|key| format!("  k{key}: v\n")).collect();
    let map = |name| format!("---\nkind: ConfigMap\nmetadata:\n  name: m{name}\ndata:\n{data}");
    // More than a million events, and more than a thousand documents, for the reader.
    let text: String = (0..2000).map(map).collect();
    assert_eq!(inject(&text, &sidecar(), &[]).unwrap(), text);
    // One anchor and many aliases.
    let text = format!("kind: ConfigMap\nlist:\n- &a b\n{}", "- *a\n".repeat(300));
    assert_eq!(inject(&text, &sidecar(), &[]).unwrap(), text);
}

/// A selector cannot be changed on a living Deployment; and no app is a sidecar.
#[test]
fn what_an_alias_repeats_is_not_changed_through_its_anchor() {
    refused(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\nspec:\n  template:\n    metadata:\n      labels: &l\n        app: a\n    spec:\n      containers: []\n  selector:\n    matchLabels: *l\n",
        "line 13: `matchLabels` would be changed, too: it is an alias of what the sidecar is added to",
    );
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  initContainers: &c\n  - name: b\n  containers: *c\n",
        "line 8: `containers` would be changed, too",
    );
    refused(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  labels: &l {a: b}\nspec:\n  affinity:\n    labels:\n      <<: *l\n      c: d\n",
        "line 9: `<<` would be changed, too",
    );
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {}}";
    let other = pod.replace("Pod", "Other");
    refused(
        &format!("apiVersion: v1\nkind: List\nitems:\n- &p {pod}\n-\n  {other}\n- *p\n"),
        "line 7: nothing can be added to `metadata`: it is an alias",
    );
    refused(
        &format!(
            "kind: Kept\nitems:\n- &p {pod}\n---\n{pod}\n---\nkind: List\nitems: [&p {pod}, {{kind: Kept, own: [*p]}}]\n"
        ),
        "line 8: `own` would be changed, too",
    );
    // Where nothing is added an alias stays what it was.
    let beside = "apiVersion: v1\nkind: Pod\nmetadata: &m\n  name: a\nspec:\n  containers: &c []\n---\nkind: Kept\nfirst: &f {a: [b]}\nsecond: *f\n<<: *f\n";
    let beside = beside.replace("kind: Pod\n", "kind: Pod\nextra: {a: &a [b], b: *a}\n");
    let out = inject(&beside, &sidecar(), &[]).unwrap();
    assert!(out.contains("second: *f\n<<: *f\n"), "{out}");
}

/// A key that is there twice would be read as one of the two.
#[test]
fn what_it_writes_is_not_there_already() {
    for (own, value) in [("revision", "0.1.0"), ("config", "|-\n      version: 1")] {
        let pod = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    b: c\n    sidecar.datapulse.ai/{own}: {value}\nspec:\n  containers: []\n"
        );
        refused(&pod, &format!("line 7: `sidecar.datapulse.ai/{own}` is written by this command"));
    }
    refused(
        "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {sidecar.datapulse.ai/inject: \"\"}}, spec: {}}",
        "line 1: `sidecar.datapulse.ai/inject` is written by this command",
    );
}

#[test]
fn a_pod_that_would_open_the_sidecar_is_refused() {
    let pod = |more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers: []\n  {more}\n"
        )
    };
    refused(&pod("hostNetwork: true"), "Pod a: hostNetwork and hostPID open");
    refused(&pod("shareProcessNamespace: true"), "Pod a: shareProcessNamespace");
    refused(&pod("volumes: [{name: datapulse-sidecar-state}]"), "as ours do");
    let quiet = pod("hostNetwork: false");
    assert!(inject(&quiet, &sidecar(), &[]).is_ok());
}

/// The kernel kills a container that takes more than it may, with every call in flight.
#[test]
fn the_container_may_take_what_the_binary_allows_itself() {
    let container = super::pod::CONTAINER.replace("${IMAGE}", "i:1").replace("${PORT}", "1");
    let container: Value = serde_saphyr::from_str(&container).unwrap();
    let limit = container["resources"]["limits"]["memory"].as_str().unwrap();
    let limit: usize = limit.strip_suffix("Mi").unwrap().parse().unwrap();
    let (config, _) = config::parse(CONFIG, "config.yaml", &|_| None).unwrap();
    // What one takes was measured: docs/shaping-details.md.
    let connections = config.front_door.max_connections * 38_000;
    let bodies = proxy::KEPT_BODIES_BYTES + webhook::DELIVERIES_BYTES;
    let process = 64 * 1024 * 1024;
    assert!(limit * 1024 * 1024 >= bodies + connections + process, "{limit} MiB");
}

/// A kubelet evicts the whole pod, the app too, when a volume holds more than it may.
#[test]
fn the_volume_of_the_state_holds_every_quota_that_is_kept() {
    let volumes: Value = serde_saphyr::from_str(super::pod::VOLUMES).unwrap();
    let mut volumes = volumes.as_array().unwrap().iter();
    let state = volumes.find(|volume| volume["name"] == "datapulse-sidecar-state").unwrap();
    let limit = state["emptyDir"]["sizeLimit"].as_str().unwrap();
    let limit: usize = limit.strip_suffix("Mi").unwrap().parse().unwrap();
    let file = state_file::REGIONS_MAX * state_file::layout::REGION_BYTES;
    assert!(limit * 1024 * 1024 > file + 64 * 1024, "{limit} MiB for a file of {file} bytes");
}

#[test]
fn several_pods_do_not_each_use_the_whole_quota() {
    let quota = |share: &str| {
        format!("{CONFIG}quotas: {{business: {{limit: 1000/min{share}}}}}\n")
            .replace("level: read_only", "level: read_only, quota: business")
    };
    let app = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\nspec:\n  replicas: 2\n  template:\n    spec:\n      containers: []\n";
    let error = inject(app, &sidecar_of(&quota("")), &[]).expect_err("refused").to_string();
    assert!(error.contains("give the configuration's quotas a `share`"), "{error}");
    assert!(inject(app, &sidecar_of(&quota(", share: 1/3")), &[]).is_ok());
    // One replica has a second pod beside it in each update, unless it says otherwise.
    let one = app.replace("replicas: 2", "replicas: 1");
    let error = inject(&one, &sidecar_of(&quota("")), &[]).expect_err("refused").to_string();
    assert!(error.contains("while it is updated two of its pods call at once"), "{error}");
    assert!(inject(&one, &sidecar_of(&quota(", share: 1/2")), &[]).is_ok());
    for strategy in ["{type: Recreate}", "{rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}"] {
        let app = one.replace("replicas: 1", &format!("replicas: 1\n  strategy: {strategy}"));
        assert!(inject(&app, &sidecar_of(&quota("")), &[]).is_ok(), "{strategy}");
    }
    let report = |pods: u32| {
        format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata:\n  name: a\nspec:\n  jobTemplate:\n    spec:\n      parallelism: {pods}\n      template:\n        spec:\n          containers: []\n"
        )
    };
    let error = inject(&report(5), &sidecar_of(&quota("")), &[]).expect_err("refused").to_string();
    assert!(error.contains("CronJob a: it has several pods"), "{error}");
    assert!(inject(&report(1), &sidecar_of(&quota("")), &[]).is_ok());
}

/// A pod's volume is new, so that no file tells of the pod before it.
#[test]
fn each_limited_quota_begins_paced_unless_it_says_otherwise() {
    let quotas = "\
quotas:
  # the plan
  block:   # ours
    limit: 1000/min
    share: 1/2

  flow: {limit: 100/min}
  lines: {
    limit: 100/min
  }
  anchor: &plan {limit: 7/s}
  alias: *plan
  own: {limit: 100/min, cold_start: auto}
  cautious:
    cold_start: cautious
    limit: 100/min
  free: {limit: unlimited}
";
    for (before, after) in
        [(CONFIG, ""), ("quotas: {in: {limit: 5/s}, braces: {limit: 6/s}}\n", CONFIG)]
    {
        let quotas = if after.is_empty() { quotas } else { "" };
        let text = format!("{before}{quotas}{after}");
        let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers: []\n";
        let out = inject(pod, &sidecar_of(&text), &[]).unwrap();
        let out: Value = serde_saphyr::from_str(&out).unwrap();
        let annotation = &out["metadata"]["annotations"]["sidecar.datapulse.ai/config"];
        let written = annotation.as_str().unwrap();
        let (config, _) = config::parse(written, "config.yaml", &|_| None).unwrap();
        for (name, quota) in &config.quotas {
            let wanted = match name.as_str() {
                "own" | "free" => ColdStart::Auto,
                "cautious" => ColdStart::Cautious,
                _ => ColdStart::Paced,
            };
            assert_eq!(quota.cold_start, wanted, "{name}: {written}");
        }
        // Nothing else is touched, comments neither.
        let without = written.replace("    cold_start: paced\n", "");
        let without = without.replace("\"cold_start\": \"paced\", ", "");
        let without = without.replace("\"cold_start\": \"paced\",", "");
        assert_eq!(without, text);
    }
}

#[test]
fn only_what_is_named_is_changed() {
    let two = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers: []\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: b\nspec:\n  hostNetwork: true\n  containers: []\n";
    let out = inject(two, &sidecar(), &["pod/a".to_owned()]).unwrap();
    assert_eq!(out.matches("- name: datapulse-sidecar\n").count(), 1);
    assert_eq!(inject(two, &sidecar(), &["Pod/A".to_owned()]).unwrap(), out);
    // One that has it already is there.
    assert_eq!(inject(&out, &sidecar(), &["pod/a".to_owned()]).unwrap(), out);
    // Else its pods would be without it, and no guard of a cluster knows of them.
    for wrong in ["deploy/a", "pods/a", "a", "widget/a", "pod/c"] {
        let only = ["pod/a".to_owned(), wrong.to_owned()];
        let error = inject(two, &sidecar(), &only).expect_err(wrong).to_string();
        let wanted = format!("--only {wrong}: there is no such workload in the input; there is");
        assert_eq!(error, format!("{wanted} pod/a, pod/b"));
    }
    let error = inject("kind: Kept\n", &sidecar(), &["pod/a".to_owned()]).expect_err("no pod");
    assert!(error.to_string().ends_with("there is no workload at all"), "{error}");
}

#[test]
fn a_configuration_that_a_pod_cannot_carry_is_refused() {
    let new = |text: &str, secrets: &[&str]| {
        let (config, _) = config::parse(text, "config.yaml", &|_| None).unwrap();
        let secrets: Vec<_> = secrets.iter().map(|s| (*s).to_owned()).collect();
        Sidecar::new("i:1", text, &config, &secrets).map(drop).map_err(|e| e.to_string())
    };
    let large = format!("{CONFIG}# {}\n", "x".repeat(201 * 1024));
    assert!(new(&large, &[]).unwrap_err().contains("200 KiB"));
    let hidden = format!("{CONFIG}health: {{listen: \"127.0.0.1:9464\"}}\n");
    assert!(new(&hidden, &[]).unwrap_err().contains("the kubelet cannot probe"));
    let odd = format!("{CONFIG}quotas:\n  ? business\n  : limit: 5/s\n");
    assert!(new(&odd, &[]).unwrap_err().contains("write `cold_start: paced`"));
    let late = format!("{CONFIG}startup_timeout: 56s\n");
    assert!(new(&late, &[]).unwrap_err().contains("startup_timeout"));
    assert!(new(&late.replace("56s", "55s"), &[]).is_ok());
    for bad in ["key", "key=relative", "Key=/x", "key=/a b"] {
        assert!(new(CONFIG, &[bad]).unwrap_err().contains("NAME=/ABSOLUTE/PATH"), "{bad}");
    }
}

#[test]
fn an_identity_in_aws_is_for_the_sidecar_alone() {
    let text = CONFIG.replace("file:/var/run/datapulse-key/key", "aws:prod/datapulse#key");
    let text = format!("{text}stores: {{aws: {{region: eu-west-1}}}}\n");
    let (config, _) = config::parse(CONFIG, "config.yaml", &|_| None).unwrap();
    let sidecar = Sidecar::new("i:1", &text, &config, &[]).unwrap();
    let app = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  initContainers:\n  - name: migrate\n  containers:\n  - name: app\n";
    let out = inject(app, &sidecar, &[]).unwrap();
    assert!(out.contains("eks.amazonaws.com/skip-containers: \"app,migrate\"\n"), "{out}");
}
