//! Every credential of a configuration, by index and by name.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::CredentialReport;
use super::handle::CredentialHandle;
use super::kind::{
    ApiKey, ClientCredentialsGrant, RefreshTokenGrant, ServiceAccountGrant, SessionToken,
};
use super::oauth::TokenEndpoint;
use super::own_calls::{OwnCalls, Permits};
use super::refresher::Refresher;
use super::schedule::Reason;
use super::succession::{Keepers, Office};
use super::supply::Supply;
use super::under_way::UnderWay;
use super::verify::{Verifier, Whose};
use super::{KeyPrint, MintError, TokenSource};
use crate::clock::sleep_until;
use crate::config::model::{Auth, Credential, CredentialKind, Origin};
use crate::secret::SecretRef;
use crate::store::{SecretWatch, Secrets};
use crate::telemetry::Metrics;
use crate::tls::SharedClient;

/// For so long a single try writes what came of it.
const LAST_WRITES_MAX: Duration = Duration::from_secs(10);

/// The read sides of all credentials. Cloning is cheap; while a clone lives, so do the refreshers.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Arc<[Entry]>,
    auth: Arc<Auth>,
    under_way: UnderWay,
    keepers: Keepers,
}

#[derive(Debug, Clone)]
struct Entry {
    handle: CredentialHandle,
    spec: Credential,
    office: Arc<Office>,
}

/// Whom tokens come from.
#[derive(Debug, Clone)]
pub struct Issuers {
    /// The authorization server, and the paths of the API host that tokens are tried and renewed at.
    pub auth: Auth,
    /// The API host.
    pub api: Origin,
    /// For the authorization server: [`crate::tls::http_client`]'s, with its roots as they are now.
    pub auth_client: SharedClient,
    /// As above, for the API host, with its roots at the start.
    pub api_client: reqwest::Client,
    /// Who says when the API host may be called.
    pub own_calls: Arc<dyn OwnCalls>,
}

/// Builds a handle for each credential, and the tasks that keep them: whoever calls runs
/// [`Refresher::run`] of each.
///
/// A credential that `previous` has in the same way keeps its handle, and so its token and its
/// task. One that keeps its secret alone goes on with what the task before it knows of that.
#[must_use]
pub fn build(
    credentials: &[Credential],
    issuers: &Issuers,
    secrets: &Secrets,
    metrics: &Metrics,
    previous: Option<&Registry>,
) -> (Registry, Vec<Refresher>) {
    let under_way = previous.map(|previous| previous.under_way.clone()).unwrap_or_default();
    let keepers = previous.map(|previous| previous.keepers.clone()).unwrap_or_default();
    let previous = previous.filter(|previous| *previous.auth == issuers.auth);
    let mut refreshers = Vec::new();
    let entry = |credential: &Credential| {
        let same = previous.and_then(|previous| previous.same(credential)).cloned();
        let entry = same.unwrap_or_else(|| {
            let permits = Permits {
                calls: Arc::clone(&issuers.own_calls),
                credential: Arc::clone(&credential.name),
            };
            let verifier = issuers.verifier(&permits).filter(|_| credential.verify);
            let secret = watch(credential, secrets);
            let source = issuers.source(&credential.kind, permits, secrets);
            let supply = Supply::new(&credential.name, secret, source, verifier);
            let (refresher, handle) = Refresher::new(credential, supply, metrics);
            let office = Arc::clone(refresher.office());
            refreshers.push(refresher.among(under_way.clone()));
            Entry { handle, spec: credential.clone(), office }
        });
        Entry { spec: credential.clone(), ..entry }
    };
    let entries: Arc<[Entry]> = credentials.iter().map(entry).collect();
    let kept: Vec<_> = entries.iter().map(|entry| Arc::clone(&entry.office)).collect();
    for refresher in &mut refreshers {
        refresher.succeed(&keepers, &kept);
    }
    (Registry { entries, auth: Arc::new(issuers.auth.clone()), under_way, keepers }, refreshers)
}

fn watch(credential: &Credential, secrets: &Secrets) -> SecretWatch {
    let kind = &credential.kind;
    let stored = watch_as(kind.secret(), kind.has_document(), secrets);
    match &credential.fallback {
        Some(fallback) => stored.or(fallback),
        None => stored,
    }
}

fn watch_as(at: &SecretRef, is_document: bool, secrets: &Secrets) -> SecretWatch {
    if is_document { secrets.watch_document(at) } else { secrets.watch(at) }
}

impl Issuers {
    /// Obtains one token as a refresher would, and asks the API whose it is.
    ///
    /// # Errors
    /// Why there is no token.
    pub async fn try_out(
        &self,
        credential: &Credential,
        secrets: &Secrets,
    ) -> Result<Whose, MintError> {
        let permits = Permits {
            calls: Arc::clone(&self.own_calls),
            credential: Arc::clone(&credential.name),
        };
        let verifier = self.verifier(&permits);
        let secret = watch(credential, secrets);
        let source = self.source(&credential.kind, permits, secrets);
        let mut supply = Supply::new(&credential.name, secret, source, None);
        let minted = supply.mint(Reason::Initial, false).await;
        // Also after an error: that an answer was lost is for others to know.
        let end = Instant::now() + LAST_WRITES_MAX;
        while let Some(due) = supply.write_due() {
            if timeout_at(end, sleep_until(due)).await.is_err() {
                break;
            }
            supply.write().await;
        }
        let minted = minted?;
        if supply.is_unpersisted() {
            return Err(MintError::NotKept);
        }
        match verifier {
            Some(verifier) => verifier.whose(&minted.value).await,
            None => Ok(Whose::Unknown),
        }
    }

    fn source(
        &self,
        kind: &CredentialKind,
        permits: Permits,
        secrets: &Secrets,
    ) -> Box<dyn TokenSource> {
        match kind {
            CredentialKind::ApiKey(_) => Box::new(ApiKey),
            CredentialKind::ClientCredentials(client) => {
                Box::new(ClientCredentialsGrant::new(client.clone(), self.token_endpoint()))
            }
            CredentialKind::ServiceAccount(account) => {
                Box::new(ServiceAccountGrant::new(account.clone(), self.token_endpoint()))
            }
            CredentialKind::RefreshToken(grant) => {
                let client = grant.auth.as_ref();
                let client =
                    client.map(|auth| watch_as(auth.secret(), auth.has_document(), secrets));
                Box::new(RefreshTokenGrant::new(
                    grant.clone(),
                    client,
                    self.token_endpoint().patient(),
                ))
            }
            CredentialKind::SessionToken(_) => {
                // A checked path on a checked origin always makes a URL.
                let url = self.api.url(&self.auth.refresh_path);
                let url = url.unwrap_or_else(|| self.auth.token_url.clone());
                let endpoint = TokenEndpoint::renewing(self.api_client.clone(), url);
                Box::new(SessionToken::new(endpoint, permits))
            }
        }
    }

    fn token_endpoint(&self) -> TokenEndpoint {
        TokenEndpoint::new(self.auth_client.clone(), &self.auth)
    }

    fn verifier(&self, permits: &Permits) -> Option<Verifier> {
        let url = self.api.url(&self.auth.verify_path)?;
        Some(Verifier::new(self.api_client.clone(), url, permits.clone()))
    }
}

impl Registry {
    /// The handle of the credential at this index of `Config::credentials`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&CredentialHandle> {
        self.entries.get(index).map(|entry| &entry.handle)
    }

    /// Which key the credential at this index comes from; `None` before its first token.
    #[must_use]
    pub fn key(&self, index: usize) -> Option<KeyPrint> {
        self.get(index)?.key()
    }

    /// The entry of a credential that obtains its token in the same way.
    fn same(&self, credential: &Credential) -> Option<&Entry> {
        let like = |spec: &Credential| Credential { quota: None, required: true, ..spec.clone() };
        let wanted = like(credential);
        self.entries.iter().find(|entry| like(&entry.spec) == wanted)
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
        self.entries.iter().filter(|entry| entry.spec.required).map(|entry| &entry.handle)
    }

    /// Finishes before the process ends: what an issuer is asked for is awaited, and what was renewed
    /// and is not in its store yet is tried to be written once more. No token is asked for any more.
    /// Gives the names of those whose secret is still not in its store.
    pub async fn finish(&self, deadline: Instant) -> Vec<Arc<str>> {
        self.iter().for_each(CredentialHandle::end);
        let mut unwritten = Vec::new();
        let others = timeout_at(deadline, self.under_way.over());
        for handle in self.iter() {
            if !timeout_at(deadline, handle.ended()).await.unwrap_or(false) {
                unwritten.push(Arc::clone(handle.name()));
            }
        }
        // Those of a configuration before, too.
        drop(others.await);
        unwritten
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
    use tokio::time::timeout;

    use super::*;
    use crate::config::model::{AsksFor, ClientAuth, ClientCredentials, TokenRequest};
    use crate::credential::Generation;
    use crate::credential::tests::credential;
    use crate::store::{self, Stores};
    use crate::tls;

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

    /// A client whose parameters name what is not theirs.
    fn client(secret: &std::path::Path) -> CredentialKind {
        let client = ClientCredentials {
            client_id: "etl".to_owned(),
            auth: ClientAuth::Secret(format!("file:{}", secret.display()).parse().unwrap()),
            asks_for: AsksFor {
                scopes: vec!["a:read".to_owned(), "b:write".to_owned()],
                audience: Some("api".to_owned()),
                params: [("extra", "1"), ("client_id", "other")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            },
        };
        CredentialKind::ClientCredentials(client)
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
            authorize_url: "http://127.0.0.1/a".parse().unwrap(),
            redirect_uri: None,
            refresh_path: "/auth/refresh".to_owned(),
            verify_path: "/auth/verify".to_owned(),
            token_request: TokenRequest::Json,
            ca_file: None,
        };
        let key = CredentialKind::ApiKey("file:/nowhere/key".parse().unwrap());
        let credentials = [
            credential("etl", client(&secret)),
            Credential { required: false, ..credential("key", key) },
        ];
        let metrics = Metrics::new().unwrap();
        let (secrets, _watcher) = store::watched(Arc::new(Stores::new(&metrics)));
        let http = tls::http_client(&tls::Roots::load(Some(&ca_file)).unwrap()).unwrap();
        let api = Origin { tls: false, host: "localhost".to_owned(), port: 1 };
        let own_calls = Arc::new(crate::credential::Free);
        let issuers =
            Issuers { auth, api, auth_client: http.clone().into(), api_client: http, own_calls };
        let (registry, refreshers) = build(&credentials, &issuers, &secrets, &metrics, None);
        let mut tasks = JoinSet::new();
        let app = axum::Router::new().route("/t", post(issue));
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        for refresher in refreshers {
            tasks.spawn(refresher.run());
        }
        let etl = registry.get(0).unwrap();
        let refused = |registry: &Registry| registry.report()[0].last_error.clone();
        let patience = Duration::from_secs(60);
        let asked = async {
            while refused(&registry).is_none() {
                assert!(etl.token(Instant::now() + Duration::from_millis(5)).await.is_err());
            }
        };
        timeout(patience, asked).await.expect("the issuer is asked");
        assert!(refused(&registry).unwrap().ends_with("401 (invalid_client)"));
        std::fs::write(&secret, "new\n").unwrap();
        let token = timeout(patience, etl.wait_usable()).await.expect("the next try finds it");
        assert_eq!(token.generation(), Generation(1));
        assert!(registry.by_name("key").unwrap().current().is_none());
        let required: Vec<_> = registry.required().map(|handle| &**handle.name()).collect();
        assert_eq!(required, ["etl"]);
        registry.observe(&metrics);
        let page = metrics.render().unwrap();
        assert!(page.contains(r#"credential_state{credential="etl",state="fresh"} 1"#), "{page}");
        assert!(page.contains(r#"credential_state{credential="key",state="pending"} 1"#), "{page}");
    }
}
