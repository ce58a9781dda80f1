//! Who the sidecar is to AWS: the SDK's own sources of keys, in the SDK's order.
//!
//! Keys are kept until they expire, and renewed before that; a failed renewal takes nothing away.
//! Where keys come from and why none came is told, never a key or a token.

use std::time::{Duration, SystemTime};

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::credentials::EnvironmentVariableCredentialsProvider;
use aws_config::imds;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_secretsmanager::config::Region;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::connector::Connector;
use super::web_identity::WebIdentity;
use crate::clock;

/// For all sources together, until one gives keys.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Keys are renewed this long before they expire. AWS gives out new ones earlier than that.
const RENEWAL_AHEAD: Duration = Duration::from_secs(5 * 60);
/// Keys are not used in this time before they expire: a call is under way meanwhile.
const SKEW: Duration = Duration::from_secs(10);

/// Why there are no keys to sign a call with. The secret itself may be as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum IdentityProblem {
    /// Nothing says who we are: give the pod a service account with a role (IRSA), or a Pod Identity
    /// association; on a laptop set `AWS_PROFILE` or keys.
    #[error(
        "nothing says who this is to AWS: no keys, profile, web identity, Pod Identity or instance role"
    )]
    Missing,
    /// A source is set up wrongly, such as a profile that names itself, or a token file that is not
    /// there: correct it.
    #[error("{source_name} is not set up as it should be")]
    Misconfigured {
        /// Which source.
        source_name: &'static str,
    },
    /// The source does not answer, or says that it cannot now. It is asked again.
    #[error("{source_name} gives no keys now")]
    Unavailable {
        /// Which source.
        source_name: &'static str,
    },
    /// The source says no: check the role's trust policy, and the token's audience and age.
    #[error("{source_name} refuses to give keys")]
    Refused {
        /// Which source.
        source_name: &'static str,
    },
    /// AWS does not take the keys (any more): expired, revoked, or of another account or region.
    #[error("AWS does not take the keys from {source_name}")]
    Rejected {
        /// Which source.
        source_name: &'static str,
    },
    /// No region: set `stores.aws.region`.
    #[error("no region is set; set stores.aws.region")]
    NoRegion,
}

/// Keys, and where they are from.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    pub(super) credentials: Credentials,
    pub(super) source: &'static str,
}

impl Keys {
    /// Whether they are good for longer than this.
    fn outlive(&self, ahead: Duration, now: SystemTime) -> bool {
        self.credentials.expiry().is_none_or(|expiry| expiry > now + ahead)
    }
}

/// Finds keys and keeps them.
#[derive(Debug)]
pub(super) struct Identity {
    sources: Vec<Source>,
    /// Held while keys are looked for, so that many secrets ask once.
    known: Mutex<Option<Keys>>,
}

#[derive(Debug)]
enum Source {
    /// One of the SDK's.
    Sdk(&'static str, SharedCredentialsProvider),
    /// Ours: the SDK's takes its endpoint from the environment.
    WebIdentity(WebIdentity),
}

impl Identity {
    pub(super) fn new(connector: &Connector, region: &Region, sts_endpoint: Option<&str>) -> Self {
        let config = ProviderConfig::without_region()
            .with_region(Some(region.clone()))
            .with_http_client(connector.clone())
            .with_retry_config(RetryConfig::disabled());
        let metadata = imds::Client::builder().configure(&config).max_attempts(1).build();
        let instance = imds::credentials::ImdsCredentialsProvider::builder()
            .configure(&config)
            .imds_client(metadata)
            .build();
        let profile = ProfileFileCredentialsProvider::builder().configure(&config).build();
        let container = EcsCredentialsProvider::builder().configure(&config).build();
        let sdk = |name, provider| Source::Sdk(name, provider);
        let sources = vec![
            sdk(
                "AWS_ACCESS_KEY_ID",
                SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()),
            ),
            sdk("the profile", SharedCredentialsProvider::new(profile)),
            Source::WebIdentity(WebIdentity::new(connector, region, sts_endpoint)),
            sdk("the container's credential endpoint", SharedCredentialsProvider::new(container)),
            sdk("the instance's metadata service", SharedCredentialsProvider::new(instance)),
        ];
        Self { sources, known: Mutex::new(None) }
    }

    /// Without a machine or an environment: keys that these providers give.
    #[cfg(test)]
    pub(super) fn of(providers: Vec<(&'static str, SharedCredentialsProvider)>) -> Self {
        let sources = providers.into_iter().map(|(name, provider)| Source::Sdk(name, provider));
        Self { sources: sources.collect(), known: Mutex::new(None) }
    }

    /// Keys that are good for one more call.
    pub(super) async fn keys(&self) -> Result<Keys, IdentityProblem> {
        let mut known = self.known.lock().await;
        let now = clock::wall();
        if let Some(keys) = known.as_ref().filter(|keys| keys.outlive(RENEWAL_AHEAD, now)) {
            return Ok(keys.clone());
        }
        let found = self.look().await;
        let still_good = known.take().filter(|keys| keys.outlive(SKEW, now));
        match (found, still_good) {
            (Ok(keys), _) => {
                tracing::debug!(source = keys.source, "keys for AWS were obtained");
                Ok(known.insert(keys).clone())
            }
            (Err(problem), Some(keys)) => {
                tracing::warn!(%problem, "the keys for AWS cannot be renewed; they are good for a while");
                Ok(known.insert(keys).clone())
            }
            (Err(problem), None) => Err(problem),
        }
    }

    /// AWS did not take these keys: they are not used again.
    pub(super) async fn reject(&self, rejected: &Keys) {
        let mut known = self.known.lock().await;
        let key_id = |keys: &Keys| keys.credentials.access_key_id().to_owned();
        if known.as_ref().is_some_and(|keys| key_id(keys) == key_id(rejected)) {
            *known = None;
        }
    }

    async fn look(&self) -> Result<Keys, IdentityProblem> {
        let mut asked = "AWS_ACCESS_KEY_ID";
        let looking = async {
            for source in &self.sources {
                asked = source.name();
                if let Some(credentials) = source.credentials().await? {
                    return Ok(Keys { credentials, source: source.name() });
                }
            }
            Err(IdentityProblem::Missing)
        };
        let found = timeout(LOOKUP_MAX, looking).await;
        found.unwrap_or(Err(IdentityProblem::Unavailable { source_name: asked }))
    }
}

impl Source {
    const fn name(&self) -> &'static str {
        match self {
            Self::Sdk(name, _) => name,
            Self::WebIdentity(_) => WebIdentity::NAME,
        }
    }

    /// `None`: this source is not set up here, and the next one is asked.
    async fn credentials(&self) -> Result<Option<Credentials>, IdentityProblem> {
        let (source_name, provider) = match self {
            Self::Sdk(name, provider) => (*name, provider),
            Self::WebIdentity(source) => return source.credentials().await,
        };
        match provider.provide_credentials().await {
            Ok(credentials) => Ok(Some(credentials)),
            Err(CredentialsError::CredentialsNotLoaded(_)) => Ok(None),
            Err(CredentialsError::InvalidConfiguration(_)) => {
                Err(IdentityProblem::Misconfigured { source_name })
            }
            // What the source said stays where it is: it may repeat what it was asked with.
            Err(_) => Err(IdentityProblem::Unavailable { source_name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_credential_types::provider::future;

    use super::*;

    const SECRET: &str = "s3cr3t";

    /// How a source fails.
    type Failure = fn(&'static str) -> CredentialsError;

    /// Gives keys that live for so long, or fails; counts how often it is asked.
    #[derive(Debug, Clone)]
    struct Fake {
        life: Arc<parking_lot::Mutex<Result<Option<Duration>, Failure>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Fake {
        fn new(life: Option<Duration>) -> Self {
            Self { life: Arc::new(parking_lot::Mutex::new(Ok(life))), asked: Arc::default() }
        }

        fn fails(error: Failure) -> Self {
            let fake = Self::new(None);
            *fake.life.lock() = Err(error);
            fake
        }

        fn count(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    impl ProvideCredentials for Fake {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let number = self.asked.fetch_add(1, Ordering::SeqCst);
            future::ProvideCredentials::ready(match *self.life.lock() {
                Ok(life) => {
                    let expiry = life.map(|life| clock::wall() + life);
                    Ok(Credentials::new(format!("AK{number}"), SECRET, None, expiry, "fake"))
                }
                Err(error) => Err(error(SECRET)),
            })
        }
    }

    fn identity(fakes: &[(&'static str, &Fake)]) -> Identity {
        let provider = |fake: &Fake| SharedCredentialsProvider::new(fake.clone());
        Identity::of(fakes.iter().map(|(name, fake)| (*name, provider(fake))).collect())
    }

    fn not_set_up(_secret: &'static str) -> CredentialsError {
        CredentialsError::not_loaded_no_source()
    }

    #[tokio::test]
    async fn the_first_source_that_is_set_up_gives_the_keys_and_is_asked_once() {
        let (absent, key) = (Fake::fails(not_set_up), Fake::new(None));
        let identity = identity(&[("a", &absent), ("b", &key), ("c", &Fake::new(None))]);
        for _ in 0..3 {
            let keys = identity.keys().await.unwrap();
            assert_eq!((keys.source, keys.credentials.access_key_id()), ("b", "AK0"));
        }
        assert_eq!((absent.count(), key.count()), (1, 1));
    }

    #[tokio::test]
    async fn a_source_that_fails_is_named_and_no_other_one_is_asked() {
        for (error, want) in [
            (
                CredentialsError::provider_error as Failure,
                IdentityProblem::Unavailable { source_name: "a" },
            ),
            (CredentialsError::unhandled, IdentityProblem::Unavailable { source_name: "a" }),
            (
                CredentialsError::invalid_configuration,
                IdentityProblem::Misconfigured { source_name: "a" },
            ),
            (not_set_up, IdentityProblem::Missing),
        ] {
            let fails = Fake::fails(error);
            let problem = identity(&[("a", &fails)]).keys().await.unwrap_err();
            assert_eq!(problem, want);
            assert!(!format!("{problem} {problem:?}").contains(SECRET));
        }
    }

    #[tokio::test]
    async fn keys_are_renewed_before_they_end_and_used_to_the_end_while_that_fails() {
        for (life, asked, is_used_while_down) in [(3600, 1, true), (200, 2, true), (5, 2, false)] {
            let fake = Fake::new(Some(Duration::from_secs(life)));
            let identity = identity(&[("a", &fake)]);
            identity.keys().await.unwrap();
            identity.keys().await.unwrap();
            assert_eq!(fake.count(), asked, "{life} s");
            *fake.life.lock() = Err(CredentialsError::provider_error);
            assert_eq!(identity.keys().await.is_ok(), is_used_while_down, "{life} s");
        }
    }

    #[tokio::test]
    async fn rejected_keys_are_looked_for_again_and_newer_ones_stay() {
        let fake = Fake::new(None);
        let identity = identity(&[("a", &fake)]);
        let first = identity.keys().await.unwrap();
        identity.reject(&first).await;
        assert_eq!(identity.keys().await.unwrap().credentials.access_key_id(), "AK1");
        identity.reject(&first).await;
        assert_eq!(identity.keys().await.unwrap().credentials.access_key_id(), "AK1");
        assert!(!format!("{identity:?} {first:?}").contains(SECRET));
    }
}
