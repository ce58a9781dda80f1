//! A service account's token, issued by a real API server and reviewed there, gets the secret out of
//! OpenBao through the sidecar; another account's does not, nor one for another audience.

use serde_json::json;

use crate::cluster::Cluster;
use crate::support::{CANARY, OpenBao, Rig};

/// Accounts, and an OpenBao that asks the API server about them.
async fn stage() -> (Cluster, OpenBao) {
    let cluster = Cluster::start().await;
    for account in ["app", "stranger", "reviewer"] {
        let args = ["create", "serviceaccount", account, "-n", "apps"];
        cluster.kubectl(&args).await.expect("an account");
    }
    let may = ["--clusterrole=system:auth-delegator", "--serviceaccount=apps:reviewer"];
    let binding = [&["create", "clusterrolebinding", "reviewer"], &may[..]].concat();
    cluster.kubectl(&binding).await.expect("the reviewer may review");

    let bao = OpenBao::dev().await;
    bao.put("datapulse/billing", &json!({"api_key": format!("dp_live_{CANARY}_reader")})).await;
    let policy = "path \"secret/data/datapulse/*\" { capabilities = [\"read\"] }\n\
                  path \"secret/metadata/datapulse/*\" { capabilities = [\"read\"] }";
    bao.policy("datapulse", policy).await;
    bao.post("sys/auth/kubernetes", &json!({"type": "kubernetes"})).await;
    let authority = std::fs::read_to_string(cluster.ca()).expect("readable");
    let reviewer = token(&cluster, "reviewer", None).await;
    let config = json!({"kubernetes_host": cluster.url, "kubernetes_ca_cert": authority,
                        "token_reviewer_jwt": reviewer, "disable_local_ca_jwt": true});
    bao.post("auth/kubernetes/config", &config).await;
    // As docs/kubernetes.md says.
    let role = json!({"bound_service_account_names": ["app"],
                      "bound_service_account_namespaces": ["apps"],
                      "audience": "vault", "token_policies": ["datapulse"]});
    bao.post("auth/kubernetes/role/datapulse", &role).await;
    (cluster, bao)
}

/// What the kubelet would put into the projected volume.
async fn token(cluster: &Cluster, account: &str, audience: Option<&str>) -> String {
    let mut args = vec!["create", "token", account, "-n", "apps", "--duration=10m"];
    args.extend(audience.map(|_| "--audience"));
    args.extend(audience);
    cluster.kubectl(&args).await.expect("a token").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pods_own_token_gets_its_secret_and_no_other_token_does() {
    let (cluster, bao) = stage().await;
    for (account, audience, wanted, startup) in [
        // The login goes through OpenBao, the API server and etcd, and is waited for.
        ("app", Some("vault"), 200, "60s"),
        ("stranger", Some("vault"), 503, "2s"),
        // The token with which the app could call the API server.
        ("app", None, 503, "2s"),
    ] {
        let builder = Rig::builder().await;
        let file = builder.dir().join("token");
        std::fs::write(&file, token(&cluster, account, audience).await).expect("written");
        let builder = builder.unready().log_level("info").config(&format!(
            "credentials: [{{name: reader, level: read_only, \
             api_key: 'vault:secret/datapulse/billing#api_key'}}]\n\
             stores: {{vault: {{address: '{}', auth: {{method: kubernetes, role: datapulse, \
             token_file: '{}'}}}}}}\nstartup_timeout: {startup}\n",
            bao.url(),
            file.display(),
        ));
        let rig = builder.start().await;
        let started = if wanted == 200 { "each required credential" } else { "started without" };
        rig.log(started).await;
        let status = rig.get("/v1/datasets").await.status();
        assert_eq!(status, wanted, "{account} for {audience:?}");
        assert_eq!(rig.emulator.used("reader"), u64::from(wanted == 200));
        rig.finish().await;
    }
}
