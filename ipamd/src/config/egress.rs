//! Settings for traffic that leaves the node: names, defaults and lenient parsing.

use std::time::Duration;

use datapath::{marks::Marks, nft::SourcePorts};
use ipnet::{IpNet, Ipv4Net};
use planner::Family;

use super::Reader;

/// Which traffic is translated, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// `AWS_VPC_K8S_CNI_EXTERNALSNAT`: pods' connections out of the VPC are not translated on the node; a NAT gateway
    /// may do so.
    pub external_snat: bool,
    /// `AWS_VPC_K8S_CNI_RANDOMIZESNAT`: how the source ports of translated connections are chosen.
    pub ports: SourcePorts,
    /// `AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS`: destinations outside the VPC that are not translated either.
    pub excluded: Vec<Ipv4Net>,
    /// `AWS_VPC_CNI_NODE_PORT_SUPPORT`.
    pub node_ports: bool,
    /// `AWS_VPC_K8S_CNI_CONNMARK`, the bits of packets' and connections' marks that stand for the primary ENI, and
    /// `HAWSER_ENI_MARK_MASK`, the bits of packets' marks that hold the number of an ENI.
    pub marks: Marks,
    /// `ENABLE_V4_EGRESS` for pods with IPv6 addresses, `ENABLE_V6_EGRESS` for pods with IPv4 addresses: they reach
    /// destinations of the other family by the node's address.
    pub other_family: bool,
    /// `HAWSER_VPC_CIDR_PERIOD`: how often the metadata service is asked for the VPC's blocks.
    pub period: Duration,
}

impl Reader<'_> {
    pub(super) fn egress(&mut self, pods: Family) -> Egress {
        Egress {
            external_snat: self.flag("AWS_VPC_K8S_CNI_EXTERNALSNAT", false),
            ports: self.source_ports(),
            excluded: self.excluded(),
            node_ports: self.flag("AWS_VPC_CNI_NODE_PORT_SUPPORT", true),
            marks: self.marks(),
            other_family: self.other_family(pods),
            period: self.period(),
        }
    }

    /// The setting of the other kind of node is read too, so that a mistake in it is noticed.
    fn other_family(&mut self, pods: Family) -> bool {
        const TO_IPV6: &str = "ENABLE_V6_EGRESS";
        let (to_ipv4, to_ipv6) = (
            self.flag("ENABLE_V4_EGRESS", true),
            self.flag(TO_IPV6, false),
        );
        match pods {
            Family::V6 => to_ipv4,
            Family::V4 if to_ipv6 && self.flag("DISABLE_POD_V6", false) => {
                let wanted =
                    "DISABLE_POD_V6=false, because pods without IPv6 reach no IPv6 destinations";
                self.ignore(TO_IPV6, true, wanted);
                false
            }
            Family::V4 => to_ipv6,
        }
    }

    fn source_ports(&mut self) -> SourcePorts {
        const NAME: &str = "AWS_VPC_K8S_CNI_RANDOMIZESNAT";
        match self.text(NAME).as_deref() {
            None | Some("prng") => SourcePorts::Random,
            Some("hashrandom") => SourcePorts::Hashed,
            Some("none") => SourcePorts::Kept,
            Some(other) => {
                let other = other.to_owned();
                self.ignore(NAME, other, "prng, hashrandom or none");
                SourcePorts::Random
            }
        }
    }

    /// An invalid item affects only itself.
    fn excluded(&mut self) -> Vec<Ipv4Net> {
        const NAME: &str = "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS";
        let text = self.text(NAME).unwrap_or_default();
        let items = text.split(',').map(str::trim).filter(|s| !s.is_empty());
        let mut nets = Vec::new();
        for item in items {
            match item.parse() {
                Ok(IpNet::V4(net)) => nets.push(net.trunc()),
                _ => self.ignore(NAME, item, "IPv4 CIDRs, separated by commas"),
            }
        }
        nets
    }

    /// The bits that upstream's setting names are ignored where they cannot be used, as upstream does.
    fn marks(&mut self) -> Marks {
        const PRIMARY: &str = "AWS_VPC_K8S_CNI_CONNMARK";
        const ENI: &str = "HAWSER_ENI_MARK_MASK";
        let eni = self.eni_mask(ENI);
        let fallback = || Marks::new(Marks::DEFAULT.primary(), eni);
        let text = self.text(PRIMARY);
        let given = text.as_deref().map(|text| {
            let primary = any_base(text.trim())?;
            Marks::new(primary, eni).ok()
        });
        if let Some(Some(marks)) = given {
            return marks;
        }
        if let Some(text) = text {
            let wanted = format!("a 32-bit number other than 0, without the bits {eni:#x}");
            self.ignore(PRIMARY, text, &wanted);
        }
        fallback().unwrap_or_else(|error| {
            self.wrong(ENI, format!("{eni:#x}"), &error.to_string());
            Marks::DEFAULT
        })
    }

    fn eni_mask(&mut self, name: &'static str) -> u32 {
        let Some(text) = self.text(name) else {
            return Marks::DEFAULT.eni_mask();
        };
        any_base(text.trim()).unwrap_or_else(|| {
            self.wrong(name, text, "a 32-bit number, such as 0x7f");
            Marks::DEFAULT.eni_mask()
        })
    }

    fn period(&mut self) -> Duration {
        const NAME: &str = "HAWSER_VPC_CIDR_PERIOD";
        const WANTED: &str = "seconds, 1 or more";
        let seconds = self.or(NAME, WANTED, 30_u64);
        if seconds == 0 {
            self.wrong(NAME, seconds, WANTED);
        }
        Duration::from_secs(seconds)
    }
}

/// Like Go's integer literals: decimal, or with a prefix (`0x`, `0o` or `0`, `0b`).
fn any_base(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let (digits, base) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    u32::from_str_radix(digits, base).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Config;

    fn read(pairs: &[(&'static str, &'static str)]) -> Config {
        Config::read(&pairs.iter().copied().collect::<BTreeMap<_, _>>()).unwrap()
    }

    #[test]
    fn the_defaults_are_upstreams() {
        let config = read(&[]);
        let wanted = Egress {
            external_snat: false,
            ports: SourcePorts::Random,
            excluded: Vec::new(),
            node_ports: true,
            marks: Marks::DEFAULT,
            other_family: false,
            period: Duration::from_secs(30),
        };
        assert_eq!((config.egress, config.notices), (wanted, Vec::new()));
    }

    #[test]
    fn the_other_family_is_upstreams_default_on_both_kinds_of_nodes() {
        let six = [
            ("ENABLE_IPv6", "true"),
            ("ENABLE_IPv4", "false"),
            ("ENABLE_PREFIX_DELEGATION", "true"),
        ];
        let with = |more: &[(&'static str, &'static str)]| read(more).egress.other_family;
        assert!(with(&six) && !with(&[]));
        assert!(!with(
            &[&six[..], &[("ENABLE_V4_EGRESS", "false")]].concat()
        ));
        assert!(with(&[("ENABLE_V6_EGRESS", "true")]));
        // Settings of the other kind of node.
        assert!(!with(&[("ENABLE_V4_EGRESS", "true")]));
        assert!(with(&[&six[..], &[("ENABLE_V6_EGRESS", "false")]].concat()));
        let neither = read(&[("ENABLE_V6_EGRESS", "true"), ("DISABLE_POD_V6", "true")]);
        assert_eq!(
            (neither.egress.other_family, neither.notices.len()),
            (false, 1)
        );
    }

    #[test]
    fn a_mark_may_be_written_in_any_base() {
        for text in ["0x200", "0X200", "512", "01000", "0o1000", "0b1000000000"] {
            assert_eq!(any_base(text), Some(512), "{text}");
        }
        for text in ["", "0x", "x200", "4294967296", "-1", "0.5", "08"] {
            assert_eq!(any_base(text), None, "{text}");
        }
    }

    #[test]
    fn an_invalid_mark_is_ignored_and_reported() {
        for text in ["0", "blue", "0x1", "0xff", "0x100000000"] {
            let config = read(&[("AWS_VPC_K8S_CNI_CONNMARK", text)]);
            assert_eq!(config.egress.marks, Marks::DEFAULT, "{text}");
            assert_eq!(config.notices.len(), 1, "{text}");
        }
        let config = read(&[("AWS_VPC_K8S_CNI_CONNMARK", "0x80000000")]);
        assert_eq!(config.egress.marks, Marks::new(0x8000_0000, 0x7f).unwrap());
    }

    #[test]
    fn the_bits_of_enis_can_be_moved_and_wrong_ones_are_named() {
        let config = read(&[("HAWSER_ENI_MARK_MASK", "0x7f0000")]);
        assert_eq!(config.egress.marks, Marks::new(0x80, 0x7f_0000).unwrap());
        let both = [
            ("HAWSER_ENI_MARK_MASK", "0xf000"),
            ("AWS_VPC_K8S_CNI_CONNMARK", "0x800"),
        ];
        assert_eq!(read(&both).egress.marks, Marks::new(0x800, 0xf000).unwrap());
        for text in ["blue", "0x7", "0x5f", "0xff", "0xf0"] {
            let pairs = BTreeMap::from([("HAWSER_ENI_MARK_MASK", text)]);
            let error = Config::read(&pairs).unwrap_err().to_string();
            assert!(error.contains("HAWSER_ENI_MARK_MASK"), "{error}");
        }
    }

    #[test]
    fn source_ports_follow_upstreams_setting() {
        for (text, wanted, ignored) in [
            ("prng", SourcePorts::Random, 0),
            ("hashrandom", SourcePorts::Hashed, 0),
            ("none", SourcePorts::Kept, 0),
            ("dice", SourcePorts::Random, 1),
        ] {
            let config = read(&[("AWS_VPC_K8S_CNI_RANDOMIZESNAT", text)]);
            assert_eq!(config.egress.ports, wanted, "{text}");
            assert_eq!(config.notices.len(), ignored, "{text}");
        }
    }

    #[test]
    fn case_38_each_format_of_an_exclusion_is_taken_or_named() {
        for (list, wanted, ignored) in [
            (
                " 10.9.0.0/16 , 10.8.0.0/16 ",
                vec!["10.9.0.0/16", "10.8.0.0/16"],
                vec![],
            ),
            ("10.9.0.0/16,", vec!["10.9.0.0/16"], vec![]),
            ("10.9.1.2/16", vec!["10.9.0.0/16"], vec![]),
            ("0.0.0.0/0", vec!["0.0.0.0/0"], vec![]),
            (
                "2001:db8::/32,10.9.0.0/16",
                vec!["10.9.0.0/16"],
                vec!["2001:db8::/32"],
            ),
            (
                "10.9.0.0/16;10.8.0.0/16",
                vec![],
                vec!["10.9.0.0/16;10.8.0.0/16"],
            ),
            ("\"10.9.0.0/16\"", vec![], vec!["\"10.9.0.0/16\""]),
            (
                "10.9.0.0/33,10.8.0.0/16",
                vec!["10.8.0.0/16"],
                vec!["10.9.0.0/33"],
            ),
            ("10.9.0.0", vec![], vec!["10.9.0.0"]),
        ] {
            let config = read(&[("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", list)]);
            let wanted: Vec<Ipv4Net> = wanted.iter().map(|net| net.parse().unwrap()).collect();
            assert_eq!(config.egress.excluded, wanted, "{list}");
            let notices = format!("{:?}", config.notices);
            assert_eq!(config.notices.len(), ignored.len(), "{list}: {notices}");
            let named = |item: &&str| notices.contains(&item.replace('"', "\\\""));
            assert!(ignored.iter().all(named), "{list}: {notices}");
        }
    }

    #[test]
    fn exclusions_are_normalised_and_bad_ones_left_out() {
        let list = "192.168.1.7/16, 10.9.0.0/16,,fd00::/8,nonsense";
        let config = read(&[("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", list)]);
        let wanted = ["192.168.0.0/16", "10.9.0.0/16"].map(|net| net.parse().unwrap());
        assert_eq!(config.egress.excluded, wanted);
        assert_eq!(config.notices.len(), 2, "{:?}", config.notices);
    }
}
