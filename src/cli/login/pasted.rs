//! The address that a browser ended up at, from standard input: for a browser on another machine.

use std::io::{BufRead as _, Read as _};
use std::sync::Arc;
use std::thread;

use tokio::sync::mpsc;
use url::Url;

use super::{Arrived, Failure, complain};
use crate::credential::{Question, Returned};

/// The longest line that is read, in bytes.
const LINE_MAX: u64 = 16 * 1024;

/// Reads lines until one is an answer to the question, or until there are no more.
///
/// On a thread that ends with the process: a read from a terminal cannot be called off.
pub(super) fn read(question: Arc<Question>, arrive: mpsc::Sender<Arrived>) -> Result<(), Failure> {
    let read = move || {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        while let Ok(1..) = input.by_ref().take(LINE_MAX).read_until(b'\n', &mut line) {
            match understood(&question, &line) {
                Ok(None) => {}
                Ok(Some(returned)) => {
                    drop(arrive.blocking_send(Arrived { returned, told: None }));
                    return;
                }
                Err(hint) => complain(hint),
            }
            line.clear();
        }
    };
    let thread = thread::Builder::new().name("stdin".to_owned()).spawn(read);
    thread
        .map(drop)
        .map_err(|error| Failure::unusable(format!("cannot read standard input: {error}")))
}

/// What a line says; `None`: nothing.
fn understood(question: &Question, line: &[u8]) -> Result<Option<Returned>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let address = std::str::from_utf8(line).ok().and_then(|line| Url::parse(line).ok());
    let address = address.ok_or(
        "That is not a whole address: paste all that the browser's address bar shows, from `http`.",
    )?;
    match question.returned(&address) {
        Returned::NotOurs => Err(
            "That is not the answer to this login: open the address above, and paste the one that \
             the browser ends up at.",
        ),
        returned => Ok(Some(returned)),
    }
}
