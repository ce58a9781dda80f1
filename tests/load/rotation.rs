//! Promise: two sidecars share a refresh token that is good once for as long as they run, over a real
//! OpenBao, without a failed call.

use std::time::Duration;

use serde_json::json;

use crate::support::{Callers, OpenBao, Rig};

const DATA: &str = "/v1/datasets";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sidecars_share_a_token_in_vault_for_thirty_expiries() {
    let bao = OpenBao::dev().await;
    bao.policy("writer", r#"path "secret/data/*" { capabilities = ["read", "update"] }"#).await;
    let builder = Rig::builder().await.token_life(Duration::from_secs(2)).log_level("info");
    bao.put("alice", &json!({"refresh_token": builder.grant("cli"), "other": 1})).await;
    std::fs::write(builder.dir().join("vault"), bao.token("writer", "1h").await).unwrap();
    let yaml = format!(
        "credentials: [{{name: alice, level: read_only, refresh_token: {{client_id: cli, \
         token: 'vault:secret/alice#refresh_token', scopes: ['analytics:read']}}}}]\n\
         stores: {{vault: {{address: '{}', poll: 1s, \
         auth: {{method: token, token: 'file:${{DIR}}/vault'}}}}}}\n",
        bao.url()
    );
    let rig = builder.config_in_dir(&yaml).start().await;
    let (ours, theirs) = (Callers::start(&rig, DATA), rig.twin(DATA).await);
    // Thirty of each: in steps, because each is waited for only so long.
    for expiries in (10..=60).step_by(10) {
        rig.emulator.refreshed("cli", expiries).await;
    }
    let ((made, failed), (theirs_made, theirs_failed)) = (ours.stop().await, theirs.stop().await);
    let (refreshes, reuses) = (rig.emulator.refreshes("cli"), rig.emulator.reuses("cli"));
    println!("{made} and {theirs_made} calls, {refreshes} refresh tokens, {reuses} sent twice");
    assert_eq!((failed, theirs_failed, reuses), (0, 0, 0));
    assert_eq!(rig.emulator.families_revoked("cli"), 0);
    assert_eq!(bao.get("secret/data/alice").await["data"]["other"], json!(1));
    rig.finish().await;
}
