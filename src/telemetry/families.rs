//! Makes metric families and registers them, all in the same way.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Upper bounds of the duration buckets, in seconds: 1 ms to 60 s.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Makes families and registers them.
pub(super) struct Families(pub(super) Registry);

impl Families {
    pub(super) fn add<C: Collector + Clone + 'static>(
        &self,
        family: C,
    ) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.add(IntCounter::with_opts(opts(name, help))?)
    }

    pub(super) fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.add(IntCounterVec::new(opts(name, help), labels)?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.add(IntGauge::with_opts(opts(name, help))?)
    }

    pub(super) fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.add(IntGaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<HistogramVec, prometheus::Error> {
        self.add(HistogramVec::new(histogram_opts(name, help), labels)?)
    }
}

/// The counters of a family whose label has this value, by another label.
pub(super) fn by_label(
    family: &IntCounterVec,
    (label, value): (&str, &str),
    by: &str,
) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for metric in family.collect().iter().flat_map(|family| family.get_metric()) {
        let labels = metric.get_label();
        let of = |name: &str| labels.iter().find(|one| one.name() == name).map(|one| one.value());
        if of(label) == Some(value) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the library hands whole, positive numbers out as floats"
            )]
            let count = metric.get_counter().get_value() as u64;
            counts.insert(of(by).unwrap_or_default().to_owned(), count);
        }
    }
    counts
}

pub(super) fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("datapulse_sidecar")
}

pub(super) fn histogram_opts(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::from(opts(name, help)).buckets(SECONDS.to_vec())
}
