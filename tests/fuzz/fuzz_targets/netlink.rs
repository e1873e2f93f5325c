//! Datagrams that a netlink socket may give: answers, dumps, notifications, verdicts (nftables' too).

#![no_main]

libfuzzer_sys::fuzz_target!(|datagram: &[u8]| datapath::fuzz_entry::netlink(datagram));
