//! The whole sidecar in one process, for what cannot be had from outside: a bug.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Ended, Ports, Shutdown, Sidecar};
use crate::config;
use crate::emulator::{Emulator, Key, Settings};
use crate::telemetry::{Metrics, logging};

const PATIENCE: Duration = Duration::from_secs(60);

async fn call(address: SocketAddr, header: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is closed"));
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_panic_in_a_filter_closes_its_connection_and_harms_nothing_else() {
    crate::tls::install_provider();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "dp_live_panic").unwrap();
    let key = Key {
        name: "reader".to_owned(),
        key: "dp_live_panic".to_owned(),
        level: config::model::Level::ReadOnly,
    };
    let settings = Settings { keys: vec![key], ..Settings::default() };
    let emulator = Emulator::bind((Ipv4Addr::LOCALHOST, 0).into(), settings).await.unwrap();
    let text = format!(
        "version: 1\nlisteners: [{{listen: 'localhost:0'}}]\n\
         upstream: {{base_url: 'http://{}', allow_plaintext: true}}\n\
         quotas: {{one: {{limit: 10000/min}}}}\ncredentials: [{{name: reader, level: read_only, \
         quota: one, api_key: 'file:{}'}}]\n",
        emulator.address(),
        file.display()
    );
    let (config, _) = config::parse(&text, "test", &|_| None).unwrap();
    let metrics = Metrics::new().unwrap();
    let sidecar = Sidecar::bind(config, metrics.clone(), Ports::ProxyOnly).await.unwrap();
    let address = sidecar.addresses()[0].1;
    let started = sidecar.started();
    let (step, shutdown) = watch::channel(Shutdown::No);
    let (_serving, stop) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        emulator.run(stop).await;
        Ended::Clean
    });
    tasks.spawn(sidecar.run(shutdown));
    started.await;
    let hook = panic::take_hook();
    logging::count_panics(metrics.clone());
    let broken = call(address, "X-Panic: 1\r\n").await;
    panic::set_hook(hook);
    assert_eq!(broken, "", "closed without an answer");
    assert!(metrics.panics.get() >= 1);
    for _ in 0..3 {
        let answer = call(address, "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    step.send_replace(Shutdown::Drain);
    // Draining waits for each call to be over: one that was never given back would hold it up.
    let ended = timeout(PATIENCE, tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(ended, Ended::Clean);
    assert_eq!((metrics.in_flight.get(), metrics.connections.get()), (0, 0));
    assert_eq!(metrics.queue_depth.with_label_values(&["one"]).get(), 0);
}
