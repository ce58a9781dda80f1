//! `/oauth/token`: RFC 6749 §4.1.3, §4.4, §5.2 and §6, RFC 7523.

use axum::{http::HeaderMap, response::Response};
use tokio::time::Instant;

use super::{
    super::{Client, control::State, faults::Effect},
    Right,
    clients::{Fields, fields, level_for},
    grants::{Refused, Shown},
    no_randomness, random, refused,
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A token's right, and the refresh token that is new with it.
type Granted = (Right, Option<String>);

/// An answer of RFC 6749 §5.2, or `server_error`.
type Refusal = &'static str;

impl State {
    pub(in super::super) fn token(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        effect: Option<Effect>,
    ) -> Response {
        match self.granted(headers, body) {
            Ok((right, refresh)) => self.minted(right, refresh.as_deref(), effect),
            Err("server_error") => no_randomness(),
            Err(error) => refused(error),
        }
    }

    fn granted(&mut self, headers: &HeaderMap, body: &[u8]) -> Result<Granted, Refusal> {
        let fields = fields(headers, body).ok_or("invalid_request")?;
        let scope = fields.get("scope").map(String::as_str);
        match fields.get("grant_type").map(String::as_str) {
            Some("client_credentials") => {
                let client = self.client(headers, &fields).ok_or("invalid_client")?;
                if self.is_public(&client) {
                    return Err("unauthorized_client");
                }
                for_itself(client, scope)
            }
            Some(JWT_BEARER) => {
                let signer = fields.get("assertion").and_then(|it| self.signer(it));
                for_itself(signer.ok_or("invalid_grant")?, scope)
            }
            Some("authorization_code") => {
                let client = self.client(headers, &fields).ok_or("invalid_client")?;
                self.exchange(&client, &fields)
            }
            Some("refresh_token") => {
                let client = self.client(headers, &fields).ok_or("invalid_client")?;
                self.spend(&client, &fields)
            }
            None => Err("invalid_request"),
            Some(_) => Err("unsupported_grant_type"),
        }
    }

    fn exchange(&mut self, client: &Client, fields: &Fields) -> Result<Granted, Refusal> {
        let field = |name: &str| fields.get(name).map(String::as_str).ok_or("invalid_request");
        let shown = Shown {
            client: &client.id,
            code: field("code")?,
            redirect_uri: field("redirect_uri")?,
            verifier: field("code_verifier")?,
        };
        let token = random("dp_rt_").ok_or("server_error")?;
        let right = self.grants.exchange(&shown, token.clone(), Instant::now());
        let right = right.map_err(|refused| self.ended(&client.id, &refused))?;
        self.counters.granted(&client.id);
        Ok((right, Some(token)))
    }

    fn spend(&mut self, client: &Client, fields: &Fields) -> Result<Granted, Refusal> {
        let token = fields.get("refresh_token").ok_or("invalid_request")?;
        let scope = fields.get("scope").map(String::as_str);
        let next = self.settings.rotate_refresh_tokens.then(|| random("dp_rt_"));
        let next = next.map(|value| value.ok_or("server_error")).transpose()?;
        let level = |most| level_for(scope, most);
        let right = self.grants.spend(token, &client.id, level, next.clone());
        let right = right.map_err(|refused| self.ended(&client.id, &refused))?;
        self.counters.refreshed(&client.id);
        Ok((right, next))
    }

    fn ended(&mut self, client: &str, refused: &Refused) -> Refusal {
        if let Refused::Reused(family) = refused {
            self.counters.reused(client);
            if let Some(family) = family {
                self.end_family(*family, client);
            }
        }
        if *refused == Refused::Scope { "invalid_scope" } else { "invalid_grant" }
    }

    /// A grant that no browser was needed for: its refresh token.
    pub(in super::super) fn grant(&mut self, client: &str, scope: Option<&str>) -> Option<String> {
        let client = self.settings.clients.iter().find(|known| known.id == client)?;
        let (id, level) = (client.id.clone(), level_for(scope, client.level)?);
        let token = random("dp_rt_")?;
        self.counters.granted(&id);
        self.grants.open(id, level, token.clone());
        Some(token)
    }

    /// Ends the grants of a client, or all, with their tokens; how many.
    pub(in super::super) fn revoke_grants(&mut self, client: Option<&str>) -> usize {
        let ended = self.grants.remove_of(client);
        for (family, client) in &ended {
            self.end_family(*family, client);
        }
        ended.len()
    }
}

/// A client that acts for itself.
fn for_itself(client: Client, scope: Option<&str>) -> Result<Granted, Refusal> {
    let level = level_for(scope, client.level).ok_or("invalid_scope")?;
    Ok((Right { client: client.id, level, family: None }, None))
}
