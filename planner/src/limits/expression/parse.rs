//! From text to tree, by recursive descent, one function per level of precedence. Values are none of its business.

use super::{ExpressionError, Node, Value};

/// Levels of nesting that are followed.
pub(super) const DEPTH: usize = 100;

/// Binary operators from the loosest to the tightest; those of one row associate to the left.
const LEVELS: [&[&str]; 5] = [
    &["||"],
    &["&&"],
    &["==", "!=", "<=", ">=", "<", ">"],
    &["+", "-"],
    &["*", "/", "%"],
];

/// Every symbol, longer ones before those that they begin with.
const SYMBOLS: [&str; 19] = [
    "||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", "(", ")",
    ",",
];

pub(super) fn parse(text: &str) -> Result<Node, ExpressionError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        depth: 0,
    };
    let root = parser.choice()?;
    match parser.peek().kind {
        Kind::End => Ok(root),
        _ => Err(parser.unexpected("an operator")),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Number(i64),
    Name(String),
    Symbol(&'static str),
    End,
}

#[derive(Clone, Debug)]
struct Token {
    at: usize,
    text: String,
    kind: Kind,
}

fn tokens(text: &str) -> Result<Vec<Token>, ExpressionError> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = text.len() - rest.len() + 1;
        let Some(first) = rest.chars().next() else {
            let text = "the end".to_owned();
            found.push(Token {
                at,
                text,
                kind: Kind::End,
            });
            return Ok(found);
        };
        let word = |also: char| {
            let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == also;
            rest.find(|c: char| !part(c)).unwrap_or(rest.len())
        };
        let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
        let (length, kind) = if first.is_ascii_digit() {
            let length = word('_');
            let wrong = || syntax(at, "a number of 64 bits", &rest[..length]);
            let number = rest[..length].parse().map_err(|_| wrong())?;
            (length, Kind::Number(number))
        } else if first.is_ascii_alphabetic() {
            let length = word('.');
            (length, Kind::Name(rest[..length].to_owned()))
        } else if let Some(symbol) = symbol {
            (symbol.len(), Kind::Symbol(symbol))
        } else {
            return Err(syntax(at, "an operator", &first.to_string()));
        };
        let (text, left) = rest.split_at(length);
        let text = format!("\"{text}\"");
        found.push(Token { at, text, kind });
        rest = left;
    }
}

fn syntax(at: usize, expected: &'static str, found: &str) -> ExpressionError {
    ExpressionError::Syntax {
        at,
        expected,
        found: format!("\"{found}\""),
    }
}

struct Parser {
    /// Ends with [`Kind::End`], which is never consumed.
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next.min(self.tokens.len() - 1)]
    }

    fn unexpected(&self, expected: &'static str) -> ExpressionError {
        let Token { at, text, .. } = self.peek().clone();
        ExpressionError::Syntax {
            at,
            expected,
            found: text,
        }
    }

    fn take(&mut self, symbol: &str) -> bool {
        let there = matches!(self.peek().kind, Kind::Symbol(found) if found == symbol);
        self.next += usize::from(there);
        there
    }

    fn need(&mut self, symbol: &str, told: &'static str) -> Result<(), ExpressionError> {
        if self.take(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(told))
        }
    }

    fn deeper<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, ExpressionError>,
    ) -> Result<T, ExpressionError> {
        if self.depth == DEPTH {
            return Err(ExpressionError::TooDeep { limit: DEPTH });
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn choice(&mut self) -> Result<Node, ExpressionError> {
        self.deeper(|p| {
            let condition = p.level(0)?;
            if !p.take("?") {
                return Ok(condition);
            }
            let yes = p.choice()?;
            p.need(":", "\":\"")?;
            let no = p.choice()?;
            Ok(Node::Choice(condition.into(), yes.into(), no.into()))
        })
    }

    fn level(&mut self, level: usize) -> Result<Node, ExpressionError> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.level(level + 1)?;
        while let Some(operator) = operators.iter().find(|operator| self.take(operator)) {
            let right = self.level(level + 1)?;
            left = Node::Binary(operator, left.into(), right.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, ExpressionError> {
        if self.take("-") {
            return self.deeper(|p| Ok(Node::Negate(p.unary()?.into())));
        }
        if self.take("!") {
            return self.deeper(|p| Ok(Node::Not(p.unary()?.into())));
        }
        if self.take("(") {
            let inner = self.choice()?;
            self.need(")", "\")\"")?;
            return Ok(inner);
        }
        let kind = self.peek().kind.clone();
        match kind {
            Kind::Number(number) => {
                self.next += 1;
                Ok(Node::Value(Value::Number(number)))
            }
            Kind::Name(name) => {
                self.next += 1;
                self.named(name)
            }
            Kind::Symbol(_) | Kind::End => Err(self.unexpected("a number, a name or \"(\"")),
        }
    }

    fn named(&mut self, name: String) -> Result<Node, ExpressionError> {
        match name.as_str() {
            "math.least" => Ok(Node::Least(self.arguments()?)),
            "math.greatest" => Ok(Node::Greatest(self.arguments()?)),
            _ => Ok(Node::Name(name)),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Node>, ExpressionError> {
        self.need("(", "\"(\"")?;
        let mut list = vec![self.choice()?];
        while self.take(",") {
            list.push(self.choice()?);
        }
        self.need(")", "\")\"")?;
        Ok(list)
    }
}
