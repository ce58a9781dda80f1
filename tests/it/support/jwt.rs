//! JWTs and a Kubernetes API server that judges them, as Vault's login methods need them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rcgen::{KeyPair, PublicKeyData as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::{Authority, CANARY, TlsServer};

/// Signs with ES256.
pub(crate) struct Signer {
    pair: KeyPair,
}

impl Signer {
    pub(crate) fn new() -> Self {
        Self { pair: KeyPair::generate().expect("a key") }
    }

    /// The public key, in PEM.
    pub(crate) fn public_pem(&self) -> String {
        let der = base64::prelude::BASE64_STANDARD.encode(self.pair.subject_public_key_info());
        format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
    }

    /// A token with these claims, which ends after `life`.
    pub(crate) fn sign(&self, claims: &Value, life: Duration) -> String {
        let now = UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let mut claims = claims.clone();
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + life.as_secs());
        let encode = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", encode(json!({"alg": "ES256", "typ": "JWT"})), encode(claims));
        let random = SystemRandom::new();
        let der = self.pair.serialize_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der, &random);
        let signature = pair.expect("a key").sign(&random, text.as_bytes()).expect("signed");
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// A pod's token for the service account `datapulse/sidecar`.
    pub(crate) fn service_account(&self) -> String {
        let claims = json!({
            "sub": "system:serviceaccount:datapulse:sidecar",
            "aud": ["vault"],
            "jti": CANARY,
            "kubernetes.io": {"namespace": "datapulse", "serviceaccount": {"name": "sidecar", "uid": "7"}},
        });
        self.sign(&claims, Duration::from_secs(600))
    }
}

/// The part of a Kubernetes API server that Vault asks whose a token is.
pub(crate) struct TokenReviews {
    server: TlsServer,
    judge: Arc<Judge>,
    /// In PEM.
    pub(crate) ca: String,
}

/// Who is believed.
struct Judge {
    /// Without one, the server is out of order.
    known: Mutex<Vec<String>>,
    reviewer: String,
}

impl TokenReviews {
    /// Knows this token alone, and answers to this reviewer alone.
    pub(crate) async fn start(known: String, reviewer: &str) -> Self {
        let authority = Authority::new();
        let (known, reviewer) = (Mutex::new(vec![known]), format!("Bearer {reviewer}"));
        let judge = Arc::new(Judge { known, reviewer });
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let router = Router::new().route(path, post(review)).with_state(Arc::clone(&judge));
        let leaf = authority.issue(&["localhost", "127.0.0.1"], false);
        let server = TlsServer::start(router, &leaf, &["http/1.1"]).await;
        Self { server, judge, ca: authority.pem() }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Knows these tokens from now on; without one it answers with 500.
    pub(crate) fn know(&self, tokens: &[&str]) {
        *self.judge.known.lock() = tokens.iter().map(|&token| token.to_owned()).collect();
    }
}

async fn review(
    State(judge): State<Arc<Judge>>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let failure = || Json(json!({"kind": "Status", "status": "Failure"}));
    if headers.get("authorization").is_none_or(|sent| sent != judge.reviewer.as_str()) {
        return (StatusCode::UNAUTHORIZED, failure());
    }
    let known = judge.known.lock().clone();
    if known.is_empty() {
        return (StatusCode::INTERNAL_SERVER_ERROR, failure());
    }
    let is_known = known.iter().any(|known| asked["spec"]["token"] == known.as_str());
    let status = json!({
        "authenticated": is_known,
        "audiences": asked["spec"]["audiences"],
        "user": {"username": "system:serviceaccount:datapulse:sidecar", "uid": "7"},
    });
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": asked["spec"], "status": if is_known { status } else { json!({}) },
    });
    (StatusCode::CREATED, Json(review))
}
