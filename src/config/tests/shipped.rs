//! The files in `config/` load, and say what they seem to say.

use std::time::Duration;

use super::{manifest_dir, read};
use crate::config::load;
use crate::config::model::{Action, AuditSink, CredentialKind, Level, Methods};

#[test]
fn every_shipped_file_loads() {
    let folder = manifest_dir().join("config");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if let Err(error) = load(&path, &|_| None) {
            panic!("{error}");
        }
        count += 1;
    }
    assert!(count >= 2);
}

#[test]
fn the_minimal_file_gets_every_default() {
    let text = std::fs::read_to_string(manifest_dir().join("config/minimal.yaml")).unwrap();
    let (config, warnings) = read(&text).unwrap();
    assert_eq!(warnings, []);
    let listener = &config.listeners[0];
    assert_eq!((&*listener.name, listener.tenant), ("localhost:8080", 0));
    let addresses: Vec<_> = listener.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["127.0.0.1:8080", "[::1]:8080"]);
    assert_eq!(config.upstream.origin.base_url(), "https://api.datapulse.ai");
    assert_eq!(config.upstream.replay_body_bytes_max, 1024 * 1024);
    assert_eq!(config.upstream.request_timeout, Duration::from_secs(30));
    assert_eq!(config.auth.token_url.as_str(), "https://auth.datapulse.ai/oauth/token");
    assert_eq!(config.health_listen.to_string(), "[::]:9464");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:9465");
    assert_eq!(config.log.audit, AuditSink::Stdout);
    assert_eq!((&*config.tenants[0].name, &*config.tenants[0].credentials), ("default", &[0][..]));
    assert!(config.credentials[0].required);
    let CredentialKind::ApiKey(reference) = &config.credentials[0].kind else { panic!() };
    assert_eq!(reference.to_string(), "file:/run/secrets/datapulse-api-key");
}

#[test]
fn the_policy_begins_with_refresh_and_ends_with_the_default() {
    let text = std::fs::read_to_string(manifest_dir().join("config/example.yaml")).unwrap();
    let (config, _) = read(&text).unwrap();
    let names: Vec<&str> = config.policy.iter().map(|rule| &*rule.name).collect();
    assert_eq!(
        names,
        [
            "default:refresh",
            "policy[0]",
            "policy[1]",
            "default:users",
            "default:pipelines",
            "default:read",
            "default:other"
        ]
    );
    let decide = |method: &str, path: &str| {
        let parts: Vec<&str> = path[1..].split('/').collect();
        let matches = |methods: &Methods| match methods {
            Methods::Any => true,
            Methods::These(list) => list.iter().any(|other| other == method),
        };
        let rule =
            config.policy.iter().find(|rule| matches(&rule.methods) && rule.path.matches(&parts));
        rule.unwrap().action
    };
    for (method, path, action) in [
        ("POST", "/auth/refresh", Action::Deny),
        ("POST", "/auth/refresh/", Action::Deny),
        ("GET", "/internal/x", Action::Deny),
        ("GET", "/v1/users/7", Action::Require(Level::Admin)),
        ("GET", "/v1/pipelines", Action::Require(Level::ReadWrite)),
        ("HEAD", "/", Action::Require(Level::ReadOnly)),
        ("DELETE", "/v1/datasets/1", Action::Require(Level::ReadWrite)),
        ("GET", "/v1/exports/7", Action::Require(Level::ReadOnly)),
    ] {
        assert_eq!(decide(method, path), action, "{method} {path}");
    }
    assert!(!config.policy[1].replay);
    assert_eq!(config.policy[1].request_timeout, Some(Duration::from_secs(600)));
}
