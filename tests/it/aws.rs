//! Promise: secrets in AWS Secrets Manager are read, followed and written back; whatever goes wrong
//! there costs nothing while what was read before works, and is told by its kind.
//!
//! The server is moto; what it cannot do (refusals by code, silence) a relay in front of it does.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::support::{
    Authority, Aws, Builder, CANARY, Callers, Canned, Metadata, PodIdentity, Process, Relay, Rig,
    TlsServer, Way, key_of,
};

/// A reader whose key is in AWS, and nothing that says who we are.
async fn configured(aws: &Aws, reference: &str, poll: &str) -> Builder {
    let builder = Rig::builder().await;
    let url = aws.url();
    builder
        .config(&format!(
            "stores: {{aws: {{region: eu-west-1, endpoint: '{url}', sts_endpoint: '{url}', \
             poll: {poll}}}}}\n\
             credentials: [{{name: reader, level: read_only, api_key: '{reference}'}}]\n"
        ))
        .nobody_in_aws()
}

/// The same with keys in the environment.
pub(crate) async fn reader(aws: &Aws, reference: &str, poll: &str) -> Builder {
    configured(aws, reference, poll).await.aws_keys()
}

fn reads(outcome: &str) -> String {
    format!(r#"store_reads_total{{outcome="{outcome}",store="aws"}}"#)
}

const UP: &str = r#"store_up{store="aws"}"#;

#[tokio::test]
async fn plain_and_json_secrets_are_read_by_name_and_by_arn() {
    let aws = Aws::start().await;
    let arn = aws.create("prod/plain", &format!("{}\n", key_of("reader"))).await;
    let text = json!({"api_key": key_of("reader"), "other": CANARY}).to_string();
    aws.create("prod/json", &text).await;
    for reference in ["aws:prod/plain", "aws:prod/json#api_key", &format!("aws:{arn}")] {
        let rig = reader(&aws, reference, "5m").await.start().await;
        assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{reference}");
        assert_eq!((rig.series(&reads("ok")).await, rig.series(UP).await), (1.0, 1.0));
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_rotation_through_its_stages_fails_no_call_and_a_pending_key_is_never_used() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let rig = reader(&aws, "aws:prod/key", "1s").await.log_level("info").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    let second = rig.emulator.add_key("second");
    let pending = aws.put_pending("prod/key", &second).await;
    aws.further("DescribeSecret", 3).await;
    assert_eq!(rig.emulator.used("second"), 0);
    assert_eq!(aws.calls("GetSecretValue"), 1, "a value only where the version moved");
    aws.make_current("prod/key", &pending).await;
    rig.emulator.uses("second").await;
    rig.emulator.remove_key("reader");
    rig.emulator.further(50).await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    assert_eq!(aws.calls("GetSecretValue"), 2);
    let status: Value = serde_json::from_str(&rig.status(&["--json"]).await).unwrap();
    let secret = &status["secrets"][0];
    assert_eq!((&secret["secret"], &secret["version"]), (&json!("aws:prod/key"), &json!(pending)));
    assert_eq!(
        (&status["stores"][0]["name"], &status["stores"][0]["up"]),
        (&json!("aws"), &json!(true))
    );
    let age = r#"secret_age_seconds{secret="aws:prod/key"}"#;
    assert!(rig.series(age).await < 20.0, "AWS was asked just now");
    rig.finish().await;
}

#[tokio::test]
async fn a_key_that_is_dead_before_the_poll_is_read_anew_at_its_first_401() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let rig = reader(&aws, "aws:prod/key", "1h").await.start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let second = rig.emulator.add_key("second");
    aws.put("prod/key", &second).await;
    rig.emulator.remove_key("reader");
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.emulator.further(50).await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    assert_eq!(aws.calls("GetSecretValue"), 2, "once for all calls");
    rig.finish().await;
}

#[tokio::test]
async fn throttling_and_failures_of_aws_cost_no_call_and_are_told_by_kind() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let rig = reader(&aws, "aws:prod/key", "1s").await.log_level("info").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    let html = Canned::Text(200, format!("<html>{CANARY}</html>"));
    for (canned, outcome) in [
        (Canned::Refusal(400, "ThrottlingException"), "throttled"),
        (Canned::Refusal(500, "InternalServiceError"), "internal"),
        (Canned::Text(503, String::new()), "not_an_answer"),
        (html, "not_an_answer"),
        (Canned::Silence, "timeout"),
    ] {
        aws.answer("DescribeSecret", canned);
        rig.counted(&reads(outcome)).await;
        rig.until_series(UP, |up| up == 0.0).await;
        assert!(rig.status(&["--json"]).await.contains("\"fresh\""));
        aws.heal();
        rig.until_series(UP, |up| up == 1.0).await;
    }
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

#[tokio::test]
async fn a_refusal_keeps_the_key_is_told_by_its_code_and_is_not_repeated_at_once() {
    let user =
        format!("User: arn:aws:sts::1:assumed-role/{CANARY} is not authorized to perform: x");
    let kms = "Access to KMS is not allowed".to_owned();
    for (code, message, outcome) in [
        ("AccessDeniedException", user.clone(), "denied"),
        ("AccessDeniedException", kms, "decryption_denied"),
        ("DecryptionFailure", user, "decryption_denied"),
    ] {
        let aws = Aws::start().await;
        aws.create("prod/key", &key_of("reader")).await;
        let rig = reader(&aws, "aws:prod/key", "1s").await.start().await;
        aws.answer("GetSecretValue", Canned::Message(400, code, message));
        aws.put("prod/key", &rig.emulator.add_key("second")).await;
        rig.counted(&reads(outcome)).await;
        rig.log("a store of secrets cannot be used").await;
        assert_eq!(rig.series(UP).await, 0.0);
        let status = rig.status(&[]).await;
        assert!(status.contains("the store aws has not worked for"), "{status}");
        assert_eq!(rig.get("/v1/datasets").await.status(), 200, "the key that was read before");
        // tidy: passes time because nothing must be asked meanwhile.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(rig.series(&reads(outcome)).await, 1.0, "a minute between tries");
        rig.finish().await;
    }
}

#[tokio::test]
async fn without_the_right_to_describe_the_value_is_read_and_that_is_told_once() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    aws.answer("DescribeSecret", Canned::Refusal(400, "AccessDeniedException"));
    let rig = reader(&aws, "aws:prod/key", "1s").await.start().await;
    rig.log("allow secretsmanager:DescribeSecret").await;
    aws.put("prod/key", &rig.emulator.add_key("second")).await;
    aws.further("GetSecretValue", 2).await;
    rig.eventually("/v1/datasets", 200).await;
    rig.emulator.uses("second").await;
    assert_eq!(aws.calls("DescribeSecret"), 1);
    assert_eq!((rig.series(&reads("denied")).await, rig.series(UP).await), (0.0, 1.0));
    rig.finish().await;
}

#[tokio::test]
async fn a_secret_that_is_deleted_keeps_its_last_value_and_one_that_is_not_there_heals() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let rig = reader(&aws, "aws:prod/key", "1s").await.start().await;
    aws.call("DeleteSecret", json!({"SecretId": "prod/key"})).await;
    rig.counted(&reads("deleted")).await;
    rig.log("what was read before is kept").await;
    let missing = r#"secret_missing{secret="aws:prod/key"}"#;
    rig.until_series(missing, |missing| missing == 1.0).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.series(UP).await, 1.0, "the store is not to blame");
    aws.call("RestoreSecret", json!({"SecretId": "prod/key"})).await;
    let ok = rig.series(&reads("ok")).await;
    rig.until_series(&reads("ok"), |now| now > ok).await;
    assert_eq!(rig.series(missing).await, 0.0);
    rig.finish().await;

    let rig = reader(&aws, "aws:prod/later", "1s").await.unready().start().await;
    rig.counted(&reads("missing")).await;
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
    aws.create("prod/later", &key_of("reader")).await;
    rig.eventually("/v1/datasets", 200).await;
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_cold_start_without_aws_is_a_503_that_heals_by_itself() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    aws.set_down(true).await;
    let rig = reader(&aws, "aws:prod/key", "1s").await.unready().start().await;
    rig.counted(&reads("refused")).await;
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
    assert!(answer.headers().contains_key("retry-after"));
    aws.set_down(false).await;
    rig.eventually("/v1/datasets", 200).await;
    assert_eq!((rig.emulator.anonymous(), rig.series(UP).await), (0, 1.0));
    rig.finish().await;
}

#[tokio::test]
async fn whatever_the_way_to_aws_does_costs_no_call_and_is_told_by_kind() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let relay = Relay::new(aws.address()).await;
    let builder = reader(&aws, "aws:prod/key", "1s").await.log_level("info");
    let through = format!("stores: {{aws: {{endpoint: 'http://{}'}}}}", relay.address);
    let rig = builder.config(&through).start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    for (way, outcomes) in [
        (Way::Refuse, ["refused", ""]),
        // It may come while the connection is still being made.
        (Way::Reset, ["interrupted", "connect"]),
        (Way::BlackHole, ["timeout", ""]),
        (Way::Drip(Duration::from_millis(500)), ["timeout", ""]),
    ] {
        let counts = outcomes.map(reads);
        let before = rig.sum(&counts).await;
        relay.set(way).await;
        rig.until_sum(&counts, |now| now > before).await;
        assert_eq!(rig.series(UP).await, 0.0, "{way:?}");
        relay.set(Way::Open).await;
        rig.until_series(UP, |up| up == 1.0).await;
    }
    relay.set(Way::Slow(Duration::from_millis(50))).await;
    let second = rig.emulator.add_key("second");
    aws.put("prod/key", &second).await;
    rig.emulator.uses("second").await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

#[tokio::test]
async fn over_tls_only_the_configured_certificates_are_trusted() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let authority = Authority::new();
    let leaf = authority.issue(&["localhost"], false);
    let tls = TlsServer::start(aws.router(), &leaf, &["h2", "http/1.1"]).await;
    let endpoint = format!("https://localhost:{}", tls.address.port());
    let config = |ca: &str| format!("stores: {{aws: {{endpoint: '{endpoint}', ca_file: '{ca}'}}}}");
    let builder = reader(&aws, "aws:prod/key", "1s").await;
    let trusted = authority.write(builder.dir()).display().to_string();
    let rig = builder.config(&config(&trusted)).start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;

    let calls = aws.all_calls();
    let builder = reader(&aws, "aws:prod/key", "1s").await;
    let other = Authority::new().write(builder.dir()).display().to_string();
    let rig = builder.config(&config(&other)).unready().start().await;
    rig.counted(&reads("tls")).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 503);
    assert_eq!(aws.all_calls(), calls, "nothing is sent to whom nobody knows");
    rig.finish().await;
}

#[tokio::test]
async fn a_store_is_added_and_changed_while_calls_go_on() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let nowhere = Aws::start().await;
    let mut rig = Rig::builder().await.aws_keys().without_admin().start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.reconfigure(&format!(
        "stores: {{aws: {{region: eu-west-1, endpoint: '{}'}}}}\n\
         credentials: [{{name: reader, level: read_only, api_key: 'aws:prod/key'}}]",
        aws.url()
    ));
    rig.log("the configuration was reloaded").await;
    assert_eq!(aws.calls("GetSecretValue"), 1);
    // One that cannot be opened changes nothing.
    rig.reconfigure("stores: {aws: {ca_file: /nowhere/ca.pem}}");
    rig.log("the new configuration cannot be used").await;
    rig.reconfigure(&format!(
        "stores: {{aws: {{poll: 1s, ca_file: null, endpoint: '{}'}}}}",
        nowhere.url()
    ));
    nowhere.further("DescribeSecret", 1).await;
    assert_eq!(aws.calls("GetSecretValue"), 1);
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "what was read before stays in use");
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

#[tokio::test]
async fn a_profile_gives_its_keys_and_never_asks_where_a_variable_says() {
    let aws = Aws::start().await;
    let thief = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let text = format!(
        "[keys]\naws_access_key_id = AKIDTEST\naws_secret_access_key = {CANARY}-profile\n\
         [role]\nrole_arn = arn:aws:iam::123456789012:role/datapulse\nsource_profile = keys\n"
    );
    for (profile, works) in [("keys", true), ("role", false)] {
        let builder = configured(&aws, "aws:prod/key", "1s").await;
        let file = builder.dir().join("credentials");
        std::fs::write(&file, &text).unwrap();
        let rig = builder
            .env("AWS_PROFILE", profile)
            .env("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap())
            .env("AWS_ENDPOINT_URL_STS", &thief.url())
            .unready()
            .start()
            .await;
        if works {
            rig.eventually("/v1/datasets", 200).await;
        } else {
            rig.counted(&reads("no_identity")).await;
        }
        rig.finish().await;
    }
    assert_eq!(thief.all_calls(), 0);
}

#[tokio::test]
async fn an_instance_gives_its_keys_and_one_that_says_nothing_is_told_apart() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let metadata = Metadata::start().await;
    metadata.set_silent(true);
    let builder = configured(&aws, "aws:prod/key", "1s").await;
    let rig = builder
        .env("AWS_EC2_METADATA_DISABLED", "false")
        .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url)
        .unready()
        .start()
        .await;
    rig.counted(&reads("no_identity")).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 503);
    metadata.set_silent(false);
    rig.eventually("/v1/datasets", 200).await;
    rig.finish().await;
}

#[tokio::test]
async fn a_pod_gets_its_keys_by_pod_identity_and_without_them_only_a_503() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let token = format!("{CANARY}-pod-token");
    let agent = PodIdentity::start(&token).await;
    agent.set_down(true);
    let builder = configured(&aws, "aws:prod/key", "1s").await;
    let file = builder.dir().join("pod-token");
    std::fs::write(&file, &token).unwrap();
    let rig = builder
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", &agent.url)
        .env("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.to_str().unwrap())
        .unready()
        .start()
        .await;
    rig.counted(&reads("no_identity")).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 503);
    assert_eq!(aws.calls("GetSecretValue"), 0, "nothing is sent unsigned");
    agent.set_down(false);
    rig.eventually("/v1/datasets", 200).await;
    assert_eq!(agent.given(), 1);
    // Keys that expired are replaced at once, and what was read stays in use while none come.
    aws.answer("DescribeSecret", Canned::Refusal(400, "ExpiredTokenException"));
    rig.counted(&reads("identity_rejected")).await;
    // Once more, or with each look that was refused by now.
    assert!(agent.given() >= 2);
    agent.set_down(true);
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn a_web_identity_is_exchanged_for_keys_and_its_refusal_is_told_apart() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    aws.answer("AssumeRoleWithWebIdentity", Canned::Xml(403, "AccessDenied"));
    let builder = configured(&aws, "aws:prod/key", "1s").await;
    let file = builder.dir().join("web-token");
    std::fs::write(&file, format!("{CANARY}.web.token")).unwrap();
    let rig = builder
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/datapulse")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap())
        .unready()
        .start()
        .await;
    rig.counted(&reads("identity_refused")).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 503);
    rig.finish().await;

    aws.heal();
    let builder = configured(&aws, "aws:prod/key", "1s").await;
    let file = builder.dir().join("web-token");
    std::fs::write(&file, format!("{CANARY}.web.token")).unwrap();
    let asked = aws.calls("AssumeRoleWithWebIdentity");
    let rig = builder
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/datapulse")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap())
        .start()
        .await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    aws.further("DescribeSecret", 2).await;
    assert_eq!(aws.calls("AssumeRoleWithWebIdentity"), asked + 1, "keys are kept");
    rig.finish().await;
}

#[tokio::test]
async fn a_renewed_session_token_is_written_back_beside_what_else_is_there() {
    let aws = Aws::start().await;
    let life = Duration::from_secs(60);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\": {}}}", now + 6));
    let first = format!("e30.{claims}.{CANARY}");
    let text = json!({"token": first, "note": {"kept": [1, null]}});
    aws.create("prod/session", &text.to_string()).await;
    let session = "credentials: [{name: reader, level: read_only, \
                   session_token: {token: 'aws:prod/session#token'}}]";
    let builder = reader(&aws, "aws:prod/session#token", "1s").await.token_life(life);
    builder.accept("person", &first);
    let rig = builder.config(session).start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.emulator.uses("person/1").await;
    assert_eq!(callers.stop().await.1, 0);
    let text: Value = serde_json::from_str(&aws.text("prod/session", "AWSCURRENT").await).unwrap();
    assert_ne!(text["token"], first.as_str());
    assert_eq!(text["note"], json!({"kept": [1, null]}));
    let previous = aws.text("prod/session", "AWSPREVIOUS").await;
    assert!(previous.contains(&first), "nothing was written twice");
    assert_eq!(rig.series(r#"store_writes_total{outcome="ok",store="aws"}"#).await, 1.0);
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_fallback_serves_while_the_first_secret_cannot_be_read_and_no_longer() {
    let aws = Aws::start().await;
    let text = |name: &str| json!({"api_key": key_of(name)}).to_string();
    aws.create("prod/key", &text("reader")).await;
    // Somebody wrote a version without the key.
    aws.put("prod/key", "{}").await;
    let config = "credentials: [{name: reader, level: read_only, \
                  api_key: 'aws:prod/key#api_key', fallback: 'aws:prod/key@AWSPREVIOUS#api_key'}]";
    let builder = reader(&aws, "aws:prod/key#api_key", "1s").await.config(config);
    let rig = builder.start().await;
    let serving = r#"secret_fallback{secret="aws:prod/key#api_key"}"#;
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.emulator.further(20).await;
    assert_eq!(
        (rig.series(serving).await, rig.series(&reads("no_such_key")).await >= 1.0),
        (1.0, true)
    );
    rig.log("its fallback is used").await;
    rig.emulator.add_key("second");
    aws.put("prod/key", &text("second")).await;
    rig.emulator.uses("second").await;
    rig.until_series(serving, |serving| serving == 0.0).await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

#[tokio::test]
async fn check_online_tells_what_is_missing_and_what_to_grant() {
    let aws = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let wrong = json!({"wrong": format!("dp_live_{CANARY}_wrong"), "number": 7}).to_string();
    aws.create("prod/json", &wrong).await;
    aws.create("prod/words", &format!("two {CANARY}")).await;
    for (reference, refusal, code, told) in [
        ("aws:prod/key", None, 0, "its token is taken; it is Emulator's"),
        ("aws:prod/absent", None, 1, "there is no such secret"),
        ("aws:prod/json#absent", None, 1, "the secret has no such key"),
        ("aws:prod/json#number", None, 1, "not a string"),
        ("aws:prod/words", None, 1, "cannot stand in an HTTP header"),
        ("aws:prod/json#wrong", None, 1, "rejected with 401"),
        (
            "aws:prod/key",
            Some("AccessDeniedException"),
            1,
            "secretsmanager:GetSecretValue on prod/key",
        ),
        ("aws:prod/key", Some("DecryptionFailure"), 1, "kms:Decrypt"),
    ] {
        aws.heal();
        if let Some(code) = refusal {
            aws.answer("GetSecretValue", Canned::Refusal(400, code));
        }
        is_checked(reader(&aws, reference, "5m").await, code, told).await;
    }
}

#[tokio::test]
async fn check_online_names_the_action_that_is_missing_to_write_back() {
    let aws = Aws::start().await;
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp": 9999999999}"#);
    let session = format!("e30.{claims}.{CANARY}");
    aws.create("prod/session", &json!({"token": session}).to_string()).await;
    for kind in ["refresh_token: {client_id: cli, ", "session_token: {"] {
        for refused in ["PutSecretValue", "DescribeSecret"] {
            aws.heal();
            aws.answer(refused, Canned::Refusal(400, "AccessDeniedException"));
            let config = format!(
                "credentials: [{{name: reader, level: read_only, \
                 {kind}token: 'aws:prod/session#token'}}}}]"
            );
            let builder = reader(&aws, "aws:prod/session#token", "5m").await.config(&config);
            builder.accept("person", &session);
            let told = "DescribeSecret and PutSecretValue on prod/session";
            is_checked(builder, i32::from(kind.starts_with("refresh")), told).await;
        }
    }
    aws.heal();
    let config = "credentials: [{name: reader, level: read_only, \
                  session_token: {token: 'aws:prod/session#token'}}]";
    let builder = reader(&aws, "aws:prod/session#token", "5m").await.config(config);
    builder.accept("person", &session);
    is_checked(builder, 0, "its token is taken").await;
    assert!(aws.text("prod/session", "AWSCURRENT").await.contains(&session));
}

async fn is_checked(mut builder: Builder, code: i32, told: &str) {
    let env = builder.take_env();
    let stage = builder.stage();
    let mut check = Process::sidecar_in(&["check", "--online", "--config", &stage.config], &env);
    let status = check.ended().await;
    let said = [check.stdout.lines().join("\n"), check.stderr.lines().join("\n")].join("\n");
    assert_eq!(status.code(), Some(code), "{told}: {said}");
    assert!(said.contains(told), "{told:?} is not in {said}");
    assert!(!said.contains(CANARY), "{said}");
}

#[tokio::test]
async fn variables_that_would_send_secrets_elsewhere_are_ignored_and_named() {
    let aws = Aws::start().await;
    let thief = Aws::start().await;
    aws.create("prod/key", &key_of("reader")).await;
    let builder = reader(&aws, "aws:prod/key", "1s").await;
    let bundle = Authority::new().write(builder.dir());
    let rig = builder
        .env("AWS_ENDPOINT_URL", &thief.url())
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &thief.url())
        .env("AWS_ENDPOINT_URL_STS", &thief.url())
        .env("AWS_CA_BUNDLE", bundle.to_str().unwrap())
        .env("HTTP_PROXY", &thief.url())
        .start()
        .await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let line = rig.log("ignores variables").await;
    for name in ["AWS_CA_BUNDLE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS", "HTTP_PROXY"] {
        assert!(line.contains(name), "{name}: {line}");
    }
    assert_eq!(thief.all_calls(), 0);
    rig.finish().await;
}
