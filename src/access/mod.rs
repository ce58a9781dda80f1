//! Whether a call may be made, and with which credential. Decided before any secret is touched.
//!
//! It never falls back to a stronger credential than a rule asks for where a weaker one will do.

mod caller;

use std::sync::Arc;

use http::Method;

pub use caller::{Callers, CallersError, Identity, Shown, Stranger};

use crate::config::model::{Action, Config, Level, Methods, Rule};

/// The policy and each tenant's credentials.
#[derive(Debug, Clone)]
pub struct Access {
    rules: Vec<Arc<Rule>>,
    tenants: Vec<Tenant>,
}

#[derive(Debug, Clone)]
struct Tenant {
    name: Arc<str>,
    /// Level and index in `Config.credentials`, least privileged first.
    credentials: Vec<(Level, usize)>,
}

/// A call may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// For whom.
    pub tenant: Arc<str>,
    /// With which one of `Config.credentials`.
    pub credential: usize,
    /// The rule that matched.
    pub rule: Arc<Rule>,
}

/// A call may not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// The call's tenant index has no tenant, or no rule matched: cannot come from a valid
    /// configuration, and is refused all the same.
    Unconfigured,
    /// The tenant has no credential of the level.
    LevelNotGranted {
        /// Who called.
        tenant: Arc<str>,
        /// The rule that matched.
        rule: Arc<Rule>,
    },
    /// The rule says no.
    DeniedByPolicy {
        /// Who called.
        tenant: Arc<str>,
        /// The rule that matched.
        rule: Arc<Rule>,
    },
}

impl Denial {
    /// Who called.
    #[must_use]
    pub const fn tenant(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unconfigured => None,
            Self::LevelNotGranted { tenant, .. } | Self::DeniedByPolicy { tenant, .. } => {
                Some(tenant)
            }
        }
    }

    /// The rule that matched.
    #[must_use]
    pub const fn rule(&self) -> Option<&Arc<Rule>> {
        match self {
            Self::Unconfigured => None,
            Self::LevelNotGranted { rule, .. } | Self::DeniedByPolicy { rule, .. } => Some(rule),
        }
    }
}

impl Access {
    /// What `config` says.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let levels: Vec<Level> = config.credentials.iter().map(|one| one.level).collect();
        let tenants = config.tenants.iter().map(|one| (Arc::clone(&one.name), &*one.credentials));
        Self::from_parts(&config.policy, &levels, tenants)
    }

    fn from_parts<'a>(
        policy: &[Rule],
        levels: &[Level],
        tenants: impl Iterator<Item = (Arc<str>, &'a [usize])>,
    ) -> Self {
        let tenant = |(name, indices): (Arc<str>, &[usize])| {
            let level = |&index: &usize| levels.get(index).map(|&level| (level, index));
            let mut credentials: Vec<_> = indices.iter().filter_map(level).collect();
            // Stable: of two equal ones the first that the operator wrote.
            credentials.sort_by_key(|&(level, _)| level);
            Tenant { name, credentials }
        };
        Self {
            rules: policy.iter().cloned().map(Arc::new).collect(),
            tenants: tenants.map(tenant).collect(),
        }
    }

    /// The first rule that matches decides; `segments` are the path's, decoded once. Denials are
    /// judged by lenient readings of it as well: a spelling must not get past one, and must never be
    /// what a call is granted for.
    ///
    /// # Errors
    ///
    /// The rule denies, or asks for a level that the tenant has no credential for.
    pub fn decide<S: AsRef<str>>(
        &self,
        tenant: usize,
        method: &Method,
        segments: &[S],
    ) -> Result<Grant, Denial> {
        let tenant = self.tenants.get(tenant).ok_or(Denial::Unconfigured)?;
        let matches = |rule: &&Arc<Rule>| {
            is_about(&rule.methods, method)
                && (rule.path.matches(segments)
                    || rule.action == Action::Deny && rule.path.matches_leniently(segments))
        };
        let rule = Arc::clone(self.rules.iter().find(matches).ok_or(Denial::Unconfigured)?);
        let name = Arc::clone(&tenant.name);
        let Action::Require(needed) = rule.action else {
            return Err(Denial::DeniedByPolicy { tenant: name, rule });
        };
        match tenant.credentials.iter().find(|&&(level, _)| level >= needed) {
            Some(&(_, credential)) => Ok(Grant { tenant: name, credential, rule }),
            None => Err(Denial::LevelNotGranted { tenant: name, rule }),
        }
    }
}

fn is_about(methods: &Methods, method: &Method) -> bool {
    match methods {
        Methods::Any => true,
        Methods::These(names) => names.iter().any(|name| name == method.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, methods: &[&str], path: &str, action: Action) -> Rule {
        let methods = match methods {
            [] => Methods::Any,
            names => Methods::These(names.iter().map(|&name| name.into()).collect()),
        };
        let path = path.parse().unwrap();
        Rule { name: name.into(), methods, path, action, request_timeout: None, replay: true }
    }

    /// The default policy, and credentials 0: admin, 1 and 3: the lowest, 2: between.
    fn access() -> Access {
        use Level::{Admin, ReadOnly, ReadWrite};
        let policy = [
            rule("refresh", &[], "/auth/refresh", Action::Deny),
            rule("internal", &[], "/internal/", Action::Deny),
            rule("secret", &[], "/v1/*/secret", Action::Deny),
            rule("odd", &[], "/odd;/**", Action::Deny),
            rule("users", &[], "/v1/users/**", Action::Require(Admin)),
            rule("pipelines", &[], "/v1/pipelines/**", Action::Require(ReadWrite)),
            rule("reads", &["GET", "HEAD"], "/**", Action::Require(ReadOnly)),
            rule("rest", &[], "/**", Action::Require(ReadWrite)),
        ];
        let tenants: [(Arc<str>, &[usize]); 2] =
            [("all".into(), &[0, 1, 2, 3]), ("ro".into(), &[1])];
        Access::from_parts(&policy, &[Admin, ReadOnly, ReadWrite, ReadOnly], tenants.into_iter())
    }

    #[track_caller]
    fn check(tenant: usize, method: &str, path: &str, want: Result<usize, &str>) {
        let segments: Vec<&str> = path[1..].split('/').collect();
        let got = access().decide(tenant, &method.parse().unwrap(), &segments);
        let got = got.as_ref().map(|grant| grant.credential).map_err(|denial| match denial {
            Denial::Unconfigured => "unconfigured",
            Denial::LevelNotGranted { rule, .. } | Denial::DeniedByPolicy { rule, .. } => {
                &*rule.name
            }
        });
        assert_eq!(got, want, "{method} {path}");
    }

    #[test]
    fn the_least_privileged_credential_that_will_do_is_used() {
        check(0, "GET", "/v1/datasets", Ok(1));
        check(0, "POST", "/v1/datasets", Ok(2));
        check(0, "GET", "/v1/pipelines/7", Ok(2));
        check(0, "GET", "/v1/users", Ok(0));
        check(0, "DELETE", "/v1/users/7", Ok(0));
    }

    #[test]
    fn an_unknown_path_never_gives_admin() {
        for path in ["/", "/v2/users", "/v1/usersx", "/v1//users", "/V1/USERS"] {
            check(0, "GET", path, Ok(1));
            check(0, "POST", path, Ok(2));
        }
    }

    #[test]
    fn what_is_not_granted_is_denied() {
        check(1, "GET", "/v1/datasets", Ok(1));
        check(1, "POST", "/v1/datasets", Err("rest"));
        check(1, "GET", "/v1/users", Err("users"));
        check(0, "POST", "/auth/refresh", Err("refresh"));
        check(2, "GET", "/", Err("unconfigured"));
    }

    #[test]
    fn no_spelling_gets_past_a_denial() {
        for (rule, paths) in [
            (
                "refresh",
                &[
                    "/auth//refresh",
                    "/auth/refresh/",
                    "/AUTH/Refresh",
                    "/auth;v=1/refresh",
                    "/auth/refresh;x",
                ][..],
            ),
            (
                "internal",
                &["/internal/", "/Internal/", "/internal//", "/internal/;x", "//internal"],
            ),
            (
                "secret",
                &["/v1//secret", "/V1//secret", "/v1/a/Secret", "//v1//secret/", "/v1/;/secret"],
            ),
            ("odd", &["/odd;", "/Odd;/", "/ODD;//a"]),
        ] {
            for path in paths {
                check(0, "POST", path, Err(rule));
            }
        }
        // An encoded slash, as the front door hands it over: decoded, inside its segment.
        let refused = access().decide(0, &Method::POST, &["auth/refresh"]);
        assert!(matches!(refused, Err(Denial::DeniedByPolicy { .. })));
        for path in ["/auth/refreshed", "/internal/a", "/v1/secret", "/v1/a/b/secret", "/odd"] {
            check(0, "POST", path, Ok(2));
        }
    }
}
