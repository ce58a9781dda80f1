//! The files in `config/` load, and say what they seem to say.

use std::time::Duration;

use super::{manifest_dir, read};
use std::collections::BTreeSet;

use serde_json::Value;

use crate::config::model::{Action, AuditSink, CredentialKind, Level, Methods, Socket};
use crate::config::raw::NOT_YET;
use crate::config::schema::{document, schema};
use crate::config::{LoadError, collect, load};

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
fn a_file_that_cannot_be_read_is_told_apart_from_one_with_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let load = |name: &str| load(&folder.path().join(name), &|_| None).unwrap_err();
    for absent in ["absent.yaml", "."] {
        assert!(matches!(load(absent), LoadError::Unreadable { .. }), "{absent}");
    }
    // A character of two bytes lies across the limit.
    let large = format!("##{}", "\u{e9}".repeat(collect::FILE_BYTES_MAX));
    for (text, told) in [
        (&b"version: \xff"[..], ":1:1: the file is not UTF-8"),
        (large.as_bytes(), ":1:1: the file is larger than 1 MiB"),
    ] {
        std::fs::write(folder.path().join("bad.yaml"), text).unwrap();
        let LoadError::Invalid(errors) = load("bad.yaml") else { panic!("{told}") };
        assert!(errors.to_string().ends_with(told), "{errors}");
    }
}

#[test]
fn the_minimal_file_gets_every_default() {
    let text = std::fs::read_to_string(manifest_dir().join("config/minimal.yaml")).unwrap();
    let (config, warnings) = read(&text).unwrap();
    assert_eq!(warnings, []);
    let listener = &config.listeners[0];
    assert_eq!((&*listener.name, listener.tenant), ("localhost:8080", Some(0)));
    let Socket::Tcp(addresses) = &listener.socket else { panic!() };
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
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

/// Each key that the schema knows, `[]` for any item and `*` for any name.
fn schema_keys(root: &Value, node: &Value, at: &str, out: &mut BTreeSet<String>) {
    if let Some(target) = node["$ref"].as_str() {
        return schema_keys(root, root.pointer(&target[1..]).unwrap(), at, out);
    }
    for choice in node["anyOf"].as_array().into_iter().flatten() {
        schema_keys(root, choice, at, out);
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        out.insert(at.clone());
        schema_keys(root, value, &at, out);
    }
    if node["items"].is_object() {
        schema_keys(root, &node["items"], &format!("{at}[]"), out);
    }
    if node["additionalProperties"].is_object() {
        schema_keys(root, &node["additionalProperties"], &format!("{at}.*"), out);
    }
}

/// Each key that a file has; what the schema leaves open is `*`.
fn file_keys(node: &Value, at: &str, out: &mut BTreeSet<String>) {
    for item in node.as_array().into_iter().flatten() {
        file_keys(item, &format!("{at}[]"), out);
    }
    for (key, value) in node.as_object().into_iter().flatten() {
        let key = if matches!(at, "quotas") || at.ends_with(".params") { "*" } else { key };
        let at = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        if key != "*" {
            out.insert(at.clone());
        }
        file_keys(value, &at, out);
    }
}

#[test]
fn the_example_has_every_supported_key() {
    let schema = document().to_value();
    let mut known = BTreeSet::new();
    schema_keys(&schema, &schema, "", &mut known);
    for key in NOT_YET {
        assert!(known.contains(*key), "{key} is not part of the format");
    }
    let later = |key: &str| {
        NOT_YET.iter().any(|later| {
            key.strip_prefix(later)
                .is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'.' | b'[', ..]))
        })
    };
    known.retain(|key| !later(key));
    let text = std::fs::read_to_string(manifest_dir().join("config/example.yaml")).unwrap();
    // There is one way to log in at a time; the others stand in a comment.
    for key in ["role_id", "secret_id", "token"] {
        let shown =
            text.lines().any(|line| line.contains("# {") && line.contains(&format!("{key}:")));
        assert!(shown && known.remove(&format!("stores.vault.auth.{key}")), "{key}");
    }
    assert!(known.len() > 60, "{known:?}");
    let mut shown = BTreeSet::new();
    file_keys(&serde_saphyr::from_str(&text).unwrap(), "", &mut shown);
    assert_eq!(known, shown);
}

#[test]
fn the_schema_is_closed_and_says_what_is_required() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["title"], "Configuration of datapulse-sidecar");
    assert!(schema["$id"].is_string());
    assert_eq!(schema["required"], serde_json::json!(["version", "listeners", "credentials"]));
    assert_eq!(schema["additionalProperties"], false);
    for (name, part) in schema["$defs"].as_object().unwrap() {
        let open = part["type"] == "object" && part["additionalProperties"] != false;
        assert!(!open, "{name} takes unknown keys");
    }
    let listen = &schema["$defs"]["Listener"]["properties"]["listen"];
    assert_eq!(listen["type"], "string");
}
