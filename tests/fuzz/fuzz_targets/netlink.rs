//! Datagrams that a netlink socket may give: answers, dumps, notifications, verdicts (nftables' too).

#![no_main]
#![expect(
    dead_code,
    reason = "the sources of datapath, of which only the parsers are used here"
)]

#[path = "../../../datapath/src/constants.rs"]
mod constants;
#[path = "../../../datapath/src"]
mod datapath {
    pub mod foreign;
    pub mod netlink;
    pub mod netns;
}
use datapath::{netlink, netns};

libfuzzer_sys::fuzz_target!(|datagram: &[u8]| datapath::foreign::netlink(datagram));
