//! Every set-up, by both Helms, for clusters from the oldest to the newest.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use datapulse_sidecar::config;
use datapulse_sidecar::config::model::{ColdStart, Quota};
use serde_json::Value;

use crate::support::none;
use crate::support::{
    CHARTS, Helm, Setup, items, objects, path, pod, root, run, text, title, tool, word,
};

/// The oldest cluster with native sidecars, one between, the first that injects, and a later one.
const KUBERNETES: [&str; 4] = ["1.29.0", "1.33.0", "1.36.0", "1.37.0"];

/// Kinds that are no part of Kubernetes, and so have no schema.
const FOREIGN: [&str; 2] = ["monitoring.coreos.com/", "gateway.networking.k8s.io/"];

#[test]
fn both_helms_find_nothing_to_complain_about() {
    let mut wrong = Vec::new();
    for setup in Setup::all() {
        for helm in Helm::BOTH {
            let args = ["lint", "--strict", setup.chart, "--values", path(&setup.values)];
            let output = helm.run(&args);
            if !output.status.success() {
                wrong.push(format!("{helm:?} {}: {}", setup.name(), text(&output.stdout)));
            }
        }
    }
    none(&wrong);
}

#[test]
fn both_helms_make_the_same_and_the_same_bytes_twice() {
    for setup in Setup::all() {
        let render = |helm| setup.render(helm, "1.36.0").unwrap_or_else(|e| panic!("{e}"));
        let [three, four] = Helm::BOTH.map(render);
        assert_eq!(four, render(Helm::Four), "{}: two renders differ", setup.name());
        assert_eq!(objects(&three), objects(&four), "{}: Helm 3 and 4 differ", setup.name());
    }
}

#[test]
fn every_object_is_valid_for_old_and_new_clusters() {
    let dir = tempfile::tempdir().expect("a folder");
    for kubernetes in KUBERNETES {
        let mut files = Vec::new();
        for (number, setup) in Setup::all().into_iter().enumerate() {
            // The guard's kind is served from 1.30 on; the chart says so itself.
            let refused = setup.chart.ends_with("injector") && kubernetes < "1.30";
            let objects = match setup.render(Helm::Four, kubernetes) {
                Err(error) if refused => {
                    assert!(error.contains("requires kubeVersion: >=1.30"), "{error}");
                    continue;
                }
                rendered => objects(&rendered.unwrap_or_else(|e| panic!("{}: {e}", setup.name()))),
            };
            let own = |object: &&Value| !FOREIGN.iter().any(|api| is_of(object, api));
            let own: Vec<_> = objects.iter().filter(own).collect();
            let file = dir.path().join(format!("{kubernetes}-{number}.yaml"));
            // YAML reads JSON; the list of one file is one document an object.
            let documents: Vec<_> = own.iter().map(ToString::to_string).collect();
            fs::write(&file, documents.join("\n---\n")).expect("written");
            files.push(file);
        }
        let mut validate = Command::new(tool("kubernetes-validate"));
        let validate = validate.args(["--strict", "--quiet", "-k", kubernetes]).args(&files);
        let output = run(validate);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{kubernetes}:\n{said}");
    }
}

fn is_of(object: &Value, api: &str) -> bool {
    word(object, "/apiVersion").starts_with(api)
}

#[test]
fn monitors_and_policies_come_where_the_cluster_has_their_kinds() {
    let values = "datapulse-sidecar/ci/default-values.yaml";
    let kinds = |args: &[&str]| -> BTreeSet<String> {
        let args = [&["--values", values], args].concat();
        let rendered = Helm::Four.template("datapulse-sidecar", &args).expect("renders");
        objects(&rendered).iter().map(|object| word(object, "/kind").to_owned()).collect()
    };
    assert!(!kinds(&[]).contains("ServiceMonitor"));
    let served = ["-a", "monitoring.coreos.com/v1/ServiceMonitor"];
    assert!(kinds(&served).contains("ServiceMonitor"));

    let setup = &Setup::of("datapulse-sidecar-injector")[0];
    let count = |kubernetes| {
        let rendered = setup.render(Helm::Four, kubernetes).expect("renders");
        rendered.matches("\nkind: MutatingAdmissionPolicy\n").count()
    };
    assert_eq!((count("1.35.0"), count("1.36.0")), (0, 1));
}

/// `helm test` asks for readiness from a pod of its own.
#[test]
fn where_health_is_for_few_the_pod_of_helm_test_is_among_them() {
    let mut seen = 0;
    for setup in Setup::of("datapulse-sidecar") {
        let objects = setup.objects();
        let tester = objects.iter().find(|object| word(object, "/kind") == "Pod").expect("a pod");
        let labels = tester.pointer("/metadata/labels").expect("labels");
        let is_meant = |peer: &Value| {
            let selected = peer.pointer("/podSelector/matchLabels").and_then(Value::as_object);
            peer.get("namespaceSelector").is_none()
                && selected.is_some_and(|s| s.iter().all(|(key, v)| labels.get(key) == Some(v)))
        };
        for policy in objects.iter().filter(|o| word(o, "/kind") == "NetworkPolicy") {
            for rule in items(policy, "/spec/ingress") {
                let is_health =
                    items(rule, "/ports").iter().any(|p| word(p, "/port") == "sidecar-health");
                if is_health && rule.get("from").is_some() {
                    assert!(items(rule, "/from").iter().any(is_meant), "{}: {rule}", setup.name());
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 0, "no set-up says who may read health");
}

/// Server-side apply refuses what older Helms let through.
#[test]
fn no_name_is_given_twice() {
    let mut wrong = Vec::new();
    for setup in Setup::all() {
        let all = setup.objects();
        let titles: Vec<_> = all.iter().map(title).collect();
        wrong.extend(twice(&titles).map(|name| format!("{}: {name}", setup.name())));
        for (object, pod) in all.iter().filter_map(|object| Some((object, pod(object)?))) {
            let mut lists = vec![names(pod, "/spec/volumes", "/name")];
            let containers = [items(pod, "/spec/initContainers"), items(pod, "/spec/containers")];
            let containers = containers.concat();
            lists.push(containers.iter().map(|c| word(c, "/name").to_owned()).collect());
            for container in &containers {
                lists.push(names(container, "/env", "/name"));
                lists.push(names(container, "/ports", "/name"));
                lists.push(names(container, "/volumeMounts", "/mountPath"));
            }
            for list in lists {
                let at = format!("{}: {}", setup.name(), title(object));
                wrong.extend(twice(&list).map(|name| format!("{at}: {name}")));
            }
        }
    }
    none(&wrong);
}

fn names(of: &Value, list: &str, key: &str) -> Vec<String> {
    items(of, list).iter().map(|item| word(item, key).to_owned()).collect()
}

fn twice(names: &[String]) -> impl Iterator<Item = &String> {
    let mut seen = BTreeSet::new();
    names.iter().filter(move |name| !seen.insert(*name))
}

/// The binary reads what the charts write.
#[test]
fn the_binary_takes_the_configuration_of_every_set_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.yaml");
    let mut read = 0;
    let mut wrong = Vec::new();
    for setup in Setup::all() {
        for config in configurations(&setup.objects()) {
            fs::write(&file, config).expect("written");
            let mut check = Command::new(env!("CARGO_BIN_EXE_datapulse-sidecar"));
            check.args(["check", "--config", path(&file)]);
            check.env("POD_NAME", "app-0").env("POD_NAMESPACE", "apps");
            let output = run(&mut check);
            read += usize::from(output.status.success());
            let said = text(&output.stderr);
            wrong.extend(said.lines().map(|line| format!("{}: {line}", setup.name())));
        }
    }
    none(&wrong);
    assert!(read > 0, "no configuration was taken");
}

/// A new pod does not know what the one before it sent.
#[test]
fn every_limited_quota_has_a_share_and_begins_paced() {
    let quotas = |objects: &[Value]| -> Vec<Quota> {
        let read = |text: String| config::parse(&text, "config.yaml", &|_| Some("apps".to_owned()));
        let configs = configurations(objects).into_iter().map(read);
        let configs = configs.map(|read| read.unwrap_or_else(|e| panic!("{e}")).0);
        let quotas = configs.flat_map(|config| config.quotas.into_values());
        quotas.filter(|quota| quota.limit.is_some()).collect()
    };
    let mut seen = 0;
    for setup in Setup::all() {
        for quota in quotas(&setup.objects()) {
            seen += 1;
            assert_eq!(quota.cold_start, ColdStart::Paced, "{}", setup.name());
            assert!(quota.share <= 0.5, "{}: {quota:?}", setup.name());
        }
    }
    assert!(seen >= 8, "{seen}");
    let gateway = |set: &[&str]| {
        let mut args = vec!["--values", "datapulse-sidecar/ci/default-values.yaml"];
        set.iter().for_each(|set| args.extend(["--set", set]));
        let rendered = Helm::Four.template("datapulse-sidecar", &args).expect("renders");
        let quota = quotas(&objects(&rendered)).pop().expect("a quota");
        (quota.share, quota.cold_start)
    };
    assert_eq!(gateway(&["gateway.replicas=1"]), (0.5, ColdStart::Paced));
    // The old pod has ended before the new one begins.
    let recreated =
        ["gateway.replicas=1", "gateway.strategy.maxSurge=0", "gateway.strategy.maxUnavailable=1"];
    assert_eq!(gateway(&recreated), (1.0, ColdStart::Paced));
    let own = ["config.quotas.business.cold_start=cautious", "config.quotas.business.share=1/4"];
    assert_eq!(gateway(&own), (0.25, ColdStart::Cautious));
    let most = ["gateway.autoscaling.enabled=true", "share=1/9"];
    assert_eq!(gateway(&most), (1.0 / 9.0, ColdStart::Paced));
}

/// In config maps, and in the policies of the injector.
fn configurations(objects: &[Value]) -> Vec<String> {
    let maps = objects.iter().filter_map(|object| object.pointer("/data/config.yaml"));
    let maps = maps.filter_map(Value::as_str).map(str::to_owned);
    let policies = objects.iter().map(|object| {
        word(object, "/spec/mutations/0/jsonPatch/expression")
            .lines()
            .find_map(|line| line.split_once("sidecar.datapulse.ai~1config\", value: "))
            .map(|(_, literal)| literal.trim_end_matches("}])").to_owned())
    });
    let policies = policies
        .flatten()
        .map(|literal| serde_json::from_str(&literal).unwrap_or_else(|e| panic!("{e}: {literal}")));
    maps.chain(policies).collect()
}

#[test]
fn charts_library_and_binary_have_one_version() {
    let version = env!("CARGO_PKG_VERSION");
    let mut wrong = Vec::new();
    for chart in CHARTS.iter().copied().chain(["datapulse-sidecar-lib"]) {
        let text = fs::read_to_string(root().join("charts").join(chart).join("Chart.yaml"));
        let text = text.expect("a chart");
        let chart_yaml: Value = serde_saphyr::from_str(&text).expect("YAML");
        if word(&chart_yaml, "/version") != version {
            wrong.push(format!("{chart}: version"));
        }
        if chart != "examples" && word(&chart_yaml, "/appVersion") != version {
            wrong.push(format!("{chart}: appVersion"));
        }
        for dependency in items(&chart_yaml, "/dependencies") {
            if word(dependency, "/version") != version {
                wrong.push(format!("{chart}: the library's version"));
            }
        }
    }
    none(&wrong);
    let images: BTreeSet<_> =
        Setup::all().iter().flat_map(Setup::objects).filter_map(|o| sidecar_image(&o)).collect();
    let own = format!("registry.example/datapulse-sidecar:{version}");
    assert!(images.contains(&own), "the default tag is not {version}: {images:?}");
}

fn sidecar_image(object: &Value) -> Option<String> {
    let sidecar = items(pod(object)?, "/spec/initContainers").first()?;
    Some(word(sidecar, "/image").to_owned())
}

/// Both shapes are written once in the library and once for each chart that explains them.
#[test]
fn the_gateways_values_are_those_of_the_library() {
    let charts = root().join("charts");
    let defaults = charts.join("datapulse-sidecar-lib/templates/_defaults.tpl");
    let defaults = fs::read_to_string(defaults).expect("readable");
    let (_, defaults) =
        defaults.split_once("define \"datapulse-sidecar.defaults\" -}}").expect("it");
    let (defaults, _) = defaults.split_once("{{- end }}").expect("its end");
    let library: Value = serde_saphyr::from_str(defaults).expect("YAML");
    let values = fs::read_to_string(charts.join("datapulse-sidecar/values.yaml"));
    let gateway: Value = serde_saphyr::from_str(&values.expect("readable")).expect("YAML");
    let differs = ["share", "drain"]; // a gateway has replicas, and endpoints that have to forget it
    let mut wrong = Vec::new();
    for (key, value) in library.as_object().expect("a mapping") {
        let same = gateway.get(key).is_some_and(|own| holds(own, value));
        if !same && !differs.contains(&key.as_str()) {
            wrong.push(format!("{key}: {value}"));
        }
    }
    none(&wrong);
}

/// Whether each key of `inner` is in `outer`, with the same value.
fn holds(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Object(outer), Value::Object(inner)) => {
            inner.iter().all(|(key, value)| outer.get(key).is_some_and(|own| holds(own, value)))
        }
        _ => outer == inner,
    }
}
