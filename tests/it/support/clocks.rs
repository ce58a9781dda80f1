//! A machine that sleeps, and whose clock is set, while the sidecar runs on it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The clocks of one process: see `clocks.c`.
pub(crate) struct Clocks {
    file: File,
    env: [(&'static str, String); 2],
}

impl Clocks {
    /// As the machine's own, to begin with.
    pub(crate) fn new(dir: &Path) -> Self {
        let (library, path) = (dir.join("clocks.so"), dir.join("clocks"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/clocks.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().expect("a C compiler").success());
        std::fs::write(&path, [0; 16]).expect("written");
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let env = [("LD_PRELOAD", text(&library)), ("TEST_CLOCKS", text(&path))];
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
