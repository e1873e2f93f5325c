//! The exact bytes of HTTP/2 with which the plugin makes its one gRPC call on a connection. The plugin writes them; the
//! daemon compares what it receives with them, and answers an exact match without a full HTTP/2 implementation.
//!
//! Owns the frame headers and the header block of a request. Knows nothing about how either side reads its answer.

/// The service in the contract's own package.
const SERVICE: &str = "/hawser.v1.Node/";
/// The connection preface of a client (RFC 9113, 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The only stream of a connection.
pub const STREAM: u32 = 1;
/// Length of a frame header, in bytes.
pub const HEAD: usize = 9;
/// The largest frame payload that a peer may send before settings allow more. We never send a larger one.
pub const FRAME_MAX: usize = 1 << 14;
/// Length of what gRPC puts before a message: the compression flag (one byte) and the message's length (four bytes).
pub const PREFIX: usize = 5;

/// `SETTINGS_HEADER_TABLE_SIZE` 0, so that no header refers to an earlier one. `SETTINGS_ENABLE_PUSH` 0.
const SETTINGS: [u8; 12] = [0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];

/// Frame types (RFC 9113, 6).
pub mod frame {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Frame flags.
pub mod flag {
    /// In SETTINGS and PING frames.
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Appends a frame to `out`. `payload` must not be longer than [`FRAME_MAX`].
pub fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend(&length(payload)[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
}

/// What gRPC puts before an uncompressed message ("Length-Prefixed-Message").
#[must_use]
pub fn prefix(message: &[u8]) -> [u8; PREFIX] {
    let [a, b, c, d] = length(message);
    [0, a, b, c, d]
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Everything that a call sends before its message: preface, settings and request headers.
#[must_use]
pub fn opening(method: &str) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    put(&mut bytes, frame::SETTINGS, 0, 0, &SETTINGS);
    let fields = fields(method);
    put(
        &mut bytes,
        frame::HEADERS,
        flag::END_HEADERS,
        STREAM,
        &fields,
    );
    bytes
}

/// The header block of a request, without Huffman coding or a dynamic table (RFC 7541). The indices are those of the static
/// table. All literals are shorter than 127 bytes, so that one byte holds each length.
fn fields(method: &str) -> Vec<u8> {
    const METHOD_POST: u8 = 0x80 | 3;
    const SCHEME_HTTP: u8 = 0x80 | 6;
    const AUTHORITY: u8 = 1;
    const PATH: u8 = 4;
    /// Index 31, of which the first byte holds 15.
    const CONTENT_TYPE: [u8; 2] = [0x0f, 31 - 15];
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    let mut literal = |index: &[u8], texts: &[&str]| {
        block.extend(index);
        for text in texts {
            debug_assert!(text.len() < 0x7f, "one byte holds the length");
            block.push(text.len().to_le_bytes()[0]);
            block.extend(text.as_bytes());
        }
    };
    literal(&[AUTHORITY], &["ipamd"]);
    literal(&[PATH], &[&[SERVICE, method].concat()]);
    literal(&CONTENT_TYPE, &["application/grpc"]);
    literal(&[0], &["te", "trailers"]);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_length_in_front() {
        let mut out = Vec::new();
        put(&mut out, frame::DATA, flag::END_STREAM, STREAM, &[7; 300]);
        assert_eq!(out[..HEAD], [0, 1, 44, 0, 1, 0, 0, 0, 1]);
        assert_eq!(out[HEAD..], [7; 300]);
    }

    #[test]
    fn no_call_begins_like_another() {
        let all = ["Add", "Del", "Check", "Gc", "Status", "Inspect"].map(opening);
        for (n, opening) in all.iter().enumerate() {
            let alike = all.iter().filter(|other| other.starts_with(opening));
            assert_eq!(alike.count(), 1, "{n}");
        }
    }
}
