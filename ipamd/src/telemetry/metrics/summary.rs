//! A summary without quantiles: a sum and a count per label set. The AWS VPC CNI's latency metric is one, and the
//! library has no such type.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Opts,
    core::{Collector, Describer},
    proto::{LabelPair, Metric, MetricFamily, MetricType, Summary},
};

type Totals = BTreeMap<Vec<&'static str>, (f64, u64)>;

/// Clones share their totals.
#[derive(Clone, Debug)]
pub(super) struct Sums {
    desc: prometheus::core::Desc,
    labels: &'static [&'static str],
    totals: Arc<Mutex<Totals>>,
}

impl Sums {
    pub(super) fn new(
        name: &str,
        help: &str,
        labels: &'static [&'static str],
    ) -> prometheus::Result<Self> {
        let names = labels.iter().map(|&label| label.to_owned()).collect();
        Ok(Self {
            desc: Opts::new(name, help).variable_labels(names).describe()?,
            labels,
            totals: Arc::default(),
        })
    }

    /// `values` in the order of the labels.
    pub(super) fn observe(&self, values: &[&'static str], value: f64) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let (sum, count) = totals.entry(values.to_vec()).or_default();
        *sum += value;
        *count += 1;
    }

    fn metric(&self, values: &[&'static str], sum: f64, count: u64) -> Metric {
        let mut pairs: Vec<_> = self
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            })
            .collect();
        pairs.sort_by(|a, b| a.name().cmp(b.name()));
        let mut summary = Summary::default();
        summary.set_sample_sum(sum);
        summary.set_sample_count(count);
        let mut metric = Metric::from_label(pairs);
        metric.set_summary(summary);
        metric
    }
}

impl Collector for Sums {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = totals
            .iter()
            .map(|(values, &(sum, count))| self.metric(values, sum, count));
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(MetricType::SUMMARY);
        family.set_metric(metrics.collect());
        vec![family]
    }
}
