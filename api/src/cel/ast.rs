//! The tree of an expression. Macros are nodes of their own rather than folds: they are checked, costed and
//! evaluated where they stand.

/// An expression and where it begins, in characters from the start of the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub at: usize,
}

/// The kinds of expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A constant.
    Literal(Literal),
    /// A name.
    Ident(String),
    /// `of.field`, `of.?field`, `has(of.field)`.
    Select {
        /// The value.
        of: Box<Expr>,
        /// The field.
        field: String,
        /// What is asked.
        mode: Mode,
    },
    /// `of[key]`, `of[?key]`.
    Index {
        /// The list or map.
        of: Box<Expr>,
        /// The key.
        key: Box<Expr>,
        /// Whether the result is an optional.
        optional: bool,
    },
    /// `function(args)`, `target.function(args)`, and all operators but the next three.
    Call {
        /// The name, or that of the operator, such as `+`.
        function: String,
        /// What it is called on.
        target: Option<Box<Expr>>,
        /// The arguments.
        args: Vec<Expr>,
    },
    /// `a && b`
    And(Box<Expr>, Box<Expr>),
    /// `a || b`
    Or(Box<Expr>, Box<Expr>),
    /// `a ? b : c`
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `[a, ?b]`; true marks an optional item.
    List(Vec<(Expr, bool)>),
    /// `{a: b, ?c: d}`; true marks an optional entry.
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: value}`; true marks an optional field.
    Struct {
        /// The type's name.
        name: String,
        /// Its fields.
        fields: Vec<(String, Expr, bool)>,
    },
    /// A loop over a list or a map.
    Loop(Box<Loop>),
    /// `cel.bind(name, init, body)`
    Bind {
        /// The name.
        name: String,
        /// Its value.
        init: Box<Expr>,
        /// Where it is known.
        body: Box<Expr>,
    },
    /// `of.optMap(name, body)`, `of.optFlatMap(name, body)`
    OptMap {
        /// The optional.
        of: Box<Expr>,
        /// What its value is called.
        name: String,
        /// What becomes of it.
        body: Box<Expr>,
        /// Whether the body gives an optional itself.
        flat: bool,
    },
}

/// What is asked of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its value.
    Value,
    /// Its value, if there is one.
    Optional,
    /// Whether there is one.
    Test,
}

/// A macro over a list or a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// Which macro.
    pub kind: LoopKind,
    /// The list or map.
    pub range: Expr,
    /// The item of a list or the key of a map; with a second name the index of a list.
    pub first: String,
    /// The item of a list or the value of a map.
    pub second: Option<String>,
    /// Filter of a `map` with three arguments, or of a transformation.
    pub filter: Option<Expr>,
    /// What is computed for each.
    pub body: Expr,
}

/// The macros over lists and maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopKind {
    /// `all`
    All,
    /// `exists`
    Exists,
    /// `exists_one`
    ExistsOne,
    /// `map`, `transformList`
    Map,
    /// `filter`
    Filter,
    /// `transformMap`
    MapToMap,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.0`
    Double(f64),
    /// `"a"`
    String(String),
    /// `b"a"`
    Bytes(Vec<u8>),
}

/// Whether a name occurs free in an expression. A local of the same name counts too: nobody should use one.
pub(super) fn uses(expr: &Expr, name: &str) -> bool {
    let any = |exprs: Vec<&Expr>| exprs.into_iter().any(|expr| uses(expr, name));
    match &expr.kind {
        Kind::Literal(_) => false,
        Kind::Ident(ident) => ident == name,
        Kind::Select { of, .. } => uses(of, name),
        Kind::Index { of, key, .. } => uses(of, name) || uses(key, name),
        Kind::Call { target, args, .. } => any(target.as_deref().into_iter().chain(args).collect()),
        Kind::And(a, b) | Kind::Or(a, b) => uses(a, name) || uses(b, name),
        Kind::If(a, b, c) => uses(a, name) || uses(b, name) || uses(c, name),
        Kind::List(items) => any(items.iter().map(|(item, _)| item).collect()),
        Kind::Map(entries) => any(entries.iter().flat_map(|(key, value, _)| [key, value]).collect()),
        Kind::Struct { fields, .. } => any(fields.iter().map(|(_, value, _)| value).collect()),
        Kind::Loop(inner) => any([&inner.range, &inner.body].into_iter().chain(&inner.filter).collect()),
        Kind::Bind { init, body, .. } => uses(init, name) || uses(body, name),
        Kind::OptMap { of, body, .. } => uses(of, name) || uses(body, name),
    }
}
