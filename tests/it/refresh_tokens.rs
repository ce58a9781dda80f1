//! Promise: a refresh token that is good once is never sent twice, whoever shares it and whatever
//! breaks; and where a person has to log in, that is said everywhere and heals without a restart.

use std::path::{Path, PathBuf};
use std::time::Duration;

use datapulse_sidecar::emulator::{Effect, Fault, Scope};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::rotation::{FULL_DISK, make_room};
use crate::support::{Builder, Callers, Gate, Hold, OpenBao, Process, Relay, Rig, Way, comes_true};

/// A second, at the least: the emulator's tokens count whole seconds.
pub(crate) const LIFE: Duration = Duration::from_secs(2);
pub(crate) const DATA: &str = "/v1/datasets";
pub(crate) const UNPERSISTED: &str =
    r#"datapulse_sidecar_credential_unpersisted{credential="alice"}"#;
/// For a whole secret, whatever it is: what the sidecar needs to claim and to replace.
const WRITER: &str = r#"path "secret/data/*" { capabilities = ["read", "update"] }"#;

/// `alice`, and nothing else, with her refresh token at this reference.
pub(crate) fn with_alice(builder: Builder, token: &str) -> Builder {
    with_client(builder, "client_id: cli", token)
}

pub(crate) fn with_client(builder: Builder, client: &str, token: &str) -> Builder {
    let alice = alice(client, token, "'analytics:read'");
    builder.log_level("info").unready().config_in_dir(&alice)
}

pub(crate) fn alice(client: &str, token: &str, scopes: &str) -> String {
    format!(
        "credentials: [{{name: alice, level: read_only, required: false, \
         refresh_token: {{{client}, token: '{token}', scopes: [{scopes}]}}}}]\n"
    )
}

/// With a token in a file, as `login` leaves it there.
pub(crate) fn with_a_file(builder: Builder) -> (Builder, PathBuf) {
    let file = builder.dir().join("alice");
    std::fs::write(&file, format!("{}\n", builder.grant("cli"))).unwrap();
    (with_alice(builder, "file:${DIR}/alice"), file)
}

pub(crate) async fn in_a_file(builder: Builder) -> (Rig, PathBuf) {
    let (builder, file) = with_a_file(builder);
    (builder.start().await, file)
}

/// With a token in OpenBao, reached at this address.
pub(crate) async fn in_vault(
    builder: Builder,
    bao: &OpenBao,
    address: &str,
    name: &str,
) -> Builder {
    let fields = json!({"refresh_token": builder.grant("cli"), "other": {"a": [1, null]}});
    bao.put(name, &fields).await;
    std::fs::write(builder.dir().join("vault"), bao.token("writer", "1h").await).unwrap();
    let builder = with_alice(builder, &format!("vault:secret/{name}#refresh_token"));
    builder.config_in_dir(&format!(
        "stores: {{vault: {{address: '{address}', poll: 1s, \
         auth: {{method: token, token: 'file:${{DIR}}/vault'}}}}}}\n"
    ))
}

pub(crate) async fn open_bao() -> OpenBao {
    let bao = OpenBao::dev().await;
    bao.policy("writer", WRITER).await;
    bao
}

/// With a token in an OpenBao that takes the first claim and, until the gate opens, no successor.
pub(crate) async fn where_nothing_is_kept() -> (OpenBao, Gate, Rig) {
    let (bao, builder) = (open_bao().await, Rig::builder().await.token_life(LIFE));
    let gate = Gate::new(bao.address, Hold::Fail(2)).await;
    let address = format!("http://{}", gate.address);
    let rig = in_vault(builder, &bao, &address, "alice").await.start().await;
    rig.eventually(DATA, 200).await;
    (bao, gate, rig)
}

/// The newest token is in the store, and another process goes on with it.
pub(crate) async fn is_kept(rig: &mut Rig, bao: &OpenBao) {
    rig.restart().await;
    rig.eventually(DATA, 200).await;
    let fields = bao.get("secret/data/alice").await["data"].clone();
    assert_eq!(fields["other"], json!({"a": [1, null]}), "other fields stay");
    assert_eq!((rig.emulator.reuses("cli"), rig.emulator.families_revoked("cli")), (0, 0));
}

pub(crate) fn content(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

pub(crate) fn check_online(config: &str) -> Process {
    Process::sidecar(&["check", "--online", "--config", config])
}

/// Somebody logs in.
pub(crate) fn log_in(rig: &Rig, file: &Path) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, rig.emulator.grant("cli")).unwrap();
    std::fs::rename(beside, file).unwrap();
}

/// Waits until calls are told so.
pub(crate) async fn login_is_required(rig: &Rig) {
    let told = async || {
        let answer = rig.get(DATA).await;
        let code = answer.headers().get("x-datapulse-sidecar-error");
        code.is_some_and(|code| code == "login_required")
    };
    assert!(comes_true(told).await, "{}", rig.status(&[]).await);
}

/// The next answer of the token endpoint goes wrong like this.
pub(crate) fn token_fault(rig: &Rig, effect: Effect) {
    rig.emulator.fault(Fault::times(Scope::Token, effect, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sidecars_share_a_token_in_a_file_over_rotations_and_a_restart() {
    let (mut rig, file) = in_a_file(Rig::builder().await.token_life(LIFE)).await;
    rig.eventually(DATA, 200).await;
    let twin = rig.twin(DATA).await;
    let callers = Callers::start(&rig, DATA);
    // Four rotations of each.
    rig.emulator.refreshed("cli", 8).await;
    assert_eq!(callers.stop().await.1, 0);
    rig.restart().await;
    rig.eventually(DATA, 200).await;
    let callers = Callers::start(&rig, DATA);
    rig.emulator.refreshed("cli", 14).await;
    assert_eq!(callers.stop().await.1, 0);
    let (made, failed) = twin.stop().await;
    assert_eq!(failed, 0, "of {made}");
    assert_eq!((rig.emulator.reuses("cli"), rig.emulator.families_revoked("cli")), (0, 0));
    assert!(content(&file).starts_with("dp_rt_"));
    let said = rig.sidecar.stderr.lines().join("\n");
    assert!(!said.contains("dp_rt_") && !said.contains("dp_at_"), "a token is in the log");
    rig.finish().await;
}

#[tokio::test]
async fn a_lost_answer_costs_a_login_which_is_told_everywhere_and_heals_without_a_restart() {
    let (rig, file) = in_a_file(Rig::builder().await.token_life(LIFE)).await;
    rig.eventually(DATA, 200).await;
    token_fault(&rig, Effect::LoseAnswer);
    let refused = rig.eventually(DATA, 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "login_required");
    let problem: Value = refused.json().await.unwrap();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("alice") && detail.contains("datapulse-sidecar login"), "{problem}");
    let sent = rig.emulator.counters().refreshes["cli"];
    rig.metric(
        r#"datapulse_sidecar_credential_state{credential="alice",state="login_required"} 1"#,
    )
    .await;
    rig.counted(r#"rejected_total{code="login_required"}"#).await;
    for args in [&[][..], &["--json"]] {
        let status = rig.status(args).await;
        assert!(status.contains("login_required"), "{status}");
        assert!(status.contains("run `datapulse-sidecar login alice`"), "{status}");
    }
    let page = rig.client.get(rig.admin_url("/")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("login_required") && page.contains("login alice"), "{page}");
    let line = rig.log("somebody has to log in").await;
    assert!(line.contains("run `datapulse-sidecar login alice`"), "{line}");
    let audited = |line: &str| line.contains("login_required") && line.contains("alice");
    rig.sidecar.stdout.line(audited).await;
    // Neither time nor calls send it again.
    for _ in 0..200 {
        assert_eq!(rig.get(DATA).await.status(), 503);
    }
    assert_eq!(rig.emulator.counters().refreshes["cli"], sent);
    assert_eq!(rig.emulator.reuses("cli"), 0);
    log_in(&rig, &file);
    rig.eventually(DATA, 200).await;
    assert_eq!(rig.emulator.families_revoked("cli"), 0);
    rig.metric(r#"datapulse_sidecar_credential_state{credential="alice",state="fresh"} 1"#).await;
    rig.finish().await;
}

#[tokio::test]
async fn before_anybody_has_logged_in_checks_and_calls_say_so() {
    let rig = with_alice(Rig::builder().await, "file:${DIR}/alice").start().await;
    let refused = rig.eventually(DATA, 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "login_required");
    let mut check = check_online(&rig.config_path());
    assert_eq!(check.ended().await.code(), Some(1));
    let said = [check.stdout.lines().join("\n"), check.stderr.lines().join("\n")].concat();
    assert!(said.contains("run `datapulse-sidecar login alice`"), "{said}");
    let file = rig.dir().join("alice");
    std::fs::write(&file, rig.emulator.grant("cli")).unwrap();
    rig.eventually(DATA, 200).await;
    // Looking costs no login: what the check renewed is in the store.
    let mut check = check_online(&rig.config_path());
    assert_eq!(check.ended().await.code(), Some(0), "{:?}", check.stdout.lines());
    assert_eq!(rig.emulator.refreshes("cli"), 2);
    let renewed = content(&file);
    rig.client.get(rig.url(DATA)).send().await.unwrap();
    assert_eq!((content(&file), rig.emulator.reuses("cli")), (renewed, 0));
    rig.finish().await;
}

#[tokio::test]
async fn a_grant_that_the_vendor_ended_is_told_and_a_login_heals_it() {
    let (rig, file) = in_a_file(Rig::builder().await.token_life(LIFE)).await;
    rig.eventually(DATA, 200).await;
    rig.emulator.revoke_grants("cli");
    let refused = rig.eventually(DATA, 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "login_required");
    let status = rig.status(&[]).await;
    assert!(status.contains("(invalid_grant)"), "{status}");
    log_in(&rig, &file);
    rig.eventually(DATA, 200).await;
    rig.finish().await;
}

#[tokio::test]
async fn an_issuer_that_is_down_or_does_not_know_the_client_costs_no_login() {
    let builder = Rig::builder().await.token_life(LIFE);
    let relay = Relay::new(([127, 0, 0, 1], builder.upstream_port()).into()).await;
    let token = format!("auth: {{token_url: 'http://{}/oauth/token'}}\n", relay.address);
    std::fs::write(builder.dir().join("alice"), builder.grant("etl")).unwrap();
    let secret = std::fs::read_to_string(builder.dir().join("etl")).unwrap();
    let builder = with_client(
        builder.config(&token),
        "client_id: etl, client_secret: 'file:${DIR}/etl'",
        "file:${DIR}/alice",
    );
    let rig = builder.start().await;
    rig.eventually(DATA, 200).await;
    let refreshes = |outcome: &str| {
        format!(
            r#"credential_refreshes_total{{credential="alice",outcome="{outcome}",reason="retry"}}"#
        )
    };
    relay.set(Way::Refuse).await;
    let refused = rig.eventually(DATA, 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "credential_expired");
    rig.counted(&refreshes("unreachable")).await;
    relay.set(Way::Open).await;
    rig.eventually(DATA, 200).await;
    rig.emulator.fail_token_endpoint(503);
    rig.eventually(DATA, 503).await;
    rig.counted(&refreshes("refused")).await;
    rig.emulator.heal();
    rig.eventually(DATA, 200).await;
    std::fs::write(rig.dir().join("etl"), "wrong").unwrap();
    let refused = rig.eventually(DATA, 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "credential_expired");
    rig.counted(&refreshes("invalid_client")).await;
    std::fs::write(rig.dir().join("etl"), secret).unwrap();
    rig.eventually(DATA, 200).await;
    assert_eq!((rig.emulator.reuses("etl"), rig.emulator.families_revoked("etl")), (0, 0));
    rig.finish().await;
}

#[tokio::test]
async fn where_a_successor_could_not_be_kept_nothing_is_spent() {
    let (rig, file) = in_a_file(Rig::builder().await.shell(FULL_DISK)).await;
    let first = content(&file);
    let refused = rig.eventually(DATA, 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
    rig.counted(r#"store_writes_total{outcome="unwritable",store="file"}"#).await;
    assert_eq!((content(&file), rig.emulator.refreshes("cli")), (first.clone(), 0));
    make_room(&rig);
    rig.eventually(DATA, 200).await;
    assert_ne!(content(&file), first);
    assert_eq!(rig.emulator.reuses("cli"), 0);
    rig.finish().await;
}

#[tokio::test]
async fn vault_that_takes_the_claim_and_not_the_successor_costs_no_call() {
    let (bao, gate, mut rig) = where_nothing_is_kept().await;
    let callers = Callers::start(&rig, DATA);
    rig.metric(&format!("{UNPERSISTED} 1")).await;
    rig.emulator.refreshed("cli", 4).await;
    gate.open();
    rig.metric(&format!("{UNPERSISTED} 0")).await;
    assert_eq!(callers.stop().await.1, 0);
    is_kept(&mut rig, &bao).await;
    rig.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_on_its_way_outlives_a_reload_and_is_waited_for_at_the_end() {
    let (mut rig, file) = in_a_file(Rig::builder().await.token_life(LIFE)).await;
    rig.eventually(DATA, 200).await;
    for is_the_end in [false, true] {
        let (taken, before) = (rig.emulator.refreshes("cli"), content(&file));
        token_fault(&rig, Effect::LateAnswerMs(2000));
        rig.emulator.refreshed("cli", taken + 1).await;
        assert_eq!(content(&file), before, "its answer is on its way");
        if is_the_end {
            rig.restart().await;
        } else {
            rig.reconfigure(
                "credentials: [{name: bob, level: read_only, api_key: 'file:/nowhere'}]\n",
            );
            rig.log("the configuration was reloaded").await;
            rig.until(async || content(&file) != before).await;
            let token = format!("file:{}", file.display());
            rig.reconfigure(&alice("client_id: cli", &token, "'analytics:read'"));
        }
        rig.eventually(DATA, 200).await;
        assert_ne!(content(&file), before);
    }
    assert_eq!((rig.emulator.reuses("cli"), rig.emulator.families_revoked("cli")), (0, 0));
    rig.finish().await;
}

#[tokio::test]
async fn an_issuer_that_does_not_rotate_has_its_token_left_alone() {
    for encoding in ["json", "form"] {
        let builder = Rig::builder().await.token_life(LIFE);
        let builder = builder.config(&format!("auth: {{token_request: {encoding}}}\n"));
        builder.set_rotation(false);
        let (rig, file) = in_a_file(builder).await;
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        rig.eventually(DATA, 200).await;
        rig.emulator.refreshed("cli", 4).await;
        assert_eq!(rig.get(DATA).await.status(), 200);
        assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written);
        rig.finish().await;
    }
}

/// What a process was doing when it was killed, and what comes of the grant.
struct Death {
    name: &'static str,
    vault: Hold,
    issuer: Hold,
    /// Whether the issuer's answer was lost before.
    is_lost: bool,
    end: End,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Survives,
    /// The next one sends the token once more, and a login is required.
    SentAgain,
    /// A login is required, and the next one knows without sending anything.
    Known,
}

/// The first write to Vault is the claim, the second the new token, or the mark of a lost answer.
const DEATHS: [Death; 9] = [
    Death {
        name: "before-the-claim",
        vault: Hold::Request(1),
        issuer: Hold::Nothing,
        is_lost: false,
        end: End::Survives,
    },
    Death {
        name: "claimed-and-not-told",
        vault: Hold::Answer(1),
        issuer: Hold::Nothing,
        is_lost: false,
        end: End::Survives,
    },
    Death {
        name: "claimed-and-not-sent",
        vault: Hold::Nothing,
        issuer: Hold::Request(1),
        is_lost: false,
        end: End::Survives,
    },
    Death {
        name: "spent-and-not-told",
        vault: Hold::Nothing,
        issuer: Hold::Answer(1),
        is_lost: false,
        end: End::SentAgain,
    },
    Death {
        name: "told-and-not-written",
        vault: Hold::Request(2),
        issuer: Hold::Nothing,
        is_lost: false,
        end: End::SentAgain,
    },
    Death {
        name: "written-and-not-told",
        vault: Hold::Answer(2),
        issuer: Hold::Nothing,
        is_lost: false,
        end: End::Survives,
    },
    Death {
        name: "lost-and-not-marked",
        vault: Hold::Request(2),
        issuer: Hold::Nothing,
        is_lost: true,
        end: End::SentAgain,
    },
    Death {
        name: "marked-and-not-told",
        vault: Hold::Answer(2),
        issuer: Hold::Nothing,
        is_lost: true,
        end: End::Known,
    },
    Death {
        name: "all-done",
        vault: Hold::Nothing,
        issuer: Hold::Nothing,
        is_lost: false,
        end: End::Survives,
    },
];

async fn dies(bao: &OpenBao, death: &Death) {
    let Death { name, vault, issuer, is_lost, end } = death;
    let builder = Rig::builder().await;
    let issuers: std::net::SocketAddr = ([127, 0, 0, 1], builder.upstream_port()).into();
    let gates = [Gate::new(bao.address, *vault).await, Gate::new(issuers, *issuer).await];
    let builder = in_vault(builder, bao, &format!("http://{}", gates[0].address), name).await;
    let token = format!("auth: {{token_url: 'http://{}/oauth/token'}}\n", gates[1].address);
    // A gateway would have an answer of its own.
    let builder = if *is_lost {
        builder.fault(Fault::times(Scope::Token, Effect::LoseAnswer, 1))
    } else {
        builder.config(&token)
    };
    let mut rig = builder.start().await;
    match (vault, issuer) {
        (Hold::Nothing, Hold::Nothing) => drop(rig.eventually(DATA, 200).await),
        (Hold::Nothing, _) => gates[1].holds().await,
        _ => gates[0].holds().await,
    }
    rig.sidecar.signal("KILL").await;
    rig.sidecar.ended().await;
    gates.iter().for_each(Gate::open);
    rig.start_again().await;
    if *end == End::Survives {
        rig.eventually(DATA, 200).await;
        assert_eq!(rig.emulator.reuses("cli"), 0, "{name}");
    } else {
        login_is_required(&rig).await;
        assert_eq!(rig.emulator.reuses("cli") > 0, *end == End::SentAgain, "{name}");
        let (token, held) =
            (rig.emulator.grant("cli"), bao.get(&format!("secret/data/{name}")).await);
        let mut fields = held["data"].clone();
        fields["refresh_token"] = json!(token);
        bao.put(name, &fields).await;
        rig.eventually(DATA, 200).await;
    }
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_each_step_of_a_refresh_the_grant_survives_or_a_login_is_asked_for() {
    let bao = open_bao().await;
    join_all(DEATHS.iter().map(|death| dies(&bao, death))).await;
}

#[tokio::test]
async fn killed_with_the_token_in_a_file_the_next_process_goes_on_at_once() {
    for (hold, survives) in [(Hold::Request(1), true), (Hold::Answer(1), false)] {
        let builder = Rig::builder().await;
        let gate = Gate::new(([127, 0, 0, 1], builder.upstream_port()).into(), hold).await;
        let token = format!("auth: {{token_url: 'http://{}/oauth/token'}}\n", gate.address);
        let (mut rig, file) = in_a_file(builder.config(&token)).await;
        gate.holds().await;
        rig.sidecar.signal("KILL").await;
        rig.sidecar.ended().await;
        gate.open();
        rig.start_again().await;
        if !survives {
            login_is_required(&rig).await;
            log_in(&rig, &file);
        }
        rig.eventually(DATA, 200).await;
        assert_eq!(rig.emulator.reuses("cli"), u64::from(!survives));
        rig.finish().await;
    }
}
