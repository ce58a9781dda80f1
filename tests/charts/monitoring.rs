//! Alerts fire in their stories, and no query asks for a metric that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Helm, Setup, items, none, objects, path, pod, root, run, text, title, tool, word,
};

/// Metrics of other programs that alerts use.
const OTHERS: &[&str] = &[
    "kube_pod_container_status_restarts_total",
    "kube_pod_init_container_status_restarts_total",
    "apiserver_validating_admission_policy_check_total",
    "apiserver_mutating_admission_policy_check_total",
];

fn rules_file() -> std::path::PathBuf {
    root().join("charts/datapulse-sidecar/files/rules.yaml")
}

fn alerts() -> Vec<Value> {
    let text = fs::read_to_string(rules_file()).expect("readable");
    let rules: Value = serde_saphyr::from_str(&text).expect("YAML");
    items(&rules, "/groups/0/rules").to_vec()
}

#[test]
fn promtool_takes_the_rules_and_every_alert_fires_in_its_story() {
    let dir = tempfile::tempdir().expect("a folder");
    let stories = root().join("tests/charts/rules_test.yaml");
    fs::copy(rules_file(), dir.path().join("rules.yaml")).expect("copied");
    fs::copy(&stories, dir.path().join("rules_test.yaml")).expect("copied");
    for args in [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]] {
        let output = run(Command::new(tool("promtool")).args(args).current_dir(dir.path()));
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    }
    let stories = fs::read_to_string(stories).expect("readable");
    let untold: Vec<_> = alerts()
        .iter()
        .map(|alert| word(alert, "/alert").to_owned())
        .filter(|name| !stories.contains(&format!("alertname: {name}\n")))
        .collect();
    none(&untold);
}

#[test]
fn every_query_names_a_metric_that_exists() {
    let files = fs::read_dir(root().join("src/telemetry")).expect("readable");
    let files = files.map(|file| fs::read_to_string(file.expect("readable").path()).expect("text"));
    let defined: String = files.collect();
    let dashboard = root().join("charts/datapulse-sidecar/files/dashboard.json");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(dashboard).expect("readable")).expect("JSON");
    let mut queries: Vec<String> =
        alerts().iter().map(|alert| word(alert, "/expr").to_owned()).collect();
    for panel in items(&dashboard, "/panels") {
        queries.extend(items(panel, "/targets").iter().map(|t| word(t, "/expr").to_owned()));
    }
    let variables = items(&dashboard, "/templating/list").iter();
    queries.extend(variables.filter_map(|v| v.pointer("/query")?.as_str().map(str::to_owned)));
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for query in &queries {
        for name in metrics_of(query) {
            let own = name.strip_prefix("datapulse_sidecar_");
            let family = own.map(|own| own.trim_end_matches("_bucket"));
            let known = match family {
                Some(family) => defined.contains(&format!("\"{family}\"")),
                None => OTHERS.contains(&name.as_str()),
            };
            if !known {
                wrong.push(format!("{name} in {query}"));
            }
            seen.insert(name);
        }
    }
    none(&wrong);
    assert!(seen.len() > 15, "{seen:?}");
}

/// The words of a query that could only be metrics: with `_`, and no label or function of the language.
fn metrics_of(query: &str) -> Vec<String> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    query
        .split(|c: char| !word(c))
        .filter(|w| ["datapulse_sidecar_", "kube_", "apiserver_"].iter().any(|p| w.starts_with(p)))
        .map(str::to_owned)
        .collect()
}

/// A dashboard's query is as good as promtool's parser says, with the variables filled in.
#[test]
fn every_query_of_the_dashboard_is_promql() {
    let dashboard = root().join("charts/datapulse-sidecar/files/dashboard.json");
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(dashboard).expect("readable")).expect("JSON");
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for panel in items(&dashboard, "/panels") {
        for target in items(panel, "/targets") {
            let query = word(target, "/expr").replace("$__rate_interval", "5m");
            let query = Value::from(query);
            rules.push_str(&format!(
                "  - {{record: panel, expr: {query}, labels: {{id: \"{}\"}}}}\n",
                rules.len()
            ));
        }
    }
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("dashboard.yaml"), rules).expect("written");
    let check = ["check", "rules", "dashboard.yaml"];
    let output = run(Command::new(tool("promtool")).args(check).current_dir(dir.path()));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_operators_object_holds_the_same_rules() {
    let ha = Setup::of("datapulse-sidecar").into_iter().find(|s| s.name().ends_with("/ha"));
    let objects = ha.expect("the file").objects();
    let rule = objects.iter().find(|object| word(object, "/kind") == "PrometheusRule");
    let rule = rule.expect("the object");
    assert_eq!(items(rule, "/spec/groups/0/rules"), alerts().as_slice());
    let dashboard = objects.iter().find_map(|o| o.pointer("/data/datapulse-sidecar.json"));
    let dashboard = dashboard.and_then(Value::as_str).expect("the dashboard");
    assert!(serde_json::from_str::<Value>(dashboard).is_ok());
}

/// What is for every sidecar of the cluster is asked for once; made with each gateway, it would count
/// each sidecar as often as there are gateways.
#[test]
fn a_gateway_brings_its_own_monitor_and_none_for_the_sidecars_of_others() {
    let values = "datapulse-sidecar/ci/default-values.yaml";
    let kinds = ["PodMonitor", "ServiceMonitor", "PrometheusRule"];
    let served = kinds.map(|kind| format!("--api-versions=monitoring.coreos.com/v1/{kind}"));
    let served = served.iter().map(String::as_str);
    let args: Vec<_> = ["--values", values].into_iter().chain(served).collect();
    let made = objects(&Helm::Four.template("datapulse-sidecar", &args).expect("renders"));
    let made = made.iter().filter(|o| word(o, "/apiVersion").starts_with("monitoring."));
    assert_eq!(made.map(title).collect::<Vec<_>>(), ["ServiceMonitor release-datapulse-sidecar"]);
}

/// Where an object says whom it is for, and whether those are Services instead of pods.
const SELECTORS: [(&str, &str, bool); 5] = [
    ("ServiceMonitor", "/spec/selector/matchLabels", true),
    ("Service", "/spec/selector", false),
    ("Deployment", "/spec/selector/matchLabels", false),
    ("PodDisruptionBudget", "/spec/selector/matchLabels", false),
    ("NetworkPolicy", "/spec/podSelector/matchLabels", false),
];

#[test]
fn two_gateways_in_one_namespace_select_nothing_of_each_other() {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for setup in Setup::of("datapulse-sidecar") {
        let set = ["--set", "metrics.serviceMonitor.enabled=true"];
        let args = [&["--values", path(&setup.values)], &set[..]].concat();
        let render = |name| Helm::Four.release(name, setup.chart, &args);
        let [blue, green] = ["blue", "green"].map(|name| objects(&render(name).expect("renders")));
        let both = blue.iter().map(title).filter(|t| green.iter().any(|other| title(other) == *t));
        // What the values name themselves (extraObjects) is as they say.
        wrong.extend(both.filter(|title| title.contains("datapulse-sidecar")));
        for (kind, at, of_services) in SELECTORS {
            let own = blue.iter().filter(|o| word(o, "/kind") == kind);
            // The apps that call are the values' to pick.
            for object in own.filter(|o| !word(o, "/metadata/name").ends_with("-clients")) {
                seen.insert(kind);
                let selector = object.pointer(at).expect("it selects");
                let selected = |objects| selected(objects, selector, of_services);
                if selected(&blue) != 1 || selected(&green) != 0 {
                    wrong.push(format!("{}: {}: {selector}", setup.name(), title(object)));
                }
            }
        }
    }
    none(&wrong);
    assert_eq!(seen.len(), SELECTORS.len(), "{seen:?}");
}

/// How many of the pods, or of the Services, have these labels.
fn selected(objects: &[Value], selector: &Value, of_services: bool) -> usize {
    let wanted = selector.as_object().expect("labels");
    let candidates = objects.iter().filter_map(|object| match of_services {
        true => (word(object, "/kind") == "Service").then_some(object),
        false => pod(object),
    });
    let fits = |candidate: &&Value| {
        let labels = candidate.pointer("/metadata/labels");
        wanted.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
    };
    candidates.filter(fits).count()
}
