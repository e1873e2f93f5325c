//! The node's kernel for ENIs: links appear after the attachment, late or never, and configuring them may fail.

use std::{sync::Arc, time::Duration};

use ipamd::host::seam::EniHost;
use planner::{Class, EniIndex, Failure, command::ConfigureEni};
use tokio::time::sleep;

use crate::{
    faults::Fault,
    state::{Shared, trace::digest},
};

/// How long the daemon waits for a link.
const LINK_LIMIT: Duration = Duration::from_secs(60);

/// The host's side of one daemon.
#[derive(Clone, Debug)]
pub struct Host {
    pub shared: Arc<Shared>,
    pub generation: u64,
}

impl Host {
    fn refuses(&self) -> bool {
        self.shared.with(|state, now| {
            let refuses = state.strikes(Fault::HostFails, now);
            if refuses {
                state.count(Fault::HostFails, now);
            }
            refuses
        })
    }

    /// From the attachment to the link.
    fn delay(&self) -> Duration {
        self.shared.with(|state, now| {
            if state.strikes(Fault::LinkLate, now) {
                state.count(Fault::LinkLate, now);
                return state.host.seconds(5, 90);
            }
            state.host.millis(20, 400)
        })
    }

    async fn link(&self, eni: &ConfigureEni) -> bool {
        let limit = self.shared.now() + LINK_LIMIT;
        let attached = || {
            self.shared.with(|state, _| {
                state
                    .interface(&eni.eni)
                    .is_some_and(|seen| state.is_attached(seen))
            })
        };
        while !attached() {
            if self.shared.now() >= limit {
                return false;
            }
            sleep(Duration::from_millis(500)).await;
        }
        let delay = self.delay();
        sleep(delay.min(limit.saturating_sub(self.shared.now()))).await;
        self.shared.now() < limit && attached()
    }

    async fn pass(&self, name: &'static str) {
        if self.shared.point(self.generation, || name.to_owned()) {
            std::future::pending::<()>().await;
        }
    }

    async fn dead(&self) {
        if !self.shared.alive(self.generation) {
            std::future::pending::<()>().await;
        }
    }
}

impl EniHost for Host {
    async fn configure(&self, eni: ConfigureEni) -> Result<(), Failure> {
        if eni.index == EniIndex::PRIMARY {
            return Ok(());
        }
        self.pass("setting up ENI").await;
        let up = self.link(&eni).await && !self.refuses();
        self.dead().await;
        self.shared.with(|state, now| {
            state.trace.note(
                now,
                "configure",
                &[digest(&eni.eni.0), u64::from(up)],
                || {
                    format!(
                        "{} index {} {}",
                        eni.eni,
                        eni.index,
                        if up { "up" } else { "failed" }
                    )
                },
            );
            if up {
                state.configured.insert(eni.eni.clone());
            }
        });
        self.pass("ENI set up").await;
        if up {
            Ok(())
        } else {
            Err(failure("no link, or it was refused"))
        }
    }

    async fn deconfigure(&self, eni: ConfigureEni) -> Result<(), Failure> {
        sleep(Duration::from_millis(20)).await;
        self.dead().await;
        self.pass("removing ENI").await;
        if self.refuses() {
            return Err(failure("rules could not be removed"));
        }
        self.shared.with(|state, now| {
            state
                .trace
                .note(now, "deconfigure", &[digest(&eni.eni.0)], || {
                    eni.eni.to_string()
                });
            state.configured.remove(&eni.eni);
        });
        self.pass("ENI removed").await;
        Ok(())
    }
}

fn failure(message: &str) -> Failure {
    Failure::new(Class::Host, message)
}
