//! Promise: where the answer to a refresh is lost, no process sends that refresh token again once it is
//! marked in its store, and a login heals it everywhere.

use datapulse_sidecar::emulator::Effect;
use serde_json::{Value, json};

use crate::aws::reader;
use crate::refresh_tokens::{
    DATA, LIFE, check_online, content, in_a_file, in_vault, log_in, login_is_required, open_bao,
    token_fault, with_alice,
};
use crate::support::{Aws, Rig};

const MARK: &str = "datapulse-sidecar-answer-lost:";

/// The next answer is lost; then neither another process nor this one, once it is started again, sends
/// the token once more.
async fn nobody_sends_it_again(rig: &mut Rig) {
    rig.eventually(DATA, 200).await;
    token_fault(rig, Effect::LoseAnswer);
    login_is_required(rig).await;
    let sent = rig.emulator.refreshes("cli");
    let mut check = check_online(&rig.config_path());
    assert_eq!(check.ended().await.code(), Some(1));
    let said = check.stdout.lines().join("\n");
    assert!(said.contains("the answer to the last refresh was lost"), "{said}");
    rig.restart().await;
    login_is_required(rig).await;
    let said = [said, rig.sidecar.stderr.lines().join("\n")].concat();
    assert!(!said.contains("dp_rt_"), "a token is told");
    assert_eq!((rig.emulator.refreshes("cli"), rig.emulator.reuses("cli")), (sent, 0));
}

#[tokio::test]
async fn a_token_in_a_file_whose_answer_was_lost_is_sent_by_nobody() {
    let (mut rig, file) = in_a_file(Rig::builder().await.token_life(LIFE)).await;
    nobody_sends_it_again(&mut rig).await;
    assert!(content(&file).starts_with(&format!("{MARK}dp_rt_")));
    log_in(&rig, &file);
    rig.eventually(DATA, 200).await;
    assert_eq!(rig.emulator.families_revoked("cli"), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_token_in_vault_whose_answer_was_lost_is_sent_by_nobody() {
    let (bao, builder) = (open_bao().await, Rig::builder().await.token_life(LIFE));
    let mut rig = in_vault(builder, &bao, &bao.url(), "alice").await.start().await;
    nobody_sends_it_again(&mut rig).await;
    let fields = bao.get("secret/data/alice").await["data"].clone();
    let token = fields["refresh_token"].as_str().unwrap();
    assert!(token.starts_with(&format!("{MARK}dp_rt_")), "{fields}");
    assert_eq!(fields, json!({"refresh_token": token, "other": {"a": [1, null]}}));
    let fields = json!({"refresh_token": rig.emulator.grant("cli")});
    bao.put("alice", &fields).await;
    rig.eventually(DATA, 200).await;
    assert_eq!(rig.emulator.families_revoked("cli"), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_token_in_aws_whose_answer_was_lost_is_marked_and_a_login_heals_it() {
    let aws = Aws::start().await;
    let builder = reader(&aws, "aws:prod/alice#token", "1s").await.token_life(LIFE);
    let text = |token: &str| json!({"token": token, "note": {"kept": [1, null]}}).to_string();
    aws.create("prod/alice", &text(&builder.grant("cli"))).await;
    let rig = with_alice(builder, "aws:prod/alice#token").start().await;
    rig.eventually(DATA, 200).await;
    token_fault(&rig, Effect::LoseAnswer);
    login_is_required(&rig).await;
    let held: Value = serde_json::from_str(&aws.text("prod/alice", "AWSCURRENT").await).unwrap();
    let token = held["token"].as_str().unwrap();
    assert!(token.starts_with(&format!("{MARK}dp_rt_")), "{held}");
    assert_eq!(held["note"], json!({"kept": [1, null]}));
    aws.put("prod/alice", &text(&rig.emulator.grant("cli"))).await;
    rig.eventually(DATA, 200).await;
    assert_eq!((rig.emulator.reuses("cli"), rig.emulator.families_revoked("cli")), (0, 0));
    rig.finish().await;
}
