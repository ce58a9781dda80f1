//! The charts' schemas know the product's own configuration, so that a mistake in it is told before
//! anything is installed. `UPDATE_GOLDEN=1 cargo test --test charts schema` writes them anew.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Map, Value, json};

use crate::support::{Helm, none, root, word};

const CHARTS: [&str; 2] = ["datapulse-sidecar", "datapulse-sidecar-injector"];
/// The pattern of what refers to a secret.
const REFERENCE: &str = "^(vault|aws|file|env):";
/// What begins the last key of each schema.
const DEFINITIONS: &str = "  \"$defs\": {\n";

/// The binary's schema, as definitions of another one, one a line.
fn definitions() -> String {
    let schema: Value = serde_json::from_str(&datapulse_sidecar::config::schema()).expect("JSON");
    let mut parts = schema.pointer("/$defs").and_then(Value::as_object).expect("parts").clone();
    let mut in_lists = BTreeSet::new();
    parts.values().chain([&schema]).for_each(|part| list_items(part, &mut in_lists));
    let of_top = ["type", "properties", "additionalProperties"];
    let top = of_top.map(|key| (key.to_owned(), schema.get(key).expect("it has it").clone()));
    let top: Map<String, Value> = top.into_iter().collect();
    parts.insert("Config".to_owned(), top.into());
    let line = |(name, part): (&String, &mut Value)| {
        // The chart adds what is missing in a mapping, and nothing in a list.
        if !in_lists.contains(name) {
            part.as_object_mut().expect("a schema").remove("required");
        }
        simplify(part);
        format!("    {}: {part}", Value::from(name.as_str()))
    };
    let lines: Vec<String> = parts.iter_mut().map(line).collect();
    format!("{DEFINITIONS}{}\n  }}\n}}\n", lines.join(",\n"))
}

/// The definitions that items of lists have.
fn list_items(part: &Value, found: &mut BTreeSet<String>) {
    let name = word(part, "/items/$ref").rsplit('/').next().unwrap_or_default();
    found.insert(name.to_owned());
    match part {
        Value::Object(parts) => parts.values().for_each(|part| list_items(part, found)),
        Value::Array(parts) => parts.iter().for_each(|part| list_items(part, found)),
        _ => {}
    }
}

/// Without descriptions, which are for editors; and without the pattern of references to secrets: a
/// template looks at those, because Helm's sentence about a pattern repeats what does not match.
fn simplify(part: &mut Value) {
    match part {
        Value::Object(keys) => {
            keys.retain(|key, value| key != "description" || value.is_object());
            keys.retain(|key, value| key != "pattern" || value != REFERENCE);
            keys.values_mut().for_each(simplify);
        }
        Value::Array(parts) => parts.iter_mut().for_each(simplify),
        _ => {}
    }
}

#[test]
fn the_charts_know_the_configuration_that_the_binary_reads() {
    let wanted = definitions();
    for chart in CHARTS {
        let file = root().join("charts").join(chart).join("values.schema.json");
        let text = fs::read_to_string(&file).expect("readable");
        let (before, now) = text.split_at(text.find(DEFINITIONS).expect("the last key"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, format!("{before}{wanted}")).expect("written");
        } else {
            assert!(now == wanted, "{chart}: run UPDATE_GOLDEN=1 cargo test --test charts schema");
        }
    }
}

/// A key of one name is a reference to a secret everywhere, or nowhere.
#[test]
fn the_charts_know_which_keys_refer_to_secrets() {
    let schema: Value = serde_json::from_str(&datapulse_sidecar::config::schema()).expect("JSON");
    let (mut secrets, mut others) = (BTreeSet::new(), BTreeSet::new());
    for part in schema.pointer("/$defs").and_then(Value::as_object).expect("parts").values() {
        let properties = part.get("properties").and_then(Value::as_object);
        for (key, value) in properties.into_iter().flatten() {
            let refers = [word(value, "/pattern"), word(value, "/items/pattern")];
            let is_scalar = value.get("$ref").is_none() && value.get("anyOf").is_none();
            if refers.contains(&REFERENCE) {
                secrets.insert(key.as_str());
            } else if is_scalar {
                others.insert(key.as_str());
            }
        }
    }
    assert!(secrets.is_disjoint(&others), "{secrets:?} {others:?}");
    let template = root().join("charts/datapulse-sidecar-lib/templates/_references.tpl");
    let template = fs::read_to_string(template).expect("readable");
    let list = template.lines().find(|line| line.starts_with('[')).expect("the list");
    let known: BTreeSet<&str> = serde_json::from_str(list).expect("JSON");
    assert_eq!(known, secrets);
}

/// A pattern that is narrower than the reader would refuse at the render what a pod takes.
#[test]
fn both_helms_take_each_spelling_that_the_binary_takes() {
    let spans = [
        "30s",
        "250ms",
        "5m",
        "24h",
        "1min",
        "5sec",
        "1 minute",
        "500 ms",
        "2h 37min",
        "1h30m",
        "90 seconds",
        "1.5h",
        "1d",
        "2 hours",
        "10mins",
        "1hr",
        "100000us",
        " 3s",
        "7000millis",
        "1day",
    ];
    let sizes =
        ["64KiB", "1MiB", "1MB", "1 mib", "512kb", "10 kB", "0.5MiB", "100000b", "1 MiB", "200KB"];
    let rule = |span: &&str| {
        format!("{{methods: [ANY], path: /v1/a, level: admin, request_timeout: {span:?}}}")
    };
    let hook = |(n, size): (usize, &&str)| {
        format!(
            "{{path: /hook{n}, secrets: [file:/k], forward_to: 'http://127.0.0.1:1/h', max_body: {size:?}}}"
        )
    };
    let rules: Vec<_> = spans.iter().map(rule).collect();
    // There may be few endpoints only.
    let hooks: Vec<_> = sizes.iter().enumerate().map(hook).collect();
    let shares = ["1/3", "01/3", "0.5", "1"];
    let quota = |(n, share): (usize, &&str)| format!("q{n}: {{limit: 100/min, share: {share}}}");
    let quotas: Vec<_> = shares.iter().enumerate().map(quota).collect();
    let config = format!(
        "policy: [{}]\nquotas: {{{}}}\nwebhooks: {{listen: '0.0.0.0:8090', endpoints: [{}]}}\n",
        rules.join(", "),
        quotas.join(", "),
        hooks.join(", ")
    );
    let whole = format!(
        "version: 1\nlisteners: [{{listen: localhost:8080}}]\ncredentials: [{{name: a, level: \
         admin, api_key: file:/k}}]\n{config}"
    );
    if let Err(errors) = datapulse_sidecar::config::parse(&whole, "config.yaml", &|_| None) {
        panic!("{errors}");
    }
    let indented: String = config.lines().map(|line| format!("  {line}\n")).collect();
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    fs::write(&file, format!("config:\n{indented}")).expect("written");
    let base = format!("{}/ci/default-values.yaml", CHARTS[0]);
    let args = ["--values", &base, "--values", file.to_str().expect("UTF-8")];
    for helm in Helm::BOTH {
        helm.template(CHARTS[0], &args).unwrap_or_else(|said| panic!("{helm:?}: {said}"));
    }
}

#[test]
fn a_mistake_in_the_configuration_is_told_by_both_helms() {
    let mut wrong = Vec::new();
    for (config, told) in [
        ("listenerz: []", "listenerz"),
        ("upstream: {base_ulr: 'https://api.example'}", "base_ulr"),
        ("upstream: {request_timeout: 30}", "request_timeout"),
        ("quotas: {business: {limit: lots}}", "limit"),
        ("credentials: [{name: a, level: root, api_key: file:/k}]", "level"),
        ("credentials: [{level: admin, api_key: file:/k}]", "name"),
        ("policy: [{methods: [GET], path: /a, levle: admin}]", "levle"),
        ("tenants: [{name: a, credentials: []}]", "credentials"),
    ] {
        for (chart, values) in [
            (CHARTS[0], format!("config: {{{config}}}\n")),
            (CHARTS[1], format!("injector: {{profiles: {{default: {{config: {{{config}}}}}}}}}\n")),
            (CHARTS[1], format!("injector: {{defaults: {{config: {{{config}}}}}}}\n")),
        ] {
            let dir = tempfile::tempdir().expect("a folder");
            let file = dir.path().join("values.yaml");
            fs::write(&file, &values).expect("written");
            let base = format!("{chart}/ci/default-values.yaml");
            let args = ["--values", &base, "--values", file.to_str().expect("UTF-8")];
            for helm in Helm::BOTH {
                match helm.template(chart, &args) {
                    Err(said) if said.contains(told) && said.contains("schema") => {}
                    Err(said) => wrong.push(format!("{helm:?} {chart}: {values}: {said}")),
                    Ok(_) => wrong.push(format!("{helm:?} {chart} takes {values}")),
                }
            }
        }
    }
    none(&wrong);
}

/// Renders with these values more; what both Helms say must name every one of the keys.
fn each_is_told(chart: &str, values: &Value, keys: &[String]) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    fs::write(&file, values.to_string()).expect("written");
    let base = format!("{chart}/ci/default-values.yaml");
    let args = ["--values", &base, "--values", file.to_str().expect("UTF-8")];
    for helm in Helm::BOTH {
        let said = helm.template(chart, &args).expect_err("a schema refuses it");
        let told = |key: &String| {
            let quoted = [format!("\"{key}\""), format!("'{key}'"), format!(" property {key} ")];
            quoted.iter().any(|word| said.contains(word))
        };
        let untold: Vec<_> = keys.iter().filter(|&key| !told(key)).cloned().collect();
        assert!(untold.is_empty(), "{helm:?} {chart}: {untold:?}: {said}");
    }
}

#[test]
fn each_top_level_key_that_is_misspelt_is_told_by_both_helms() {
    for chart in CHARTS {
        let file = root().join("charts").join(chart).join("values.schema.json");
        let text = fs::read_to_string(file).expect("readable");
        let schema: Value = serde_json::from_str(&text).expect("JSON");
        let keys = schema.pointer("/properties").and_then(Value::as_object).expect("keys").keys();
        let misspelt: Vec<String> = keys.map(|key| format!("{key}z")).collect();
        assert!(misspelt.len() > 4, "{misspelt:?}");
        let values: Map<_, _> = misspelt.iter().map(|key| (key.clone(), json!({}))).collect();
        each_is_told(chart, &values.into(), &misspelt);
    }
}

/// The injector's policy is not read by the API server until a pod is made: with a misspelt field
/// every labelled pod would be refused.
#[test]
fn a_misspelt_field_of_the_container_is_told_by_both_helms() {
    let values = json!({
        "resources": {"requestz": {}},
        "securityContext": {"runAsUzer": 1, "capabilities": {"dropz": []}, "seccompProfile": {"typo": "x"}},
        "probes": {"startup": {"periodSecondz": 1}, "liveness": {"failureTreshold": 1}},
        "extraEnv": [{"name": "A", "valeu": "b"}],
        "extraVolumes": [{"name": "a", "emptyDri": {}}],
        "extraVolumeMounts": [{"name": "a", "mountPath": "/a", "readonly": true}],
    });
    let misspelt = [
        "requestz",
        "runAsUzer",
        "dropz",
        "typo",
        "periodSecondz",
        "failureTreshold",
        "valeu",
        "emptyDri",
        "readonly",
    ];
    let misspelt = misspelt.map(str::to_owned);
    each_is_told(CHARTS[0], &values, &misspelt);
    each_is_told(CHARTS[1], &json!({"injector": {"defaults": values}}), &misspelt);
    each_is_told(CHARTS[1], &json!({"injector": {"profiles": {"default": values}}}), &misspelt);
}
