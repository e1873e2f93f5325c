//! Datagrams that a netlink socket may give: answers, dumps, notifications, verdicts (nftables' too).

#![no_main]

#[path = "../../../datapath/src/constants.rs"]
mod constants;
#[path = "../../../datapath/src"]
mod datapath {
    pub mod fuzz_entry;
    pub mod netlink;
    pub mod netns;
}
use datapath::{netlink, netns};

libfuzzer_sys::fuzz_target!(|datagram: &[u8]| datapath::fuzz_entry::netlink(datagram));
