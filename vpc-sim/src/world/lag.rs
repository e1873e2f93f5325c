//! What IMDS shows: a cache that follows EC2 with its own delay for each interface and kind of data.

use std::{collections::BTreeMap, time::Duration};

use nettypes::Mac;

use super::{World, model::NetworkInterface};
use crate::ids::{EniId, InstanceId};

/// The delays of IMDS behind EC2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImdsLag {
    /// From `attached` until the MAC is listed.
    pub listed: Duration,
    /// From being listed until the keys under the MAC exist; before that, they return 404.
    pub populated: Duration,
    /// From a change of addresses or prefixes until their lists contain it.
    pub addresses: Duration,
    /// From the end of a detach until the MAC is no longer listed.
    pub gone: Duration,
}

/// A value and its pending replacements.
#[derive(Clone, Debug)]
struct Lagged<T> {
    shown: T,
    coming: Vec<(Duration, T)>,
}

impl<T: Clone> Lagged<T> {
    const fn new(shown: T) -> Self {
        Self {
            shown,
            coming: Vec::new(),
        }
    }

    /// A later change replaces earlier ones that would arrive after it: a cache does not go back.
    fn set(&mut self, at: Duration, value: T) {
        self.coming.retain(|(t, _)| *t < at);
        self.coming.push((at, value));
    }

    fn get(&self, now: Duration) -> &T {
        self.coming
            .iter()
            .rev()
            .find(|(t, _)| *t <= now)
            .map_or(&self.shown, |(_, v)| v)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Shadow {
    instance: InstanceId,
    mac: Mac,
    listed: Lagged<bool>,
    populated: Lagged<bool>,
    facts: Lagged<NetworkInterface>,
}

/// The cached state of each interface, and its delays.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadows {
    entries: BTreeMap<EniId, Shadow>,
    lag: ImdsLag,
    lags: BTreeMap<EniId, ImdsLag>,
}

impl Shadows {
    fn lag(&self, eni: &EniId) -> ImdsLag {
        self.lags.get(eni).copied().unwrap_or(self.lag)
    }

    pub(super) fn attached(
        &mut self,
        eni: &NetworkInterface,
        instance: &InstanceId,
        now: Duration,
    ) {
        let lag = self.lag(&eni.id);
        let mut shadow = Shadow {
            instance: instance.clone(),
            mac: eni.mac,
            listed: Lagged::new(false),
            populated: Lagged::new(false),
            facts: Lagged::new(eni.clone()),
        };
        shadow.listed.set(now + lag.listed, true);
        shadow.populated.set(now + lag.listed + lag.populated, true);
        self.entries.insert(eni.id.clone(), shadow);
    }

    pub(super) fn changed(&mut self, eni: &NetworkInterface, now: Duration) {
        let lag = self.lag(&eni.id);
        if let Some(s) = self.entries.get_mut(&eni.id) {
            s.facts.set(now + lag.addresses, eni.clone());
        }
    }

    pub(super) fn detached(&mut self, eni: &EniId, now: Duration) {
        let lag = self.lag(eni);
        if let Some(s) = self.entries.get_mut(eni) {
            s.listed.set(now + lag.gone, false);
        }
    }
}

/// One entry of `network/interfaces/macs/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImdsInterface {
    pub mac: Mac,
    /// Absent while the directory is listed but not populated.
    pub facts: Option<NetworkInterface>,
}

impl World {
    /// Sets the delays for interfaces that are attached or changed from now on.
    pub const fn set_imds_lag(&mut self, lag: ImdsLag) {
        self.shadows.lag = lag;
    }

    /// The same for one interface.
    pub fn set_imds_lag_of(&mut self, eni: &EniId, lag: ImdsLag) {
        self.shadows.lags.insert(eni.clone(), lag);
    }

    /// What IMDS lists for `instance`.
    pub fn imds_interfaces(&mut self, instance: &InstanceId, now: Duration) -> Vec<ImdsInterface> {
        self.advance(now);
        let mine = self
            .shadows
            .entries
            .values()
            .filter(|s| s.instance == *instance && *s.listed.get(now));
        mine.map(|s| ImdsInterface {
            mac: s.mac,
            facts: s.populated.get(now).then(|| s.facts.get(now).clone()),
        })
        .collect()
    }
}
