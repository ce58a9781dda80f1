//! Promise: a credential that a reload changes goes on with the newest token, also where that could not
//! be written yet, and one task alone writes it.

use crate::refresh_tokens::{
    DATA, UNPERSISTED, alice, is_kept, login_is_required, where_nothing_is_kept, with_client,
};
use crate::support::{Callers, Rig};

/// Alice's credential, with other scopes.
fn changed(scopes: &str) -> String {
    alice("client_id: cli", "vault:secret/alice#refresh_token", scopes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_credential_goes_on_with_a_token_that_could_not_be_written_yet() {
    let (bao, gate, mut rig) = where_nothing_is_kept().await;
    rig.metric(&format!("{UNPERSISTED} 1")).await;
    let callers = Callers::start(&rig, DATA);
    // Changed, changed again, taken out, and there again.
    for scopes in ["'analytics:read', 'pipelines:write'", "'analytics:read'"] {
        let refreshed = rig.emulator.refreshes("cli");
        rig.reconfigure(&changed(scopes));
        rig.emulator.refreshed("cli", refreshed + 3).await;
        rig.metric(&format!("{UNPERSISTED} 1")).await;
    }
    assert_eq!(callers.stop().await.1, 0, "no call failed");
    rig.reconfigure(
        "credentials: [{name: bob, level: read_only, required: false, api_key: 'file:/nowhere'}]\n",
    );
    rig.eventually(DATA, 503).await;
    rig.reconfigure(&changed("'analytics:read'"));
    rig.eventually(DATA, 200).await;
    gate.open();
    rig.metric(&format!("{UNPERSISTED} 0")).await;
    is_kept(&mut rig, &bao).await;
    rig.finish().await;
}

/// The issuer refuses a token that comes from another client, and does not use it up.
#[tokio::test]
async fn a_client_that_a_reload_corrects_needs_no_login() {
    let builder = Rig::builder().await;
    std::fs::write(builder.dir().join("alice"), builder.grant("cli")).unwrap();
    let builder = with_client(
        builder,
        "client_id: etl, client_secret: 'file:${DIR}/etl'",
        "file:${DIR}/alice",
    );
    let mut rig = builder.start().await;
    login_is_required(&rig).await;
    assert_eq!(rig.emulator.refreshes("cli"), 0);
    let token = format!("file:{}", rig.dir().join("alice").display());
    rig.reconfigure(&alice("client_id: cli", &token, "'analytics:read'"));
    rig.eventually(DATA, 200).await;
    assert_eq!((rig.emulator.refreshes("cli"), rig.emulator.families_revoked("cli")), (1, 0));
    rig.finish().await;
}

/// The end does not come before the reload's: what that took over is not in force yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_a_reload_under_way_took_over_is_not_lost_without_a_word() {
    let (_bao, _gate, mut rig) = where_nothing_is_kept().await;
    rig.metric(&format!("{UNPERSISTED} 1")).await;
    // A key that is not there is waited for.
    let bob = ", {name: bob, level: read_only, required: false, api_key: 'file:/nowhere'}]\n";
    rig.reconfigure(
        &changed("'analytics:read', 'pipelines:write'").replace("}}]\n", &format!("}}}}{bob}")),
    );
    rig.log("\"bob\"").await;
    let refreshed = rig.emulator.refreshes("cli");
    rig.emulator.refreshed("cli", refreshed + 2).await;
    rig.sidecar.signal("TERM").await;
    rig.log("a renewed secret could not be written back and is lost").await;
    assert_eq!(rig.sidecar.ended().await.code(), Some(0));
}
