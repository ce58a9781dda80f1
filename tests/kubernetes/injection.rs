//! What the policies of the injector's chart do to pods, and what the guard refuses.

use serde_json::{Value, json};

use crate::cluster::{Cluster, comes_true};

/// The cluster with the injector's chart, once its policies are in force.
async fn with_injector(values: &str) -> Cluster {
    let cluster = Cluster::start().await;
    // Older than the guard.
    cluster
        .create(&pod("old", json!({"finalizers": ["example.com/hold"]}), json!({})))
        .await
        .expect("made");
    install(&cluster, "helm4", values, &[]).await;
    in_force(&cluster).await;
    cluster
}

async fn install(cluster: &Cluster, helm: &str, values: &str, more: &[&str]) {
    let chart = "datapulse-sidecar-injector";
    let args = ["install", "injector", chart, "--values", values];
    cluster.helm(helm, &[&args, more].concat()).await.expect("installs");
}

/// Waits until a labelled pod would be injected, and a bad one refused.
pub(crate) async fn in_force(cluster: &Cluster) {
    let injects = async || {
        let asked = cluster.would_create(&pod("probe", json!({}), json!({}))).await;
        asked.is_ok_and(|pod| sidecars(&pod) == 1)
    };
    assert!(comes_true(injects).await, "the policy does not get into force");
    let refuses = async || {
        let open = json!({"shareProcessNamespace": true});
        cluster.would_create(&pod("probe", json!({}), open)).await.is_err()
    };
    assert!(comes_true(refuses).await, "the guard does not get into force");
}

/// A restricted pod in `apps` that asks for the profile `default`; metadata and spec are added to.
pub(crate) fn pod(name: &str, metadata: Value, spec: Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "apps",
                     "labels": {"sidecar.datapulse.ai/inject": "default"}},
        "spec": {"automountServiceAccountToken": false, "containers": [container("app")]},
    });
    for (key, more) in [("metadata", metadata), ("spec", spec)] {
        let own = pod[key].as_object_mut().expect("a mapping");
        own.extend(more.as_object().expect("a mapping").clone());
    }
    pod
}

pub(crate) fn container(name: &str) -> Value {
    json!({"name": name, "image": "registry.example/app:1.0", "securityContext": {
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}}})
}

pub(crate) fn sidecars(pod: &Value) -> usize {
    let init = pod["spec"]["initContainers"].as_array();
    init.into_iter().flatten().filter(|c| c["name"] == "datapulse-sidecar").count()
}

#[track_caller]
fn assert_injected(stored: &Value, case: &str) {
    let first = &stored["spec"]["initContainers"][0];
    assert_eq!(first["name"], "datapulse-sidecar", "{case}: {stored:#}");
    assert_eq!(first["restartPolicy"], "Always", "{case}");
    assert_eq!(sidecars(stored), 1, "{case}");
    let mounted = |list: &Value, name: &str| {
        list.as_array().into_iter().flatten().filter(|item| item["name"] == name).count()
    };
    for volume in ["config", "state", "no-token", "vault-token"] {
        let name = format!("datapulse-sidecar-{volume}");
        assert_eq!(mounted(&stored["spec"]["volumes"], &name), 1, "{case}: {name}");
        assert_eq!(mounted(&first["volumeMounts"], &name), 1, "{case}: {name}");
    }
    let revision = &stored["metadata"]["annotations"]["sidecar.datapulse.ai/revision"];
    assert!(revision.as_str().is_some_and(|text| text.starts_with("0.")), "{case}: {revision}");
}

#[tokio::test]
async fn a_labelled_pod_comes_back_with_the_sidecar_first() {
    let cluster = with_injector("datapulse-sidecar-injector/ci/default-values.yaml").await;
    let own_config = json!({"annotations": {"sidecar.datapulse.ai/config": "version: 1\n"}});
    let annotated = json!({"annotations": {"example.com/a": "b"}});
    let own_volume = json!({"volumes": [{"name": "cache", "emptyDir": {}}]});
    let with_init = json!({"initContainers": [container("migrate")]});
    for (name, metadata, spec) in [
        ("plain", json!({}), json!({})),
        ("no-volumes", json!({}), json!({"volumes": []})),
        ("own-volumes", json!({}), own_volume),
        ("init-containers", json!({}), with_init),
        ("annotated", annotated, json!({})),
        ("own-config", own_config, json!({})),
        ("own-token", json!({}), json!({"automountServiceAccountToken": true})),
    ] {
        let stored = cluster.create(&pod(name, metadata, spec)).await;
        let stored = stored.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_injected(&stored, name);
        let config = stored["metadata"]["annotations"]["sidecar.datapulse.ai/config"].as_str();
        let is_own = name == "own-config";
        assert_eq!(config.is_some_and(|text| text.contains("api_key")), !is_own, "{name}");
        if name == "init-containers" {
            assert_eq!(stored["spec"]["initContainers"][1]["name"], "migrate");
        }
        // The API server mounts its own token; ours is over that path.
        let over = stored["spec"]["initContainers"][0]["volumeMounts"].as_array().expect("mounts");
        let path = "/var/run/secrets/kubernetes.io/serviceaccount";
        let at: Vec<_> = over.iter().filter(|mount| mount["mountPath"] == path).collect();
        assert_eq!(at.len(), 1, "{name}: {at:?}");
        assert_eq!(at[0]["name"], "datapulse-sidecar-no-token", "{name}");
    }
    let unlabelled = cluster.create(&pod("bare", json!({"labels": {"app": "x"}}), json!({}))).await;
    assert_eq!(sidecars(&unlabelled.expect("made")), 0);
    let mut named = pod("", json!({"generateName": "made-"}), json!({}));
    named["metadata"].as_object_mut().expect("a mapping").remove("name");
    assert_injected(&cluster.create(&named).await.expect("made"), "generateName");
    as_it_was_meant(&cluster).await;
    limited(&cluster).await;
    by_a_job(&cluster).await;
}

/// The stored container is the rendered one, and what the API server fills in.
async fn as_it_was_meant(cluster: &Cluster) {
    let rendered = cluster.helm("helm4", &["template", "x", "examples"]).await.expect("renders");
    let rendered: Vec<Value> = serde_saphyr::from_multiple(&rendered).expect("YAML");
    let template = rendered.iter().find(|o| o["kind"] == "Deployment").expect("one");
    let wanted = &template["spec"]["template"]["spec"]["initContainers"][0];
    let stored = cluster.get(&["pod", "plain", "-n", "apps"]).await;
    assert!(holds(&stored["spec"]["initContainers"][0], wanted), "{stored:#}\n{wanted:#}");
}

/// Whether everything in `inner` is in `outer`.
fn holds(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Object(outer), Value::Object(inner)) => {
            inner.iter().all(|(key, value)| outer.get(key).is_some_and(|own| holds(own, value)))
        }
        (Value::Array(outer), Value::Array(inner)) => {
            outer.len() == inner.len() && outer.iter().zip(inner).all(|(o, i)| holds(o, i))
        }
        _ => outer == inner,
    }
}

/// A namespace with defaults for containers gives them to ours too.
async fn limited(cluster: &Cluster) {
    let limit =
        json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "50m"}});
    let range = json!({"apiVersion": "v1", "kind": "LimitRange",
                       "metadata": {"name": "limits", "namespace": "open"}, "spec": {"limits": [limit]}});
    cluster.create(&range).await.expect("made");
    let stored = cluster.create(&pod("limited", json!({"namespace": "open"}), json!({}))).await;
    let stored = stored.expect("made");
    assert_injected(&stored, "LimitRange");
    let resources = &stored["spec"]["initContainers"][0]["resources"];
    assert_eq!(resources["requests"]["cpu"], "10m", "{resources}");
}

async fn by_a_job(cluster: &Cluster) {
    let template = pod("", json!({}), json!({"restartPolicy": "Never"}));
    let job = json!({"apiVersion": "batch/v1", "kind": "Job",
                     "metadata": {"name": "import", "namespace": "apps"},
                     "spec": {"template": {"metadata": {"labels": template["metadata"]["labels"]},
                                           "spec": template["spec"]}}});
    cluster.create(&job).await.expect("made");
    let list = ["pods", "-n", "apps", "-l", "job-name=import"];
    let made = async || !cluster.get(&list).await["items"].as_array().expect("a list").is_empty();
    assert!(comes_true(made).await, "the Job makes no pod");
    assert_injected(&cluster.get(&list).await["items"][0], "Job");
}

#[tokio::test]
async fn the_guard_refuses_what_would_open_the_sidecar_and_says_why() {
    let cluster = with_injector("datapulse-sidecar-injector/ci/default-values.yaml").await;
    let open = json!({"namespace": "open"});
    let thief = json!({"containers": [{"name": "app", "image": "registry.example/app:1.0",
        "volumeMounts": [{"name": "datapulse-sidecar-vault-token", "mountPath": "/stolen"}]}]});
    let second = json!({"volumes": [{"name": "mine", "projected": {"sources": [
        {"serviceAccountToken": {"audience": "vault", "path": "token"}}]}}]});
    let unknown = json!({"namespace": "open", "labels": {"sidecar.datapulse.ai/inject": "nobody"}});
    for (metadata, spec, sentence) in [
        (&open, json!({"hostNetwork": true}), "hostNetwork and hostPID open the sidecar"),
        (&open, json!({"hostPID": true}), "hostNetwork and hostPID open the sidecar"),
        (
            &open,
            json!({"shareProcessNamespace": true}),
            "shareProcessNamespace lets other containers",
        ),
        (&open, thief, "take the mount out of: app"),
        (&open, second, "another volume asks for a token for the audience \"vault\""),
        (&unknown, json!({}), "asks for the sidecar of profile 'nobody' and has none"),
    ] {
        let refused = cluster.create(&pod("bad", metadata.clone(), spec)).await;
        let said = refused.expect_err(sentence);
        assert!(said.contains(sentence), "{said}");
    }
    on_a_live_pod(&cluster).await;
    an_older_pod_can_still_go(&cluster).await;
    a_workload_warns(&cluster).await;
}

async fn on_a_live_pod(cluster: &Cluster) {
    cluster.create(&pod("live", json!({}), json!({}))).await.expect("made");
    let on = ["-n", "apps"];
    // The API server takes labels and annotations from whoever may write a pod's status.
    let status = ["patch", "pod/live", "--subresource=status", "--type=merge", "-p"];
    for (args, sentence) in [
        (
            &["label", "--overwrite", "pod/live", "sidecar.datapulse.ai/inject=other"][..],
            "stays as it is",
        ),
        (&["label", "pod/live", "sidecar.datapulse.ai/inject-"], "stays as it is"),
        (
            &["annotate", "--overwrite", "pod/live", "sidecar.datapulse.ai/config=evil"],
            "the configuration of a live pod",
        ),
        (&[&status[..], &["{\"metadata\":{\"labels\":null}}"]].concat(), "stays as it is"),
        (
            &[
                &status[..],
                &["{\"metadata\":{\"annotations\":{\"sidecar.datapulse.ai/config\":\"evil\"}}}"],
            ]
            .concat(),
            "the configuration of a live pod",
        ),
        (
            &["set", "image", "pod/live", "datapulse-sidecar=evil.example/x:1"],
            "the sidecar's image of a live pod",
        ),
        (
            &[
                "debug",
                "pod/live",
                "--image=registry.example/d:1",
                "--profile=restricted",
                "--target=datapulse-sidecar",
            ],
            "target another container",
        ),
    ] {
        let refused = cluster.kubectl(&[args, &on].concat()).await;
        let said = refused.expect_err(sentence);
        assert!(
            said.contains("datapulse-sidecar: ") && said.contains(sentence),
            "{args:?}: {said}"
        );
    }
    let label = &["label", "pod/live", "example.com/a=b"][..];
    let running = [&status[..], &["{\"status\":{\"phase\":\"Running\"}}"]].concat();
    for harmless in [label, &running] {
        let said = cluster.kubectl(&[harmless, &on].concat()).await;
        said.expect("what does not concern the sidecar may change");
    }
}

async fn an_older_pod_can_still_go(cluster: &Cluster) {
    let patch = ["patch", "pod/old", "-n", "apps", "--type=merge", "-p"];
    let status = [&patch[..], &["{\"status\":{\"phase\":\"Failed\"}}", "--subresource=status"]];
    cluster.kubectl(&status.concat()).await.expect("its status can change");
    let patch = [&patch[..], &["{\"metadata\":{\"finalizers\":null}}"]].concat();
    cluster.kubectl(&patch).await.expect("its finalizer can be taken away");
}

async fn a_workload_warns(cluster: &Cluster) {
    let template = pod("", json!({}), json!({"hostNetwork": true}));
    let labels = json!({"app": "web", "sidecar.datapulse.ai/inject": "default"});
    let app = json!({"apiVersion": "apps/v1", "kind": "Deployment",
                     "metadata": {"name": "web", "namespace": "open"},
                     "spec": {"selector": {"matchLabels": {"app": "web"}},
                              "template": {"metadata": {"labels": labels}, "spec": template["spec"]}}});
    let said = cluster.apply(&app).await.expect("it applies");
    assert!(said.contains("Warning:") && said.contains("will be refused"), "{said}");
}

/// What the policies inject, the guard lets in; what else asks for such a token, it does not.
#[tokio::test]
async fn a_profiles_own_audience_is_its_sidecars_alone() {
    let values = "datapulse-sidecar-injector/ci/default-values.yaml";
    let cluster = Cluster::start().await;
    let audience = "injector.profiles.default.vault.auth.kubernetes.audience=vault-eu";
    let more = ["--set", audience];
    install(&cluster, "helm4", values, &more).await;
    in_force(&cluster).await;
    let asks_for = |audience: &str| {
        let source = json!({"serviceAccountToken": {"audience": audience, "path": "token"}});
        json!({"volumes": [{"name": "mine", "projected": {"sources": [source]}}]})
    };
    let audiences = |stored: &Value| -> Vec<String> {
        let volumes = stored["spec"]["volumes"].as_array().expect("volumes").iter();
        let sources = volumes.filter_map(|volume| volume["projected"]["sources"].as_array());
        let audiences = sources.flatten().map(|s| s["serviceAccountToken"]["audience"].as_str());
        audiences.flatten().map(str::to_owned).collect()
    };
    let stored = cluster.create(&pod("plain", json!({}), json!({}))).await.expect("admitted");
    assert_injected(&stored, "another audience");
    assert_eq!(audiences(&stored), ["vault-eu"]);
    let stored = cluster.create(&pod("queue", json!({}), asks_for("queue"))).await;
    assert_eq!(audiences(&stored.expect("no concern of the sidecar's")), ["queue", "vault-eu"]);
    // The second is that of sidecars which charts embed.
    for taken in ["vault-eu", "vault"] {
        let refused = cluster.create(&pod("thief", json!({}), asks_for(taken))).await;
        let said = refused.expect_err(taken);
        let sentence = "a token for the audience \"vault\" or \"vault-eu\"";
        assert!(said.contains(sentence), "{taken}: {said}");
    }
}

#[tokio::test]
async fn exec_and_images_can_be_forbidden_too() {
    let values = "datapulse-sidecar-injector/ci/default-values.yaml";
    let cluster = with_injector(values).await;
    cluster.create(&pod("live", json!({}), json!({}))).await.expect("made");
    let fixed = ["upgrade", "injector", "datapulse-sidecar-injector", "--values", values];
    let more =
        ["--set", "guard.denyExec=true", "--set", "guard.allowedImages={other.example/image}"];
    cluster.helm("helm4", &[&fixed[..], &more].concat()).await.expect("upgrades");
    let refused = async || {
        let exec = ["exec", "-n", "apps", "live", "-c", "datapulse-sidecar", "--", "sh"];
        let said = cluster.kubectl(&exec).await.expect_err("no pod runs here");
        said.contains("nobody execs into the sidecar")
    };
    assert!(comes_true(refused).await, "the sidecar can be entered");
    let into_the_app = ["exec", "-n", "apps", "live", "-c", "app", "--", "sh"];
    let said = cluster.kubectl(&into_the_app).await.expect_err("no pod runs here");
    assert!(!said.contains("nobody execs"), "{said}");
    let told = async || {
        let said = cluster.would_create(&pod("probe", json!({}), json!({}))).await;
        said.is_err_and(|said| said.contains("none of guard.allowedImages: other.example/image"))
    };
    assert!(comes_true(told).await, "another image is taken");
}
