//! Removing the tables, chains and rules that the AWS VPC CNI left in nftables, also through `iptables-nft`.
//!
//! They are recognised by names and comments that only this program uses. Whether it still needs them is the caller's
//! decision.
//!
//! May use the rest of `nft`. Must not know which pods and programs there are: that is the caller's.

mod egress_cni;

use std::collections::BTreeSet;

use super::batch::Batch;
use super::encoder::family_code;
use super::list::{attribute, family_name, text};
use super::socket::{Nft, TABLE};
use crate::netlink::{Error, Family};

const GET_TABLE: u16 = 1;
const GET_CHAIN: u16 = 4;
const GET_RULE: u16 = 7;
/// Generic netfilter header.
const NFGENMSG: usize = 4;

/// A table of its own, since version 1.23.
const OWN_TABLE: &str = "aws-cni";
/// What the names of its chains begin with.
pub(crate) const AWS_NODE_CHAINS: [&str; 2] = ["AWS-SNAT-CHAIN-", "AWS-CONNMARK-CHAIN-"];
/// The comments of its rules in chains of others. Rules with a jump contain the name of their chain.
pub(crate) const AWS_NODE_COMMENTS: [&str; 5] = [
    "AWS, primary ENI",
    "AWS, outbound connections",
    "AWS, CONNMARK",
    "AWS SNAT CHAIN",
    // Rejects connections to pods' addresses of the other family.
    "Block Node Local Pod access via IPv",
];

type Table = (u8, String);

/// Its objects.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    tables: BTreeSet<Table>,
    chains: BTreeSet<(Table, String)>,
    /// In chains of others, each with its handle.
    rules: Vec<(Table, String, u64)>,
}

impl Nft {
    /// Removes them in one transaction, and returns each as text.
    ///
    /// # Errors
    /// If the kernel cannot be queried or refuses. Then all of them are still there.
    pub fn remove_aws_node(&mut self) -> Result<Vec<String>, Error> {
        let found = self.find_aws_node()?;
        if found == Found::default() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::new(Family::V4, TABLE);
        for ((family, table), chain, handle) in &found.rules {
            batch.del_rule((*family, table), chain, *handle);
        }
        // Their chains lead to each other.
        for ((family, table), chain) in &found.chains {
            batch.flush_chain_of((*family, table), chain);
        }
        for ((family, table), chain) in &found.chains {
            batch.del_chain((*family, table), chain);
        }
        for (family, table) in &found.tables {
            batch.del_table_of((*family, table));
        }
        batch.send(&mut self.channel, &mut self.seq)?;
        Ok(found.shown())
    }

    /// Whether there are any.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn has_aws_node(&mut self) -> Result<bool, Error> {
        Ok(self.find_aws_node()? != Found::default())
    }

    fn find_aws_node(&mut self) -> Result<Found, Error> {
        let mut found = Found::default();
        self.dump(GET_TABLE, |_, payload| {
            let name = payload.get(NFGENMSG..).and_then(|object| text(object, 1));
            if let (Some(family), Some(name)) = (ip_family(payload), name)
                && name == OWN_TABLE
            {
                found.tables.insert((family, name));
            }
        })?;
        self.dump(GET_CHAIN, |_, payload| {
            let object = payload.get(NFGENMSG..).unwrap_or_default();
            let named = (ip_family(payload), text(object, 1), text(object, 3));
            if let (Some(family), Some(table), Some(chain)) = named
                && AWS_NODE_CHAINS.iter().any(|start| chain.starts_with(start))
            {
                found.chains.insert(((family, table), chain));
            }
        })?;
        self.dump(GET_RULE, |_, payload| {
            let object = payload.get(NFGENMSG..).unwrap_or_default();
            let named = (ip_family(payload), text(object, 1), text(object, 2));
            if let (Some(family), Some(table), Some(chain)) = named
                && let Some(handle) = attribute(object, 3).and_then(|h| h.try_into().ok())
                && AWS_NODE_CHAINS
                    .iter()
                    .chain(&AWS_NODE_COMMENTS)
                    .any(|m| mentions(object, m))
            {
                let handle = u64::from_be_bytes(handle);
                found.rules.push(((family, table), chain, handle));
            }
        })?;
        let Found {
            tables,
            chains,
            rules,
        } = &mut found;
        chains.retain(|(table, _)| !tables.contains(table));
        // Their other rules go with their chain.
        rules.retain(|(table, chain, _)| {
            !tables.contains(table) && !chains.contains(&(table.clone(), chain.clone()))
        });
        Ok(found)
    }
}

impl Found {
    fn shown(&self) -> Vec<String> {
        let of = |(family, table): &Table| format!("{} {table}", family_name(*family));
        let tables = self
            .tables
            .iter()
            .map(|table| format!("nft table {}", of(table)));
        let chains = self.chains.iter();
        let chains = chains.map(|(table, name)| format!("nft chain {} {name}", of(table)));
        let rules = self.rules.iter().map(|(table, chain, handle)| {
            format!("nft rule {handle} of chain {} {chain}", of(table))
        });
        rules.chain(chains).chain(tables).collect()
    }
}

/// The families of tables that the program writes to.
fn ip_family(payload: &[u8]) -> Option<u8> {
    let family = *payload.first()?;
    [Family::V4, Family::V6]
        .map(family_code)
        .contains(&family)
        .then_some(family)
}

fn mentions(object: &[u8], text: &str) -> bool {
    object
        .windows(text.len())
        .any(|bytes| bytes == text.as_bytes())
}
