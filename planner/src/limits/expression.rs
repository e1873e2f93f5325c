//! `--expression`: arithmetic over an instance's figures, in the part of the Common Expression Language that node
//! bootstrap tools use for it.
//!
//! Integers and truth values, `+ - * / %`, comparisons, `&& || !`, `a ? b : c`, parentheses, `math.least` and
//! `math.greatest`; nothing has a side effect and everything ends. It knows no instance: names get their values from
//! the caller. A result is usable from 1 to 2³¹ − 1 (source: nodeadm's `maxPodsExpression`).
//!
//! May use no other module.

mod parse;

use thiserror::Error;

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
    root: Node,
}

/// The names that an expression may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variables {
    pub default_enis: u32,
    pub ips_per_eni: u32,
    pub max_pods: u32,
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ExpressionError {
    #[error("at character {at}: expected {expected}, found {found}")]
    Syntax {
        /// Counted from 1.
        at: usize,
        expected: &'static str,
        found: String,
    },
    #[error("\"{name}\" is neither default_enis, ips_per_eni nor max_pods")]
    UnknownName { name: String },
    #[error("{operator} needs {needs}")]
    Type {
        operator: &'static str,
        needs: &'static str,
    },
    #[error("division by zero")]
    DivisionByZero,
    #[error("a number outgrows 64 bits")]
    Overflow,
    #[error("the result is a truth value, not a number")]
    NotANumber,
    #[error("the result is {result}, not a number from 1 to 2147483647")]
    OutOfRange { result: i64 },
    #[error("parentheses or operators nest deeper than {limit}")]
    TooDeep { limit: usize },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Number(i64),
    Truth(bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Value(Value),
    Name(String),
    Negate(Box<Node>),
    Not(Box<Node>),
    Binary(&'static str, Box<Node>, Box<Node>),
    Choice(Box<Node>, Box<Node>, Box<Node>),
    Least(Vec<Node>),
    Greatest(Vec<Node>),
}

impl Expression {
    /// # Errors
    /// [`ExpressionError::Syntax`] says where the text ceases to make sense.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        Ok(Self {
            text: text.to_owned(),
            root: parse::parse(text)?,
        })
    }

    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// # Errors
    /// Unknown names, operands of the wrong kind, division by zero, and results that no kubelet would take.
    pub fn evaluate(&self, variables: &Variables) -> Result<u32, ExpressionError> {
        match self.root.value(variables)? {
            Value::Truth(_) => Err(ExpressionError::NotANumber),
            Value::Number(result) => u32::try_from(result)
                .ok()
                .filter(|n| (1..=2_147_483_647).contains(n))
                .ok_or(ExpressionError::OutOfRange { result }),
        }
    }
}

impl Node {
    fn value(&self, names: &Variables) -> Result<Value, ExpressionError> {
        match self {
            Self::Value(value) => Ok(*value),
            Self::Name(name) => named(name, names),
            Self::Negate(inner) => {
                let n = inner.number("-", names)?;
                Ok(Value::Number(
                    n.checked_neg().ok_or(ExpressionError::Overflow)?,
                ))
            }
            Self::Not(inner) => Ok(Value::Truth(!inner.truth("!", names)?)),
            Self::Binary(operator, left, right) => binary(operator, left, right, names),
            Self::Choice(condition, yes, no) => {
                if condition.truth("?:", names)? {
                    yes.value(names)
                } else {
                    no.value(names)
                }
            }
            Self::Least(list) => extreme("math.least", list, names, i64::min),
            Self::Greatest(list) => extreme("math.greatest", list, names, i64::max),
        }
    }

    fn number(&self, operator: &'static str, names: &Variables) -> Result<i64, ExpressionError> {
        match self.value(names)? {
            Value::Number(n) => Ok(n),
            Value::Truth(_) => Err(ExpressionError::Type {
                operator,
                needs: "numbers",
            }),
        }
    }

    fn truth(&self, operator: &'static str, names: &Variables) -> Result<bool, ExpressionError> {
        match self.value(names)? {
            Value::Truth(truth) => Ok(truth),
            Value::Number(_) => Err(ExpressionError::Type {
                operator,
                needs: "a condition",
            }),
        }
    }
}

fn named(name: &str, names: &Variables) -> Result<Value, ExpressionError> {
    let value = match name {
        "default_enis" => names.default_enis,
        "ips_per_eni" => names.ips_per_eni,
        "max_pods" => names.max_pods,
        "true" => return Ok(Value::Truth(true)),
        "false" => return Ok(Value::Truth(false)),
        _ => {
            return Err(ExpressionError::UnknownName {
                name: name.to_owned(),
            });
        }
    };
    Ok(Value::Number(value.into()))
}

fn binary(
    operator: &'static str,
    left: &Node,
    right: &Node,
    names: &Variables,
) -> Result<Value, ExpressionError> {
    match operator {
        "&&" => {
            return Ok(Value::Truth(
                left.truth(operator, names)? && right.truth(operator, names)?,
            ));
        }
        "||" => {
            return Ok(Value::Truth(
                left.truth(operator, names)? || right.truth(operator, names)?,
            ));
        }
        "==" => return Ok(Value::Truth(left.value(names)? == right.value(names)?)),
        "!=" => return Ok(Value::Truth(left.value(names)? != right.value(names)?)),
        _ => {}
    }
    let (a, b) = (
        left.number(operator, names)?,
        right.number(operator, names)?,
    );
    if matches!(operator, "/" | "%") && b == 0 {
        return Err(ExpressionError::DivisionByZero);
    }
    let number = match operator {
        "<" => return Ok(Value::Truth(a < b)),
        "<=" => return Ok(Value::Truth(a <= b)),
        ">" => return Ok(Value::Truth(a > b)),
        ">=" => return Ok(Value::Truth(a >= b)),
        "+" => a.checked_add(b),
        "-" => a.checked_sub(b),
        "*" => a.checked_mul(b),
        "/" => a.checked_div(b),
        _ => a.checked_rem(b),
    };
    number.map(Value::Number).ok_or(ExpressionError::Overflow)
}

fn extreme(
    operator: &'static str,
    list: &[Node],
    names: &Variables,
    better: fn(i64, i64) -> i64,
) -> Result<Value, ExpressionError> {
    let mut best = None;
    for node in list {
        let n = node.number(operator, names)?;
        best = Some(best.map_or(n, |known| better(known, n)));
    }
    best.map(Value::Number).ok_or(ExpressionError::Type {
        operator,
        needs: "at least one number",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference's small instance: three ENIs of six addresses.
    const SMALL: Variables = Variables {
        default_enis: 3,
        ips_per_eni: 6,
        max_pods: 17,
    };

    fn evaluate(text: &str) -> Result<u32, ExpressionError> {
        Expression::parse(text)?.evaluate(&SMALL)
    }

    #[test]
    fn arithmetic_binds_as_usual() {
        for (text, expect) in [
            ("1 + 2 * 3", 7),
            ("(1 + 2) * 3", 9),
            ("10 - 2 - 3", 5),
            ("-2 + 7 % 4", 1),
            ("2 < 3 && !(1 == 2) ? 4 : 5", 4),
            ("false || 3 >= 4 ? 4 : 1 > 2 ? 5 : 6", 6),
            ("math.least(max_pods, 110, 12) + math.greatest(1, 2)", 14),
        ] {
            assert_eq!(evaluate(text), Ok(expect), "{text}");
        }
    }

    #[test]
    fn a_result_that_the_kubelet_would_refuse_is_an_error() {
        use ExpressionError as E;
        for (text, expect) in [
            ("0", E::OutOfRange { result: 0 }),
            ("0 - 5", E::OutOfRange { result: -5 }),
            ("max_pods > 5", E::NotANumber),
            (
                "2147483648",
                E::OutOfRange {
                    result: 2_147_483_648,
                },
            ),
            ("1 / 0", E::DivisionByZero),
            ("9223372036854775807 + 1", E::Overflow),
            (
                "enis * 2",
                E::UnknownName {
                    name: "enis".into(),
                },
            ),
            (
                "1 + true",
                E::Type {
                    operator: "+",
                    needs: "numbers",
                },
            ),
        ] {
            assert_eq!(evaluate(text), Err(expect), "{text}");
        }
    }

    #[test]
    fn syntax_errors_say_where() {
        let told = |text: &str| Expression::parse(text).unwrap_err().to_string();
        assert_eq!(
            told("1 +"),
            "at character 4: expected a number, a name or \"(\", found the end"
        );
        assert_eq!(
            told("(1 + 2"),
            "at character 7: expected \")\", found the end"
        );
        assert_eq!(
            told("1 2"),
            "at character 3: expected an operator, found \"2\""
        );
        assert_eq!(
            told("99999999999999999999"),
            "at character 1: expected a number of 64 bits, found \"99999999999999999999\""
        );
        assert!(told("a ? 1").contains("expected \":\""));
        assert!(told("1 & 2").contains("found \"&\""));
    }

    /// The text is the operator's, but a recursion without bound would be a crash all the same.
    #[test]
    fn depth_is_bounded() {
        let deep = "(".repeat(10_000);
        assert_eq!(
            Expression::parse(&deep),
            Err(ExpressionError::TooDeep {
                limit: parse::DEPTH
            })
        );
        assert!(Expression::parse(&"-".repeat(10_000)).is_err());
        assert!(evaluate(&vec!["1"; 30].join(" + ")).is_ok());
    }
}
