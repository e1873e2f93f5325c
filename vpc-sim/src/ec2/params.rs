//! Request parameters. Each is taken once. Parameters that are left are unknown, which is an error.

use std::{collections::BTreeMap, str::FromStr};

use crate::error::ApiError;

/// Parameters by name. For a member of a list of structures, the name of the list is included in messages.
#[derive(Debug, Default)]
pub struct Params {
    prefix: String,
    values: BTreeMap<String, String>,
}

impl Params {
    pub fn new(form: Vec<(String, String)>) -> Result<Self, ApiError> {
        let mut values = BTreeMap::new();
        for (name, value) in form {
            if values.contains_key(&name) {
                return Err(ApiError::Malformed {
                    why: format!("parameter {name} is given twice"),
                });
            }
            values.insert(name, value);
        }
        Ok(Self {
            prefix: String::new(),
            values,
        })
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn text(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    pub fn required(&mut self, name: &str) -> Result<String, ApiError> {
        self.text(name).ok_or_else(|| ApiError::MissingParameter {
            name: self.full(name),
        })
    }

    /// A value that is not a string.
    pub fn parsed<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.text(name) else {
            return Ok(None);
        };
        parse(&self.full(name), value).map(Some)
    }

    /// A required value that is not a string.
    pub fn required_parsed<T: FromStr>(&mut self, name: &str) -> Result<T, ApiError> {
        self.parsed(name)?
            .ok_or_else(|| ApiError::MissingParameter {
                name: self.full(name),
            })
    }

    pub fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.parsed(name)?.unwrap_or(false))
    }

    /// `name.1`, `name.2`, … in numeric order; gaps are allowed.
    pub fn list<T: FromStr>(&mut self, name: &str) -> Result<Vec<T>, ApiError> {
        let full = self.full(name);
        self.indexed(name)
            .into_values()
            .map(|v| parse(&full, v))
            .collect()
    }

    fn indexed(&mut self, name: &str) -> BTreeMap<u32, String> {
        let index = |key: &str| {
            key.strip_prefix(name)?
                .strip_prefix('.')?
                .parse::<u32>()
                .ok()
                .filter(|n| *n > 0)
        };
        let found: BTreeMap<_, _> = self
            .values
            .keys()
            .filter_map(|k| Some((index(k)?, k.clone())))
            .collect();
        found
            .into_iter()
            .filter_map(|(i, k)| Some((i, self.values.remove(&k)?)))
            .collect()
    }

    /// `name.1.…`, `name.2.…`: one set of parameters per index.
    pub fn structures(&mut self, name: &str) -> Vec<Self> {
        let split = |key: &str| {
            let (index, rest) = key.strip_prefix(name)?.strip_prefix('.')?.split_once('.')?;
            Some((
                index.parse::<u32>().ok().filter(|n| *n > 0)?,
                rest.to_owned(),
            ))
        };
        let mut out: BTreeMap<u32, Self> = BTreeMap::new();
        let keys: Vec<_> = self
            .values
            .keys()
            .filter_map(|k| Some((k.clone(), split(k)?)))
            .collect();
        for (key, (index, rest)) in keys {
            let member = out.entry(index).or_insert_with(|| Self {
                prefix: format!("{}{name}.{index}.", self.prefix),
                values: BTreeMap::new(),
            });
            if let Some(value) = self.values.remove(&key) {
                member.values.insert(rest, value);
            }
        }
        out.into_values().collect()
    }

    /// The end of decoding: any parameter left is unknown for this action, or not simulated.
    pub fn finish(self) -> Result<(), ApiError> {
        match self.values.keys().next() {
            Some(name) => Err(ApiError::UnknownParameter {
                name: self.full(name),
            }),
            None => Ok(()),
        }
    }

    /// The end of decoding for an action that supports DryRun.
    pub fn finish_dry(mut self) -> Result<(), ApiError> {
        let dry = self.flag("DryRun")?;
        self.finish()?;
        if dry { Err(ApiError::DryRun) } else { Ok(()) }
    }
}

fn parse<T: FromStr>(name: &str, value: String) -> Result<T, ApiError> {
    let why = "It cannot be read as what the parameter holds.";
    value.parse().map_err(|_| ApiError::InvalidValue {
        name: name.to_owned(),
        value,
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params::new(
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
        .unwrap()
    }

    #[test]
    fn lists_are_in_numeric_order() {
        let mut p = params(&[("A.10", "j"), ("A.2", "b"), ("A.1", "a")]);
        assert_eq!(p.list::<String>("A").unwrap(), ["a", "b", "j"]);
        p.finish().unwrap();
    }

    #[test]
    fn structures_nest_and_name_what_is_left_in_them() {
        let mut p = params(&[
            ("F.1.Name", "n"),
            ("F.1.Value.1", "v"),
            ("F.2.Name", "m"),
            ("F.2.Odd", "x"),
        ]);
        let mut all = p.structures("F").into_iter();
        let mut one = all.next().unwrap();
        assert_eq!(
            (one.required("Name"), one.list("Value")),
            (Ok("n".into()), Ok(vec!["v".to_owned()]))
        );
        one.finish().unwrap();
        let mut two = all.next().unwrap();
        two.text("Name");
        assert_eq!(
            two.finish(),
            Err(ApiError::UnknownParameter {
                name: "F.2.Odd".into()
            })
        );
    }

    #[test]
    fn a_remaining_parameter_is_an_error() {
        for name in ["Zero.0", "Colour", "A.x"] {
            let mut p = params(&[(name, "1")]);
            p.list::<String>("A").unwrap();
            p.list::<String>("Zero").unwrap();
            assert_eq!(
                p.finish(),
                Err(ApiError::UnknownParameter { name: name.into() })
            );
        }
    }

    #[test]
    fn twice_is_malformed() {
        let twice = vec![
            ("A".to_owned(), "1".to_owned()),
            ("A".to_owned(), "2".to_owned()),
        ];
        assert_eq!(
            Params::new(twice).unwrap_err().code(),
            "MalformedQueryString"
        );
    }
}
