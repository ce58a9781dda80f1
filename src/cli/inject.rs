//! `inject`: the sidecar is put into Kubernetes manifests.

use std::io::Read as _;
use std::path::Path;

use super::{Failure, hand_out};
use crate::config;
use crate::kubernetes::{self, Sidecar};
use crate::telemetry;

/// Bytes of standard input; a release of Helm's has one at most.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The sidecar's image, with a tag or digest.
    #[arg(long, env = "DATAPULSE_SIDECAR_IMAGE")]
    image: String,
    /// Only this workload, such as deployment/app; may be repeated.
    #[arg(long, value_name = "KIND/NAME")]
    only: Vec<String>,
    /// A Secret that the sidecar alone mounts, for `file:` references; may be repeated.
    #[arg(long, value_name = "NAME=/PATH")]
    secret: Vec<String>,
}

pub(super) fn inject(path: &Path, args: &Args) -> Result<(), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::unusable(format!(
            "cannot read {}: {error}; name the sidecar's configuration with --config",
            path.display()
        ))
    })?;
    // The container has these variables and no others; what they will be does not matter here.
    let environment = |name: &str| {
        let known = matches!(name, "POD_NAME" | "POD_NAMESPACE");
        known.then(|| name.to_ascii_lowercase().replace('_', "-"))
    };
    let (config, _warnings) = config::parse(&text, &path.display().to_string(), &environment)
        .map_err(|errors| Failure::unusable(errors.to_string()))?;
    let sidecar = Sidecar::new(&args.image, &text, &config, &args.secret)
        .map_err(|error| Failure::unusable(telemetry::error_chain(&error)))?;
    let out = kubernetes::inject(&manifests()?, &sidecar, &args.only)
        .map_err(|error| Failure::failed(telemetry::error_chain(&error)))?;
    hand_out(out.as_bytes())
}

fn manifests() -> Result<String, Failure> {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(INPUT_BYTES_MAX);
    let read = input.read_to_string(&mut text);
    read.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    if input.limit() == 0 {
        return Err(Failure::failed(
            "standard input has more than 64 MiB: inject in smaller parts",
        ));
    }
    Ok(text)
}
