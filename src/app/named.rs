//! What a changed configuration names is opened and read before any of it is in force: one that cannot be
//! used changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::build::StartError;
use super::ca_files::CaFiles;
use super::clients::{authorization_server, delivery_client};
use super::known::Known;
use super::reload::Reloading;
use super::stores::Opened;
use crate::config::Config;

/// What was opened and read, and is not in force yet.
pub(super) struct Named {
    pub(super) known: Known,
    pub(super) delivery_client: reqwest::Client,
    pub(super) stores: Opened,
    /// Where `auth` is another than before, or the authorization server is to be verified with others.
    pub(super) auth_client: Option<reqwest::Client>,
}

impl Named {
    /// Opens what is configured otherwise than before, or verified with others by what its `ca_file`
    /// says now, and reads what can be unusable through the stores of `config`.
    pub(super) async fn read(
        config: &Config,
        before: &Config,
        ca_files: &CaFiles,
        running: &Reloading,
    ) -> Result<Self, StartError> {
        let is_renewed = |path: Option<&Path>| ca_files.differ(&running.trusted.now, path);
        let auth_ca = config.auth.ca_file.as_ref().or(config.upstream.ca_file.as_ref());
        let is_other = config.auth != running.issuers.auth;
        let auth_client = if is_other || is_renewed(auth_ca.map(PathBuf::as_path)) {
            Some(authorization_server(config)?.client)
        } else {
            None
        };
        let opened = Opened::new(&config.stores, &before.stores, is_renewed, &running.metrics)?;
        let stores = Arc::new(running.stores.fork());
        drop(opened.clone().install(&stores));
        let known = Known::read(config, &*stores).await?;
        let delivery_client = delivery_client(config)?;
        let client_cert = config.upstream.client_cert.as_ref();
        running.identity.through(stores).load(client_cert).await?;
        Ok(Self { known, delivery_client, stores: opened, auth_client })
    }
}
