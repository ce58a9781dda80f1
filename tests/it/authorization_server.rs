//! Promise: a certified authorization server that nobody here wrote gives tokens for each grant and
//! each way to show who a client is, in form mode, and takes none of our refresh tokens twice.

use std::path::Path;

use serde_json::{Value, json};

use crate::service_accounts::keys;
use crate::support::{CANARY, Issuer, Login, Process, Rig};

const ALGS: [&str; 3] = ["RS256", "ES256", "EdDSA"];

/// A client that a test's own machine runs, as RFC 8252 has it.
fn native(id: &str, shows: &str) -> Value {
    json!({
        "client_id": id, "application_type": "native", "token_endpoint_auth_method": shows,
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "redirect_uris": ["http://127.0.0.1/callback"], "scope": "analytics:read pipelines:write",
    })
}

/// The same with a key, which may also act for itself.
fn with_key(alg: &str, public: &Value) -> Value {
    let mut client = native(alg, "private_key_jwt");
    client["grant_types"] = json!(["authorization_code", "refresh_token", "client_credentials"]);
    client["token_endpoint_auth_signing_alg"] = json!(alg);
    client["jwks"] = json!({"keys": [public]});
    client
}

fn write(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join(name), text).unwrap();
}

#[tokio::test]
async fn clients_get_tokens_by_a_secret_and_by_what_each_sort_of_key_signs() {
    let keys = keys().await;
    let secret = format!("{CANARY}-of-the-machine");
    let mut clients = vec![json!({
        "client_id": "machine", "client_secret": secret, "grant_types": ["client_credentials"],
        "redirect_uris": [], "response_types": [], "scope": "analytics:read",
        "token_endpoint_auth_method": "client_secret_post",
    })];
    clients.extend(ALGS.map(|alg| with_key(alg, &keys[alg]["public"])));
    let issuer = Issuer::start(clients, 60).await;
    let builder = Rig::builder().await;
    write(builder.dir(), "machine", &secret);
    let mut config = "credentials:\n  - {name: machine, level: read_only, client_credentials: \
                      {client_id: machine, client_secret: 'file:${DIR}/machine', \
                      scopes: ['analytics:read']}}\n"
        .to_owned();
    for alg in ALGS {
        write(builder.dir(), alg, keys[alg]["pem"].as_str().unwrap());
        config += &format!(
            "  - {{name: {alg}, level: read_write, client_credentials: {{client_id: {alg}, \
             private_key_jwt: {{key: 'file:${{DIR}}/{alg}'}}, scopes: ['pipelines:write']}}}}\n"
        );
    }
    let stage = builder.config(&issuer.config()).config_in_dir(&config).stage();
    let mut check = Process::sidecar(&["check", "--online", "--config", &stage.config]);
    let code = check.ended().await.code();
    let said = check.stdout.lines().join("\n");
    assert_eq!(code, Some(0), "{said}\n{:?}", check.stderr.lines());
    for client in ["machine"].iter().chain(&ALGS) {
        let line = format!("{client}: its token is taken; it is {client}'s");
        assert!(said.contains(&line), "{line} is not in\n{said}");
        assert_eq!(issuer.events("granted", client, "client_credentials"), 1);
    }
    assert!(!said.contains(CANARY), "{said}");
}

#[tokio::test]
async fn a_person_logs_in_and_each_refresh_token_is_spent_once() {
    let issuer = Issuer::start(vec![native("cli", "none")], 3).await;
    let builder = Rig::builder().await.config(&issuer.config()).config_in_dir(
        "credentials: [{name: alice, level: read_write, refresh_token: {client_id: cli, \
         token: 'file:${DIR}/alice', scopes: ['analytics:read', 'pipelines:write']}}]\n",
    );
    let mut rig = builder.unready().start().await;
    log_in(&issuer, &rig.config_path(), "alice").await;
    let used = std::fs::read_to_string(rig.dir().join("alice")).unwrap();
    rig.eventually("/v1/pipelines", 200).await;
    issuer.granted("cli", "refresh_token", 3).await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.restart().await;
    issuer.granted("cli", "refresh_token", 5).await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let gone = |event: &str| issuer.events(event, "cli", "refresh_token");
    assert_eq!((gone("refused"), gone("revoked")), (0, 0));
    // Somebody puts a used one back: the issuer ends all that came of the login.
    // Where the sidecar was about to write its own, once more.
    let file = rig.dir().join("alice");
    rig.until(async || {
        if gone("revoked") == 0 && std::fs::read_to_string(&file).unwrap() != used {
            write(rig.dir(), "new", &used);
            std::fs::rename(rig.dir().join("new"), &file).unwrap();
        }
        gone("revoked") == 1
    })
    .await;
    rig.eventually("/v1/pipelines", 503).await;
    log_in(&issuer, &rig.config_path(), "alice").await;
    rig.eventually("/v1/pipelines", 200).await;
    assert_eq!(gone("revoked"), 1);
    rig.finish().await;
}

#[tokio::test]
async fn clients_with_a_key_log_people_in_and_refresh() {
    let keys = keys().await;
    let issuer = Issuer::start(ALGS.map(|alg| with_key(alg, &keys[alg]["public"])).into(), 3).await;
    for alg in ALGS {
        let builder = Rig::builder().await.config(&issuer.config());
        write(builder.dir(), "key", keys[alg]["pem"].as_str().unwrap());
        let builder = builder.config_in_dir(&format!(
            "credentials: [{{name: alice, level: read_only, refresh_token: {{client_id: {alg}, \
             private_key_jwt: {{key: 'file:${{DIR}}/key'}}, token: 'file:${{DIR}}/alice', \
             scopes: ['analytics:read']}}}}]\n"
        ));
        let rig = builder.unready().start().await;
        log_in(&issuer, &rig.config_path(), "alice").await;
        issuer.granted(alg, "refresh_token", 2).await;
        rig.eventually("/v1/datasets", 200).await;
        assert_eq!(issuer.events("refused", alg, "refresh_token"), 0, "{alg}");
        rig.finish().await;
    }
}

/// The person's browser is elsewhere: the address that it ends up at is pasted.
async fn log_in(issuer: &Issuer, config: &str, name: &str) {
    let mut login = Login::start(config, name).await;
    let answer = issuer.person(&login.url).await;
    assert!(answer.query_pairs().any(|(name, _)| name == "iss"), "{answer}");
    login.paste(answer.as_str()).await;
    let (code, said) = login.ended().await;
    assert_eq!(code, Some(0), "{said}");
}
