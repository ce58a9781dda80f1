//! Promise: who may call is decided by what a caller shows, before anything else is.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::{Builder, CANARY, PATIENCE, Process, Rig};

const TOKEN: &str = "x-datapulse-sidecar-token";

/// Two tenants: `small` may read, `large` may write too.
const TENANTS: &str =
    "{name: small, credentials: [reader]}, {name: large, credentials: [reader, etl]";

fn secret(builder: &Builder, name: &str) -> String {
    let path = builder.dir().join(name);
    std::fs::write(&path, format!("{CANARY}-{name}\n")).unwrap();
    format!("file:{}", path.display())
}

/// A call over a unix socket: its status, and the whole answer.
async fn call(socket: &Path, path: &str, header: &str) -> (u16, String) {
    let talk = async {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, talk).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap(), answer)
}

#[tokio::test]
async fn a_listener_with_a_token_answers_only_those_who_send_it() {
    let builder = Rig::builder().await;
    let door = secret(&builder, "door");
    let yaml = format!("listeners: [{{listen: localhost:0, caller_token: '{door}'}}]\n");
    let rig = builder.config(&yaml).start().await;
    for (tokens, status, code) in [
        (vec![format!("{CANARY}-door")], 200, None),
        (vec![], 403, Some("caller_not_allowed")),
        (vec![String::new()], 403, Some("caller_not_allowed")),
        (vec![format!("{CANARY}-doo")], 403, Some("caller_not_allowed")),
        (vec![format!("{CANARY}-doors")], 403, Some("caller_not_allowed")),
        (vec![format!("{CANARY}-door"); 2], 400, Some("bad_request")),
    ] {
        let request = rig.client.get(rig.url("/v1/datasets"));
        let request = tokens.iter().fold(request, |request, token| request.header(TOKEN, token));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{tokens:?}");
        let ours = answer.headers().get("x-datapulse-sidecar-error");
        assert_eq!(ours.map(|value| value.to_str().unwrap()), code, "{tokens:?}");
        let body = answer.text().await.unwrap();
        assert!(!body.contains(CANARY), "{body}");
    }
    assert_eq!(rig.emulator.api_requests(), 1, "a stranger's call left");
    rig.finish().await;
}

#[tokio::test]
async fn the_token_is_not_sent_on() {
    let builder = Rig::builder().await;
    let door = secret(&builder, "door");
    let yaml = format!("listeners: [{{listen: localhost:0, caller_token: '{door}'}}]\n");
    let rig = builder.config(&yaml).start().await;
    let token = format!("{CANARY}-door");
    let answer = rig.client.get(rig.url("/v1/echo")).header(TOKEN, token).header("x-own", "kept");
    let echo: Value = answer.send().await.unwrap().json().await.unwrap();
    let names = echo["headers"].to_string();
    assert!(names.contains("x-own") && !names.contains("sidecar"), "{echo}");
    rig.finish().await;
}

#[tokio::test]
async fn a_tenant_is_known_by_its_callers_token_on_whatever_listener() {
    let builder = Rig::builder().await;
    let large = secret(&builder, "large");
    let yaml = format!(
        "listeners: [{{listen: localhost:0, tenant: small}}]\n\
         tenants: [{TENANTS}, callers: [{{caller_token: '{large}'}}]}}]\n"
    );
    let rig = builder.config(&yaml).start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.get("/v1/pipelines").await.status(), 403);
    let call = |token: &str| rig.client.get(rig.url("/v1/pipelines")).header(TOKEN, token).send();
    assert_eq!(call(&format!("{CANARY}-large")).await.unwrap().status(), 200);
    assert_eq!(call("other").await.unwrap().status(), 403);
    let audited = rig.sidecar.stdout.line(|line| line.contains("\"token\",\"listener\"")).await;
    let audited: Value = serde_json::from_str(&audited).unwrap();
    assert_eq!((&audited["tenant"], &audited["caller"]), (&"large".into(), &"token".into()));
    rig.finish().await;
}

#[tokio::test]
async fn a_header_names_the_tenant_for_whoever_sends_the_listeners_token() {
    const HEADER: &str = "X-Tenant";
    let builder = Rig::builder().await;
    let (door, own) = (secret(&builder, "door"), secret(&builder, "own"));
    let open = builder.dir().join("open.sock");
    let by = |value: &str| format!("callers: [{{header: {{name: {HEADER}, value: {value}}}}}]");
    let yaml = format!(
        "listeners: [{{listen: localhost:0, caller_token: '{door}'}}, \
         {{listen: 'unix:{}', tenant: small}}]\n\
         tenants: [{{name: small, credentials: [reader], {}}}, \
         {{name: large, credentials: [reader, etl], {}}}, \
         {{name: own, credentials: [reader], callers: [{{caller_token: '{own}'}}]}}]\n",
        open.display(),
        by("small"),
        by("large")
    );
    let rig = builder.config(&yaml).start().await;
    // Pipelines need what only `large` has.
    let send = async |token: &str, header: &[(&str, &str)]| {
        let request = rig.client.get(rig.url("/v1/pipelines"));
        let request = request.header(TOKEN, format!("{CANARY}-{token}"));
        let request =
            header.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.send().await.unwrap();
        let code = answer.headers().get("x-datapulse-sidecar-error").cloned();
        (
            answer.status().as_u16(),
            code.map_or_else(String::new, |code| code.to_str().unwrap().into()),
        )
    };
    for (token, header, status, code) in [
        ("door", &[(HEADER, "large")][..], 200, ""),
        ("door", &[("x-tenant", "large")], 200, ""),
        ("door", &[(HEADER, "small")], 403, "level_not_granted"),
        ("door", &[(HEADER, "Large")], 403, "caller_not_allowed"),
        ("door", &[(HEADER, "small, large")], 403, "caller_not_allowed"),
        ("door", &[(HEADER, "")], 403, "caller_not_allowed"),
        ("door", &[], 403, "caller_not_allowed"),
        ("door", &[(HEADER, "large"), (HEADER, "large")], 400, "bad_request"),
        ("door", &[(HEADER, "large"), ("X_Tenant", "large")], 400, "bad_request"),
        ("door", &[("X_Tenant", "large")], 400, "bad_request"),
        // A tenant's own token says who calls; nobody vouches for what the header says.
        ("own", &[(HEADER, "large")], 403, "level_not_granted"),
        ("doors", &[(HEADER, "large")], 403, "caller_not_allowed"),
    ] {
        assert_eq!(send(token, header).await, (status, code.into()), "{token} {header:?}");
    }
    assert_eq!(rig.emulator.api_requests(), 2, "a call that was refused left");
    // Where no token is asked for it says nothing, and stays here as well.
    let (status, answer) = call(&open, "/v1/pipelines", &format!("{HEADER}: large\r\n")).await;
    assert_eq!((status, answer.contains("level_not_granted")), (403, true), "{answer}");
    let echo = rig.client.post(rig.url("/v1/echo")).header(TOKEN, format!("{CANARY}-door"));
    let echo = echo.header(HEADER, "large").header("X-Own", "kept").send().await.unwrap();
    let echo: Value = echo.json().await.unwrap();
    let names = echo["headers"].to_string();
    assert!(names.contains("x-own") && !names.contains("tenant"), "{echo}");
    let line = rig.sidecar.stdout.line(|line| line.contains("\"caller\":\"header\"")).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["tenant"], &line["status"]), (&"large".into(), &200.into()));
    rig.finish().await;
}

#[tokio::test]
async fn a_unix_socket_knows_its_callers_users() {
    let builder = Rig::builder().await;
    let own = std::fs::metadata(builder.dir()).unwrap().uid();
    let (open, closed) = (builder.dir().join("open.sock"), builder.dir().join("closed.sock"));
    let yaml = format!(
        "listeners: [{{listen: localhost:0, tenant: small}}, \
         {{listen: 'unix:{}', tenant: small, socket_mode: '0600'}}, \
         {{listen: 'unix:{}', tenant: small, allowed_uids: [{}]}}]\n\
         tenants: [{TENANTS}, callers: [{{uid: {own}}}]}}]\n",
        open.display(),
        closed.display(),
        own + 1
    );
    let rig = builder.config(&yaml).start().await;
    for (socket, mode) in [(&open, 0o600), (&closed, 0o660)] {
        let file = std::fs::symlink_metadata(socket).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o777, mode, "{}", socket.display());
    }
    // By its user the caller is `large`, which may write; over TCP it is `small`.
    assert_eq!(call(&open, "/v1/pipelines", "").await.0, 200);
    assert_eq!(call(&closed, "/v1/pipelines", "").await.0, 200);
    assert_eq!(rig.get("/v1/pipelines").await.status(), 403);
    let line = rig.sidecar.stdout.line(|line| line.contains(&format!("uid {own}"))).await;
    assert!(line.contains("\"large\""), "{line}");
    rig.finish().await;
    assert!(!open.exists() && !closed.exists(), "a socket is left");
}

#[tokio::test]
async fn a_user_that_is_not_listed_is_refused() {
    let builder = Rig::builder().await;
    let own = std::fs::metadata(builder.dir()).unwrap().uid();
    let (listed, other) = (builder.dir().join("listed.sock"), builder.dir().join("other.sock"));
    let yaml = format!(
        "listeners: [{{listen: localhost:0}}, {{listen: 'unix:{}', allowed_uids: [{own}]}}, \
         {{listen: 'unix:{}', allowed_uids: [{}]}}]\n",
        listed.display(),
        other.display(),
        own + 1
    );
    let rig = builder.config(&yaml).start().await;
    assert_eq!(call(&listed, "/v1/datasets", "").await.0, 200);
    let (status, answer) = call(&other, "/v1/datasets", "").await;
    assert_eq!(status, 403);
    assert!(answer.contains("caller_not_allowed") && answer.contains("allowed_uids"), "{answer}");
    assert_eq!(rig.emulator.api_requests(), 1);
    rig.finish().await;
}

#[tokio::test]
async fn a_socket_is_taken_over_only_from_the_dead() {
    let builder = Rig::builder().await;
    let socket = builder.dir().join("app.sock");
    let yaml =
        format!("listeners: [{{listen: localhost:0}}, {{listen: 'unix:{}'}}]\n", socket.display());
    // What a killed process leaves behind.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let rig = builder.config(&yaml).start().await;
    assert_eq!(call(&socket, "/v1/datasets", "").await.0, 200);
    let config = rig.config_path();
    let mut second = Process::sidecar(&["run", "--config", &config]);
    assert_eq!(second.ended().await.code(), Some(2));
    let said = second.stderr.lines().join("\n");
    assert!(said.contains("app.sock") && said.contains("another program"), "{said}");
    assert_eq!(call(&socket, "/v1/datasets", "").await.0, 200, "it took a living one's socket");
    rig.finish().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_a_unix_socket_leaves_nothing_behind() {
    // The call waits for a token, the next one for the upstream.
    for (path, waits) in [("/v1/pipelines", "token"), ("/v1/datasets", "upstream")] {
        let mut builder = Rig::builder().await;
        if waits == "token" {
            builder = builder.without_authorization_server();
        }
        let socket = builder.dir().join("app.sock");
        let listen = format!("{{listen: localhost:0}}, {{listen: 'unix:{}'}}", socket.display());
        let rig = builder.config(&format!("listeners: [{listen}]\n")).start().await;
        rig.emulator.delay_api(std::time::Duration::from_secs(3600));
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        if waits == "upstream" {
            rig.emulator.in_flight(1).await;
        }
        drop(stream);
        rig.quiet().await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_file_in_a_sockets_place_and_a_missing_token_end_the_start() {
    for (place, what) in [("a file", "no socket"), ("no token", "caller token")] {
        let builder = Rig::builder().await;
        let socket = builder.dir().join("app.sock");
        let token = if place == "no token" {
            ", caller_token: file:/no/such/token".to_owned()
        } else {
            std::fs::write(&socket, "precious").unwrap();
            String::new()
        };
        let yaml = format!("listeners: [{{listen: 'unix:{}'{token}}}]\n", socket.display());
        let stage = builder.config(&yaml).stage();
        let mut sidecar = Process::sidecar(&["run", "--config", &stage.config]);
        assert_eq!(sidecar.ended().await.code(), Some(2), "{place}");
        let said = sidecar.stderr.lines().join("\n");
        assert!(said.contains(what), "{place}: {said}");
        let left = std::fs::read_to_string(&socket).ok();
        assert_eq!(left.as_deref(), (place == "a file").then_some("precious"));
    }
}
