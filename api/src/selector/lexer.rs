//! The words of a label selector.

/// One word of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A key, a value, or the words `in` and `notin`.
    Word(String),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    End,
}

impl Token {
    pub(super) fn text(&self) -> &str {
        match self {
            Token::Word(word) => word,
            Token::Comma => ",",
            Token::Open => "(",
            Token::Close => ")",
            Token::Not => "!",
            Token::Equal => "=",
            Token::NotEqual => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::End => "",
        }
    }
}

/// Splits a selector into its words; never fails, since any other character belongs to a word.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (token, length) = next(rest);
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    tokens.push(Token::End);
    tokens
}

fn next(rest: &str) -> (Token, usize) {
    for (symbol, token) in [("==", Token::Equal), ("!=", Token::NotEqual)] {
        if rest.starts_with(symbol) {
            return (token, symbol.len());
        }
    }
    match rest.as_bytes()[0] {
        b',' => (Token::Comma, 1),
        b'(' => (Token::Open, 1),
        b')' => (Token::Close, 1),
        b'!' => (Token::Not, 1),
        b'=' => (Token::Equal, 1),
        b'>' => (Token::Greater, 1),
        b'<' => (Token::Less, 1),
        _ => {
            let end = rest.find(|c: char| c.is_whitespace() || ",()!=><".contains(c)).unwrap_or(rest.len());
            (Token::Word(rest[..end].into()), end)
        }
    }
}
