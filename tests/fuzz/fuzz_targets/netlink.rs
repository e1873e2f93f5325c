//! Datagrams from a netlink socket: answers, dumps, notifications, errors (also of nftables).

#![no_main]

libfuzzer_sys::fuzz_target!(|datagram: &[u8]| datapath::fuzz_entry::netlink(datagram));
