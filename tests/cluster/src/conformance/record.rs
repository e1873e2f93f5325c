//! The results of a run as a text file: one line for each version, and one for each spec.

use std::{fmt, io, str::FromStr};

/// What came of a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// It failed while other specs ran, and passed alone.
    PassedAlone,
    Failed,
}

const OUTCOMES: [(Outcome, &str); 3] = [
    (Outcome::Passed, "passed"),
    (Outcome::PassedAlone, "passed alone"),
    (Outcome::Failed, "failed"),
];

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, name) = OUTCOMES
            .iter()
            .find(|(outcome, _)| outcome == self)
            .ok_or(fmt::Error)?;
        f.pad(name)
    }
}

/// A spec and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The mode of kube-proxy, or `critest`.
    pub suite: String,
    pub name: String,
    pub outcome: Outcome,
    pub seconds: u64,
}

/// All results of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What was run and when, as pairs of a name and a value.
    pub facts: Vec<(String, String)>,
    pub specs: Vec<Spec>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.facts {
            writeln!(f, "{name}\t{value}")?;
        }
        for spec in &self.specs {
            let Spec {
                suite,
                name,
                outcome,
                seconds,
            } = spec;
            writeln!(f, "{suite}\t{outcome}\t{seconds}\t{name}")?;
        }
        Ok(())
    }
}

impl FromStr for Record {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let mut record = Self::default();
        for line in text.lines() {
            let unknown = || io::Error::other(format!("not a line of a record: {line}"));
            match line.split('\t').collect::<Vec<_>>()[..] {
                [name, value] => record.facts.push((name.to_owned(), value.to_owned())),
                [suite, outcome, seconds, name] => record.specs.push(Spec {
                    suite: suite.to_owned(),
                    name: name.to_owned(),
                    outcome: OUTCOMES
                        .iter()
                        .find(|(_, text)| *text == outcome)
                        .map(|(outcome, _)| *outcome)
                        .ok_or_else(unknown)?,
                    seconds: seconds.parse().map_err(|_| unknown())?,
                }),
                _ => return Err(unknown()),
            }
        }
        Ok(record)
    }
}
