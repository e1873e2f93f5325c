//! `--expression`: a formula of the operator's own in the Common Expression Language, as in nodeadm's
//! `maxPodsExpression`.
//!
//! The language is a library's. This file binds the names of an instance's figures to it and says what is wrong with a
//! text. It knows no instance.

use std::{fmt, sync::Arc, thread};

use cel::{Context, Env, ExecutionError, ParseErrors, Program, Value};
use planner::limits::max_pods::{Expression as Formula, Variables};

/// Bytes of a text. Formulas have about 60.
const LIMIT: usize = 1000;

/// The library's parser is recursive. It stops at 96 nested levels, and one level takes up to 200 KiB of stack.
const STACK: usize = 64 << 20;

/// A parsed expression.
#[derive(Clone)]
pub(super) struct Expression {
    text: String,
    env: Arc<Env>,
    program: Arc<Program>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum ExpressionError {
    #[error("it has {found} bytes, and the limit is {LIMIT}")]
    TooLong { found: usize },
    /// `at` counts characters from 1.
    #[error("at character {at}: {message}")]
    Syntax { at: isize, message: String },
    #[error("\"{name}\" is neither default_enis, ips_per_eni nor max_pods")]
    UnknownName { name: String },
    #[error("{0}")]
    Evaluation(String),
    #[error("the result is {result}, not a number from 1 to 2147483647")]
    NoPodCount { result: String },
    #[error("no thread could be started for it")]
    NoThread,
}

impl Expression {
    /// # Errors
    /// [`ExpressionError::TooLong`] and [`ExpressionError::Syntax`].
    pub(super) fn parse(text: &str) -> Result<Self, ExpressionError> {
        let found = text.len();
        if found > LIMIT {
            return Err(ExpressionError::TooLong { found });
        }
        let mut env = Env::default().with_stdlib();
        cel::extensions::math(&mut env).expect("no other library declares these names");
        let env = Arc::new(env);
        let program = deep(|| env.compile(text).map_err(|errors| syntax(&errors)))??;
        Ok(Self {
            text: text.to_owned(),
            env,
            program: Arc::new(program),
        })
    }

    fn execute(&self, names: &Variables) -> Result<Value, ExpressionError> {
        let mut context = Context::with_env(Arc::clone(&self.env));
        let variables = [
            ("default_enis", names.default_enis),
            ("ips_per_eni", names.ips_per_eni),
            ("max_pods", names.max_pods),
        ];
        for (name, value) in variables {
            context.add_variable_from_value(name, Value::Int(value.into()));
        }
        deep(|| self.program.execute(&context))?.map_err(|error| match error {
            ExecutionError::UndeclaredReference(name) => ExpressionError::UnknownName {
                name: name.to_string(),
            },
            error => ExpressionError::Evaluation(plain_error(&error)),
        })
    }

    fn count(&self, names: &Variables) -> Result<u32, ExpressionError> {
        let value = self.execute(names)?;
        let whole = match &value {
            Value::Int(n) => u32::try_from(*n).ok(),
            Value::UInt(n) => u32::try_from(*n).ok(),
            _ => None,
        };
        whole
            .filter(|n| (1..=2_147_483_647).contains(n))
            .ok_or_else(|| ExpressionError::NoPodCount {
                result: plain(&value),
            })
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Formula for Expression {
    fn text(&self) -> &str {
        &self.text
    }

    fn evaluate(&self, names: &Variables) -> Result<u32, String> {
        self.count(names).map_err(|error| error.to_string())
    }
}

/// Runs `work` with a stack that the library's recursion cannot exhaust.
fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ExpressionError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK);
        let worker = thread
            .spawn_scoped(scope, work)
            .map_err(|_| ExpressionError::NoThread)?;
        Ok(worker.join().expect("the library does not panic"))
    })
}

/// The first error: the parser goes on after an error, and what follows is guesswork.
fn syntax(errors: &ParseErrors) -> ExpressionError {
    let first = errors.errors.first();
    ExpressionError::Syntax {
        at: first.map_or(1, |error| error.pos.1),
        message: first.map_or_else(String::new, |error| plain_message(&error.msg)),
    }
}

/// Without the list of all tokens that could follow.
fn plain_message(message: &str) -> String {
    let message = message.trim_start_matches("Syntax error: ");
    let message = message.split(" expecting ").next().unwrap_or(message);
    message
        .replace("mismatched input", "unexpected")
        .replace("extraneous input", "unexpected")
        .replace("'<EOF>'", "end of the text")
}

/// The library's own texts show values in Rust's debug form.
fn plain_error(error: &ExecutionError) -> String {
    match error {
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number does not fit into 64 bits".to_owned(),
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => format!(
            "the operator \"{operator}\" does not accept {} and {}",
            plain(left),
            plain(right)
        ),
        error => error.to_string(),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Int(n) => n.to_string(),
        Value::UInt(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::String(text) => format!("\"{text}\""),
        other => format!("of the type {}", other.type_of()),
    }
}

#[cfg(test)]
mod tests {
    use planner::{
        InstanceType,
        limits::{self, Hypervisor, Question, max_pods_by},
    };

    use super::*;

    /// The reference's small instance: three ENIs of six addresses.
    const SMALL: Variables = Variables {
        default_enis: 3,
        ips_per_eni: 6,
        max_pods: 17,
    };

    fn evaluate(text: &str) -> Result<u32, ExpressionError> {
        Expression::parse(text)?.count(&SMALL)
    }

    fn instance(enis: u16, addresses: u16) -> InstanceType {
        InstanceType {
            name: "test.large".into(),
            max_enis: enis,
            ipv4_per_eni: addresses,
            default_card: 0,
            cards: vec![enis],
            hypervisor: Hypervisor::Nitro,
            bare_metal: false,
            trunking: None,
            branch_enis: None,
            vcpus: Some(2),
        }
    }

    fn figures(instance: &InstanceType, text: &str) -> limits::MaxPods {
        let expression = Expression::parse(text).unwrap();
        max_pods_by(instance, &Question::default(), &expression).unwrap()
    }

    /// upstream-datapath §8.5, rows 3 to 8. Row 4 is an unknown name, row 8 a standard number above the expression's own
    /// cap.
    #[test]
    fn nodeadms_examples_have_nodeadms_results() {
        for (text, expect) in [
            ("max_pods + 1", 18),
            ("unknown * 2", 17),
            ("default_enis * (ips_per_eni - 1) * 16 + 2", 242),
            (
                "math.least(default_enis * (ips_per_eni - 1) * 16 + 2, 30)",
                30,
            ),
            ("(default_enis - 1) * (ips_per_eni - 1) + 2", 12),
        ] {
            assert_eq!(figures(&instance(3, 6), text).max_pods, expect, "{text}");
        }
        let large = figures(&instance(3, 12), "max_pods > 30 ? 30 : max_pods");
        assert_eq!(large.max_pods, 30);
    }

    /// Row 9: the standard number is used, and the reason is reported.
    #[test]
    fn an_unusable_expression_is_reported_and_ignored() {
        for text in [
            "max_pods - 17",
            "0 - 1",
            "max_pods > 1",
            "2147483647 + 1",
            "1.5",
            "'many'",
        ] {
            let answer = figures(&instance(3, 6), text);
            assert_eq!(answer.max_pods, 17, "{text}");
            assert!(answer.expression_error.is_some(), "{text}");
        }
    }

    /// Row 14: m4.xlarge with an addition.
    #[test]
    fn an_addition_raises_the_reserved_memory() {
        let more = figures(limits::require("m4.xlarge").unwrap(), "max_pods + 2");
        assert_eq!((more.max_pods, more.reserved_memory), (60, 915));
    }

    #[test]
    fn arithmetic_binds_as_usual() {
        for (text, expect) in [
            ("1 + 2 * 3", 7),
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
    fn errors_say_what_is_wrong() {
        let told = |text: &str| evaluate(text).unwrap_err().to_string();
        for (text, expect) in [
            ("0", "the result is 0, not a number from 1 to 2147483647"),
            ("max_pods > 5", "the result is true, not a number"),
            (
                "enis * 2",
                "\"enis\" is neither default_enis, ips_per_eni nor max_pods",
            ),
            ("1 / 0", "division by zero"),
            (
                "1 + true",
                "the operator \"add\" does not accept 1 and true",
            ),
            ("1 +", "at character 4: unexpected end of the text"),
            (
                "9223372036854775807 + 1",
                "a number does not fit into 64 bits",
            ),
            ("(1 + 2", "at character 7: missing ')'"),
            ("1 2", "at character 3: unexpected '2'"),
            ("99999999999999999999", "at character 1: "),
            ("math.least()", "requires at least one argument"),
        ] {
            let told = told(text);
            assert!(told.contains(expect), "{text}: {told}");
            assert!(!told.contains('\n'), "{text}: {told}");
        }
    }

    /// The text is the operator's, but a recursion without limit would still be a crash.
    #[test]
    fn depth_and_length_are_limited() {
        for deep in ["(", "[", "-(", "!", "true ? 1 : "] {
            let text = deep.repeat(LIMIT / deep.len());
            assert!(Expression::parse(&text).is_err(), "{deep}");
        }
        let long = vec!["1"; LIMIT / 2].join("+");
        assert_eq!(evaluate(&long), Ok(u32::try_from(LIMIT / 2).unwrap()));
        let too_long = vec!["1"; LIMIT].join("+");
        assert!(matches!(
            Expression::parse(&too_long),
            Err(ExpressionError::TooLong { .. })
        ));
    }
}
