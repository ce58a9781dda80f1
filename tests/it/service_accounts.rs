//! Promise: a service account and a client with a key get tokens without a shared secret, and what
//! they sign is a JWT for others too.

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use datapulse_sidecar::config::model::Level;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{CANARY, PATIENCE, Rig, tool};

/// Makes a key of each sort, in each form, with its public half.
const MAKE: &str = r#"
import json, sys
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding as E, NoEncryption as N, PrivateFormat as F
import jwt.algorithms as a
keys = {"RS256": (rsa.generate_private_key(65537, 2048), a.RSAAlgorithm),
        "ES256": (ec.generate_private_key(ec.SECP256R1()), a.ECAlgorithm),
        "EdDSA": (ed25519.Ed25519PrivateKey.generate(), a.OKPAlgorithm)}
out = {}
for alg, (key, kind) in keys.items():
    out[alg] = {"pem": key.private_bytes(E.PEM, F.PKCS8, N()).decode(),
                "jwk": json.loads(kind.to_jwk(key)),
                "public": json.loads(kind.to_jwk(key.public_key()))}
print(json.dumps(out))
"#;

/// Verifies tokens: `[[token, public JWK, alg, audience], …]` on standard input.
const VERIFY: &str = r#"
import json, sys, jwt
for token, jwk, alg, audience in json.load(open(sys.argv[1])):
    key = jwt.PyJWK(jwk, alg).key
    need = {"require": ["exp", "iat", "iss", "sub", "aud", "jti"]}
    claims = jwt.decode(token, key, algorithms=[alg], audience=audience, issuer="robot", options=need)
    assert claims["sub"] == "robot" and 0 < claims["exp"] - claims["iat"] <= 300, claims
    print(alg, jwt.get_unverified_header(token).get("kid"))
"#;

async fn python(script: &str, args: &[&Path]) -> String {
    let mut command = tokio::process::Command::new(tool("venv/bin/python"));
    let output = command.arg("-c").arg(script).args(args).output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A key of each sort, as PEM, as a JWK, and its public half.
pub(crate) async fn keys() -> Value {
    serde_json::from_str(&python(MAKE, &[]).await).unwrap()
}

/// A token endpoint that hands out what it was asked with.
async fn issuer() -> (String, mpsc::Receiver<Value>, JoinSet<()>) {
    type Asked = Arc<mpsc::Sender<Value>>;
    async fn answer(State(asked): State<Asked>, axum::Json(form): axum::Json<Value>) -> String {
        drop(asked.send(form).await);
        json!({"access_token": "t", "expires_in": 3600}).to_string()
    }
    let (asked, asks) = mpsc::channel(16);
    let router = Router::new().route("/oauth/token", post(answer)).with_state(Arc::new(asked));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/oauth/token", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, asks, tasks)
}

#[tokio::test]
async fn what_each_sort_of_key_signs_is_verified_by_another_implementation() {
    let keys = keys().await;
    let (url, mut asks, _tasks) = issuer().await;
    let mut signed = Vec::new();
    for alg in ["RS256", "ES256", "EdDSA"] {
        for form in ["pem", "jwk"] {
            let key = &keys[alg][form];
            let file = json!({"client_id": "robot", "private_key": key, "private_key_id": form,
                "alg": alg, "token_uri": "https://auth.example/token"});
            let plain = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            let builder = Rig::builder().await;
            std::fs::write(builder.dir().join("account.json"), file.to_string()).unwrap();
            std::fs::write(builder.dir().join("key"), plain).unwrap();
            let rig = builder
                .config_in_dir(&format!(
                    "auth: {{token_url: '{url}'}}\ncredentials:\n  - {{name: robot, level: admin, \
                     service_account: {{key: 'file:${{DIR}}/account.json', scopes: [a, b], \
                     audience: x, params: {{resource: why}}}}}}\n  - {{name: etl, level: admin, \
                     client_credentials: {{client_id: robot, \
                     private_key_jwt: {{key: 'file:${{DIR}}/key'}}}}}}\n"
                ))
                .start()
                .await;
            for _ in 0..2 {
                let form = timeout(PATIENCE, asks.recv()).await.expect("it asks").unwrap();
                let public = &keys[alg]["public"];
                if let Some(assertion) = form.get("assertion") {
                    let rest = (&form["grant_type"], &form["scope"], &form["audience"]);
                    let grant = "urn:ietf:params:oauth:grant-type:jwt-bearer";
                    assert_eq!(rest, (&json!(grant), &json!("a b"), &json!("x")));
                    assert_eq!(form["resource"], "why");
                    signed.push(json!([assertion, public, alg, "https://auth.example/token"]));
                } else {
                    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
                    assert_eq!(form["client_assertion_type"], kind);
                    assert_eq!(form["client_id"], "robot");
                    assert!(form.get("client_secret").is_none());
                    signed.push(json!([form["client_assertion"], public, alg, url]));
                }
            }
            rig.finish().await;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("signed.json");
    std::fs::write(&list, json!(signed).to_string()).unwrap();
    let said = python(VERIFY, &[&list]).await;
    assert_eq!(said.lines().count(), 12, "{said}");
    for line in ["RS256 pem", "ES256 jwk", "EdDSA pem", "EdDSA None"] {
        assert!(said.contains(line), "{line} is not in\n{said}");
    }
}

#[tokio::test]
async fn a_service_account_calls_the_api_and_a_broken_key_is_told_and_heals() {
    let builder = Rig::builder().await;
    let file = builder.dir().join("account.json");
    let key = builder.add_service_account("robot", Level::Admin);
    std::fs::write(&file, json!({"client_id": "robot", "private_key": CANARY}).to_string())
        .unwrap();
    let rig = builder
        .config_in_dir(
            "credentials: [{name: robot, level: admin, \
             service_account: {key: 'file:${DIR}/account.json', scopes: ['users:admin']}}]\n",
        )
        .unready()
        .start()
        .await;
    let answer = rig.get("/v1/users").await;
    assert_eq!(answer.status(), 503);
    let status = rig.status(&["--json"]).await;
    assert!(status.contains("neither PEM, nor a JWK"), "{status}");
    let beside = rig.dir().join("new");
    std::fs::write(&beside, key).unwrap();
    std::fs::rename(beside, &file).unwrap();
    rig.eventually("/v1/users", 200).await;
    rig.emulator.revoke_all();
    assert_eq!(rig.get("/v1/users").await.status(), 200, "with another assertion");
    assert_eq!(rig.emulator.mints("robot"), 2);
    rig.finish().await;
}
