//! Install, upgrade, rollback and uninstall, by both Helms; what the command writes is applied.

use serde_json::{Value, json};

use crate::cluster::{Cluster, comes_true};
use crate::injection::{container, in_force, pod, sidecars};

const INJECTOR: &str = "datapulse-sidecar-injector";
const GATEWAY: &str = "datapulse-sidecar";

#[tokio::test]
async fn both_helms_install_upgrade_roll_back_and_uninstall_the_injector() {
    let cluster = Cluster::start().await;
    let values = format!("{INJECTOR}/ci/default-values.yaml");
    let fixed = ["injector", INJECTOR, "--values", &values];
    for helm in ["helm3", "helm4"] {
        let dry = [&["install"], &fixed[..], &["--dry-run=server"]].concat();
        cluster.helm(helm, &dry).await.expect("a dry run on the server");
        // Twice: what was there before must not shine through.
        for _ in 0..2 {
            cluster.helm(helm, &[&["install"], &fixed[..]].concat()).await.expect("installs");
            in_force(&cluster).await;
            assert!(comes_true(async || image(&cluster).await.ends_with(":0.1.0")).await);
            let newer = ["--set", "injector.defaults.image.tag=9.9.9"];
            cluster
                .helm(helm, &[&["upgrade"], &fixed[..], &newer].concat())
                .await
                .expect("upgrades");
            assert!(comes_true(async || image(&cluster).await.ends_with(":9.9.9")).await, "{helm}");
            cluster.helm(helm, &["rollback", "injector"]).await.expect("rolls back");
            assert!(comes_true(async || image(&cluster).await.ends_with(":0.1.0")).await, "{helm}");
            cluster.helm(helm, &["uninstall", "injector"]).await.expect("uninstalls");
            assert!(comes_true(async || image(&cluster).await.is_empty()).await, "{helm}");
        }
    }
}

/// The image of the sidecar that a labelled pod would get now; empty where it would get none.
async fn image(cluster: &Cluster) -> String {
    let asked = cluster.would_create(&pod("probe", json!({}), json!({}))).await;
    let Ok(stored) = asked else { return "refused".to_owned() };
    if sidecars(&stored) == 0 {
        return String::new();
    }
    stored["spec"]["initContainers"][0]["image"].as_str().expect("an image").to_owned()
}

#[tokio::test]
async fn both_helms_install_upgrade_roll_back_and_uninstall_the_gateway() {
    let cluster = Cluster::start().await;
    for (helm, set_up) in [("helm3", "vault-kubernetes"), ("helm4", "default")] {
        let values = format!("{GATEWAY}/ci/{set_up}-values.yaml");
        let fixed = ["gateway", GATEWAY, "--namespace", "apps", "--values", &values];
        let replicas = async || {
            let stored = cluster.get(&["deployment", "-n", "apps"]).await;
            let stored = &stored["items"][0];
            let config =
                cluster.get(&["configmap", "gateway-datapulse-sidecar", "-n", "apps"]).await;
            let config = config["data"]["config.yaml"].as_str().expect("text").to_owned();
            let share = config.lines().find(|line| line.contains("share:"));
            (stored["spec"]["replicas"].clone(), share.map(|line| line.trim().to_owned()))
        };
        let run = async |args: &[&str]| cluster.helm(helm, args).await.expect(helm);
        run(&[&["install"], &fixed[..], &["--dry-run=server"]].concat()).await;
        run(&[&["install"], &fixed[..]].concat()).await;
        assert_eq!(replicas().await, (json!(2), Some("share: 1/3".to_owned())));
        run(&[&["upgrade"], &fixed[..], &["--set", "gateway.replicas=4"]].concat()).await;
        assert_eq!(replicas().await, (json!(4), Some("share: 1/5".to_owned())));
        run(&["rollback", "gateway", "--namespace", "apps"]).await;
        assert_eq!(replicas().await, (json!(2), Some("share: 1/3".to_owned())));
        // Restricted Pod Security judges what the ReplicaSet makes.
        let list = ["pods", "-n", "apps", "-l", "app.kubernetes.io/instance=gateway"];
        let made =
            async || cluster.get(&list).await["items"].as_array().is_some_and(|l| l.len() >= 2);
        assert!(comes_true(made).await, "{helm}: no pods");
        run(&["uninstall", "gateway", "--namespace", "apps"]).await;
        let left = cluster.get(&["deployments,configmaps,services", "-n", "apps"]).await;
        let ours = |object: &&Value| {
            object["metadata"]["name"].as_str().is_some_and(|n| n.contains("gateway"))
        };
        assert_eq!(
            left["items"].as_array().expect("a list").iter().filter(ours).count(),
            0,
            "{helm}"
        );
    }
}

#[tokio::test]
async fn embedded_pods_are_made_and_a_changed_sidecar_is_another_job() {
    let cluster = Cluster::start().await;
    let fixed = ["app", "examples", "--namespace", "apps"];
    for helm in ["helm3", "helm4"] {
        cluster.helm(helm, &[&["install"], &fixed[..]].concat()).await.expect("installs");
        let pods = ["pods", "-n", "apps", "-l", "sidecar.datapulse.ai/inject=embedded"];
        let made = async || {
            let pods = cluster.get(&pods).await;
            // Two of the Deployment, one of the Job.
            pods["items"]
                .as_array()
                .is_some_and(|l| l.len() >= 3 && l.iter().all(|p| sidecars(p) == 1))
        };
        assert!(comes_true(made).await, "{helm}: no pods");
        let newer = ["--set", "sidecar.image.tag=9.9.9"];
        cluster.helm(helm, &[&["upgrade"], &fixed[..], &newer].concat()).await.expect("upgrades");
        cluster.helm(helm, &["rollback", "app", "--namespace", "apps"]).await.expect("rolls back");
        cluster.helm(helm, &["uninstall", "app", "--namespace", "apps"]).await.expect("uninstalls");
    }
}

#[tokio::test]
async fn what_the_command_writes_is_applied_and_passes_the_guard() {
    let cluster = Cluster::start().await;
    let values = format!("{INJECTOR}/ci/default-values.yaml");
    let fixed = ["install", "injector", INJECTOR, "--values", &values];
    cluster.helm("helm4", &fixed).await.expect("installs");
    in_force(&cluster).await;
    let config = "version: 1\nlisteners: [{listen: localhost:8080}]\n\
                  credentials: [{name: a, level: read_only, api_key: file:/var/run/key/key}]\n";
    let (meant, _) =
        datapulse_sidecar::config::parse(config, "config.yaml", &|_| None).expect("valid");
    let secrets = ["datapulse=/var/run/key".to_owned()];
    let image = "registry.example/datapulse-sidecar:0.1.0";
    let sidecar = datapulse_sidecar::kubernetes::Sidecar::new(image, config, &meant, &secrets);
    let app = container("app");
    let app = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: injected\n  namespace: apps\nspec:\n  \
         automountServiceAccountToken: false\n  containers:\n  - {app}\n"
    );
    let written = datapulse_sidecar::kubernetes::inject(&app, &sidecar.expect("fits"), &[]);
    let written: Value = serde_saphyr::from_str(&written.expect("injects")).expect("YAML");
    let stored = cluster.create(&written).await.expect("stored, and not injected again");
    assert_eq!(sidecars(&stored), 1);
    let annotation = &stored["metadata"]["annotations"]["sidecar.datapulse.ai/config"];
    assert_eq!(annotation, config);
}
