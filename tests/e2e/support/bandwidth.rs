//! What a pod asks for its bandwidth, as a runtime passes it.

use serde_json::{Value, json};

/// `asked` and this limit, in bits per second, in each direction.
pub fn limited(mut asked: Value, bits: u64) -> Value {
    asked["bandwidth"] = json!({
        "ingressRate": bits, "ingressBurst": bits, "egressRate": bits, "egressBurst": bits,
    });
    asked
}
