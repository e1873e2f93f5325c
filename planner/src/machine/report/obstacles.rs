//! When each obstacle was last seen. All pods that wait at the same time meet the same obstacle, so one moment for each
//! obstacle is enough. Holds no pod and no text.

use crate::{Mono, Obstacle};

/// When each obstacle last kept a pod waiting.
#[derive(Clone, Debug, Default)]
pub(crate) struct Obstacles([Option<Mono>; Obstacle::ALL.len()]);

impl Obstacles {
    pub(crate) fn note(&mut self, obstacle: Obstacle, now: Mono) {
        self.0[obstacle as usize] = Some(now);
    }

    /// The obstacle that says most, of those met since `since`. `None` if the pod is served at once.
    pub(crate) fn met(&self, since: Mono, now: Mono) -> Option<Obstacle> {
        let met = |at: Option<Mono>| at.is_some_and(|at| at >= since);
        let all = Obstacle::ALL.into_iter().zip(self.0).rev();
        all.filter(|_| since < now)
            .find(|(_, at)| met(*at))
            .map(|(obstacle, _)| obstacle)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(s: u64) -> Mono {
        Mono::from_epoch(Duration::from_secs(s))
    }

    #[test]
    fn the_most_specific_obstacle_is_counted() {
        assert!(Obstacle::ALL.is_sorted());
        for (n, obstacle) in Obstacle::ALL.into_iter().enumerate() {
            assert_eq!(obstacle as usize, n);
        }
    }

    #[test]
    fn a_pod_has_met_the_obstacles_of_its_wait() {
        let mut seen = Obstacles::default();
        seen.note(Obstacle::Throttled, at(1));
        seen.note(Obstacle::Create, at(3));
        seen.note(Obstacle::Configure, at(5));
        assert_eq!(seen.met(at(1), at(6)), Some(Obstacle::Throttled));
        assert_eq!(seen.met(at(2), at(6)), Some(Obstacle::Create));
        assert_eq!(seen.met(at(4), at(6)), Some(Obstacle::Configure));
        assert_eq!(seen.met(at(6), at(6)), None);
    }
}
