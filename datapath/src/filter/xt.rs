//! The matches and targets of iptables. Both of its back ends store them in the same binary form (`xt_*.h`).

use super::chains::{Action, Fit};
use crate::marks::Marks;

fn number(info: &[u8], at: usize) -> Option<u32> {
    let bytes = info.get(at..at + 4)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    let bytes = info.get(at..at + 2)?;
    bytes.try_into().ok().map(u16::from_ne_bytes)
}

/// Whether a packet's mark has `value` under `mask`, if it may have any of the bits of `marks` and no other.
pub fn mark(value: u32, mask: u32, marks: Marks) -> Fit {
    let any = marks.all();
    if mask & any != 0 && value & !any & mask == 0 {
        return Fit::Perhaps;
    }
    Fit::of(value & mask & !any == 0 && mask & any == 0)
}

/// Whether a match holds for a new TCP connection of a pod.
pub fn fits(name: &str, info: &[u8], marks: Marks) -> Fit {
    match name {
        "comment" => Fit::Yes,
        "mark" => match (number(info, 0), number(info, 4), info.get(8)) {
            (Some(value), Some(mask), inverted) => {
                let fit = mark(value, mask, marks);
                if inverted.is_some_and(|i| *i != 0) {
                    fit.not()
                } else {
                    fit
                }
            }
            _ => Fit::Perhaps,
        },
        "conntrack" => conntrack(info).unwrap_or(Fit::Perhaps),
        "state" => number(info, 0).map_or(Fit::Perhaps, |states| Fit::of(states & NEW != 0)),
        "icmp" | "icmp6" | "udp" | "sctp" | "esp" | "ah" => Fit::No,
        _ => Fit::Perhaps,
    }
}

/// `XT_CONNTRACK_STATE_BIT(IP_CT_NEW)`.
pub const NEW: u32 = 8;

/// `struct xt_conntrack_mtinfo2` and `3`: eight addresses, two times of expiry, five numbers, then flags and states.
fn conntrack(info: &[u8]) -> Option<Fit> {
    const FLAGS: usize = 8 * 16 + 8 + 5 * 2;
    const STATE: u16 = 1;
    let (flags, inverted, states) = (
        half(info, FLAGS)?,
        half(info, FLAGS + 2)?,
        half(info, FLAGS + 4)?,
    );
    if flags & STATE == 0 {
        return None;
    }
    let state = Fit::of(u32::from(states) & NEW != 0);
    let state = if inverted & STATE != 0 {
        state.not()
    } else {
        state
    };
    // The other conditions are not decoded.
    Some(if flags == STATE {
        state
    } else {
        state.and(Fit::Perhaps)
    })
}

/// The effect of a target that is not a plain verdict.
pub fn target(name: &str) -> Action {
    match name {
        "REJECT" | "TARPIT" => Action::Drop,
        "QUEUE" | "NFQUEUE" | "SYNPROXY" => Action::Unknown,
        // Marks, logs, counters, addresses: the packet goes on.
        _ => Action::Continue,
    }
}

/// Whether a link's name fits a rule's name and mask, as the kernel compares them.
pub fn link(name: &str, wanted: &[u8], mask: &[u8]) -> bool {
    let mut padded = [0; 16];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let all = padded.iter().zip(wanted).zip(mask);
    all.fold(true, |fits, ((have, want), mask)| {
        fits && (have ^ want) & mask == 0
    })
}
