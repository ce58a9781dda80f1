//! Promise: what the machine lacks or does to the process costs as little as it can.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Callers, PATIENCE, Rig};

#[tokio::test]
async fn signals_that_ask_for_nothing_do_no_harm_and_quit_ends_at_once() {
    let mut rig = Rig::start().await;
    for (signal, told) in [("USR1", true), ("USR2", true), ("PIPE", false)] {
        rig.sidecar.signal(signal).await;
        if told {
            rig.log(&format!("\"signal\":\"SIG{signal}\"")).await;
        }
        assert_eq!(rig.get("/v1/datasets").await.status(), 200, "after {signal}");
    }
    rig.emulator.delay_api(Duration::from_secs(3600));
    let (client, url) = (rig.client.clone(), rig.url("/v1/datasets"));
    let hanging = client.get(&url).send();
    let ending = async {
        rig.emulator.in_flight(1).await;
        rig.sidecar.signal("QUIT").await;
        rig.sidecar.ended().await
    };
    let (cut, status) = tokio::join!(hanging, ending);
    assert!(cut.is_err());
    assert_eq!((status.code(), status.core_dumped()), (Some(0), false));
}

#[tokio::test]
async fn lines_that_cannot_be_written_are_counted_and_cost_no_call() {
    let dropped = r#"log_lines_dropped_total{stream="audit"}"#;
    for (shell, is_counted) in
        [("exec >/dev/full", true), ("exec >&-; export TMPDIR=/nonexistent; cd /", false)]
    {
        let rig = Rig::builder().await.shell(shell).start().await;
        for _ in 0..20 {
            assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{shell}");
        }
        if is_counted {
            rig.until(async || rig.series(dropped).await >= 1.0).await;
        }
        assert_eq!(rig.sidecar.stdout.lines().len(), 0);
        rig.finish().await;
    }
}

#[tokio::test]
async fn too_few_files_for_all_connections_is_a_503_and_probes_are_answered() {
    let rig = Rig::builder().await.shell("ulimit -n 256").start().await;
    rig.log("leaves room for fewer connections").await;
    let most = (256 - 160) / 2;
    let open = join_all((0..most).map(|_| TcpStream::connect(rig.address))).await;
    rig.metric(&format!("datapulse_sidecar_connections {most}")).await;
    let mut more = TcpStream::connect(rig.address).await.unwrap();
    let mut refused = String::new();
    timeout(PATIENCE, more.read_to_string(&mut refused)).await.unwrap().unwrap();
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("too_many_connections"), "{refused}");
    assert_eq!(rig.health("/livez").await.0, 200);
    assert!(rig.status(&[]).await.contains("ready"));
    assert_eq!(rig.series(r#"rejected_total{code="too_many_connections"}"#).await, 1.0);
    drop(open);
    rig.metric("datapulse_sidecar_connections 0").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_scrapes_and_readers_that_never_read_cost_no_call() {
    let rig = Rig::builder().await.log_level("info").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(rig.ask_health_and_read_nothing("/metrics").await);
    }
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..150 {
        tick.tick().await;
        assert_eq!(rig.health("/metrics").await.0, 200);
    }
    assert_eq!(rig.health("/livez").await.0, 200);
    assert_eq!(callers.stop().await.1, 0);
    rig.finish().await;
}
