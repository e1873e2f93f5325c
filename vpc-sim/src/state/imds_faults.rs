//! What a test can script in IMDS: faults by path, throttling, and invalid tokens.

use std::{collections::BTreeMap, time::Duration};

use super::imds_tokens::Tokens;
use crate::ids::InstanceId;

/// The next `times` requests whose path starts with `path` are delayed, and return `status` if it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImdsFault {
    pub path: String,
    pub times: u32,
    pub delay: Duration,
    /// 401, 404, 429, 500…; none: only a delay.
    pub status: Option<u16>,
}

/// The state of IMDS that is not part of the world.
#[derive(Clone, Debug, Default)]
pub struct ImdsScript {
    tokens: Tokens,
    faults: Vec<ImdsFault>,
    /// Requests per second and instance; EC2 publishes no number.
    rate: Option<f64>,
    levels: BTreeMap<InstanceId, (f64, Duration)>,
    /// The time in answers; if none, the machine's time.
    date: Option<String>,
}

impl ImdsScript {
    /// Queues a fault.
    pub fn push(&mut self, fault: ImdsFault) {
        self.faults.push(fault);
    }

    /// Every token is invalid from now on.
    pub fn revoke_tokens(&mut self) {
        self.tokens.revoke_all();
    }

    /// Returns 429 to an instance that sends more requests per second than this; the requests of one second may come at
    /// once.
    pub fn throttle(&mut self, rate: Option<f64>) {
        self.rate = rate;
        self.levels.clear();
    }

    /// Sends this `Date` with every token, in HTTP's format.
    pub fn set_date(&mut self, date: &str) {
        self.date = Some(date.to_owned());
    }

    pub(crate) fn date(&self) -> Option<String> {
        self.date.clone()
    }

    pub(crate) fn take_fault(&mut self, path: &str) -> Option<ImdsFault> {
        self.faults.retain(|f| f.times > 0);
        let fault = self.faults.iter_mut().find(|f| path.starts_with(&f.path))?;
        fault.times -= 1;
        Some(fault.clone())
    }

    pub(crate) fn issue(
        &mut self,
        instance: InstanceId,
        ttl: u64,
        now: Duration,
    ) -> Option<String> {
        self.admit(&instance, now)
            .then(|| self.tokens.issue(instance, ttl, now))
    }

    pub(crate) fn accepts(&self, token: &str, instance: &InstanceId, now: Duration) -> bool {
        self.tokens.accepts(token, instance, now)
    }

    pub(crate) fn admit(&mut self, instance: &InstanceId, now: Duration) -> bool {
        let Some(rate) = self.rate else { return true };
        let (level, at) = self.levels.entry(instance.clone()).or_insert((rate, now));
        *level = now
            .saturating_sub(*at)
            .as_secs_f64()
            .mul_add(rate, *level)
            .min(rate);
        *at = now;
        let admitted = *level >= 1.0;
        if admitted {
            *level -= 1.0;
        }
        admitted
    }
}
