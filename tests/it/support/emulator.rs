//! DataPulse, as a test sees it: what arrived, and what is to go wrong from now on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use datapulse_sidecar::config::model::Level;
use datapulse_sidecar::emulator::{
    Client, ClientKey, Control, Counters, Effect, Emulator, Fault, Key, Limit, RateHeaders, Scope,
    Settings, new_key,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{CANARY, PATIENCE};

/// An emulator whose credentials hold the canary.
pub(crate) struct DataPulse {
    control: Arc<Control>,
    address: SocketAddr,
    router: Router,
    emulator: Option<Emulator>,
    stop: watch::Sender<bool>,
}

impl DataPulse {
    pub(super) async fn bind() -> Self {
        let key = |name: &str, level| Key {
            name: name.to_owned(),
            key: format!("dp_live_{CANARY}_{name}"),
            level,
        };
        let settings = Settings {
            keys: vec![key("reader", Level::ReadOnly), key("root", Level::Admin)],
            clients: vec![
                Client::native("etl", Some(&format!("{CANARY}-etl")), Level::ReadWrite),
                Client::native("cli", None, Level::ReadWrite),
            ],
            ..Settings::default()
        };
        let emulator = Emulator::bind((Ipv4Addr::LOCALHOST, 0).into(), settings).await;
        let emulator = emulator.expect("a free port");
        Self {
            control: emulator.control(),
            address: emulator.address(),
            router: emulator.router(),
            emulator: Some(emulator),
            stop: watch::Sender::new(false),
        }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn router(&self) -> Router {
        self.router.clone()
    }

    /// Serves until the test ends.
    pub(super) fn serve(&mut self) -> impl Future<Output = ()> + Send + use<> {
        self.emulator.take().expect("served once").run(self.stop.subscribe())
    }

    pub(crate) fn counters(&self) -> Counters {
        self.control.counters()
    }

    /// Requests to the API, whatever their answer.
    pub(crate) fn api_requests(&self) -> u64 {
        self.counters().api_requests
    }

    /// Requests to the API without a credential.
    pub(crate) fn anonymous(&self) -> u64 {
        self.counters().anonymous
    }

    /// Requests below a path of two segments.
    pub(crate) fn seen(&self, path: &str) -> u64 {
        self.counters().by_path.get(path).copied().unwrap_or(0)
    }

    /// Tokens that this client got.
    pub(crate) fn mints(&self, client: &str) -> u64 {
        self.counters().minted.get(client).copied().unwrap_or(0)
    }

    /// Waits until so many requests are being answered.
    pub(crate) async fn in_flight(&self, count: u64) {
        self.until(|counters| counters.in_flight >= count).await;
    }

    /// Waits until so many bytes of uploads came in.
    pub(crate) async fn uploaded(&self, bytes: u64) {
        self.until(|counters| counters.uploaded_bytes >= bytes).await;
    }

    async fn until(&self, wanted: impl Fn(&Counters) -> bool) {
        let waited = timeout(PATIENCE, self.control.until(wanted)).await;
        assert!(waited.is_ok(), "it never came: {:?}", self.counters());
    }

    /// Every token that was given out is rejected from now on.
    pub(crate) fn revoke_all(&self) {
        self.control.revoke(None);
    }

    pub(crate) fn set_token_life(&self, life: Duration) {
        self.control.set_token_life(life);
    }

    pub(crate) fn replace_key(&self, name: &str, key: &str) {
        assert!(self.control.set_key(name, key));
    }

    /// One more key for reading is accepted; its value.
    pub(crate) fn add_key(&self, name: &str) -> String {
        let key = format!("dp_live_{CANARY}_{name}");
        self.accept(name, &key);
        key
    }

    /// One more service account is accepted; its key file.
    pub(super) fn add_service_account(&self, id: &str, level: Level) -> String {
        let (pem, jwk) = new_key().expect("a key");
        self.control.add_client(Client::native(id, None, level));
        self.control.trust_key(ClientKey { client: id.to_owned(), jwk });
        serde_json::json!({"client_id": id, "private_key": pem}).to_string()
    }

    /// One more client of this sort.
    pub(crate) fn add_client(&self, client: Client) {
        self.control.add_client(client);
    }

    /// Grants that this client got.
    pub(crate) fn grants(&self, client: &str) -> u64 {
        self.counters().grants.get(client).copied().unwrap_or(0)
    }

    /// Waits until this client got so many grants.
    pub(crate) async fn granted(&self, client: &str, times: u64) {
        self.until(|counters| counters.grants.get(client).is_some_and(|count| *count >= times))
            .await;
    }

    /// A person grants this client something, without a browser: its first refresh token.
    pub(crate) fn grant(&self, client: &str) -> String {
        self.control.grant(client, None).expect("a client that may have it")
    }

    /// Whether a refresh token is good once.
    pub(super) fn set_rotation(&self, rotates: bool) {
        self.control.set_rotation(rotates);
    }

    /// Refresh tokens of this client that were taken.
    pub(crate) fn refreshes(&self, client: &str) -> u64 {
        self.counters().refreshes.get(client).copied().unwrap_or(0)
    }

    /// Refresh tokens of this client that came once more after their use.
    pub(crate) fn reuses(&self, client: &str) -> u64 {
        self.counters().reuses.get(client).copied().unwrap_or(0)
    }

    /// Waits until refresh tokens of this client were taken so many times.
    pub(crate) async fn refreshed(&self, client: &str, times: u64) {
        self.until(|counters| counters.refreshes.get(client).is_some_and(|count| *count >= times))
            .await;
    }

    /// Grants of this client that ended with all their tokens.
    pub(crate) fn families_revoked(&self, client: &str) -> u64 {
        self.counters().families_revoked.get(client).copied().unwrap_or(0)
    }

    /// Ends all grants of this client.
    pub(crate) fn revoke_grants(&self, client: &str) -> usize {
        self.control.revoke_grants(Some(client))
    }

    /// This token is accepted, for reading.
    pub(crate) fn accept(&self, name: &str, key: &str) {
        let (name, key) = (name.to_owned(), key.to_owned());
        self.control.add_key(Key { name, key, level: Level::ReadOnly });
    }

    pub(crate) fn remove_key(&self, name: &str) {
        self.control.remove_key(name);
    }

    /// Requests to the API with this credential: a key's name, or `CLIENT/GENERATION`.
    pub(crate) fn used(&self, credential: &str) -> u64 {
        self.counters().by_credential.get(credential).copied().unwrap_or(0)
    }

    /// Waits until a request with this credential came.
    pub(crate) async fn uses(&self, credential: &str) {
        self.until(|counters| counters.by_credential.contains_key(credential)).await;
    }

    /// Waits until a request below a path of two segments came, and was answered.
    pub(crate) async fn sees(&self, path: &str) {
        let came = |counters: &Counters| {
            counters.by_path.get(path).is_some_and(|count| *count > 0) && counters.in_flight == 0
        };
        self.until(came).await;
    }

    /// Waits for so many more requests to the API.
    pub(crate) async fn further(&self, count: u64) {
        let before = self.api_requests();
        self.until(|counters| counters.api_requests >= before + count).await;
    }

    /// Answers with this status so far.
    pub(crate) fn answered(&self, status: u16) -> u64 {
        self.counters().by_status.get(&status).copied().unwrap_or(0)
    }

    /// Each answer of the API comes so much later.
    pub(crate) fn delay_api(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).expect("a short wait");
        self.always(Scope::Api, Effect::LatencyMs(millis));
    }

    /// The next `count` answers of the API have this status.
    pub(crate) fn answer_api(&self, code: u16, count: u32) {
        let effect = Effect::Status { code, retry_after: None };
        self.fault(Fault::times(Scope::Api, effect, count));
    }

    /// The next answer of the API is a `429` that says this.
    pub(crate) fn throttle_api(&self, retry_after: &str) {
        let effect = Effect::Status { code: 429, retry_after: Some(retry_after.to_owned()) };
        self.fault(Fault::times(Scope::Api, effect, 1));
    }

    /// The limit of each key from now on.
    pub(crate) fn set_limit(&self, limit: Limit) {
        self.control.set_limit(Some(limit));
    }

    /// Answers tell what is left of the limit from now on.
    pub(crate) fn set_rate_headers(&self, style: RateHeaders) {
        self.control.set_rate_headers(Some(style));
    }

    /// Answers with this status.
    pub(crate) fn statuses(&self, status: u16) -> u64 {
        self.counters().by_status.get(&status).copied().unwrap_or(0)
    }

    pub(crate) fn fail_token_endpoint(&self, code: u16) {
        self.always(Scope::Token, Effect::Status { code, retry_after: None });
    }

    pub(crate) fn odd_token_answers(&self, what: &str) {
        let effect = match what {
            "html" => Effect::Html,
            "no_token" => Effect::NoToken,
            "crlf_token" => Effect::LineBreakInToken,
            "huge" => Effect::Huge,
            "redirect" => Effect::Redirect(format!("http://{}/stolen", self.address)),
            "not_bearer" => Effect::NotBearer,
            other => panic!("unknown: {other}"),
        };
        self.always(Scope::Token, effect);
    }

    /// `absent`, or a JSON value.
    pub(crate) fn token_expires_in(&self, json: &str) {
        let value = serde_json::from_str(json).unwrap_or(Value::Null);
        self.always(Scope::Token, Effect::ExpiresIn(value));
    }

    /// Goes wrong as described.
    pub(crate) fn fault(&self, fault: Fault) {
        assert!(self.control.fault(fault));
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.control.heal();
    }

    fn always(&self, scope: Scope, effect: Effect) {
        self.fault(Fault { scope, effect, count: None, probability: None });
    }
}
