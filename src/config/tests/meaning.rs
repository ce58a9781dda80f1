//! What a correct file comes to mean, where that takes more than copying it.

use super::read;
use crate::config::model::{Config, CredentialKind, Socket};

const CREDENTIALS: &str = "
credentials:
  - {name: boss, level: admin, api_key: file:/k1}
  - {name: reader, level: read_only, api_key: file:/k2}
  - {name: writer, level: read_write, api_key: 'file:${DIR}/k3#a'}
";

#[track_caller]
fn config(rest: &str) -> Config {
    match read(&format!("version: 1\n{CREDENTIALS}{rest}")) {
        Ok((config, _)) => config,
        Err(errors) => panic!("{errors}"),
    }
}

#[test]
fn a_tenant_tries_the_least_privileged_credential_first() {
    let config = config("listeners: [{listen: localhost:8080}]");
    assert_eq!(config.tenants[0].credentials, [1, 2, 0]);
    let one_of_two = "listeners: [{listen: localhost:0}]\n\
                      tenants: [{name: a, credentials: [boss, writer]}]";
    assert_eq!(self::config(one_of_two).tenants[0].credentials, [2, 0]);
}

#[test]
fn a_listener_finds_its_tenant_by_either_side() {
    let config = config(
        "listeners: [{listen: 'localhost:${PORT}'}, {listen: '127.0.0.1:1', tenant: a}, \
         {listen: '[::1]:2'}]\n\
         tenants:\n\
         - {name: a, credentials: [boss]}\n\
         - {name: b, credentials: [boss], callers: [{listener: localhost:8080}, \
         {listener: '[::1]:2'}]}",
    );
    let tenants: Vec<_> = config.listeners.iter().map(|listener| listener.tenant).collect();
    assert_eq!(tenants, [Some(1), Some(0), Some(1)]);
    assert_eq!(&*config.listeners[0].name, "localhost:8080");
}

#[test]
fn a_tenant_known_by_token_or_uid_is_nobody_elses_default() {
    let tenant_of = |listener: &str, callers: &str| {
        let config = config(&format!(
            "listeners: [{listener}]\ntenants: [{{name: a, credentials: [boss]{callers}}}]"
        ));
        config.listeners[0].tenant
    };
    let (tcp, unix) = ("{listen: localhost:0}", "{listen: 'unix:/run/dp.sock'}");
    assert_eq!(tenant_of(tcp, ""), Some(0));
    assert_eq!(tenant_of(tcp, ", callers: [{caller_token: file:/t}]"), None);
    assert_eq!(tenant_of(unix, ", callers: [{uid: 1000}]"), None);
    let given = "{listen: 'unix:/run/dp.sock', tenant: a}";
    assert_eq!(tenant_of(given, ", callers: [{uid: 1000}]"), Some(0));
}

#[test]
fn a_unix_socket_has_a_path_and_a_mode() {
    for (mode, want) in
        [("", 0o660), (", socket_mode: '600'", 0o600), (", socket_mode: '0666'", 0o666)]
    {
        let config = config(&format!("listeners: [{{listen: 'unix:${{DIR}}/dp.sock'{mode}}}]"));
        let path = "/run/dp.sock".into();
        assert_eq!(config.listeners[0].socket, Socket::Unix { path, mode: want });
    }
}

#[test]
fn a_variable_is_replaced_once_and_never_in_a_secret() {
    let key = |reference: &str| {
        let text = format!(
            "version: 1\nlisteners: [{{listen: localhost:0}}]\n\
             credentials: [{{name: a, level: admin, api_key: '{reference}'}}]"
        );
        read(&text).map(|(config, _)| match &config.credentials[0].kind {
            CredentialKind::ApiKey(reference) => reference.to_string(),
            _ => String::new(),
        })
    };
    assert_eq!(key("file:${DIR}/a#b").unwrap(), "file:/run/a#b");
    assert_eq!(key("file:${NESTED}/a").unwrap(), "file:${DIR}/a");
    assert_eq!(key("file:/a#${DIR}").unwrap(), "file:/a#${DIR}");
    assert!(key("${DIR}").is_err());
    assert!(key("env:${DIR}").is_err());
    assert!(key("file:${ABSENT}").is_err());
}

#[test]
fn what_says_nothing_counts_as_not_written() {
    let config = config(
        "listeners: [{listen: localhost:0, caller_token: null, tls: }]\n\
         stores: {}\nshaping:\nwebhooks: ~\nhealth: {}\nauth: {redirect_uri: null, ca_file: ''}\n\
         upstream: {client_cert: null, ca_file: null}",
    );
    assert_eq!(config.upstream.ca_file, None);
    assert_eq!(config.auth.ca_file, None);
}

#[test]
fn any_number_of_things_may_ask_for_a_free_port() {
    let config = config(
        "listeners: [{listen: localhost:0}, {listen: '127.0.0.1:0'}]\n\
         health: {listen: 127.0.0.1:0}\nadmin: {listen: localhost:0}",
    );
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:0");
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    for (url, base) in [
        ("https://API.example", "https://api.example"),
        ("https://api.example:443/", "https://api.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1:${PORT}", "http://127.0.0.1:8080"),
    ] {
        let config = config(&format!(
            "listeners: [{{listen: localhost:0}}]\n\
             upstream: {{base_url: '{url}', allow_plaintext: true}}"
        ));
        assert_eq!(config.upstream.origin.base_url(), base);
    }
}

#[test]
fn warnings_name_their_place() {
    let text = "version: 1\nlisteners: [{listen: localhost:8080}]\ncredentials:\n  \
                - {name: a, level: admin, quota: q, api_key: env:KEY}\nquotas:\n  \
                q: {limit: unlimited}\n  r: {limit: 2/s, share: 0.5}\n";
    let (_, warnings) = read(text).unwrap();
    let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["test.yaml:4:48: credentials[0].api_key: a secret in the environment is for local \
             development; elsewhere use a file",]
    );
}

#[test]
fn a_byte_order_mark_and_foreign_line_ends_are_no_mistake() {
    let text = "\u{feff}version: 1\r\nlisteners: [{listen: localhost:0}]\r\n\
                credentials: [{name: a, level: admin, api_key: file:/k}]\r\n";
    assert!(read(text).is_ok());
}

#[test]
fn the_path_of_a_mistake_is_printable() {
    let errors = read("version: 1\n\"a\\x1b[31m\\n\": 1\n").unwrap_err();
    assert!(errors.0.iter().any(|error| error.path == "a?[31m?"), "{errors}");
}

#[test]
fn the_schedule_is_kept_where_the_system_offers_a_place() {
    use std::path::PathBuf;

    use crate::config::model::StateFile;
    let state_file = |text: &str, offered: Option<&str>| {
        let text = format!("version: 1\n{CREDENTIALS}listeners: [{{listen: localhost:0}}]\n{text}");
        let env = |name: &str| match name {
            "STATE_DIRECTORY" => offered.map(str::to_owned),
            _ => Some("/run".to_owned()),
        };
        crate::config::parse(&text, "test", &env).unwrap().0.shaping.state_file
    };
    let usual = PathBuf::from("/var/lib/datapulse-sidecar/schedule");
    assert_eq!(state_file("", None), StateFile::Auto(vec![usual.clone()]));
    let offered = StateFile::Auto(vec!["/var/lib/x/schedule".into(), usual]);
    assert_eq!(state_file("shaping: {state_file: auto}", Some("/var/lib/x:/y")), offered);
    assert_eq!(state_file("shaping: {state_file: none}", Some("/var/lib/x")), StateFile::None);
    let given = StateFile::At("/data/s".into());
    assert_eq!(state_file("shaping: {state_file: /data/s}", None), given);
}
