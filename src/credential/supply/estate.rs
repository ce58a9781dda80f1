//! What is known of a secret that is replaced by what it gives: it is written to its store, and outlives a
//! reload that changes the credential.

use super::super::NoLogin;
use super::super::spent::Spent;
use super::super::write_back::WriteBack;
use super::Supply;
use crate::clock::Moment;
use crate::secret::SecretValue;

/// Left by one supply to the next of the same secret.
#[derive(Debug)]
pub(in super::super) struct Estate {
    spent: Spent,
    accepted: Option<SecretValue>,
    no_login: Option<NoLogin>,
    write_back: WriteBack,
}

impl Supply {
    /// Gives it away: nothing is written here any more.
    pub(in super::super) fn leave(&mut self) -> Estate {
        let nothing = WriteBack::new(self.credential.clone());
        Estate {
            spent: std::mem::take(&mut self.spent),
            accepted: self.accepted.clone(),
            no_login: self.no_login,
            write_back: std::mem::replace(&mut self.write_back, nothing),
        }
    }

    /// Goes on with it.
    pub(in super::super) fn inherit(&mut self, estate: Estate) {
        let Estate { spent, accepted, no_login, write_back } = estate;
        self.spent.extend(&spent);
        // What was refused may be taken by now: a reload may mend the client or the issuer.
        self.no_login = no_login.filter(|why| *why != NoLogin::Refused).or(self.no_login);
        if write_back.lacks_the_one_in_use() {
            self.accepted = accepted;
        }
        self.write_back.inherit(write_back);
    }

    /// Whether the store lacks a renewed secret that is in use.
    pub(in super::super) fn is_unpersisted(&self) -> bool {
        self.write_back.lacks_the_one_in_use()
    }

    /// When what the store lacks, that or a mark, is tried to be written again.
    pub(in super::super) fn write_due(&self) -> Option<Moment> {
        self.write_back.due()
    }

    /// Tries to write it now. Cancel-safe.
    pub(in super::super) async fn write(&mut self) {
        self.write_back.retry(&self.stored).await;
    }
}
