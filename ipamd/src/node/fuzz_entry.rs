//! Anything that the metadata service may answer.

use crate::node::identity::{Identity, Texts, blocks};

/// `input` is the texts of the eight keys, separated by NUL.
pub fn imds(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.split('\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let texts = Texts {
        mac: next(),
        address: next(),
        subnet_cidr: next(),
        security_groups: next(),
        subnet: next(),
        instance: next(),
        instance_type: next(),
        region: next(),
    };
    drop(blocks("vpc-ipv4-cidr-blocks", &texts.security_groups));
    match Identity::of(&texts) {
        Ok(me) => assert_eq!(me.address.to_string(), texts.address),
        Err(error) => drop(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_metadata_corpus_causes_no_panic() {
        crate::runtime::corpus::replay("imds", super::imds);
    }
}
