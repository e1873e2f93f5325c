//! Session tokens: each is for one instance and has a lifetime.

use std::{collections::BTreeMap, time::Duration};

use crate::{ids::InstanceId, random::Rng};

/// Six hours, in seconds.
pub const MAX_TTL: u64 = 21_600;

#[derive(Clone, Debug)]
pub struct Tokens {
    live: BTreeMap<String, (InstanceId, Duration)>,
    rng: Rng,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            live: BTreeMap::new(),
            rng: Rng::new(4, 4),
        }
    }
}

impl Tokens {
    pub fn issue(&mut self, instance: InstanceId, ttl: u64, now: Duration) -> String {
        self.live.retain(|_, (_, until)| *until > now);
        let token = format!("AQAEA{:016x}{:016x}==", self.rng.next(), self.rng.next());
        self.live
            .insert(token.clone(), (instance, now + Duration::from_secs(ttl)));
        token
    }

    pub fn accepts(&self, token: &str, instance: &InstanceId, now: Duration) -> bool {
        self.live
            .get(token)
            .is_some_and(|(of, until)| of == instance && *until > now)
    }

    pub fn revoke_all(&mut self) {
        self.live.clear();
    }
}
