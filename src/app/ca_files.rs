//! The files of `ca_file` keys: what each held when it was trusted, so that a reload trusts what it
//! holds by now.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;

use crate::config::Config;
use crate::tls::Roots;

/// The certificates in each file; `None`: it cannot be used. The system's own are not among them.
#[derive(Debug, Clone)]
pub(super) struct CaFiles(BTreeMap<PathBuf, Option<Vec<CertificateDer<'static>>>>);

impl CaFiles {
    /// Reads each file that one of these configurations names.
    pub(super) fn read(configs: &[&Config]) -> Self {
        let named = configs.iter().flat_map(|config| {
            let vault = config.stores.vault.as_ref().and_then(|vault| vault.ca_file.as_ref());
            let aws = config.stores.aws.as_ref().and_then(|aws| aws.ca_file.as_ref());
            [config.upstream.ca_file.as_ref(), config.auth.ca_file.as_ref(), vault, aws]
        });
        let read = |path: &PathBuf| {
            let roots = Roots::load(Some(path)).ok();
            (path.clone(), roots.map(|roots| roots.certificates().to_vec()))
        };
        Self(named.flatten().map(read).collect())
    }

    /// Whether this file holds others than it did then.
    pub(super) fn differ(&self, then: &Self, path: Option<&Path>) -> bool {
        path.is_some_and(|path| self.0.get(path) != then.0.get(path))
    }
}

/// What is trusted.
#[derive(Debug)]
pub(super) struct Trusted {
    /// By the upstream's connections.
    pub(super) at_start: CaFiles,
    /// By the stores, and for the authorization server.
    pub(super) now: CaFiles,
}

impl Trusted {
    /// What is trusted from the start.
    pub(super) fn at_start(config: &Config) -> Self {
        let at_start = CaFiles::read(&[config]);
        Self { now: at_start.clone(), at_start }
    }
}
