//! What a reload leaves as it was decided at start, and tells.

use crate::config::Config;
use crate::config::model::{self, Listener, Tenant};

/// The new configuration, with what was decided at start as it was, and the names of what is left
/// alone for that reason.
pub(super) fn carry_over(mut new: Config, old: &Config) -> (Config, Vec<&'static str>) {
    let mut restart = Vec::new();
    let mut carry = |part: &'static str, differs: bool| {
        if differs {
            restart.push(part);
        }
    };
    carry("upstream.base_url", new.upstream.origin != old.upstream.origin);
    carry("upstream.ca_file", new.upstream.ca_file != old.upstream.ca_file);
    carry("health.listen", new.health_listen != old.health_listen);
    carry("admin.listen", new.admin_listen != old.admin_listen);
    carry("log", new.log != old.log);
    let listen = |config: &Config| config.webhooks.as_ref().map(|webhooks| webhooks.listen);
    carry("webhooks.listen", listen(&new) != listen(old));
    carry("shaping.state_file", new.shaping.state_file != old.shaping.state_file);
    let (listeners, differ) = bound_listeners(&new, old);
    carry("listeners", differ);
    new.upstream.origin = old.upstream.origin.clone();
    new.upstream.ca_file.clone_from(&old.upstream.ca_file);
    new.health_listen = old.health_listen;
    new.admin_listen = old.admin_listen;
    new.log = old.log.clone();
    new.shaping.state_file.clone_from(&old.shaping.state_file);
    new.listeners = listeners;
    new.webhooks = match (new.webhooks, &old.webhooks) {
        (Some(new), Some(old)) => Some(model::Webhooks { listen: old.listen, ..new }),
        (None, Some(old)) => Some(old.clone()),
        (_, None) => None,
    };
    (new, restart)
}

/// The listeners that are bound, in their order (a connection knows its listener by index), as the
/// new configuration has them, and whether that has others.
fn bound_listeners(new: &Config, old: &Config) -> (Vec<Listener>, bool) {
    let mut wanted: Vec<&Listener> = new.listeners.iter().collect();
    let mut differ = false;
    let bound = old.listeners.iter().map(|was| {
        if let Some(at) = wanted.iter().position(|one| one.name == was.name) {
            let now = wanted.remove(at);
            differ |= now.tls != was.tls || now.socket != was.socket;
            let (socket, tls) = (was.socket.clone(), was.tls.clone());
            return Listener { socket, tls, ..now.clone() };
        }
        differ = true;
        let tenant = was.tenant.and_then(|tenant| old.tenants.get(tenant));
        let same = |one: &Tenant| tenant.is_some_and(|tenant| tenant.name == one.name);
        // Without a tenant, whoever still calls there has to be known by a token or a user.
        Listener { tenant: new.tenants.iter().position(same), ..was.clone() }
    });
    let bound = bound.collect();
    (bound, differ || !wanted.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::parse;

    fn config(text: &str) -> Config {
        let text = format!(
            "version: 1\n\
             credentials: [{{name: a, level: admin, api_key: 'file:/k'}}]\n{text}"
        );
        parse(&text, "test", &|_| None).unwrap().0
    }

    const TWO: &str = "tenants: [{name: x, credentials: [a]}, {name: y, credentials: [a]}]\n\
                       listeners: [{listen: 'localhost:1', tenant: x}, {listen: 'localhost:2', tenant: y}]\n";

    #[track_caller]
    fn check(new: &str, want: &[(&str, Option<usize>)], restart: &[&str]) {
        let (merged, told) = carry_over(config(new), &config(TWO));
        let listeners: Vec<_> = merged.listeners.iter().map(|l| (&*l.name, l.tenant)).collect();
        assert_eq!((listeners.as_slice(), told.as_slice()), (want, restart), "{new}");
    }

    #[test]
    fn a_listener_keeps_its_index_whatever_the_file_does_to_the_list() {
        check(TWO, &[("localhost:1", Some(0)), ("localhost:2", Some(1))], &[]);
        check(
            "tenants: [{name: y, credentials: [a]}, {name: x, credentials: [a]}]\n\
             listeners: [{listen: 'localhost:2', tenant: y}, {listen: 'localhost:1', tenant: y}]\n",
            &[("localhost:1", Some(0)), ("localhost:2", Some(0))],
            &[],
        );
        check(
            "tenants: [{name: z, credentials: [a]}, {name: y, credentials: [a]}]\n\
             listeners: [{listen: 'localhost:3', tenant: z}]\n",
            &[("localhost:1", None), ("localhost:2", Some(1))],
            &["listeners"],
        );
    }

    #[test]
    fn what_was_decided_at_start_stays_and_is_told() {
        let new = format!(
            "{TWO}upstream: {{base_url: 'https://other.example', ca_file: /ca, idle_timeout: 7s}}\n\
             health: {{listen: '127.0.0.1:7'}}\nadmin: {{listen: '127.0.0.1:8'}}\n\
             log: {{level: debug}}\nshaping: {{state_file: none}}\n"
        );
        let old = config(TWO);
        let (merged, told) = carry_over(config(&new), &old);
        let names = [
            "upstream.base_url",
            "upstream.ca_file",
            "health.listen",
            "admin.listen",
            "log",
            "shaping.state_file",
        ];
        assert_eq!(told, names);
        assert_eq!(merged.upstream.idle_timeout, Duration::from_secs(7), "the rest is applied");
        assert_eq!(merged.upstream.origin, old.upstream.origin);
        assert_eq!((merged.health_listen, &merged.log), (old.health_listen, &old.log));
    }
}
