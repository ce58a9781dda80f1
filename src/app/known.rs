//! The secrets that callers and operators show, read at the start and at each reload.
//!
//! A door whose secret cannot be read stays shut: nothing is served with it open.

use super::build::StartError;
use crate::access::Callers;
use crate::config::Config;
use crate::secret::SecretValue;
use crate::store::SecretStore;

/// Who is known.
#[derive(Debug)]
pub(super) struct Known {
    /// Whose calls they are.
    pub(super) callers: Callers,
    /// What operators send; `None`: nobody may change anything.
    pub(super) operators: Option<SecretValue>,
}

impl Known {
    /// Reads what `config` names.
    pub(super) async fn read(
        config: &Config,
        stores: &dyn SecretStore,
    ) -> Result<Self, StartError> {
        let mut secrets = Vec::new();
        for at in Callers::secrets(config) {
            let read = stores.read(&at).await.map_err(StartError::CallerToken)?;
            secrets.push((at, read.value));
        }
        let mut operators = None;
        if let Some(at) = &config.admin_token {
            let read = stores.read(at).await.map_err(StartError::AdminToken)?;
            if let Some((of, _)) = secrets.iter().find(|(_, value)| *value == read.value) {
                return Err(StartError::SharedAdminToken(of.clone()));
            }
            operators = Some(read.value);
        }
        Ok(Self { callers: Callers::new(config, &secrets)?, operators })
    }
}
