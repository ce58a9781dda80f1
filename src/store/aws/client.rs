//! The three operations that are used, on the sidecar's own HTTP client.

use std::error::Error;
use std::sync::Arc;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::ProvideRegion as _;
use aws_config::profile::ProfileFileRegionProvider;
use aws_sdk_secretsmanager::config::http::HttpResponse;
use aws_sdk_secretsmanager::config::retry::RetryConfig;
use aws_sdk_secretsmanager::config::timeout::TimeoutConfig;
use aws_sdk_secretsmanager::config::{
    BehaviorVersion, Config, IdentityCache, Region, StalledStreamProtectionConfig,
};
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::OnceCell;
use url::Url;

use super::claim::Versions;
use super::connector::Connector;
use super::identity::{Identity, IdentityProblem};
use super::problem::Problem;
use crate::config::model;
use crate::secret::{AwsStage, SecretValue, region_of};
use crate::store::env;
use crate::tls::{self, Roots, TlsError};

/// AWS Secrets Manager, with the keys that open it.
#[derive(Debug)]
pub(super) struct Client {
    region: Option<String>,
    endpoint: Option<Url>,
    sts_endpoint: Option<Url>,
    connector: Connector,
    reach: OnceCell<Reach>,
}

/// What depends on the region, which a profile may have to tell.
#[derive(Debug)]
struct Reach {
    config: Config,
    identity: Identity,
}

impl Client {
    pub(super) fn new(spec: &model::AwsStore) -> Result<Self, TlsError> {
        let http = tls::http_client(&Roots::load(spec.ca_file.as_deref())?)?;
        let configured = [&spec.endpoint, &spec.sts_endpoint].into_iter().flatten();
        let configured: Vec<_> = configured.map(Url::origin).collect();
        let mut shunned = env::urls("AWS_ENDPOINT_URL");
        shunned.retain(|url| !configured.contains(&url.origin()));
        Ok(Self {
            region: spec.region.clone(),
            endpoint: spec.endpoint.clone(),
            sts_endpoint: spec.sts_endpoint.clone(),
            connector: Connector::new(http, shunned),
            reach: OnceCell::new(),
        })
    }

    /// What has the stage now, whole, and the name of its version.
    pub(super) async fn get(
        &self,
        id: &str,
        stage: AwsStage,
    ) -> Result<(SecretValue, Arc<str>), Problem> {
        let found = self
            .call(id, |aws| {
                // Without a stage, AWS and what stands in for it do not always agree.
                aws.get_secret_value().secret_id(id).version_stage(stage.as_str()).send()
            })
            .await?;
        let text = match (found.secret_string, found.secret_binary) {
            (Some(text), _) => SecretValue::new(text.into_bytes()),
            (None, Some(_)) => return Err(Problem::Binary),
            (None, None) => return Err(Problem::Unexpected),
        };
        let version = found.version_id.ok_or(Problem::Unexpected)?;
        Ok((text, version.into()))
    }

    /// Which versions there are.
    pub(super) async fn describe(&self, id: &str) -> Result<Versions, Problem> {
        let described = self.call(id, |aws| aws.describe_secret().secret_id(id).send()).await?;
        match described.deleted_date {
            // It is described for as long as it can be restored; its value is not given out.
            Some(_) => Err(Problem::Deleted),
            None => Ok(Versions::new(described)),
        }
    }

    /// Makes a version of this name, once: the current one, unless it is to have another stage.
    pub(super) async fn put(
        &self,
        id: &str,
        name: &str,
        text: &SecretValue,
        stage: Option<&str>,
    ) -> Result<(), Problem> {
        let text = text.expose_str().ok_or(Problem::Binary)?;
        self.call(id, |aws| {
            let put = aws.put_secret_value().secret_id(id).client_request_token(name);
            let stages = stage.map(|stage| vec![stage.to_owned()]);
            put.secret_string(text).set_version_stages(stages).send()
        })
        .await?;
        Ok(())
    }

    /// One operation on a secret with keys that are good; where AWS does not take them, once more with
    /// new ones.
    async fn call<T, E, F>(
        &self,
        id: &str,
        operation: impl Fn(aws_sdk_secretsmanager::Client) -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let reach = self.reach.get_or_try_init(|| self.reach()).await.map_err(Problem::Identity)?;
        if let (Some(there), Some(asked)) = (region_of(id), reach.config.region())
            && there != asked.as_ref()
        {
            return Err(Problem::OtherRegion);
        }
        let mut are_new = false;
        loop {
            let keys = reach.identity.keys().await.map_err(Problem::Identity)?;
            let config = reach.config.to_builder().credentials_provider(keys.credentials.clone());
            let done = operation(aws_sdk_secretsmanager::Client::from_conf(config.build())).await;
            match done.map_err(|error| Problem::of(error, keys.source)) {
                Err(Problem::Identity(_)) if !are_new => reach.identity.reject(&keys).await,
                done => return done,
            }
            are_new = true;
        }
    }

    /// As [`Self::new`], with this identity in place of the environment's.
    #[cfg(test)]
    pub(super) fn with_identity(spec: &model::AwsStore, identity: Identity) -> Self {
        let mut client = Self::new(spec).unwrap();
        let region = Region::new("eu-west-1");
        client.reach = OnceCell::new_with(Some(client.reach_in(&region, identity)));
        client
    }

    async fn reach(&self) -> Result<Reach, IdentityProblem> {
        let region = match &self.region {
            Some(region) => Some(Region::new(region.clone())),
            None => match EnvironmentVariableRegionProvider::new().region().await {
                Some(region) => Some(region),
                None => ProfileFileRegionProvider::new().region().await,
            },
        };
        let region = region.ok_or(IdentityProblem::NoRegion)?;
        let sts_endpoint = self.sts_endpoint.as_ref().map(Url::as_str);
        let identity = Identity::new(&self.connector, &region, sts_endpoint);
        Ok(self.reach_in(&region, identity))
    }

    fn reach_in(&self, region: &Region, identity: Identity) -> Reach {
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(region.clone())
            .http_client(self.connector.clone())
            .retry_config(RetryConfig::disabled())
            // The HTTP client's own are shorter than any of the SDK's.
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .identity_cache(IdentityCache::no_cache());
        config.set_endpoint_url(self.endpoint.as_ref().map(|url| url.as_str().to_owned()));
        Reach { config: config.build(), identity }
    }
}
