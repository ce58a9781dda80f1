//! Promise: a pod with the sidecar just works: the app starts when it can call, calls without a
//! credential, and a Job ends.

use serde_json::{Value, json};

use crate::support::tools::{comes_true, free_address};
use crate::support::{Authority, CANARY, OpenBao, Pod, Process, Release, Rig, Stage};
use crate::vault::POLICY;

/// Calls once and prints the status.
const CALL: &str = "import os, urllib.request, urllib.error\n\
    try: print(urllib.request.urlopen(os.environ['DATAPULSE_BASE_URL'] + '/v1/datasets').status)\n\
    except urllib.error.HTTPError as e: print(e.code, e.headers['x-datapulse-sidecar-error'])";

/// The values of a chart that embeds the sidecar, for the emulator of a stage.
fn values(stage: &Stage) -> Value {
    let base = stage.emulator.url();
    json!({"sidecar": {
        "share": "1/2",
        "vault": {"address": ""},
        "ports": {"proxy": free_port(), "health": free_port()},
        "config": {
            "upstream": {"base_url": base, "allow_plaintext": true},
            "auth": {"token_url": format!("{base}/oauth/token")},
            "credentials": [{"name": "reader", "level": "read_only", "quota": "business",
                             "api_key": "file:/var/run/datapulse-key/key"}],
            "admin": {"listen": "127.0.0.1:0"},
        },
        "extraVolumes": [{"name": "datapulse-sidecar-key", "secret": {"secretName": "datapulse"}}],
        "extraVolumeMounts": [{"name": "datapulse-sidecar-key",
                               "mountPath": "/var/run/datapulse-key", "readOnly": true}],
    }})
}

pub(crate) fn free_port() -> u16 {
    free_address().port()
}

fn key() -> String {
    format!("dp_live_{CANARY}_reader")
}

#[tokio::test]
async fn a_job_calls_without_a_credential_and_ends() {
    let stage = Rig::builder().await.stage();
    let release = Release::of_example(&values(&stage)).await;
    let mut job = Pod::new(&release, "Job", &[("datapulse", &[("key", &key())])]);
    job.start_sidecar();
    job.startup().await;
    let (code, said) = job.app(CALL).await;
    assert_eq!((code, said.as_str()), (Some(0), "200"));
    assert_eq!(stage.emulator.anonymous(), 0);
    assert_eq!(job.terminate().await, Some(0), "the Job would have failed");
}

#[tokio::test]
async fn the_app_starts_only_once_it_can_call() {
    let stage = Rig::builder().await.stage();
    let release = Release::of_example(&values(&stage)).await;
    let mut pod = Pod::new(&release, "Deployment", &[]);
    pod.start_sidecar();
    let sidecar = pod.sidecar.as_ref().expect("started");
    sidecar.stderr.line(|line| line.contains("apps can call")).await;
    assert_eq!(pod.health("/startupz").await, Some(503), "the secret is not there yet");
    assert_eq!(pod.health("/livez").await, Some(200), "nothing to restart for");
    for url in [pod.health_url("/startupz"), format!("http://127.0.0.1:{}/readyz", free_port())] {
        let mut asking = Process::sidecar(&["check", "--url", &url]);
        assert_eq!(asking.ended().await.code(), Some(1), "{url}");
        assert!(asking.stderr.lines().join("\n").contains(&url));
    }
    pod.publish("datapulse-sidecar-key", &[("key", &key())]);
    pod.startup().await;
    assert_eq!(pod.app(CALL).await, (Some(0), "200".to_owned()));
    assert_eq!(pod.terminate().await, Some(0));
}

#[tokio::test]
async fn without_its_secret_the_app_starts_after_the_time_out_and_is_told_why() {
    let stage = Rig::builder().await.stage();
    let mut values = values(&stage);
    values["sidecar"]["config"]["startup_timeout"] = "1s".into();
    let release = Release::of_example(&values).await;
    let mut pod = Pod::new(&release, "Deployment", &[]);
    pod.start_sidecar();
    let failures = pod.startup().await;
    assert!(failures > 0);
    let (_, said) = pod.app(CALL).await;
    assert_eq!(said, "503 credential_unavailable");
    assert_eq!(pod.terminate().await, Some(0));
}

#[tokio::test]
async fn a_changed_config_map_takes_effect_and_a_lost_secret_flips_nothing() {
    let stage = Rig::builder().await.stage();
    let mut values = values(&stage);
    let release = Release::of_example(&values).await;
    let mut pod = Pod::new(&release, "Deployment", &[("datapulse", &[("key", &key())])]);
    pod.start_sidecar();
    pod.startup().await;
    assert_eq!(pod.app(CALL).await.1, "200");

    values["sidecar"]["config"]["policy"] =
        json!([{"methods": ["ANY"], "path": "/v1/datasets/**", "deny": true}]);
    pod.reconfigure(&Release::of_example(&values).await);
    let sidecar = pod.sidecar.as_ref().expect("it runs");
    sidecar.stderr.line(|line| line.contains("the configuration was reloaded")).await;
    assert_eq!(pod.app(CALL).await.1, "403 denied_by_policy");

    pod.reconfigure(&release);
    let in_force = |lines: &[String]| {
        let told = |line: &&String| line.contains("the configuration was reloaded");
        lines.iter().filter(told).count() >= 2
    };
    pod.sidecar.as_ref().expect("it runs").stderr.until(in_force).await;
    // The store of the key is gone: what was read before goes on working.
    pod.publish("datapulse-sidecar-key", &[]);
    for path in ["/livez", "/startupz", "/readyz"] {
        assert_eq!(pod.health(path).await, Some(200), "{path}");
    }
    // As `helm test` and exec probes ask.
    let url = pod.health_url("/readyz");
    assert_eq!(Process::sidecar(&["check", "--url", &url]).ended().await.code(), Some(0));
    assert_eq!(pod.app(CALL).await.1, "200");
    assert_eq!(pod.terminate().await, Some(0));
}

#[tokio::test]
async fn a_sidecar_that_crashes_is_started_again() {
    let stage = Rig::builder().await.stage();
    let release = Release::of_example(&values(&stage)).await;
    let mut pod = Pod::new(&release, "Deployment", &[("datapulse", &[("key", &key())])]);
    pod.start_sidecar();
    pod.startup().await;
    pod.crash().await;
    pod.startup().await;
    assert_eq!(pod.app(CALL).await.1, "200");
    assert_eq!(pod.terminate().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_vault_flips_nothing() {
    let stage = Rig::builder().await.stage();
    let authority = Authority::new();
    let bao = OpenBao::sealable(&authority).await;
    bao.put("datapulse/reader", &json!({"api_key": key()})).await;
    bao.policy("datapulse", POLICY).await;
    let token = bao.token("datapulse", "1h").await;
    let mut values = values(&stage);
    let sidecar = &mut values["sidecar"];
    sidecar["vault"] = json!({
        "address": bao.url(), "caBundle": {"configMap": "vault-ca"},
        "auth": {"method": "token", "token": {"existingSecret": "vault-token"}},
    });
    sidecar["config"]["stores"] = json!({"vault": {"poll": "1s"}});
    sidecar["config"]["credentials"][0]["api_key"] = "vault:secret/datapulse/reader#api_key".into();
    let release = Release::of_example(&values).await;
    let mut pod = Pod::new(&release, "Deployment", &[("vault-token", &[("token", &token)])]);
    let ca = std::fs::read_to_string(authority.write(stage.dir.path())).expect("readable");
    pod.publish("datapulse-sidecar-vault-ca", &[("ca.crt", &ca)]);
    pod.start_sidecar();
    pod.startup().await;
    assert_eq!(pod.app(CALL).await.1, "200");

    bao.seal().await;
    let down = async || pod.metrics().await.contains("store_up{store=\"vault\"} 0");
    assert!(comes_true(down).await, "the outage is not noticed");
    for path in ["/livez", "/startupz", "/readyz", "/readyz/credentials"] {
        assert_eq!(pod.health(path).await, Some(200), "{path}");
    }
    assert_eq!(pod.app(CALL).await.1, "200");
    assert_eq!(pod.terminate().await, Some(0));
}
