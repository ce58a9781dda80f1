//! The one place that calls are sent to: its addresses, looked up in the background, and the peer
//! that a connection is made to.
//!
//! Peer, SNI and `Host` come from the configuration and from nothing that a caller sent. A failed
//! look-up never takes the addresses away that worked before.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::upstreams::peer::HttpPeer;
use tokio::net::lookup_host;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::clock;
use crate::config::model::{Http2, Origin, Upstream};
use crate::identity::{ClientIdentity, Identity};
use crate::telemetry::Metrics;

/// How often the name is looked up again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(20);
/// How often at most, whatever calls meet.
const RESOLVE_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// One look-up may take this long.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// While there is another address, one has this long to take a connection (RFC 8305 section 5).
const ALTERNATIVE_AFTER: Duration = Duration::from_millis(250);
/// An address that took no connection is not tried for this long while there is another one.
const ASIDE_FOR: Duration = Duration::from_secs(30);
/// Streams at once on one HTTP/2 connection; pingora's default is 1.
const H2_STREAMS_MAX: usize = 100;

/// The addresses of the upstream's name. This is the write side; [`Addresses`] reads.
#[derive(Debug)]
pub struct Resolver {
    origin: Origin,
    found: watch::Sender<Arc<[SocketAddr]>>,
    doubted: Arc<Notify>,
    metrics: Metrics,
}

/// The read side of [`Resolver`].
#[derive(Debug, Clone)]
pub struct Addresses {
    found: watch::Receiver<Arc<[SocketAddr]>>,
    next: Arc<AtomicUsize>,
    /// Those that took no connection, and until when they are left alone.
    aside: Arc<Mutex<Vec<(SocketAddr, Instant)>>>,
    /// Tells the resolver that an address may not be right any more.
    doubted: Arc<Notify>,
}

/// Where an attempt connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub address: SocketAddr,
    /// Whether another one may do if this one does not.
    pub has_alternative: bool,
}

/// The one place that calls are sent to, as each attempt needs it.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Where it is.
    pub addresses: Addresses,
    /// Its `Host`.
    pub authority: HeaderValue,
    /// Who we are there.
    pub identity: ClientIdentity,
}

/// A resolver and the handle that reads what it finds.
#[must_use]
pub fn resolver(origin: Origin, metrics: Metrics) -> (Resolver, Addresses) {
    let (found, receiver) = watch::channel(Arc::from([]));
    let doubted = Arc::new(Notify::new());
    let addresses = Addresses {
        found: receiver,
        next: Arc::default(),
        aside: Arc::default(),
        doubted: Arc::clone(&doubted),
    };
    (Resolver { origin, found, doubted, metrics }, addresses)
}

impl Resolver {
    /// Looks the name up until nobody reads the result any more.
    pub async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), RESOLVE_INTERVAL);
        loop {
            let wait = match self.look_up().await {
                Ok(addresses) => {
                    if backoff.failures() > 0 {
                        tracing::info!(
                            host = self.origin.host,
                            "the upstream's name resolves again"
                        );
                    }
                    backoff.reset();
                    self.publish(addresses);
                    RESOLVE_INTERVAL
                }
                Err(cause) => {
                    self.metrics.resolve_failures.inc();
                    if backoff.failures() == 0 {
                        tracing::warn!(
                            host = self.origin.host,
                            cause,
                            "the upstream's name cannot be looked up; known addresses stay in use"
                        );
                    }
                    backoff.next_wait()
                }
            };
            tokio::select! {
                () = self.pause(wait) => {}
                () = self.found.closed() => return,
            }
        }
    }

    /// Waits, for less long once an address is in doubt.
    async fn pause(&self, wait: Duration) {
        let least = wait.min(RESOLVE_INTERVAL_MIN);
        tokio::time::sleep(least).await;
        // Nobody doubted it in time.
        drop(tokio::time::timeout(wait - least, self.doubted.notified()).await);
    }

    async fn look_up(&self) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = self.origin.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, self.origin.port)]);
        }
        let lookup = lookup_host((self.origin.host.as_str(), self.origin.port));
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, lookup).await;
        let found = found.map_err(|_elapsed| "no answer in 5 s".to_owned())?;
        let all: Vec<SocketAddr> = found.map_err(|error| error.to_string())?.collect();
        let usable: Vec<SocketAddr> =
            all.into_iter().filter(|address| !is_metadata_service(address.ip())).collect();
        if usable.is_empty() { Err("it has no usable address".to_owned()) } else { Ok(usable) }
    }

    fn publish(&self, mut addresses: Vec<SocketAddr>) {
        // The order of a look-up changes from one to the next; only another set is news.
        addresses.sort_unstable();
        addresses.dedup();
        self.found.send_if_modified(|known| {
            let news = **known != *addresses;
            if news {
                *known = addresses.into();
            }
            news
        });
    }
}

impl Addresses {
    /// The next address in turn, waiting for a first look-up at most until `deadline`. Those that
    /// took no connection lately are passed over, unless it is all of them.
    pub async fn next(&self, deadline: Instant) -> Option<Target> {
        let mut found = self.found.clone();
        let first = found.wait_for(|known| !known.is_empty());
        let known = Arc::clone(&*tokio::time::timeout_at(deadline, first).await.ok()?.ok()?);
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let aside = {
            let mut aside = self.aside.lock();
            let now = Instant::now();
            aside.retain(|(_, until)| now < *until);
            aside.clone()
        };
        let is_aside = |address: &SocketAddr| aside.iter().any(|(one, _)| one == address);
        let good = known.iter().filter(|address| !is_aside(address)).count();
        let turns = known.iter().cycle().skip(turn.checked_rem(known.len())?);
        let address = *turns.take(known.len()).find(|address| good == 0 || !is_aside(address))?;
        Some(Target { address, has_alternative: good > 1 })
    }

    /// It took no connection, and the name may have moved.
    pub fn set_aside(&self, address: SocketAddr) {
        let mut aside = self.aside.lock();
        aside.retain(|(one, _)| *one != address);
        // Bounded: only known addresses are tried, and look-ups give few.
        aside.push((address, Instant::now() + ASIDE_FOR));
        self.doubted.notify_one();
    }

    /// How many addresses are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.found.borrow().len()
    }
}

/// The cloud's metadata services hand out credentials to whoever asks: no name may lead there.
fn is_metadata_service(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets() == [169, 254, 169, 254] || v4.octets() == [169, 254, 170, 2],
        IpAddr::V6(v6) => v6.segments() == [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254],
    }
}

/// The peer for one attempt, every time-out set.
///
/// `remaining` is what the call's deadline leaves: until the head of the answer is there, a read may
/// take that long; between two pieces of a body, `idle_timeout`. pingora has one number for both, so
/// it is the larger one, and the call's own deadline is kept by `connection.rs`.
#[must_use]
pub fn peer(
    upstream: &Upstream,
    target: Target,
    identity: Option<&Identity>,
    remaining: Duration,
) -> HttpPeer {
    let Target { address, has_alternative } = target;
    let origin = &upstream.origin;
    let sni = if origin.tls { origin.host.clone() } else { String::new() };
    let mut peer = HttpPeer::new(address, origin.tls, sni);
    // While the machine slept, the other end forgot its connections; they would swallow a request.
    peer.group_key = u64::try_from(clock::asleep().as_millis()).unwrap_or(u64::MAX);
    if let Some(identity) = identity {
        // Connections that were made with another certificate are not used again: what pingora
        // itself tells them apart by is the serial number.
        peer.client_cert_key = Some(Arc::clone(identity.peer()));
        peer.group_key ^= identity.pool();
    }
    let options = &mut peer.options;
    let connect = upstream.connect_timeout.min(remaining);
    let sooner = if has_alternative { ALTERNATIVE_AFTER } else { connect };
    options.connection_timeout = Some(connect.min(sooner));
    options.total_connection_timeout = Some(connect);
    options.read_timeout = Some(upstream.idle_timeout.max(remaining));
    options.write_timeout = Some(upstream.idle_timeout.min(remaining));
    options.idle_timeout = Some(upstream.idle_timeout);
    options.max_h2_streams = H2_STREAMS_MAX;
    match upstream.http2 {
        Http2::Auto if origin.tls => options.set_http_version(2, 1),
        Http2::Auto | Http2::Never => options.set_http_version(1, 1),
        Http2::Only => options.set_http_version(2, 2),
    }
    peer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(host: &str) -> Origin {
        Origin { tls: false, host: host.to_owned(), port: 80 }
    }

    #[tokio::test]
    async fn addresses_are_used_in_turn_and_a_failed_look_up_keeps_them() {
        let (resolver, addresses) = resolver(origin("127.0.0.1"), Metrics::new().unwrap());
        let soon = Instant::now() + Duration::from_secs(2);
        let (one, two): (SocketAddr, SocketAddr) =
            ("10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        resolver.publish(vec![two, one, two]);
        assert_eq!(addresses.count(), 2);
        for want in [one, two, one] {
            let target = Target { address: want, has_alternative: true };
            assert_eq!(addresses.next(soon).await, Some(target));
        }
        let failing = Resolver { origin: origin("no such host"), ..resolver };
        assert!(failing.look_up().await.is_err());
        assert_eq!(addresses.count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_took_no_connection_is_left_alone_while_there_is_another() {
        let (resolver, addresses) = resolver(origin("127.0.0.1"), Metrics::new().unwrap());
        let all: Vec<SocketAddr> =
            (1..=3).map(|last| SocketAddr::from(([10, 0, 0, last], 80))).collect();
        resolver.publish(all.clone());
        let soon = || Instant::now() + Duration::from_secs(2);
        let turns = async |count: usize| {
            let mut seen = Vec::new();
            for _ in 0..count {
                let target = addresses.next(soon()).await.unwrap();
                seen.push((target.address, target.has_alternative));
            }
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        addresses.set_aside(all[0]);
        assert_eq!(turns(6).await, [(all[1], true), (all[2], true)]);
        addresses.set_aside(all[1]);
        assert_eq!(turns(6).await, [(all[2], false)], "the last one has all the time it needs");
        addresses.set_aside(all[2]);
        assert_eq!(turns(6).await, all.iter().map(|one| (*one, false)).collect::<Vec<_>>());
        tokio::time::advance(ASIDE_FOR).await;
        assert_eq!(turns(6).await, all.iter().map(|one| (*one, true)).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_for_the_first_look_up_until_its_deadline() {
        let (resolver, addresses) = resolver(origin("127.0.0.1"), Metrics::new().unwrap());
        let deadline = Instant::now() + Duration::from_secs(1);
        assert_eq!(addresses.next(deadline).await, None);
        assert!(Instant::now() >= deadline);
        let found = resolver.look_up().await.unwrap();
        resolver.publish(found);
        let soon = Instant::now() + Duration::from_secs(1);
        let address = "127.0.0.1:80".parse().unwrap();
        let want = Target { address, has_alternative: false };
        assert_eq!(addresses.next(soon).await, Some(want));
    }

    #[test]
    fn the_metadata_services_are_no_upstream() {
        for ip in ["169.254.169.254", "169.254.170.2", "fd00:ec2::254"] {
            assert!(is_metadata_service(ip.parse().unwrap()), "{ip}");
        }
        assert!(!is_metadata_service("10.0.0.1".parse().unwrap()));
    }
}
