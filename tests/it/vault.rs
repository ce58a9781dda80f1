//! Promise: secrets in Vault are used as those in files are: each way to log in works, a new version
//! takes effect by itself, and nothing that Vault says is repeated.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Authority, Builder, CANARY, Callers, OpenBao, Process, Relay, Rig, Signer, TokenReviews, Way,
};

/// What the sidecar may do: nothing but to read its secrets.
pub(crate) const POLICY: &str = r#"
path "secret/data/datapulse/*" { capabilities = ["read"] }
path "secret/metadata/datapulse/*" { capabilities = ["read"] }
"#;

/// The key of `reader` is in OpenBao, and nowhere else.
pub(crate) async fn stocked() -> OpenBao {
    let bao = OpenBao::dev().await;
    bao.put("datapulse/billing", &key("reader")).await;
    bao.policy("datapulse", POLICY).await;
    bao
}

/// The fields of the secret, with the key of this name.
pub(crate) fn key(name: &str) -> Value {
    json!({"api_key": format!("dp_live_{CANARY}_{name}"), "other": format!("{CANARY}-other")})
}

/// A sidecar whose one credential is in Vault.
pub(crate) fn with_vault(builder: Builder, address: &str, auth: &str, more: &str) -> Builder {
    builder.config(&format!(
        "credentials: [{{name: reader, level: read_only, \
         api_key: 'vault:secret/datapulse/billing#api_key'}}]\n\
         stores: {{vault: {{address: '{address}', poll: 1s, auth: {auth} {more}}}}}\n"
    ))
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// Login by a token in a file, with which most tests do.
pub(crate) async fn by_token(builder: &Builder, bao: &OpenBao) -> String {
    let token = bao.token("datapulse", "1h").await;
    format!("{{method: token, token: 'file:{}'}}", write(builder.dir(), "vault-token", &token))
}

pub(crate) async fn by_approle(dir: &Path, bao: &OpenBao) -> String {
    bao.post("sys/auth/approle", &json!({"type": "approle"})).await;
    bao.post("auth/approle/role/sidecar", &json!({"token_policies": ["datapulse"]})).await;
    let role_id = bao.get("auth/approle/role/sidecar/role-id").await["role_id"].clone();
    let secret_id = bao.post("auth/approle/role/sidecar/secret-id", &json!({})).await;
    let file = write(dir, "secret-id", secret_id["data"]["secret_id"].as_str().unwrap());
    format!("{{method: approle, role_id: {role_id}, secret_id: 'file:{file}'}}")
}

async fn by_jwt(dir: &Path, bao: &OpenBao) -> String {
    let signer = Signer::new();
    bao.post("sys/auth/ci", &json!({"type": "jwt"})).await;
    let keys = json!({"jwt_validation_pubkeys": [signer.public_pem()]});
    bao.post("auth/ci/config", &keys).await;
    let role = json!({
        "role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"],
        "token_policies": ["datapulse"],
    });
    bao.post("auth/ci/role/sidecar", &role).await;
    let claims = json!({"sub": "me", "aud": "vault", "jti": CANARY});
    let file = write(dir, "jwt", &signer.sign(&claims, Duration::from_secs(600)));
    format!("{{method: jwt, mount: ci, role: sidecar, token_file: '{file}'}}")
}

/// The role's token is written to `service-account`.
pub(crate) async fn by_kubernetes(dir: &Path, bao: &OpenBao) -> (String, TokenReviews) {
    let token = Signer::new().service_account();
    let reviews = TokenReviews::start(token.clone(), "reviewer").await;
    bao.post("sys/auth/kubernetes", &json!({"type": "kubernetes"})).await;
    let config = json!({
        "kubernetes_host": format!("https://{}", reviews.address()),
        "kubernetes_ca_cert": reviews.ca,
        "token_reviewer_jwt": "reviewer",
        "disable_local_ca_jwt": true,
    });
    bao.post("auth/kubernetes/config", &config).await;
    let role = json!({
        "bound_service_account_names": ["sidecar"],
        "bound_service_account_namespaces": ["datapulse"],
        "audience": "vault",
        "token_policies": ["datapulse"],
    });
    bao.post("auth/kubernetes/role/sidecar", &role).await;
    let file = write(dir, "service-account", &format!("{token}\n"));
    (format!("{{method: kubernetes, role: sidecar, token_file: '{file}'}}"), reviews)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_log_in_gets_the_secret() {
    let bao = stocked().await;
    for method in ["token", "approle", "jwt", "kubernetes"] {
        let builder = Rig::builder().await;
        let (auth, _reviews) = match method {
            "token" => (by_token(&builder, &bao).await, None),
            "approle" => (by_approle(builder.dir(), &bao).await, None),
            "jwt" => (by_jwt(builder.dir(), &bao).await, None),
            _ => {
                let (auth, reviews) = by_kubernetes(builder.dir(), &bao).await;
                (auth, Some(reviews))
            }
        };
        let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
        assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{method}");
        assert_eq!(rig.emulator.used("reader"), 1, "{method}");
        assert_eq!(rig.series(r#"store_logins_total{outcome="ok",store="vault"}"#).await, 1.0);
        assert_eq!(rig.series(r#"store_up{store="vault"}"#).await, 1.0);
        rig.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engines_first_version_is_found_out_by_asking_vault() {
    let bao = stocked().await;
    bao.post("sys/mounts/team/kv", &json!({"type": "kv", "options": {"version": "1"}})).await;
    bao.post("team/kv/billing", &key("reader")).await;
    bao.policy("v1", "path \"team/kv/billing\" { capabilities = [\"read\"] }").await;
    let builder = Rig::builder().await;
    let token = bao.token("v1", "1h").await;
    let file = write(builder.dir(), "vault-token", &token);
    let auth = format!("{{method: token, token: 'file:{file}'}}");
    let reference =
        "credentials: [{name: reader, level: read_only, api_key: 'vault:team/kv/billing#api_key'}]";
    let rig = with_vault(builder, &bao.url(), &auth, "").config(reference).start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let second = rig.emulator.add_key("second");
    bao.post("team/kv/billing", &json!({"api_key": second})).await;
    rig.metric("datapulse_sidecar_credential_generation{credential=\"reader\"} 2").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.emulator.used("second"), 1);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_and_a_certificate_of_our_own_authority_are_used() {
    let bao = OpenBao::sealable(&Authority::new()).await;
    bao.post("sys/namespaces/team", &json!({})).await;
    let mount = json!({"type": "kv", "options": {"version": "2"}});
    bao.post("team/sys/mounts/secret", &mount).await;
    bao.mounted("team/secret").await;
    let path = "team/secret/data/datapulse/billing";
    bao.post(path, &json!({"data": key("reader")})).await;
    bao.post("team/sys/policies/acl/datapulse", &json!({"policy": POLICY})).await;
    let request = json!({"policies": ["datapulse"], "no_parent": true});
    let token = bao.post("team/auth/token/create", &request).await;
    let builder = Rig::builder().await;
    let file = write(builder.dir(), "vault-token", token["auth"]["client_token"].as_str().unwrap());
    let auth = format!("{{method: token, token: 'file:{file}'}}");
    let more = format!(", namespace: team/, ca_file: '{}'", bao.dir().join("ca.pem").display());
    let rig = with_vault(builder, &bao.url(), &auth, &more).start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_that_would_lead_to_another_vault_are_ignored_and_named() {
    let bao = stocked().await;
    let builder = Rig::builder().await;
    let auth = by_token(&builder, &bao).await;
    let named = ["VAULT_ADDR", "VAULT_NAMESPACE", "VAULT_TOKEN", "VAULT_CACERT", "BAO_SKIP_VERIFY"];
    let values = ["http://127.0.0.1:1", "nowhere", CANARY, "/nowhere", "true"];
    let mut builder = with_vault(builder, &bao.url(), &auth, "");
    for (name, value) in named.iter().zip(values) {
        builder = builder.env(name, value);
    }
    // As the configuration has it; and of a service that is called vault.
    let builder = builder.env("BAO_ADDR", &bao.url()).env("VAULT_SERVICE_HOST", "127.0.0.1");
    let rig = builder.start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let line = rig.log("ignores variables").await;
    for name in named {
        assert!(line.contains(name), "{name}: {line}");
    }
    for word in ["BAO_ADDR", "VAULT_SERVICE_HOST", CANARY] {
        assert!(!line.contains(word), "{word}: {line}");
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_is_used_within_one_poll_and_fails_no_call() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    for name in ["second", "third"] {
        rig.emulator.add_key(name);
        bao.put("datapulse/billing", &key(name)).await;
        rig.emulator.uses(name).await;
    }
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    // Another field of the secret wakes nobody.
    let mut fields = key("third");
    fields["other"] = json!("changed");
    bao.put("datapulse/billing", &fields).await;
    rig.looks_at_vault(3).await;
    assert_eq!(rig.series(r#"credential_generation{credential="reader"}"#).await, 3.0);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_401_of_the_upstream_the_secret_is_read_at_once() {
    let bao = stocked().await;
    let builder = Rig::builder().await;
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").config("stores: {vault: {poll: 1h}}");
    let rig = rig.start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.emulator.add_key("second");
    bao.put("datapulse/billing", &key("second")).await;
    rig.emulator.remove_key("reader");
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.emulator.used("second"), 1);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_vault_calls_get_503_until_it_comes() {
    let bao = stocked().await;
    let relay = Relay::new(bao.address).await;
    relay.set(Way::Refuse).await;
    let builder = Rig::builder().await;
    let auth = by_token(&builder, &bao).await;
    let address = format!("http://{}", relay.address);
    let rig = with_vault(builder, &address, &auth, "").unready().start().await;
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(rig.series(r#"store_up{store="vault"}"#).await, 0.0);
    assert_eq!(rig.emulator.api_requests(), 0, "nothing is sent anonymously");
    relay.set(Way::Open).await;
    rig.eventually("/v1/datasets", 200).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_online_tells_what_is_missing_in_vault_and_what_to_grant() {
    let bao = stocked().await;
    let mut fields = key("reader");
    fields["number"] = json!(7);
    fields["lines"] = json!(format!("{CANARY}\n{CANARY}"));
    fields["wrong"] = json!(format!("dp_live_{CANARY}_nobody"));
    bao.put("datapulse/billing", &fields).await;
    bao.put("hidden/billing", &key("reader")).await;
    bao.post("sys/mounts/transit", &json!({"type": "transit"})).await;
    let more = "path \"transit/keys/*\" { capabilities = [\"read\"] }";
    bao.policy("datapulse", &format!("{POLICY}\n{more}")).await;
    for (reference, code, told) in [
        ("secret/datapulse/billing#api_key", 0, "its token is taken; it is Emulator's"),
        (
            "secret/datapulse/absent#api_key",
            1,
            "no such secret; write it, or correct the reference",
        ),
        (
            "secret/data/datapulse/billing#api_key",
            1,
            "`data/`: vault:secret/datapulse/billing#api_key",
        ),
        ("secret/datapulse/billing#absent", 1, "the secret has no such key"),
        ("secret/datapulse/billing#number", 1, "the value is not a string"),
        ("secret/datapulse/billing#lines", 1, "cannot stand in an HTTP header"),
        ("secret/datapulse/billing#wrong", 1, "its token is rejected with 401"),
        (
            "secret/hidden/billing#api_key",
            1,
            "path \"secret/data/hidden/billing\" { capabilities = [\"read\"] }",
        ),
        ("transit/keys/a#k", 1, "the mount is of type \"transit\""),
    ] {
        let builder = Rig::builder().await;
        let auth = by_token(&builder, &bao).await;
        let config = format!(
            "credentials: [{{name: reader, level: read_only, api_key: 'vault:{reference}'}}]"
        );
        is_checked(with_vault(builder, &bao.url(), &auth, "").config(&config), code, &[told]).await;
    }
    let builder = Rig::builder().await;
    let file = write(builder.dir(), "vault-token", &format!("{CANARY}-ended"));
    let auth = format!("{{method: token, token: 'file:{file}'}}");
    let hook = "webhooks: {listen: '127.0.0.1:0', endpoints: [{path: /hook, \
                forward_to: 'http://127.0.0.1:1', secrets: ['vault:secret/datapulse/hook#key']}]}";
    let builder = with_vault(builder, &bao.url(), &auth, "").config(hook);
    is_checked(builder, 1, &["/hook: vault:secret/datapulse/hook#key: logging in"]).await;
    let builder = Rig::builder().await;
    let auth = by_token(&builder, &bao).await;
    let builder = with_vault(builder, &bao.url(), &auth, ", namespace: nowhere");
    is_checked(builder, 1, &["logging in to the store was refused"]).await;
    let builder = Rig::builder().await;
    let auth = by_token(&builder, &bao).await;
    let builder = with_vault(builder, &format!("{}/v1", bao.url()), &auth, "");
    is_checked(builder, 1, &["leave out `/v1`"]).await;
}

pub(crate) async fn is_checked(builder: Builder, code: i32, told: &[&str]) {
    let stage = builder.stage();
    let mut check = Process::sidecar(&["check", "--online", "--config", &stage.config]);
    let status = check.ended().await;
    let said = [check.stdout.lines().join("\n"), check.stderr.lines().join("\n")].join("\n");
    assert_eq!(status.code(), Some(code), "{told:?}: {said}");
    for told in told {
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
    assert!(!said.contains(CANARY), "{said}");
}
