//! A certified authorization server (npm's `oidc-provider`) over TLS, a person with a plain client, and
//! an API that asks it about each token.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use reqwest::{Response, Url};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::tools::{command, free_address, tool};
use super::{Authority, CANARY, PATIENCE, Process};

/// Runs until it is dropped.
pub(crate) struct Issuer {
    url: String,
    client: reqwest::Client,
    process: Process,
    dir: TempDir,
    api: SocketAddr,
    _tasks: JoinSet<()>,
}

/// What the API asks the issuer with.
#[derive(Clone)]
struct Asks {
    url: String,
    client: reqwest::Client,
    secret: String,
}

impl Issuer {
    /// With these clients, and tokens that live for so many seconds.
    pub(crate) async fn start(mut clients: Vec<Value>, token_life: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (authority, address) = (Authority::new(), free_address());
        let (cert, key) = authority.issue(&["127.0.0.1"], false).write(dir.path());
        let root = std::fs::read(authority.write(dir.path())).expect("written");
        let root = reqwest::Certificate::from_pem(&root).expect("a certificate");
        let secret = format!("{CANARY}-of-the-api");
        clients.push(json!({
            "client_id": "api", "client_secret": secret, "grant_types": [], "redirect_uris": [],
            "response_types": [], "token_endpoint_auth_method": "client_secret_post",
        }));
        let settings = json!({
            "port": address.port(), "cert": cert, "key": key, "clients": clients,
            "token_life": token_life,
        });
        let file = dir.path().join("settings.json");
        std::fs::write(&file, settings.to_string()).expect("written");
        let mut node = command("bin/node", dir.path());
        node.env("NODE_PATH", tool("npm/node_modules"));
        let script =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/authorization-server.cjs");
        let process = Process::start({
            node.arg(script).arg(&file);
            node
        });
        process.stdout.line(|line| line.contains("listening")).await;
        datapulse_sidecar::tls::install_provider();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
        let client = client.redirect(reqwest::redirect::Policy::none()).timeout(PATIENCE);
        // Node closes an idle connection after five seconds, at the same time as one is sent a request.
        let client = client.pool_max_idle_per_host(0).build().expect("a client");
        let url = format!("https://{address}");
        let asks = Asks { url: format!("{url}/introspect"), client: client.clone(), secret };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        let router = Router::new().fallback(asked).with_state(Arc::new(asks));
        tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, client, process, dir, api, _tasks: tasks }
    }

    /// The sections that lead a sidecar here, in form mode, and to the API that believes it.
    pub(crate) fn config(&self) -> String {
        format!(
            "upstream: {{base_url: 'http://{}'}}\n\
             auth: {{token_url: '{url}/oauth/token', authorize_url: '{url}/oauth/authorize', \
             token_request: form, ca_file: '{}'}}\n",
            self.api,
            self.dir.path().join("ca.pem").display(),
            url = self.url,
        )
    }

    /// How often something happened to a client: `granted`, `refused` or `revoked`, by a grant type.
    pub(crate) fn events(&self, event: &str, client: &str, grant: &str) -> usize {
        count(&self.process.stdout.lines(), event, client, grant)
    }

    /// Waits until a client got tokens so many times.
    pub(crate) async fn granted(&self, client: &str, grant: &str, times: usize) {
        let lines = &self.process.stdout;
        lines.until(|lines| count(lines, "granted", client, grant) >= times).await;
    }

    /// A person logs in and consents, with a client that knows forms, cookies and nothing else; where
    /// the browser is sent in the end.
    pub(crate) async fn person(&self, question: &Url) -> Url {
        let mut cookies = BTreeMap::new();
        let mut answer = self.visit(question.clone(), None, &mut cookies).await;
        for _ in 0..16 {
            let here = answer.url().clone();
            if answer.status().is_redirection() {
                let to = answer.headers()["location"].to_str().expect("ASCII");
                let to = here.join(to).expect("an address");
                if to.scheme() == "http" {
                    return to;
                }
                answer = self.visit(to, None, &mut cookies).await;
                continue;
            }
            let page = answer.text().await.expect("text");
            let part = |before: &str| {
                let (_, rest) = page.split_once(before).unwrap_or_else(|| panic!("{page}"));
                rest.split('"').next().expect("a value").to_owned()
            };
            let form = [
                ("prompt", part("name=\"prompt\" value=\"")),
                ("login", "alice".to_owned()),
                ("password", "any".to_owned()),
            ];
            let to = part("action=\"").parse().expect("an address");
            answer = self.visit(to, Some(&form), &mut cookies).await;
        }
        panic!("it leads nowhere: {:?}", self.process.stdout.lines());
    }

    async fn visit(
        &self,
        to: Url,
        form: Option<&[(&str, String)]>,
        cookies: &mut BTreeMap<String, String>,
    ) -> Response {
        let request = match form {
            Some(form) => self.client.post(to).form(form),
            None => self.client.get(to),
        };
        let sent: Vec<String> =
            cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = request.header("cookie", sent.join("; ")).send().await.expect("an answer");
        for set in answer.headers().get_all("set-cookie") {
            let set = set.to_str().expect("ASCII").split(';').next().expect("a pair");
            if let Some((name, value)) = set.split_once('=') {
                cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }
}

fn count(lines: &[String], event: &str, client: &str, grant: &str) -> usize {
    let wanted = [("event", event), ("client", client), ("grant", grant)];
    let is_one = |line: &&String| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        wanted.iter().all(|(name, value)| line[name] == *value)
    };
    lines.iter().filter(is_one).count()
}

/// The API: whatever is asked, a token that the issuer says is active is enough (RFC 7662).
async fn asked(State(asks): State<Arc<Asks>>, headers: HeaderMap) -> (StatusCode, String) {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    let form = [("client_id", "api"), ("client_secret", &asks.secret), ("token", token)];
    let answer = asks.client.post(&asks.url).form(&form).send().await.expect("the issuer answers");
    let answer: Value = answer.json().await.expect("JSON");
    if answer["active"] == true {
        (StatusCode::OK, json!({"org_name": answer["client_id"]}).to_string())
    } else {
        (StatusCode::UNAUTHORIZED, String::new())
    }
}
