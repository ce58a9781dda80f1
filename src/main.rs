//! The `datapulse-sidecar` binary: hands over to the library's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    datapulse_sidecar::cli::main()
}
