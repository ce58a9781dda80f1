//! Programs that the tests need from outside, which `tools/setup.sh` puts into `target/tools`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::PATIENCE;

/// Where one of them is.
pub(crate) fn tool(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(path);
    assert!(path.exists(), "{} is not there: run `make test`, which installs it", path.display());
    path
}

/// A command for one of them, with an environment that says nothing: variables of a developer's
/// shell would lead it elsewhere.
pub(crate) fn command(path: &str, home: &Path) -> Command {
    let mut command = Command::new(tool(path));
    let search = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", search).env("HOME", home).current_dir(home);
    command
}

/// An address that nobody listens on, for a server that cannot choose one by itself. It is not one
/// of those that the kernel gives away (32768 and up), and no other test is given it: between now
/// and the server's start nobody takes it. Nor the port after it, which OpenBao in memory listens on
/// too, without being told to.
pub(crate) fn free_address() -> SocketAddr {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 6_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Two test processes at once seldom begin near each other.
    let beginning = std::process::id().wrapping_mul(61);
    let next = || beginning.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let mut addresses = std::iter::repeat_with(next).take(COUNT as usize).map(|offset| {
        let port = u16::try_from(FIRST + 2 * offset).expect("below 32768");
        [port, port + 1].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    });
    let is_free = |address: &SocketAddr| std::net::TcpListener::bind(address).is_ok();
    addresses.find(|pair| pair.iter().all(is_free)).expect("a free port")[0]
}

/// A client for a test's own calls to a server.
pub(crate) fn client(roots: Vec<reqwest::Certificate>) -> reqwest::Client {
    datapulse_sidecar::tls::install_provider();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only(roots);
    client.timeout(PATIENCE).build().expect("a client")
}

/// Asks a foreign program again and again until it says what is wanted; whether it ever did.
pub(crate) async fn comes_true(ask: impl AsyncFn() -> bool) -> bool {
    let asking = async {
        while !ask().await {
            // tidy: passes time because the program tells nothing by itself.
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE * 2, asking).await.is_ok()
}
