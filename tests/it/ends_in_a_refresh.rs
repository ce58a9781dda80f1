//! Promise: a command that is told to end while a refresh token is being spent waits for its successor,
//! and writes it.

use std::path::PathBuf;

use datapulse_sidecar::emulator::{Effect, Fault, Scope};

use crate::refresh_tokens::{LIFE, check_online, content, with_a_file};
use crate::support::{Process, Rig, Stage};

/// With Alice's first refresh token in a file, and what goes wrong with the next answer.
async fn stage(effect: Effect) -> (Stage, PathBuf, String) {
    let (builder, file) = with_a_file(Rig::builder().await.token_life(LIFE));
    let stage = builder.fault(Fault::times(Scope::Token, effect, 1)).stage();
    let first = content(&file);
    (stage, file, first)
}

/// The grant is as good as before.
async fn goes_on(stage: &Stage) {
    assert_eq!(check_online(&stage.config).ended().await.code(), Some(0));
    assert_eq!((stage.emulator.reuses("cli"), stage.emulator.families_revoked("cli")), (0, 0));
}

#[tokio::test]
async fn a_check_that_is_told_to_end_writes_the_token_that_is_on_its_way() {
    for signal in ["INT", "TERM"] {
        let (stage, file, first) = stage(Effect::LateAnswerMs(60_000)).await;
        let mut check = check_online(&stage.config);
        stage.emulator.refreshed("cli", 1).await;
        assert_eq!(content(&file), first, "its answer is on its way");
        check.signal(signal).await;
        stage.emulator.heal();
        assert_eq!(check.ended().await.code(), Some(0), "{:?}", check.stderr.lines());
        assert_ne!(content(&file), first, "{signal}");
        goes_on(&stage).await;
    }
}

#[tokio::test]
async fn a_check_whose_answer_is_lost_leaves_the_mark() {
    let (stage, file, first) = stage(Effect::LoseAnswer).await;
    assert_eq!(check_online(&stage.config).ended().await.code(), Some(1));
    assert_eq!(content(&file), format!("datapulse-sidecar-answer-lost:{first}"));
    assert_eq!(check_online(&stage.config).ended().await.code(), Some(1));
    assert_eq!((stage.emulator.refreshes("cli"), stage.emulator.reuses("cli")), (1, 0));
}

#[tokio::test]
async fn exec_that_is_told_to_end_before_its_program_begins_writes_the_token_that_is_on_its_way() {
    // Required: the program waits for it.
    let (stage, file, first) = stage(Effect::LateAnswerMs(5000)).await;
    let text = std::fs::read_to_string(&stage.config).unwrap();
    std::fs::write(&stage.config, text.replace("\"required\":false", "\"required\":true")).unwrap();
    let mut exec = Process::sidecar(&["exec", "--config", &stage.config, "--", "true"]);
    stage.emulator.refreshed("cli", 1).await;
    exec.signal("TERM").await;
    assert_eq!(exec.ended().await.code(), Some(128 + 15), "{:?}", exec.stderr.lines());
    assert_ne!(content(&file), first);
    goes_on(&stage).await;
}

#[tokio::test]
async fn exec_whose_program_ends_in_a_refresh_writes_the_token_that_is_on_its_way() {
    let (stage, file, _) = stage(Effect::LatencyMs(0)).await;
    let end = file.with_file_name("end");
    let waits = format!("until [ -e '{}' ]; do sleep 0.05; done", end.display());
    let config = stage.config.as_str();
    let mut exec = Process::sidecar(&["exec", "--config", config, "--", "bash", "-c", &waits]);
    stage.emulator.refreshed("cli", 1).await;
    stage.emulator.fault(Fault::times(Scope::Token, Effect::LateAnswerMs(5000), 1));
    let taken = stage.emulator.refreshes("cli");
    stage.emulator.refreshed("cli", taken + 1).await;
    let before = content(&file);
    std::fs::write(&end, "").unwrap();
    assert_eq!(exec.ended().await.code(), Some(0), "{:?}", exec.stderr.lines());
    assert_ne!(content(&file), before);
    goes_on(&stage).await;
}
