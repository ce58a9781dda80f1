//! The injector's policies hold the library's container, literally.

use std::fs;

use serde_json::Value;

use crate::support::{Helm, Setup, items, path, root, word};

/// The literals of a policy's patch: what is added, and where.
fn patches(expression: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for line in expression.lines() {
        let Some((_, rest)) = line.split_once("path: \"") else { continue };
        let Some((at, rest)) = rest.split_once("\", value: ") else { continue };
        let Some(literal) = rest.strip_suffix("}]").or_else(|| rest.strip_suffix("}])")) else {
            continue;
        };
        let json = literal.trim_end_matches("}]").replace("dyn(", "(");
        if let Some(value) = from_cel(&json) {
            found.push((at.to_owned(), value));
        }
    }
    found
}

/// A CEL literal as JSON: without the brackets that `dyn()` leaves.
fn from_cel(literal: &str) -> Option<Value> {
    let mut json = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in literal.chars() {
        let bracket = matches!(c, '(' | ')') && !quoted;
        if !bracket {
            json.push(c);
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    serde_json::from_str(&json).ok()
}

#[test]
fn policy_and_library_have_one_container() {
    for setup in Setup::of("datapulse-sidecar-injector") {
        let policies = setup.objects();
        let policies = policies.iter().filter(|o| word(o, "/kind") == "MutatingAdmissionPolicy");
        for policy in policies {
            let expression = word(policy, "/spec/mutations/0/jsonPatch/expression");
            let patches = patches(expression);
            let injected = |at: &str| -> Vec<&Value> {
                patches.iter().filter(|(path, _)| path == at).map(|(_, value)| value).collect()
            };
            let volumes = injected("/spec/volumes/-");
            let containers = injected("/spec/initContainers/0");
            assert_eq!(containers.len(), 1, "{expression}");
            let profile = word(policy, "/metadata/name");
            let profile = profile.split_once('.').expect("a name").0;
            let profile = profile.trim_start_matches("datapulse-sidecar-");
            let embedded = embedded(&setup, profile);
            let pod = embedded.iter().find_map(crate::support::pod).expect("a pod");
            assert_eq!(containers[0], &items(pod, "/spec/initContainers")[0]);
            let others = items(pod, "/spec/volumes");
            assert_eq!(volumes.len(), others.len());
            // The one difference: where the configuration comes from.
            for (own, other) in volumes.into_iter().zip(others).skip(1) {
                assert_eq!(own, other);
            }
        }
    }
}

/// The example app with the values of a profile.
fn embedded(setup: &Setup, profile: &str) -> Vec<Value> {
    let text = fs::read_to_string(&setup.values).expect("readable");
    let values: Value = serde_saphyr::from_str(&text).expect("YAML");
    let dir = tempfile::tempdir().expect("a folder");
    let mut args = vec!["--set".to_owned(), "sidecar.vault.address=".to_owned()];
    for (name, part) in [
        ("defaults", values.pointer("/injector/defaults")),
        ("profile", values.pointer(&format!("/injector/profiles/{profile}"))),
    ] {
        let file = dir.path().join(name);
        let part = serde_json::json!({"sidecar": part});
        fs::write(&file, part.to_string()).expect("written");
        args.extend(["--values".to_owned(), path(&file).to_owned()]);
    }
    // `--set` comes after the files; where the profile has no Vault, the example's is taken away.
    if values.to_string().contains("vault.example") && profile != "reporting" {
        args.drain(..2);
    }
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let rendered = Helm::Four.template("examples", &args).unwrap_or_else(|e| panic!("{e}"));
    crate::support::objects(&rendered)
}

#[test]
fn a_literal_keeps_every_character() {
    let odd = "quotes \" ' \\ and {{ braces }} $(NAME) $$ <tag> & emoji 😀 a\tb";
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    let values = serde_json::json!({"injector": {"profiles": {"default": {
        "extraEnv": [{"name": "ODD", "value": odd}]}}}});
    fs::write(&file, values.to_string()).expect("written");
    let base = root().join("charts/datapulse-sidecar-injector/ci/default-values.yaml");
    let args = ["--values", path(&base), "--values", path(&file), "--set", "injector.enabled=true"];
    let rendered = Helm::Four.template("datapulse-sidecar-injector", &args).expect("renders");
    let objects = crate::support::objects(&rendered);
    let expression = objects
        .iter()
        .map(|object| word(object, "/spec/mutations/0/jsonPatch/expression"))
        .find(|expression| !expression.is_empty());
    let patches = patches(expression.expect("a policy"));
    let container = patches.iter().find(|(at, _)| at == "/spec/initContainers/0");
    let env = items(&container.expect("the container").1, "/env");
    assert_eq!(word(env.last().expect("it"), "/value"), odd);
}

/// What is null is left out, as by the API server; in a list it would be a mistake.
#[test]
fn null_is_no_number() {
    let openshift = Setup::of("datapulse-sidecar-injector").into_iter();
    let openshift = openshift.filter(|s| s.name().ends_with("/openshift")).map(|s| s.objects());
    let objects = openshift.flatten().collect::<Vec<_>>();
    let expression = objects.iter().find_map(|object| {
        object.pointer("/spec/mutations/0/jsonPatch/expression").and_then(Value::as_str)
    });
    let patches = patches(expression.expect("a policy"));
    let container = patches.iter().find(|(at, _)| at == "/spec/initContainers/0");
    let context = &container.expect("the container").1["securityContext"];
    assert!(context.get("runAsUser").is_none() && context.get("runAsGroup").is_none(), "{context}");
    assert_eq!(context["runAsNonRoot"], true);
}

/// A token that is made for what the sidecar logs in with would let the app log in, too.
#[test]
fn the_guard_knows_the_audience_of_each_profiles_token() {
    let base = root().join("charts/datapulse-sidecar-injector/ci/profiles-values.yaml");
    let set = [
        "injector.profiles.etl.vault.auth.jwt.audience=vault-prod",
        "injector.profiles.reporting.vault.address=https://vault.example:8200",
        "injector.profiles.reporting.vault.auth.kubernetes.role=reporting",
        "injector.profiles.reporting.vault.auth.kubernetes.audience=vault-eu",
        "guard.vaultAudience=vault-of-charts",
    ];
    for enabled in ["true", "false"] {
        let enabled = format!("injector.enabled={enabled}");
        let mut args = vec!["--values", path(&base), "--set", &enabled];
        set.iter().for_each(|set| args.extend(["--set", set]));
        let rendered = Helm::Four.template("datapulse-sidecar-injector", &args).expect("renders");
        let objects = crate::support::objects(&rendered);
        let rules = objects.iter().flat_map(|object| items(object, "/spec/validations"));
        let rule = rules.map(|rule| word(rule, "/expression"));
        let rule = rule.filter(|rule| rule.contains("serviceAccountToken")).collect::<Vec<_>>();
        assert_eq!(rule.len(), 1, "{rule:?}");
        let audiences = r#"in ["vault-eu","vault-of-charts","vault-prod"]"#;
        assert!(rule[0].contains(audiences), "{}", rule[0]);
    }
}

/// A policy may not depend on what differs from one render to the next.
#[test]
fn no_template_asks_the_cluster_or_the_dice() {
    let mut wrong = Vec::new();
    for chart in ["datapulse-sidecar-lib", "datapulse-sidecar", "datapulse-sidecar-injector"] {
        let folder = root().join("charts").join(chart).join("templates");
        for entry in fs::read_dir(folder).expect("templates") {
            let file = entry.expect("readable").path();
            let Ok(text) = fs::read_to_string(&file) else { continue };
            for word in ["lookup ", "randAlpha", "genSelfSigned", "genCA", "uuidv4", " now "] {
                if text.contains(word) {
                    wrong.push(format!("{}: {word}", file.display()));
                }
            }
        }
    }
    crate::support::none(&wrong);
}
