//! What the C library tells the sidecar, and nobody else: a machine that sleeps and whose clock is set,
//! and a name whose addresses change. A small C file stands before the library's own function.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What a process is started with.
type Env = [(&'static str, String); 2];

/// Builds `preload/NAME.c`, which reads the file that `variable` names.
fn preload(dir: &Path, name: &str, variable: &'static str) -> (PathBuf, Env) {
    let (library, file) = (dir.join(format!("{name}.so")), dir.join(name));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/preload/");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(format!("{source}{name}.c"));
    assert!(compiler.status().expect("a C compiler").success());
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let env = [("LD_PRELOAD", text(&library)), (variable, text(&file))];
    (file, env)
}

/// The clocks of one process.
pub(crate) struct Clocks {
    file: File,
    env: Env,
}

impl Clocks {
    /// As the machine's own, to begin with.
    pub(crate) fn new(dir: &Path) -> Self {
        let (path, env) = preload(dir, "clocks", "TEST_CLOCKS");
        std::fs::write(&path, [0; 16]).expect("written");
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        Self { file, env }
    }

    /// What the process is started with.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.env.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// It has slept for so long by now.
    pub(crate) fn slept(&self, time: Duration) {
        self.write(0, i64::try_from(time.as_secs()).expect("not for ages"));
    }

    /// Its wall clock is so many seconds ahead.
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.write(8, seconds);
    }

    fn write(&self, at: u64, seconds: i64) {
        // In place: a file that is cut, even for a moment, takes the process' memory away.
        self.file.write_all_at(&seconds.to_ne_bytes(), at).expect("written");
    }
}

/// The addresses of the one name [`Self::NAME`].
pub(crate) struct Names {
    path: PathBuf,
    env: Env,
}

impl Names {
    pub(crate) const NAME: &'static str = "upstream.test";

    pub(crate) fn new(dir: &Path, addresses: &[&str]) -> Self {
        let (path, env) = preload(dir, "names", "TEST_NAMES");
        let names = Self { path, env };
        names.set(addresses);
        names
    }

    /// What the process is started with.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.env.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// What a look-up finds from now on.
    pub(crate) fn set(&self, addresses: &[&str]) {
        let beside = self.path.with_extension("new");
        std::fs::write(&beside, addresses.join("\n") + "\n").expect("written");
        std::fs::rename(beside, &self.path).expect("renamed");
    }
}
