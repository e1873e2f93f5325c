//! The header blocks of the answer (RFC 7541), with everything that a server may use if the client allows no dynamic
//! table.

use tonic::codegen::http::{HeaderMap, HeaderName, HeaderValue};

/// The contents of an answer's headers and trailers.
#[derive(Debug, Default)]
pub struct Fields {
    pub status: Option<u16>,
    /// Fields with literal names, including gRPC's own.
    pub named: HeaderMap,
}

/// `:status` in the static table: 200, 204, 206, 304, 400, 404, 500.
const STATUS: (usize, [u16; 7]) = (8, [200, 204, 206, 304, 400, 404, 500]);
/// Entries of the static table.
const STATIC: usize = 61;

impl Fields {
    /// Adds a block's fields.
    ///
    /// # Errors
    /// The error in the block.
    pub fn read(&mut self, block: &[u8]) -> Result<(), &'static str> {
        let mut rest = Rest(block);
        while let Some(&first) = rest.0.first() {
            match first {
                0x80.. => self.indexed(rest.integer(7)?)?,
                0x20..0x40 => {
                    if rest.integer(5)? > 0 {
                        return Err("a dynamic header table, which is not allowed");
                    }
                }
                _ => {
                    // Whether or not the field may be indexed: we have no dynamic table.
                    let index = rest.integer(if first < 0x40 { 4 } else { 6 })?;
                    self.literal(index, &mut rest)?;
                }
            }
        }
        Ok(())
    }

    fn indexed(&mut self, index: usize) -> Result<(), &'static str> {
        if index == 0 || index > STATIC {
            return Err("a header with an unknown index");
        }
        if let Some(&status) = index.checked_sub(STATUS.0).and_then(|n| STATUS.1.get(n)) {
            self.status = Some(status);
        }
        Ok(())
    }

    fn literal(&mut self, index: usize, rest: &mut Rest<'_>) -> Result<(), &'static str> {
        if index > STATIC {
            return Err("a header with an unknown index");
        }
        let name = if index == 0 {
            Some(rest.string()?)
        } else {
            None
        };
        let value = rest.string()?;
        let is_status = |index: usize| {
            let nth = index.checked_sub(STATUS.0);
            nth.is_some_and(|nth| nth < STATUS.1.len())
        };
        match name {
            Some(name) if name != b":status" => {
                let name = HeaderName::from_bytes(&name).map_err(|_| "a malformed header name")?;
                let value = HeaderValue::from_bytes(&value).map_err(|_| "a malformed header")?;
                self.named.append(name, value);
            }
            None if !is_status(index) => {} // other names of the static table do not matter for a call
            _ => {
                let text = std::str::from_utf8(&value).ok();
                self.status = text.and_then(|text| text.parse().ok());
            }
        }
        Ok(())
    }
}

/// The rest of a block.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let (&first, rest) = self.0.split_first().ok_or("a header block is cut short")?;
        self.0 = rest;
        Ok(first)
    }

    /// An integer that starts in the low `bits` of the next byte (RFC 7541, 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, &'static str> {
        let most = (1 << bits) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number in the headers is too large")
    }

    fn string(&mut self) -> Result<Vec<u8>, &'static str> {
        let is_coded = self.0.first().is_some_and(|first| *first >= 0x80);
        let length = self.integer(7)?;
        let (text, rest) = self
            .0
            .split_at_checked(length)
            .ok_or("a header block is cut short")?;
        self.0 = rest;
        if is_coded {
            decode(text)
        } else {
            Ok(text.to_vec())
        }
    }
}

/// The number of bits of each byte in the code of RFC 7541, appendix B. The code is canonical: within a length it
/// increases by byte, so the lengths define it completely.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];
const LONGEST: usize = 30;

/// The code in the order of its lengths.
struct Code {
    /// For each length: its first code, the offset of its bytes in `bytes`, and their number.
    lengths: [(u32, usize, u32); LONGEST + 1],
    bytes: [u8; 256],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut code = Code {
        lengths: [(0, 0, 0); LONGEST + 1],
        bytes: [0; 256],
    };
    let (mut next, mut at, mut length) = (0, 0, 1);
    while length <= LONGEST {
        next <<= 1;
        let (first, begin) = (next, at);
        let mut byte = 0_u8;
        loop {
            if LENGTHS[byte as usize] as usize == length {
                code.bytes[at] = byte;
                at += 1;
                next += 1;
            }
            if byte == u8::MAX {
                break;
            }
            byte += 1;
        }
        code.lengths[length] = (first, begin, next - first);
        length += 1;
    }
    code
}

fn decode(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    const WRONG: &str = "a header has an invalid code";
    let mut plain = Vec::with_capacity(text.len() * 8 / 5);
    let (mut bits, mut length) = (0_u32, 0);
    for bit in text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |n| byte >> n & 1))
    {
        bits = bits << 1 | u32::from(bit);
        length += 1;
        let &(first, begin, count) = CODE.lengths.get(length).ok_or(WRONG)?;
        if let Some(nth) = bits.checked_sub(first).filter(|nth| *nth < count) {
            plain.push(CODE.bytes[begin + nth as usize]);
            (bits, length) = (0, 0);
        }
    }
    // The padding of the last byte is the beginning of the longest code, all ones.
    if length < 8 && bits == (1 << length) - 1 {
        Ok(plain)
    } else {
        Err(WRONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(block: &[u8]) -> Result<Fields, &'static str> {
        let mut fields = Fields::default();
        fields.read(block).map(|()| fields)
    }

    /// Strings of RFC 7541, appendix C.
    #[test]
    fn coded_strings_of_the_standard_are_read() {
        for (coded, plain) in [
            (
                &b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..],
                "www.example.com",
            ),
            (b"\xa8\xeb\x10\x64\x9c\xbf", "no-cache"),
            (b"\x64\x02", "302"),
            (b"\xae\xc3\x77\x1a\x4b", "private"),
        ] {
            assert_eq!(decode(coded).unwrap(), plain.as_bytes());
        }
    }

    #[test]
    fn a_code_that_ends_wrongly_is_refused() {
        // Padding with zeros, padding of a whole byte, and the end symbol itself.
        for coded in [&b"\x00"[..], b"\x64\x02\xff", b"\xff\xff\xff\xfc"] {
            assert!(decode(coded).is_err(), "{coded:?}");
        }
    }

    #[test]
    fn fields_are_read_in_every_form() {
        let mut block = vec![0x20, 0x80 | 8]; // no table; :status 200
        block.extend(b"\x0f\x10\x10application/grpc"); // content-type
        block.extend(b"\x40\x0bgrpc-status\x0214"); // may be indexed
        block.extend(b"\x10\x0cgrpc-message\x86\xa8\xeb\x10\x64\x9c\xbf"); // never indexed, coded
        let fields = read(&block).unwrap();
        assert_eq!(fields.status, Some(200));
        assert_eq!(fields.named["grpc-status"], "14");
        assert_eq!(fields.named["grpc-message"], "no-cache");
        assert_eq!(fields.named.len(), 2);
    }

    #[test]
    fn a_status_may_be_spelt_out() {
        for block in [&b"\x08\x03503"[..], b"\x00\x07:status\x03503"] {
            assert_eq!(read(block).unwrap().status, Some(503));
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        for block in [
            &b"\x80"[..],                // index 0
            b"\xbe",                     // index 62, of a table that is not allowed
            b"\x3f\xe1\x1f",             // a change of the table's size
            b"\x00\x05grpc",             // truncated
            b"\xff\xff\xff\xff\xff\xff", // a number without an end
            b"\x00\x01 \x01a",           // an invalid name
        ] {
            assert!(read(block).is_err(), "{block:?}");
        }
    }

    #[test]
    fn a_request_has_the_fields_of_grpc() {
        let words = proto::wire::opening("Add");
        let at = words.windows(2).position(|two| two == [0x83, 0x86]); // POST, http
        let block = &words[at.expect("where the fields begin")..];
        let fields = read(block).unwrap();
        assert_eq!(fields.named["te"], "trailers");
        let text = String::from_utf8_lossy(block).into_owned();
        assert!(text.contains("/hawser.v1.Node/Add") && text.contains("application/grpc"));
    }
}
