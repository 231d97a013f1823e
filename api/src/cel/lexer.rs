//! From text to tokens.

use super::CompileError;
use super::ast::Literal;

/// A token and where it begins, in characters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    Literal(Literal),
    Ident(String),
    /// `` `a-b` ``: a field name that is no identifier.
    Quoted(String),
    Symbol(&'static str),
    End,
}

/// Longest first.
const SYMBOLS: [&str; 26] = [
    "&&", "||", "==", "!=", "<=", ">=", ".?", "[?", "{", "}", "(", ")", "[", "]", ".", ",", ":", "?", "+",
    "-", "*", "/", "%", "<", ">", "!",
];

pub(super) fn tokens(source: &str) -> Result<Vec<Token>, CompileError> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let kind = lexer.next()?;
        let end = kind == TokenKind::End;
        tokens.push(Token { kind, at });
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blanks(&mut self) {
        loop {
            if self.at < self.chars.len() && self.peek(0).is_whitespace() {
                self.at += 1;
            } else if self.peek(0) == '/' && self.peek(1) == '/' {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.at += 1;
                }
            } else {
                return;
            }
        }
    }

    fn next(&mut self) -> Result<TokenKind, CompileError> {
        let first = self.peek(0);
        if self.at >= self.chars.len() {
            return Ok(TokenKind::End);
        }
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if first.is_ascii_digit() || first == '.' && self.peek(1).is_ascii_digit() {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            return Ok(self.word());
        }
        if first == '`' {
            return self.quoted();
        }
        for symbol in SYMBOLS {
            if symbol.chars().enumerate().all(|(index, c)| self.peek(index) == c) {
                self.at += symbol.len();
                return Ok(TokenKind::Symbol(symbol));
            }
        }
        Err(self.error(format!("token recognition error at: '{first}'")))
    }

    fn error(&self, text: String) -> CompileError {
        CompileError { at: self.at, text: format!("Syntax error: {text}") }
    }

    fn word(&mut self) -> TokenKind {
        let begin = self.at;
        while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
            self.at += 1;
        }
        let word: String = self.chars[begin..self.at].iter().collect();
        match word.as_str() {
            "true" => TokenKind::Literal(Literal::Bool(true)),
            "false" => TokenKind::Literal(Literal::Bool(false)),
            "null" => TokenKind::Literal(Literal::Null),
            "in" => TokenKind::Symbol("in"),
            _ => TokenKind::Ident(word),
        }
    }

    fn quoted(&mut self) -> Result<TokenKind, CompileError> {
        let begin = self.at + 1;
        let length = self.chars[begin..].iter().position(|c| *c == '`');
        let Some(length) = length else { return Err(self.error("unterminated identifier".into())) };
        self.at = begin + length + 1;
        Ok(TokenKind::Quoted(self.chars[begin..begin + length].iter().collect()))
    }

    fn number(&mut self) -> Result<TokenKind, CompileError> {
        let begin = self.at;
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            let digits: String = self.chars[begin + 2..self.at].iter().collect();
            return self.integer(&digits, 16);
        }
        let mut is_double = false;
        loop {
            match self.peek(0) {
                c if c.is_ascii_digit() => {}
                '.' if self.peek(1).is_ascii_digit() => is_double = true,
                'e' | 'E' if self.peek(1).is_ascii_digit() || matches!(self.peek(1), '+' | '-') => {
                    is_double = true;
                    self.at += 1;
                }
                _ => break,
            }
            self.at += 1;
        }
        let digits: String = self.chars[begin..self.at].iter().collect();
        if !is_double {
            return self.integer(&digits, 10);
        }
        let value = digits.parse().map_err(|_| self.error(format!("invalid double literal {digits}")))?;
        Ok(TokenKind::Literal(Literal::Double(value)))
    }

    fn integer(&mut self, digits: &str, radix: u32) -> Result<TokenKind, CompileError> {
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            let value = u64::from_str_radix(digits, radix);
            let value = value.map_err(|_| self.error("invalid uint literal".into()))?;
            return Ok(TokenKind::Literal(Literal::Uint(value)));
        }
        // The least integer has no positive counterpart; the parser negates what wraps to it.
        let value = u64::from_str_radix(digits, radix).ok().filter(|value| *value <= 1 << 63);
        let value = value.ok_or_else(|| self.error("invalid int literal".into()))?;
        Ok(TokenKind::Literal(Literal::Int(value as i64)))
    }

    /// `r` and `b` in any case and order before a quote: (raw, bytes, length).
    fn string_prefix(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes) = (false, false);
        for length in 0..3 {
            match self.peek(length).to_ascii_lowercase() {
                '"' | '\'' => return Some((raw, bytes, length)),
                'r' if !raw => raw = true,
                'b' if !bytes => bytes = true,
                _ => return None,
            }
        }
        None
    }

    fn string(&mut self, (raw, is_bytes, prefix): (bool, bool, usize)) -> Result<TokenKind, CompileError> {
        self.at += prefix;
        let quote = self.peek(0);
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        let width = if triple { 3 } else { 1 };
        self.at += width;
        let (mut text, mut bytes) = (String::new(), Vec::new());
        loop {
            if self.at >= self.chars.len() || !triple && self.peek(0) == '\n' {
                return Err(self.error("unterminated string".into()));
            }
            if (0..width).all(|ahead| self.peek(ahead) == quote) {
                self.at += width;
                break;
            }
            let c = self.peek(0);
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(is_bytes, &mut text, &mut bytes)?;
            } else {
                push(c, &mut text, &mut bytes);
            }
        }
        Ok(TokenKind::Literal(if is_bytes { Literal::Bytes(bytes) } else { Literal::String(text) }))
    }

    fn escape(&mut self, is_bytes: bool, text: &mut String, bytes: &mut Vec<u8>) -> Result<(), CompileError> {
        let c = self.peek(0);
        self.at += 1;
        let simple = match c {
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0b',
            '\\' | '?' | '"' | '\'' | '`' => c,
            'x' | 'X' => return self.code(2, 16, is_bytes, text, bytes),
            'u' => return self.code(4, 16, false, text, bytes),
            'U' => return self.code(8, 16, false, text, bytes),
            '0'..='3' => {
                self.at -= 1;
                return self.code(3, 8, is_bytes, text, bytes);
            }
            _ => return Err(self.error(format!("invalid escape '\\{c}'"))),
        };
        push(simple, text, bytes);
        Ok(())
    }

    fn code(
        &mut self,
        digits: usize,
        radix: u32,
        is_byte: bool,
        text: &mut String,
        bytes: &mut Vec<u8>,
    ) -> Result<(), CompileError> {
        let digits: String = (0..digits).map(|ahead| self.peek(ahead)).collect();
        let number = u32::from_str_radix(&digits, radix).ok();
        let c = number.and_then(char::from_u32);
        let (Some(number), Some(c)) = (number, c) else { return Err(self.error("invalid escape".into())) };
        self.at += digits.len();
        match u8::try_from(number) {
            Ok(byte) if is_byte => bytes.push(byte),
            _ => push(c, text, bytes),
        }
        Ok(())
    }
}

fn push(c: char, text: &mut String, bytes: &mut Vec<u8>) {
    text.push(c);
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}
