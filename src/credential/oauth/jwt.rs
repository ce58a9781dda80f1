//! Signs JSON Web Tokens (RFC 7515, RFC 7519) with `RS256`, `ES256` or `EdDSA`, and reads the keys for it.
//!
//! Pure, on ring. A key's bytes are in no error, and `none` and shared keys are not algorithms here.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::secret::SecretValue;
use crate::tls;

/// Why a key cannot sign. Says nothing of what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// Neither PEM, nor a JWK, nor the JSON of a service account.
    #[error("it is neither PEM, nor a JWK, nor the JSON of a service account")]
    Unknown,
    /// The JSON of a service account lacks `client_id` or `private_key`.
    #[error("the JSON has no `client_id` or no `private_key`")]
    Incomplete,
    /// An elliptic curve key in SEC 1 form: convert it with `openssl pkcs8 -topk8 -nodes`.
    #[error("an `EC PRIVATE KEY` is not read: convert it with `openssl pkcs8 -topk8 -nodes`")]
    Sec1,
    /// A password protects the key, and nobody could type it in: store it without one.
    #[error("the key has a password: convert it with `openssl pkcs8 -topk8 -nodes`")]
    Encrypted,
    /// The key is a public one, of another sort, broken or too short.
    #[error("it is no usable RSA (from 2048 bits), P-256 or Ed25519 private key")]
    Unusable,
    /// `alg` names another algorithm than the key's own.
    #[error("`alg` does not fit the key")]
    OtherAlgorithm,
    /// The system gives no randomness, or the key signs nothing.
    #[error("it cannot sign")]
    CannotSign,
}

/// A private key, and how its tokens say which one it is.
#[derive(Debug)]
pub(in super::super) struct JwtKey {
    pair: Pair,
    key_id: Option<String>,
}

#[derive(Debug)]
enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// A service account's key file: the fields that are read of it.
#[derive(Deserialize)]
struct KeyFile {
    client_id: Option<String>,
    private_key: Option<Value>,
    private_key_id: Option<String>,
    alg: Option<String>,
    token_uri: Option<String>,
}

/// RFC 7517 and 7518 section 6: the private keys that can sign here.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
}

/// What a service account's key file says.
#[derive(Debug)]
pub(in super::super) struct Account {
    /// Who signs.
    pub(in super::super) client_id: String,
    /// What the assertion is for, in the place of the token endpoint's own URL.
    pub(in super::super) token_uri: Option<String>,
    pub(in super::super) key: JwtKey,
}

impl Account {
    /// Reads a key file.
    pub(in super::super) fn read(document: &SecretValue) -> Result<Self, KeyProblem> {
        let file: KeyFile =
            serde_json::from_slice(document.expose()).map_err(|_quotes_it| KeyProblem::Unknown)?;
        let token_uri = file.token_uri.clone();
        let client_id = file.client_id.clone().filter(|id| !id.is_empty());
        let client_id = client_id.ok_or(KeyProblem::Incomplete)?;
        Ok(Self { client_id, token_uri, key: JwtKey::from_file(file)? })
    }
}

impl JwtKey {
    /// Reads PEM, a JWK, or the key in the JSON of a service account.
    pub(in super::super) fn read(document: &SecretValue) -> Result<Self, KeyProblem> {
        let bytes = document.expose();
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Ok(Self { pair: Pair::from_pem(bytes)?, key_id: None });
        }
        if let Ok(jwk) = serde_json::from_slice::<Jwk>(bytes) {
            return Self::from_jwk(jwk);
        }
        let file = serde_json::from_slice(bytes).map_err(|_quotes_it| KeyProblem::Unknown)?;
        Self::from_file(file)
    }

    fn from_file(file: KeyFile) -> Result<Self, KeyProblem> {
        let key = match file.private_key {
            Some(Value::String(pem)) => {
                let pem = SecretValue::new(pem.into_bytes());
                Self { pair: Pair::from_pem(pem.expose())?, key_id: None }
            }
            Some(jwk @ Value::Object(_)) => {
                let jwk = serde_json::from_value(jwk).map_err(|_quotes_it| KeyProblem::Unusable)?;
                Self::from_jwk(jwk)?
            }
            _ => return Err(KeyProblem::Incomplete),
        };
        let key = key.fit_for(file.alg.as_deref())?;
        Ok(Self { key_id: file.private_key_id.or(key.key_id), pair: key.pair })
    }

    fn from_jwk(jwk: Jwk) -> Result<Self, KeyProblem> {
        let pair = Pair::from_jwk(&jwk).ok_or(KeyProblem::Unusable)?;
        Self { pair, key_id: jwk.kid }.fit_for(jwk.alg.as_deref())
    }

    fn fit_for(self, alg: Option<&str>) -> Result<Self, KeyProblem> {
        match alg {
            Some(alg) if alg != self.algorithm() => Err(KeyProblem::OtherAlgorithm),
            _ => Ok(self),
        }
    }

    /// `RS256`, `ES256` or `EdDSA`: the key decides.
    pub(in super::super) const fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// The compact form of a token with these claims.
    pub(in super::super) fn sign(&self, claims: &Value) -> Result<String, KeyProblem> {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if let (Some(key_id), Some(fields)) = (&self.key_id, header.as_object_mut()) {
            fields.insert("kid".to_owned(), key_id.as_str().into());
        }
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.pair.sign(signed.as_bytes()).ok_or(KeyProblem::CannotSign)?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl Pair {
    fn from_pem(text: &[u8]) -> Result<Self, KeyProblem> {
        let has_password = tls::has_password(text);
        let unusable = if has_password { KeyProblem::Encrypted } else { KeyProblem::Unusable };
        let mut other = if has_password { KeyProblem::Encrypted } else { KeyProblem::Unknown };
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
            let Ok((kind, der)) = section else { return Err(unusable) };
            let der = SecretValue::new(der);
            let pair = match kind {
                SectionKind::PrivateKey => Self::from_pkcs8(der.expose()),
                SectionKind::RsaPrivateKey => {
                    RsaKeyPair::from_der(der.expose()).ok().map(|pair| Self::Rsa(Box::new(pair)))
                }
                SectionKind::EcPrivateKey => return Err(KeyProblem::Sec1),
                // `openssl ecparam -genkey` writes the curve first.
                _ => {
                    other = unusable;
                    continue;
                }
            };
            return pair.ok_or(unusable);
        }
        Err(other)
    }

    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
            return Some(Self::Rsa(Box::new(pair)));
        }
        let random = SystemRandom::new();
        let ecdsa = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random);
        if let Ok(pair) = ecdsa {
            return Some(Self::P256(Box::new(pair)));
        }
        // OpenSSL's form, without the public key, is what most tools write.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self::Ed25519)
    }

    fn from_jwk(jwk: &Jwk) -> Option<Self> {
        let bytes = |text: &Option<String>| {
            let decoded = BASE64_URL_SAFE_NO_PAD.decode(text.as_deref()?).ok()?;
            Some(SecretValue::new(decoded))
        };
        let (d, x) = (bytes(&jwk.d)?, bytes(&jwk.x));
        match (&*jwk.kty, jwk.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (bytes(&jwk.n)?, bytes(&jwk.e)?);
                let (p, q) = (bytes(&jwk.p)?, bytes(&jwk.q)?);
                let (dp, dq, qi) = (bytes(&jwk.dp)?, bytes(&jwk.dq)?, bytes(&jwk.qi)?);
                let parts = KeyPairComponents {
                    public_key: PublicKeyComponents { n: n.expose(), e: e.expose() },
                    d: d.expose(),
                    p: p.expose(),
                    q: q.expose(),
                    dP: dp.expose(),
                    dQ: dq.expose(),
                    qInv: qi.expose(),
                };
                RsaKeyPair::from_components(&parts).ok().map(|pair| Self::Rsa(Box::new(pair)))
            }
            ("EC", Some("P-256")) => {
                let point = [&[4][..], x?.expose(), bytes(&jwk.y)?.expose()].concat();
                EcdsaKeyPair::from_private_key_and_public_key(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    d.expose(),
                    &point,
                    &SystemRandom::new(),
                )
                .ok()
                .map(|pair| Self::P256(Box::new(pair)))
            }
            ("OKP", Some("Ed25519")) => {
                let pair = Ed25519KeyPair::from_seed_and_public_key(d.expose(), x?.expose());
                pair.ok().map(Self::Ed25519)
            }
            _ => None,
        }
    }

    fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                Some(signature)
            }
            Self::P256(pair) => pair.sign(&random, message).ok().map(|s| s.as_ref().to_vec()),
            Self::Ed25519(pair) => Some(pair.sign(message).as_ref().to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::emulator::{ClientKey, new_key};

    fn document(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec())
    }

    /// A P-256 key as PKCS#8 PEM.
    fn p256() -> String {
        rcgen::KeyPair::generate().unwrap().serialize_pem()
    }

    #[track_caller]
    fn check(text: &str, want: Result<&str, KeyProblem>) {
        let read = JwtKey::read(&document(text));
        assert_eq!(
            read.as_ref().map(JwtKey::algorithm).map_err(|problem| *problem),
            want,
            "{text}"
        );
    }

    #[test]
    fn a_key_is_read_in_each_form_and_what_is_none_is_told_by_kind() {
        use KeyProblem::{Encrypted, Incomplete, OtherAlgorithm, Unknown, Unusable};
        let (ed, _) = new_key().unwrap();
        let file = |fields: &Value| {
            let mut file = json!({"client_id": "robot", "private_key": ed});
            file.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            file.to_string()
        };
        check(&ed, Ok("EdDSA"));
        check(&p256(), Ok("ES256"));
        check(&format!("some text before\n{ed}"), Ok("EdDSA"));
        check(&file(&json!({})), Ok("EdDSA"));
        check(&file(&json!({"alg": "EdDSA", "other": [1]})), Ok("EdDSA"));
        check(&file(&json!({"alg": "RS256"})), Err(OtherAlgorithm));
        check(&file(&json!({"alg": "none"})), Err(OtherAlgorithm));
        check(&file(&json!({"private_key": null})), Err(Incomplete));
        check(&file(&json!({"private_key": {"kty": "oct", "k": "AAAA"}})), Err(Unusable));
        check(&file(&json!({"private_key": "canary"})), Err(Unknown));
        let block = |kind: &str, rest: &str| {
            format!("-----BEGIN {kind}-----\n{rest}AAAA\n-----END {kind}-----\n")
        };
        let encrypted = block("ENCRYPTED PRIVATE KEY", "");
        check(&encrypted, Err(Encrypted));
        check(&format!("{ed}{encrypted}"), Ok("EdDSA"));
        check(&file(&json!({"private_key": encrypted})), Err(Encrypted));
        let rest = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n";
        check(&block("RSA PRIVATE KEY", rest), Err(Encrypted));
        check(&block("PUBLIC KEY", ""), Err(Unusable));
        check(&block("CERTIFICATE", ""), Err(Unusable));
        check("canary", Err(Unknown));
        check("", Err(Unknown));
        check("{\"canary\"", Err(Unknown));
        check(&ed.replace("MFE", "AAA").replace("MC4", "AAA"), Err(Unusable));
        check(r#"{"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "d": "canary"}"#, Err(Unusable));
        let no_name = Account::read(&document(&json!({"private_key": ed}).to_string()));
        assert_eq!(no_name.unwrap_err(), Incomplete);
    }

    #[test]
    fn what_is_signed_is_taken_once_by_whom_it_is_meant_for_and_never_when_changed() {
        let (pem, jwk) = new_key().unwrap();
        let key = JwtKey::read(&document(&pem)).unwrap();
        let keys = [ClientKey { client: "robot".to_owned(), jwk }];
        let claims = |change: Value| {
            let mut claims = json!({"iss": "robot", "sub": "robot", "exp": 1_300, "jti": "1",
                "aud": "https://auth.example/oauth/token"});
            claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            key.sign(&claims).unwrap()
        };
        let mut seen = VecDeque::new();
        let mut signer = |token: &str| crate::emulator::signer(token, &keys, &mut seen, 1_000);
        let token = claims(json!({}));
        let changed = token.replacen('e', "f", 1);
        assert_eq!(signer(&changed), None);
        assert_eq!(signer(&token[..token.len() - 4]), None);
        assert_eq!(signer(&token).as_deref(), Some("robot"));
        assert_eq!(signer(&token), None, "the second time");
        for change in [
            json!({"jti": "2", "exp": 999}),
            json!({"jti": "3", "aud": "https://other.example/"}),
            json!({"jti": "4", "sub": "root"}),
            json!({"jti": "5", "iss": "root", "sub": "root"}),
        ] {
            assert_eq!(signer(&claims(change)), None);
        }
    }
}
