//! Values that could only go wrong later are refused by a sentence that says what to do.

use std::fs;

use crate::support::{Helm, path};

/// Values on top of the chart's `ci/default-values.yaml`, and what the error has to say.
#[track_caller]
fn check(chart: &str, values: &str, sentence: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    fs::write(&file, values).expect("written");
    let base = format!("{chart}/ci/default-values.yaml");
    for helm in Helm::BOTH {
        let mut args = vec!["--values", &base, "--values", path(&file)];
        if chart.ends_with("injector") {
            args.extend(["--set", "injector.enabled=true"]);
        }
        match helm.template(chart, &args) {
            Ok(_) => panic!("{helm:?} takes {values:.200}"),
            Err(said) => assert!(said.contains(sentence), "{helm:?}: {values:.200}: {said:.2000}"),
        }
    }
}

fn gateway(values: &str, sentence: &str) {
    check("datapulse-sidecar", values, sentence);
}

fn injector(values: &str, sentence: &str) {
    check("datapulse-sidecar-injector", values, sentence);
}

fn embedded(values: &str, sentence: &str) {
    check("examples", values, sentence);
}

#[test]
fn replicas_that_do_not_know_of_each_other_need_a_share() {
    gateway(
        "share: ''\n",
        "2 replicas that do not know of each other would each use the whole quota",
    );
    gateway(
        "gateway: {autoscaling: {enabled: true}}\n",
        "give the quota a `share` for the most there can be",
    );
    embedded("sidecar: {share: ''}\n", "set share (auto: one part of replicas and surge)");
    injector(
        "injector: {profiles: {default: {config: {quotas: {business: {share: null}}}}}}\n",
        "the pods of a profile cannot be counted",
    );
    embedded(
        "replicas: 1\nsidecar: {share: ''}\n",
        "while one replica is replaced two call at once, each with the whole quota",
    );
    gateway(
        "gateway: {replicas: 1}\nshare: ''\n",
        "while one replica is replaced two call at once",
    );
    embedded("sidecar: {share: half}\n", "share: expected auto or a fraction such as 1/3");
}

#[test]
fn a_gateway_has_a_certificate_and_a_token_for_its_callers() {
    gateway(
        "gateway: {tls: {existingSecret: ''}}\n",
        "gateway.tls.existingSecret is empty: apps reach the gateway over the network",
    );
    gateway(
        "gateway: {callerToken: {existingSecret: ''}}\n",
        "whoever reaches the gateway could use your credentials",
    );
}

#[test]
fn an_image_is_named_in_one_way() {
    gateway("image: {repository: ''}\n", "image.repository is empty: name the registry");
    embedded("sidecar: {image: {repository: 'registry.example/a:1'}}\n", "holds a tag or digest");
    embedded("sidecar: {image: {digest: abc}}\n", "expected sha256: and 64 hexadecimal digits");
}

#[test]
fn a_configuration_comes_from_one_place() {
    gateway("existingConfigMap: own\n", "existingConfigMap and config are both set");
    embedded("sidecar: {config: {credentials: []}}\n", "config.credentials is empty");
    injector(
        "injector: {profiles: {other: {existingConfigMap: own}}}\n",
        "a policy cannot put a ConfigMap into each namespace",
    );
}

#[test]
fn vault_is_told_how_to_log_in() {
    embedded(
        "sidecar: {vault: {address: 'http://vault'}}\n",
        "secrets do not travel in plain text",
    );
    embedded(
        "sidecar: {vault: {auth: {method: ldap}}}\n",
        "expected kubernetes, jwt, approle or token",
    );
    embedded(
        "sidecar: {vault: {auth: {kubernetes: {role: ''}}}}\n",
        "vault.auth.kubernetes.role is empty",
    );
    embedded(
        "sidecar: {vault: {auth: {kubernetes: {audience: ''}}}}\n",
        "could be used at the API server",
    );
    embedded("sidecar: {vault: {auth: {method: approle}}}\n", "give roleId, and existingSecret");
    embedded("sidecar: {vault: {auth: {method: token}}}\n", "name the Secret that holds the token");
}

#[test]
fn a_misspelt_key_is_told_with_those_that_there_are() {
    gateway("replicas: 3\n", "replicas");
    embedded("sidecar: {vualt: {}}\n", "there is no key `vualt`; known are aws, config,");
    injector("injector: {profiles: {default: {imagge: {}}}}\n", "imagge");
    injector("guard: {action: Maybe}\n", "action");
    gateway("metrics: {podMonitor: {enabled: perhaps}}\n", "podMonitor");
}

#[test]
fn names_that_would_clash_are_refused() {
    embedded("sidecar: {extraEnv: [{name: POD_NAME, value: x}]}\n", "POD_NAME is set twice");
    embedded(
        "sidecar: {extraVolumes: [{name: datapulse-sidecar-state, emptyDir: {}}]}\n",
        "is a volume of the sidecar's own",
    );
    injector("injector: {profiles: {embedded: {}}}\n", "`embedded` cannot be a profile's name");
    injector("injector: {profiles: {Big_One: {}}}\n", "`Big_One` cannot be a profile's name");
}

/// It would stand in a `ConfigMap` and in Helm's release; and what Helm says stands in a log.
#[test]
fn a_secret_itself_is_refused_and_not_repeated() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    let literal = "dp_live_canary";
    for (at, config) in [
        ("credentials[0].api_key", "credentials: [{name: a, level: admin, api_key: SECRET}]"),
        (
            "credentials[0].fallback",
            "credentials: [{name: a, level: admin, api_key: file:/k, fallback: SECRET}]",
        ),
        (
            "credentials[0].refresh_token.token",
            "credentials: [{name: a, level: admin, refresh_token: {client_id: c, token: SECRET}}]",
        ),
        (
            "webhooks.endpoints[0].secrets[1]",
            "webhooks: {listen: '0.0.0.0:8090', endpoints: [{path: /h, secrets: [file:/k, SECRET], forward_to: 'http://127.0.0.1:1/h'}]}",
        ),
        ("admin.token", "admin: {token: SECRET}"),
    ] {
        let config = config.replace("SECRET", literal);
        let sentence = format!("config.{at}: expected a reference to a secret");
        for (chart, values) in [
            ("datapulse-sidecar", format!("config: {{{config}}}\n")),
            (
                "datapulse-sidecar-injector",
                format!(
                    "injector: {{enabled: true, profiles: {{default: {{config: {{{config}}}}}}}}}\n"
                ),
            ),
            ("examples", format!("sidecar: {{config: {{{config}}}}}\n")),
        ] {
            fs::write(&file, values).expect("written");
            let base = format!("{chart}/ci/default-values.yaml");
            for helm in Helm::BOTH {
                let rendered = helm.template(chart, &["--values", &base, "--values", path(&file)]);
                let said = rendered.expect_err("a secret itself");
                assert!(said.contains(&sentence), "{helm:?} {chart}: {said:.2000}");
                assert!(!said.contains(literal), "{helm:?} {chart}: {said:.2000}");
            }
        }
    }
}

#[test]
fn a_store_that_is_referred_to_is_set_up() {
    let aws = "credentials: [{name: a, level: admin, api_key: 'aws:prod/datapulse#key'}]";
    let vault = aws.replace("aws:", "vault:");
    embedded(
        &format!("sidecar: {{vault: {{address: ''}}, config: {{{vault}}}}}\n"),
        "config.credentials[0].api_key is in Vault, and nothing says where that is: set vault.address",
    );
    embedded(&format!("sidecar: {{config: {{{aws}}}}}\n"), "in which region: set aws.region");
    gateway(
        &format!("aws: {{region: ''}}\nconfig: {{{aws}}}\n"),
        "in which region: set aws.region",
    );
}

#[test]
fn a_port_leads_to_the_listener_that_is_meant() {
    gateway("ports: {health: 8080}\n", "ports.health is 8080, as ports.proxy is");
    embedded("sidecar: {ports: {health: 8080}}\n", "ports.health is 8080, as ports.proxy is");
    for listen in ["0.0.0.0:9999", "localhost:8080", "unix:/run/proxy.sock"] {
        gateway(
            &format!("config: {{listeners: [{{listen: '{listen}'}}]}}\n"),
            "the Service leads to port 8080 (ports.proxy) of the pod, where nobody listens",
        );
    }
    // In an app's own pod nothing but the app leads there.
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    let config = "config: {listeners: [{listen: 'localhost:8081'}, {listen: 'localhost:8082'}]}";
    fs::write(&file, format!("sidecar: {{{config}}}\n")).expect("written");
    for helm in Helm::BOTH {
        let base = "examples/ci/default-values.yaml";
        let rendered = helm.template("examples", &["--values", base, "--values", path(&file)]);
        assert!(rendered.expect("a listener a tenant").contains("localhost:8082"), "{helm:?}");
    }
}

#[test]
fn what_would_lead_nowhere_is_refused() {
    gateway(
        "networkPolicy: {enabled: true, clients: {podSelector: {matchLabels: {a: b}}}}\n",
        "the gateway could reach neither DataPulse nor a store",
    );
    gateway(
        "networkPolicy: {enabled: true, egress: [{}]}\n",
        "say which pods may call the gateway",
    );
    let lock_down = |clients: &str, sentence: &str| {
        let clients = format!("clients: {{lockDown: true, {clients}}}");
        gateway(
            &format!("networkPolicy: {{enabled: true, egress: [{{}}], {clients}}}\n"),
            sentence,
        );
    };
    lock_down(
        "podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {c: d}}",
        "a NetworkPolicy is for its own namespace",
    );
    lock_down(
        "namespaceSelector: {matchLabels: {c: d}}",
        "a NetworkPolicy is for its own namespace",
    );
    gateway("webhooks: {httpRoute: {enabled: true}}\n", "config.webhooks.listen has no port");
    gateway("aws: {region: eu-west-1, identity: irsa}\n", "aws.irsa.roleArn is empty");
    gateway("gateway: {strategy: {maxSurge: 25%}}\n", "maxSurge");
}

/// The kubelet probes the pod's address, and kills what does not start in time.
#[test]
fn what_no_kubelet_can_start_is_refused() {
    for listen in ["127.0.0.1:9464", "localhost:9464", "[::1]:9464"] {
        let values = format!("config: {{health: {{listen: '{listen}'}}}}\n");
        gateway(&values, "config.health.listen is a loopback address");
    }
    embedded(
        "sidecar: {config: {health: {listen: '127.0.0.1:9464'}}}\n",
        "config.health.listen is a loopback address",
    );
    injector(
        "injector: {profiles: {default: {config: {health: {listen: '[::]:9999'}}}}}\n",
        "config.health.listen: the kubelet and Prometheus ask port 9464 (ports.health)",
    );
    for late in ["5m", "56s", "1min", "0.5h"] {
        let values = format!("config: {{startup_timeout: {late}}}\n");
        gateway(&values, "config.startup_timeout: the kubelet kills the sidecar after 60 s");
    }
    let values =
        "sidecar: {config: {startup_timeout: 50s}, probes: {startup: {failureThreshold: 50}}}\n";
    embedded(values, "the kubelet kills the sidecar after 50 s");
}

#[test]
fn a_gateways_pod_has_the_time_to_drain() {
    gateway(
        "gateway: {terminationGracePeriodSeconds: 30}\n",
        "a pod that drains (drain.max: 20s) and writes what it renewed (12 s) may take 32 s",
    );
    gateway("drain: {max: 2m}\ngateway: {terminationGracePeriodSeconds: 70}\n", "may take 132 s");
}

#[test]
fn a_configuration_that_no_policy_can_carry_is_refused() {
    let rules: String = (0..2500)
        .map(|n| format!("{{methods: [ANY], path: /v1/reports/{n}, level: read_only}}, "))
        .collect();
    injector(
        &format!("injector: {{profiles: {{default: {{config: {{policy: [{rules}]}}}}}}}}\n"),
        "Kubernetes takes 100000 characters",
    );
}
