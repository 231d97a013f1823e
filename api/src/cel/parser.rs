//! From tokens to a tree, by recursive descent with bounded depth; macros are recognised here.

use super::CompileError;
use super::ast::{Expr, Kind, Literal, Loop, LoopKind, Mode};
use super::lexer::{Token, TokenKind, tokens};

/// Deepest nesting of an expression (upstream's parser allows 250 with frames of its own).
const MAX_DEPTH: usize = 200;
/// Longest expression in characters (upstream: 100,000 code points).
const MAX_LENGTH: usize = 100_000;

pub(super) fn parse(source: &str) -> Result<Expr, CompileError> {
    if source.chars().nth(MAX_LENGTH).is_some() {
        let text =
            format!("expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}", source.len());
        return Err(CompileError { at: 0, text });
    }
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.kind() {
        TokenKind::End => Ok(expr),
        _ => Err(parser.unexpected("<EOF>")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Expr, CompileError>;

/// Binary operators by how tightly they bind, loosest first; `&&` and `||` are apart.
const LEVELS: [&[&str]; 3] = [&["==", "!=", "<", "<=", ">", ">=", "in"], &["+", "-"], &["*", "/", "%"]];

impl Parser {
    fn kind(&self) -> &TokenKind {
        &self.tokens[self.next].kind
    }

    fn at(&self) -> usize {
        self.tokens[self.next].at
    }

    fn eat(&mut self, symbol: &'static str) -> bool {
        let found = *self.kind() == TokenKind::Symbol(symbol);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, symbol: &'static str) -> Result<(), CompileError> {
        if self.eat(symbol) { Ok(()) } else { Err(self.unexpected(&format!("'{symbol}'"))) }
    }

    fn unexpected(&self, expected: &str) -> CompileError {
        let found = match self.kind() {
            TokenKind::End => "<EOF>".to_owned(),
            TokenKind::Symbol(symbol) => (*symbol).to_owned(),
            TokenKind::Ident(name) | TokenKind::Quoted(name) => name.clone(),
            TokenKind::Literal(literal) => format!("{literal:?}"),
        };
        let text = format!("Syntax error: mismatched input '{found}' expecting {expected}");
        CompileError { at: self.at(), text }
    }

    fn expr(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let text = format!("expression recursion limit exceeded: {MAX_DEPTH}");
            return Err(CompileError { at: self.at(), text });
        }
        let expr = self.ternary();
        self.depth -= 1;
        expr
    }

    fn ternary(&mut self) -> Parsed {
        let condition = self.or()?;
        if !self.eat("?") {
            return Ok(condition);
        }
        let at = condition.at;
        let yes = self.or()?;
        self.expect(":")?;
        let no = self.expr()?;
        Ok(Expr { kind: Kind::If(Box::new(condition), Box::new(yes), Box::new(no)), at })
    }

    fn or(&mut self) -> Parsed {
        let mut left = self.and()?;
        while self.eat("||") {
            let at = left.at;
            left = Expr { kind: Kind::Or(Box::new(left), Box::new(self.and()?)), at };
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed {
        let mut left = self.binary(0)?;
        while self.eat("&&") {
            let at = left.at;
            left = Expr { kind: Kind::And(Box::new(left), Box::new(self.binary(0)?)), at };
        }
        Ok(left)
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        loop {
            let at = self.at();
            let Some(operator) = operators.iter().find(|operator| self.eat(operator)) else {
                return Ok(left);
            };
            let right = self.binary(level + 1)?;
            let kind = Kind::Call { function: (*operator).to_owned(), target: None, args: vec![left, right] };
            left = Expr { kind, at };
        }
    }

    fn unary(&mut self) -> Parsed {
        let at = self.at();
        for (operator, function) in [("!", "!_"), ("-", "-_")] {
            let mut count = 0;
            while self.eat(operator) {
                count += 1;
            }
            if count == 0 {
                continue;
            }
            if operator == "-" && count == 1 {
                return self.negative(at);
            }
            let inner = self.member()?;
            let applied =
                |inner| Kind::Call { function: function.to_owned(), target: None, args: vec![inner] };
            return Ok((0..count).fold(inner, |inner, _| Expr { kind: applied(inner), at }));
        }
        self.member()
    }

    /// `-1` is a constant, so that the least integer can be written.
    fn negative(&mut self, at: usize) -> Parsed {
        let negated = match self.kind() {
            TokenKind::Literal(Literal::Int(value)) => Some(Literal::Int(value.wrapping_neg())),
            TokenKind::Literal(Literal::Double(value)) => Some(Literal::Double(-value)),
            _ => None,
        };
        if let Some(literal) = negated {
            self.next += 1;
            return self.suffixes(Expr { kind: Kind::Literal(literal), at });
        }
        let args = vec![self.member()?];
        Ok(Expr { kind: Kind::Call { function: "-_".to_owned(), target: None, args }, at })
    }

    fn member(&mut self) -> Parsed {
        let primary = self.primary()?;
        self.suffixes(primary)
    }

    fn suffixes(&mut self, mut of: Expr) -> Parsed {
        loop {
            let at = self.at();
            if self.eat(".") {
                let field = self.name()?;
                of = if self.eat("(") {
                    let args = self.args(")")?;
                    method(of, field, args, at)?
                } else {
                    Expr { kind: Kind::Select { of: Box::new(of), field, mode: Mode::Value }, at }
                };
            } else if self.eat(".?") {
                let field = self.name()?;
                of = Expr { kind: Kind::Select { of: Box::new(of), field, mode: Mode::Optional }, at };
            } else if *self.kind() == TokenKind::Symbol("[") || *self.kind() == TokenKind::Symbol("[?") {
                let optional = self.eat("[?");
                if !optional {
                    self.expect("[")?;
                }
                let key = Box::new(self.expr()?);
                self.expect("]")?;
                of = Expr { kind: Kind::Index { of: Box::new(of), key, optional }, at };
            } else if *self.kind() == TokenKind::Symbol("{")
                && let Some(name) = qualified_name(&of)
            {
                self.next += 1;
                of = Expr { kind: Kind::Struct { name, fields: self.fields()? }, at };
            } else {
                return Ok(of);
            }
        }
    }

    fn name(&mut self) -> Result<String, CompileError> {
        let name = match self.kind() {
            TokenKind::Ident(name) | TokenKind::Quoted(name) => name.clone(),
            _ => return Err(self.unexpected("IDENTIFIER")),
        };
        self.next += 1;
        Ok(name)
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        match self.kind().clone() {
            TokenKind::Literal(literal) => {
                if literal == Literal::Int(i64::MIN) {
                    return Err(CompileError { at, text: "Syntax error: invalid int literal".into() });
                }
                self.next += 1;
                Ok(Expr { kind: Kind::Literal(literal), at })
            }
            TokenKind::Ident(name) => {
                self.next += 1;
                match self.eat("(") {
                    true => {
                        let args = self.args(")")?;
                        global(name, args, at)
                    }
                    false => Ok(Expr { kind: Kind::Ident(name), at }),
                }
            }
            TokenKind::Symbol("(") => {
                self.next += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            TokenKind::Symbol("[" | "[?") => self.list(at),
            TokenKind::Symbol("{") => self.map(at),
            _ => Err(self.unexpected("an expression")),
        }
    }

    fn args(&mut self, end: &'static str) -> Result<Vec<Expr>, CompileError> {
        let mut args = Vec::new();
        while !self.eat(end) {
            args.push(self.expr()?);
            if !self.eat(",") {
                self.expect(end)?;
                break;
            }
        }
        Ok(args)
    }

    fn list(&mut self, at: usize) -> Parsed {
        let mut items = Vec::new();
        let mut optional = self.eat("[?");
        if !optional {
            self.expect("[")?;
        }
        while optional || !self.eat("]") {
            optional |= self.eat("?");
            items.push((self.expr()?, optional));
            optional = false;
            if !self.eat(",") {
                self.expect("]")?;
                break;
            }
        }
        Ok(Expr { kind: Kind::List(items), at })
    }

    fn map(&mut self, at: usize) -> Parsed {
        self.expect("{")?;
        let mut entries = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let key = self.expr()?;
            self.expect(":")?;
            entries.push((key, self.expr()?, optional));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(Expr { kind: Kind::Map(entries), at })
    }

    fn fields(&mut self) -> Result<Vec<(String, Expr, bool)>, CompileError> {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let name = self.name()?;
            self.expect(":")?;
            fields.push((name, self.expr()?, optional));
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        Ok(fields)
    }
}

/// `a.b.C` as one name, if it is one: a type, before a brace.
fn qualified_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.clone()),
        Kind::Select { of, field, mode: Mode::Value } => Some(format!("{}.{field}", qualified_name(of)?)),
        _ => None,
    }
}

fn global(name: String, mut args: Vec<Expr>, at: usize) -> Parsed {
    if name == "has" && args.len() == 1 {
        return match args.remove(0).kind {
            Kind::Select { of, field, mode: Mode::Value } => {
                Ok(Expr { kind: Kind::Select { of, field, mode: Mode::Test }, at })
            }
            _ => Err(CompileError { at, text: "invalid argument to has() macro".into() }),
        };
    }
    Ok(Expr { kind: Kind::Call { function: name, target: None, args }, at })
}

fn method(of: Expr, name: String, mut args: Vec<Expr>, at: usize) -> Parsed {
    if name == "bind" && args.len() == 3 && of.kind == Kind::Ident("cel".into()) {
        let (body, init) = (args.pop(), args.pop());
        if let (Some(body), Some(init)) = (body, init) {
            let name = variable(&args[0])?;
            return Ok(Expr { kind: Kind::Bind { name, init: Box::new(init), body: Box::new(body) }, at });
        }
        return Err(CompileError { at, text: "invalid arguments to cel.bind".into() });
    }
    if matches!(name.as_str(), "optMap" | "optFlatMap") && args.len() == 2 {
        let body = Box::new(args.remove(1));
        let flat = name == "optFlatMap";
        return Ok(Expr {
            kind: Kind::OptMap { of: Box::new(of), name: variable(&args[0])?, body, flat },
            at,
        });
    }
    if let Some((kind, second, filter)) = loop_shape(&name, args.len()) {
        return looped(kind, second, filter, of, args, at);
    }
    Ok(Expr { kind: Kind::Call { function: name, target: Some(Box::new(of)), args }, at })
}

/// Which macro a method of so many arguments is: its kind, whether it has two variables, and a filter.
fn loop_shape(name: &str, args: usize) -> Option<(LoopKind, bool, bool)> {
    Some(match (name, args) {
        ("all", 2) => (LoopKind::All, false, false),
        ("all", 3) => (LoopKind::All, true, false),
        ("exists", 2) => (LoopKind::Exists, false, false),
        ("exists", 3) => (LoopKind::Exists, true, false),
        ("exists_one" | "existsOne", 2) => (LoopKind::ExistsOne, false, false),
        ("exists_one" | "existsOne", 3) => (LoopKind::ExistsOne, true, false),
        ("map", 2) => (LoopKind::Map, false, false),
        ("map", 3) => (LoopKind::Map, false, true),
        ("filter", 2) => (LoopKind::Filter, false, false),
        ("transformList", 3) => (LoopKind::Map, true, false),
        ("transformList", 4) => (LoopKind::Map, true, true),
        ("transformMap", 3) => (LoopKind::MapToMap, true, false),
        ("transformMap", 4) => (LoopKind::MapToMap, true, true),
        _ => return None,
    })
}

fn looped(kind: LoopKind, two: bool, filtered: bool, range: Expr, args: Vec<Expr>, at: usize) -> Parsed {
    let mut args = args.into_iter();
    let mut take = || args.next().ok_or(CompileError { at, text: "too few arguments".into() });
    let first = variable(&take()?)?;
    let second = if two { Some(variable(&take()?)?) } else { None };
    let filter = if filtered { Some(take()?) } else { None };
    let body = take()?;
    Ok(Expr { kind: Kind::Loop(Box::new(Loop { kind, range, first, second, filter, body })), at })
}

fn variable(expr: &Expr) -> Result<String, CompileError> {
    match &expr.kind {
        Kind::Ident(name) => Ok(name.clone()),
        _ => Err(CompileError { at: expr.at, text: "argument must be a simple name".into() }),
    }
}
