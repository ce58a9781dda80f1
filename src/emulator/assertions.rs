//! Who signed an assertion (RFC 7523): the issuer's side of service accounts and `private_key_jwt`.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// Ids of assertions that are remembered, so that none is taken twice.
const IDS_MAX: usize = 4096;

/// A public key that a client's assertions are verified with.
#[derive(Debug, Clone)]
pub struct ClientKey {
    /// Whose it is: the `id` of a client.
    pub client: String,
    /// Its public JWK: RSA, P-256 or Ed25519.
    pub jwk: Value,
}

/// The claims that are looked at.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Value,
    exp: u64,
    jti: String,
}

/// The client that an assertion is about, if it is signed, meant for a token endpoint, in time, and
/// new.
pub(crate) fn signer(
    assertion: &str,
    keys: &[ClientKey],
    seen: &mut VecDeque<String>,
    unix_now: u64,
) -> Option<String> {
    let (signed, signature) = assertion.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
    let claims: Claims = serde_json::from_slice(&decode(claims)?).ok()?;
    let signature = decode(signature)?;
    let alg = header.get("alg")?.as_str()?;
    let is_signed = keys
        .iter()
        .filter(|key| key.client == claims.iss)
        .any(|key| is_of(&key.jwk, alg, signed.as_bytes(), &signature).is_some());
    let is_meant = claims.aud.as_str().is_some_and(|aud| aud.ends_with("/oauth/token"));
    let is_in_time = claims.exp > unix_now && claims.exp <= unix_now + 3600;
    let is_new = !seen.contains(&claims.jti);
    if !(is_signed && is_meant && is_in_time && is_new && claims.sub == claims.iss) {
        return None;
    }
    if seen.len() >= IDS_MAX {
        seen.pop_front();
    }
    seen.push_back(claims.jti);
    Some(claims.iss)
}

fn is_of(jwk: &Value, alg: &str, signed: &[u8], signature: &[u8]) -> Option<()> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
    match (text("kty")?, alg) {
        ("RSA", "RS256") => {
            let key = RsaPublicKeyComponents { n: bytes("n")?, e: bytes("e")? };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).ok()
        }
        ("EC", "ES256") => {
            let point = [vec![4], bytes("x")?, bytes("y")?].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).ok()
        }
        ("OKP", "EdDSA") => {
            UnparsedPublicKey::new(&ED25519, bytes("x")?).verify(signed, signature).ok()
        }
        _ => None,
    }
}

/// A new Ed25519 key: its PKCS#8 PEM, and its public JWK.
///
/// `None`: the system gives no randomness.
#[must_use]
pub fn new_key() -> Option<(String, Value)> {
    use ring::signature::KeyPair as _;
    let random = ring::rand::SystemRandom::new();
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&random).ok()?;
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).ok()?;
    let body = base64::prelude::BASE64_STANDARD.encode(pkcs8.as_ref());
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    let pem =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
    let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    Some((pem, serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": x})))
}
