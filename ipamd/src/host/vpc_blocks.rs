//! The VPC's CIDR blocks: which destinations are in the VPC, from the metadata service to the kernel.
//!
//! Operators add blocks to a running VPC. Until this node knows a block, its pods' connections to it are translated to
//! the node's address; afterwards, new connections keep the pod's address. The metadata service is therefore checked
//! regularly: one request to a link-local address, none to EC2, and none at all if nothing depends on the answer.

use datapath::nft::{self, Snat};
use ipnet::Ipv4Net;
use proto::error_chain::chain;

use crate::{
    config,
    host::hostnet::HostNet,
    node::{
        identity::{Identity, MetadataError},
        metadata::Metadata,
    },
    runtime::worker::Worker,
    state::store::Store,
};

/// The datapath's configuration, from the settings and the VPC's blocks. `other_family`: pods reach destinations of the other
/// family, as set now or when they were created.
#[must_use]
pub fn egress(
    settings: &config::Egress,
    me: &Identity,
    blocks: &[Ipv4Net],
    other_family: bool,
) -> nft::Egress {
    let snat = Snat {
        to: me.address,
        ports: settings.ports,
    };
    nft::Egress {
        local: local(settings, blocks),
        snat: (!settings.external_snat).then_some(snat),
        node_ports: settings.node_ports,
        marks: settings.marks,
        other_family: other_family.then_some(settings.ports),
    }
}

fn local(settings: &config::Egress, blocks: &[Ipv4Net]) -> Vec<Ipv4Net> {
    [blocks, &settings.excluded].concat()
}

/// Keeps the kernel's local destinations and the record up to date with the metadata service.
#[derive(Debug)]
pub struct Follower {
    pub imds: Metadata,
    pub settings: config::Egress,
    pub me: std::sync::Arc<Identity>,
    pub host: HostNet,
    pub store: Worker<Store>,
    /// The blocks in the kernel.
    pub known: Vec<Ipv4Net>,
}

impl Follower {
    /// Never ends.
    pub async fn run(mut self) {
        if self.settings.external_snat {
            // Nothing on this node depends on the destination.
            return std::future::pending().await;
        }
        let mut failing = false;
        loop {
            tokio::time::sleep(self.settings.period).await;
            let read = self.imds.vpc_blocks(self.me.mac).await;
            match (&read, failing) {
                (Ok(_), true) => {
                    tracing::info!("the metadata service returns the VPC's CIDR blocks again")
                }
                (Err(error), false) => {
                    tracing::warn!(
                        error = chain(error),
                        "could not read the VPC's CIDR blocks; keeping the known ones"
                    );
                }
                _ => {}
            }
            failing = read.is_err();
            self.apply(read).await;
        }
    }

    /// Blocks that cannot be configured stay unknown and are tried again the next time.
    async fn apply(&mut self, read: Result<Vec<Ipv4Net>, MetadataError>) {
        let Some(blocks) = read
            .ok()
            .and_then(|read| news(&self.known, read, self.me.subnet_cidr))
        else {
            return;
        };
        let all = local(&self.settings, &blocks);
        if let Err(error) = self.host.update_local(all).await {
            tracing::error!(
                error = chain(&error),
                "could not update the VPC's CIDR blocks"
            );
            return;
        }
        tracing::info!(
            before = list(&self.known),
            now = list(&blocks),
            "the VPC's CIDR blocks have changed"
        );
        self.known.clone_from(&blocks);
        // An outdated record costs a restarted daemon one period.
        let noted = self
            .store
            .run(move |store| store.remember_vpc_blocks(&blocks))
            .await;
        if let Ok(Err(error)) = noted {
            tracing::error!(
                error = chain(&error),
                "could not record the VPC's CIDR blocks"
            );
        }
    }
}

fn list(blocks: &[Ipv4Net]) -> String {
    let blocks: Vec<_> = blocks.iter().map(ToString::to_string).collect();
    blocks.join(", ")
}

/// The sorted blocks, if they differ from the known ones and are plausible: a VPC must contain the node's own subnet.
fn news(known: &[Ipv4Net], mut read: Vec<Ipv4Net>, subnet: Ipv4Net) -> Option<Vec<Ipv4Net>> {
    read.sort();
    read.dedup();
    if !read.iter().any(|block| block.contains(&subnet)) {
        tracing::warn!(read = list(&read), %subnet, "ignored the VPC's CIDR blocks, because they do not contain this node's subnet");
        return None;
    }
    let mut known = known.to_vec();
    known.sort();
    (read != known).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn heard(known: &[&str], read: &[&str]) -> Option<Vec<Ipv4Net>> {
        news(&nets(known), nets(read), "10.0.16.0/20".parse().unwrap())
    }

    #[test]
    fn another_block_is_news_and_another_order_is_not() {
        let both = ["10.0.0.0/16", "100.64.0.0/16"];
        assert_eq!(heard(&both[..1], &both), Some(nets(&both)));
        assert_eq!(heard(&both, &both[..1]), Some(nets(&both[..1])));
        assert_eq!(heard(&both, &[both[1], both[0], both[1]]), None);
    }

    #[test]
    fn vpc_blocks_without_this_nodes_subnet_are_ignored() {
        assert_eq!(heard(&["10.0.0.0/16"], &[]), None);
        assert_eq!(heard(&["10.0.0.0/16"], &["100.64.0.0/16"]), None);
        assert_eq!(heard(&["10.0.0.0/16"], &["10.0.0.0/20"]), None);
    }
}
