//! Owns the parsing of untrusted JSON: what `serde_json` accepts, without anything that two parsers may read
//! differently.
//!
//! Some parsers keep the first of two duplicate keys, others the last. NUL ends a string in the kernel. `serde_json`'s
//! own recursion limit of 128 bounds the depth.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses one JSON text strictly.
///
/// # Errors
/// Invalid JSON, invalid UTF-8, too deep, a duplicate key, or NUL in a string.
pub fn parse(bytes: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice::<Strict>(bytes).map(|strict| strict.0)
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

fn without_nul<E: Error>(text: &str) -> Result<String, E> {
    if text.contains('\0') {
        return Err(E::custom("a string contains NUL"));
    }
    Ok(text.to_owned())
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        without_nul(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let key = without_nul(&key)?;
            let Strict(value) = map.next_value()?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key {key:?} appears twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ordinary_json_is_read_as_it_is() {
        let text = r#"{"a": [1, -2, 1.5, true, null, "ä"], "b": {"c": {}}}"#;
        let expected = json!({"a": [1, -2, 1.5, true, null, "ä"], "b": {"c": {}}});
        assert_eq!(parse(text.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"{"x": [{"b": {"a": 1, "\u0061": 2}}]}"#,
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.to_string().contains("appears twice"), "{error}");
        }
    }

    #[test]
    fn nul_and_invalid_utf8_are_refused() {
        for text in [
            &b"{\"a\": \"x\\u0000y\"}"[..],
            b"{\"x\\u0000\": 1}",
            b"{\"a\": \"\0\"}",
            b"{\"a\": \"\xff\"}",
            b"\0",
            b"",
            b"{} {}",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse(&deep(100)).is_ok());
        assert!(parse(&deep(200)).is_err());
        assert!(parse(&deep(500_000)).is_err());
    }
}
