//! Every credential of a configuration, by index and by name.

use std::sync::Arc;

use super::TokenSource;
use super::handle::{CredentialHandle, CredentialReport};
use super::kind::{ApiKey, ClientCredentialsGrant};
use super::oauth::TokenEndpoint;
use super::refresher::Refresher;
use crate::config::model::{Auth, Credential, CredentialKind};
use crate::store::SecretStore;
use crate::telemetry::Metrics;

/// The read sides of all credentials. Cloning is cheap; while a clone lives, so do the refreshers.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Arc<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    handle: CredentialHandle,
    is_required: bool,
}

/// Builds a handle for each credential, and the tasks that keep them: whoever calls runs
/// [`Refresher::run`] of each.
///
/// `http` is [`crate::tls::http_client`]'s, with the roots of `auth`.
#[must_use]
pub fn build(
    credentials: &[Credential],
    auth: &Auth,
    stores: &Arc<dyn SecretStore>,
    http: &reqwest::Client,
    metrics: &Metrics,
) -> (Registry, Vec<Refresher>) {
    let mut entries = Vec::with_capacity(credentials.len());
    let mut refreshers = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let stores = Arc::clone(stores);
        let source: Box<dyn TokenSource> = match &credential.kind {
            CredentialKind::ApiKey(at) => Box::new(ApiKey::new(at.clone(), stores)),
            CredentialKind::ClientCredentials(client) => Box::new(ClientCredentialsGrant::new(
                client.clone(),
                stores,
                TokenEndpoint::new(http.clone(), auth),
            )),
        };
        let (refresher, handle) = Refresher::new(credential, source, metrics);
        entries.push(Entry { handle, is_required: credential.required });
        refreshers.push(refresher);
    }
    (Registry { entries: entries.into() }, refreshers)
}

impl Registry {
    /// The handle of the credential at this index of `Config::credentials`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&CredentialHandle> {
        self.entries.get(index).map(|entry| &entry.handle)
    }

    /// The handle of the credential of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&CredentialHandle> {
        self.iter().find(|handle| &**handle.name() == name)
    }

    /// All handles, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &CredentialHandle> {
        self.entries.iter().map(|entry| &entry.handle)
    }

    /// The handles of those that start-up waits for.
    pub fn required(&self) -> impl Iterator<Item = &CredentialHandle> {
        self.entries.iter().filter(|entry| entry.is_required).map(|entry| &entry.handle)
    }

    /// All credentials as `/status` shows them.
    #[must_use]
    pub fn report(&self) -> Vec<CredentialReport> {
        self.iter().map(CredentialHandle::report).collect()
    }

    /// Sets the gauges of every credential: before a scrape is answered.
    pub fn observe(&self, metrics: &Metrics) {
        self.iter().for_each(|handle| handle.observe(metrics));
    }
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::routing::post;
    use http::StatusCode;
    use tokio::task::JoinSet;
    use tokio::time::Instant;

    use super::*;
    use crate::config::model::{ClientCredentials, Level, TokenRequest};
    use crate::credential::Generation;
    use crate::store::Stores;
    use crate::tls;

    fn credential(name: &str, required: bool, kind: CredentialKind) -> Credential {
        Credential { name: name.into(), level: Level::ReadOnly, quota: None, required, kind }
    }

    /// Takes the secret `new` alone, and wants everything else as configured.
    async fn issue(Json(asked): Json<serde_json::Value>) -> (StatusCode, Json<serde_json::Value>) {
        let want = serde_json::json!({
            "grant_type": "client_credentials", "client_id": "etl", "client_secret": "new",
            "scope": "a:read b:write", "audience": "api", "extra": "1",
        });
        if asked == want {
            (StatusCode::OK, Json(serde_json::json!({"access_token": "t", "expires_in": 3600})))
        } else {
            (StatusCode::UNAUTHORIZED, Json(serde_json::json!({"error": "invalid_client"})))
        }
    }

    #[tokio::test]
    async fn a_rotated_client_secret_is_found_by_the_next_try_and_a_missing_key_harms_nobody_else()
    {
        tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let (ca_file, secret) = (dir.path().join("ca.pem"), dir.path().join("secret"));
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&ca_file, pair.cert.pem()).unwrap();
        std::fs::write(&secret, "old\n").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let auth = Auth {
            token_url: format!("http://{}/t", listener.local_addr().unwrap()).parse().unwrap(),
            refresh_path: "/auth/refresh".to_owned(),
            verify_path: "/auth/verify".to_owned(),
            token_request: TokenRequest::Json,
            ca_file: None,
        };
        let client = ClientCredentials {
            client_id: "etl".to_owned(),
            client_secret: format!("file:{}", secret.display()).parse().unwrap(),
            scopes: vec!["a:read".to_owned(), "b:write".to_owned()],
            audience: Some("api".to_owned()),
            params: [("extra", "1"), ("client_id", "other")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let credentials = [
            credential("etl", true, CredentialKind::ClientCredentials(client)),
            credential("key", false, CredentialKind::ApiKey("file:/nowhere/key".parse().unwrap())),
        ];
        let metrics = Metrics::new().unwrap();
        let stores: Arc<dyn SecretStore> = Arc::new(Stores::new(&metrics));
        let http = tls::http_client(&tls::Roots::load(Some(&ca_file)).unwrap()).unwrap();
        let (registry, refreshers) = build(&credentials, &auth, &stores, &http, &metrics);
        let mut tasks = JoinSet::new();
        let app = axum::Router::new().route("/t", post(issue));
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        for refresher in refreshers {
            tasks.spawn(refresher.run());
        }
        let etl = registry.get(0).unwrap();
        let refused = |registry: &Registry| registry.report()[0].last_error.clone();
        while refused(&registry).is_none() {
            assert!(etl.token(Instant::now() + std::time::Duration::from_millis(5)).await.is_err());
        }
        assert!(refused(&registry).unwrap().ends_with("401 (invalid_client)"));
        std::fs::write(&secret, "new\n").unwrap();
        assert_eq!(etl.wait_usable().await.generation(), Generation(1));
        assert!(registry.by_name("key").unwrap().current().is_none());
        let required: Vec<_> = registry.required().map(|handle| &**handle.name()).collect();
        assert_eq!(required, ["etl"]);
        registry.observe(&metrics);
        let page = metrics.render().unwrap();
        assert!(page.contains(r#"credential_state{credential="etl",state="fresh"} 1"#), "{page}");
        assert!(page.contains(r#"credential_state{credential="key",state="pending"} 1"#), "{page}");
    }
}
