//! Entry of the fuzz target, and of the test that replays its corpus: passes a datagram through everything that reads netlink.
//!
//! The kernel is trusted, but a later release may send what no test here has seen. A pod's socket also comes from another
//! process.

use std::hint::black_box;

use crate::netlink::{
    addr::Address,
    channel::Frames,
    link::Link,
    neigh::Neighbour,
    route::Route,
    rule::Rule,
    socket::{NLMSG_DONE, NLMSG_ERROR, parse, verdict},
};

/// Parses a datagram as rtnetlink. Answers of nftables are verdicts, which have the same form.
pub fn netlink(datagram: &[u8]) {
    for frame in Frames::of(datagram, "fuzz") {
        let Ok(frame) = frame else {
            return;
        };
        if matches!(frame.kind, NLMSG_ERROR | NLMSG_DONE) {
            if let Err(error) = verdict("fuzz", &frame) {
                // Errors are written to logs and replies.
                drop(error.to_string());
            }
            continue;
        }
        let Ok(message) = parse("fuzz", frame) else {
            continue;
        };
        drop(Link::from_message(&message));
        black_box(Route::from_message(&message));
        black_box(Address::from_message(&message));
        black_box(Neighbour::from_message(&message));
        black_box(Rule::from_message(&message));
    }
}

#[cfg(test)]
mod tests {
    use super::netlink;

    #[test]
    fn the_corpus_harms_nothing() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/netlink");
        let mut replayed = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            netlink(&std::fs::read(entry.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0, "no corpus");
    }
}
