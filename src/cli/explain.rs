//! `explain`: what would become of a call, by the code that judges real ones.
//!
//! Reads no secret and sends nothing to DataPulse: a name and a level are all it tells of a credential.

use std::path::Path;

use url::Url;

use super::{Failure, http_url, load, runtime, say, status, tenant_of};
use crate::access::{Access, Denial, Grant};
use crate::config::Config;
use crate::config::model::{Action, Credential, Methods, Rate, Rule};
use crate::proxy::front_door;
use crate::proxy::reject::Rejection;

/// Which call.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As an app would write it, in upper case.
    method: String,
    /// The path as an app would send it, percent-encoded; a query is not judged.
    path: String,
    /// Whose call it would be. May be left out where there is only one tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Also asks the sidecar with this admin listener how the quota is used.
    #[arg(long, value_name = "URL", value_parser = http_url)]
    admin: Option<Url>,
}

pub(super) fn explain(file: &Path, args: &Args) -> Result<(), Failure> {
    let (config, _warnings, _watch) = load(file)?;
    let tenant = tenant_of(&config, args.tenant.as_deref())?;
    let judged = front_door::judge_call(&args.method, &args.path);
    let (method, target) = judged.map_err(|rejection| refused(&rejection))?;
    let decided = Access::new(&config).decide(tenant, &method, target.segments());
    let name = config.tenants.get(tenant).map_or("", |tenant| &*tenant.name);
    say(&lines(&config, name, decided.as_ref()));
    if let (Some(admin), Ok(grant)) = (&args.admin, &decided)
        && let Some(credential) = config.credentials.get(grant.credential)
    {
        say(&running(admin, credential)?);
    }
    decided.map(drop).map_err(|denial| refused(&Rejection::from(&denial)))
}

/// The quota that such calls draw from, as a sidecar that runs has it.
fn running(admin: &Url, credential: &Credential) -> Result<String, Failure> {
    let report = runtime(1)?.block_on(status::report(admin))?;
    let told =
        status::quotas::of_credential(&report, &credential.name, credential.quota.as_deref());
    let lines = told.iter().map(|(name, told)| format!("{name:<12}{told}"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn refused(rejection: &Rejection) -> Failure {
    let (status, code) = (rejection.status().as_u16(), rejection.code());
    Failure::failed(format!("refused with {status} {code}: {}", rejection.detail()))
}

fn lines(config: &Config, tenant: &str, decided: Result<&Grant, &Denial>) -> String {
    let rule = match decided {
        Ok(grant) => Some(&grant.rule),
        Err(denial) => denial.rule(),
    };
    let credential = decided.ok().and_then(|grant| config.credentials.get(grant.credential));
    let written = rule.map_or_else(|| "none".to_owned(), |rule| of_rule(rule));
    let level = match rule.map(|rule| rule.action) {
        Some(Action::Require(level)) => level.as_str(),
        Some(Action::Deny) | None => "none would do",
    };
    let name = credential.map_or_else(
        || "none".to_owned(),
        |credential| format!("{} ({})", credential.name, credential.level.as_str()),
    );
    let quota = credential.map_or_else(|| "none".to_owned(), |one| of_quota(config, one));
    let own = config.tenants.iter().find(|one| *one.name == *tenant).and_then(|one| one.limit);
    let own = own.filter(|_| credential.is_some_and(|one| one.quota.is_some()));
    let bound = own.map_or_else(String::new, |own| {
        format!("\nown limit   {} of this tenant's, inside the quota", of_rate(own))
    });
    format!(
        "tenant      {tenant}\nrule        {written}\nlevel       {level}\n\
         credential  {name}\nquota       {quota}{bound}"
    )
}

/// The quota with its limit and share, and the tenant's own bound inside it.
fn of_quota(config: &Config, credential: &Credential) -> String {
    let spaced = credential.quota.as_ref().and_then(|name| {
        let quota = config.quotas.get(&**name)?;
        Some((name, quota, quota.limit?))
    });
    let Some((name, quota, limit)) = spaced else {
        return credential.quota.as_ref().map_or_else(
            || "none: its calls are not spaced".to_owned(),
            |name| format!("{name}: unlimited, its calls are not spaced"),
        );
    };
    let also = quota.also.map_or_else(String::new, |also| format!(", also {}", of_rate(also)));
    let shadow = if config.shaping.shadow { "; shadow: no call is held back" } else { "" };
    let (limit, share) = (of_rate(limit), quota.share * 100.0);
    format!("{name}: {limit}{also}; this process's share: {share:.0} %{shadow}")
}

fn of_rate(rate: Rate) -> String {
    match rate.per.as_secs() {
        1 => format!("{}/s", rate.calls),
        60 => format!("{}/min", rate.calls),
        _ => format!("{}/h", rate.calls),
    }
}

fn of_rule(rule: &Rule) -> String {
    let methods = match &rule.methods {
        Methods::Any => "ANY".to_owned(),
        Methods::These(names) => names.join(", "),
    };
    format!("{}: {methods} {}", rule.name, rule.path)
}
