//! Where a file can be mutated, and how.
//!
//! Be lavish: what does not compile is dropped by the compiler.

use crate::point::{Point, short};
use proc_macro2::Span;
use quote::ToTokens;
use std::collections::{BTreeMap, HashMap, HashSet};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, ExprMethodCall, Lit, Meta, ReturnType, Signature, Stmt, Type, UnOp};

/// The unit variants of every enum.
pub(crate) type Enums = BTreeMap<String, Vec<String>>;

/// Methods whose closures answer yes or no.
const QUESTIONS: &[&str] = &[
    "filter",
    "any",
    "all",
    "find",
    "position",
    "rposition",
    "retain",
    "take_while",
    "skip_while",
    "is_some_and",
    "is_none_or",
    "is_ok_and",
    "is_err_and",
    "partition",
];

/// Methods that answer yes or no.
const ANSWERS: &[&str] = &[
    "contains",
    "contains_key",
    "starts_with",
    "ends_with",
    "is_empty",
    "is_some",
    "is_none",
    "is_ok",
    "is_err",
    "any",
    "all",
    "is_some_and",
    "is_none_or",
    "is_ok_and",
    "exists",
    "eq_ignore_ascii_case",
    "is_dir",
    "is_file",
];

/// Methods that can be left out of a chain.
const CUTS: &[&str] = &[
    "rev",
    "filter",
    "skip",
    "take",
    "skip_while",
    "take_while",
    "chain",
    "min",
    "max",
    "or",
    "or_else",
    "trim",
    "trim_end",
    "trim_start",
    "to_ascii_lowercase",
    "to_lowercase",
    "to_ascii_uppercase",
    "and",
    "clamp",
    "saturating_sub",
    "filter_map",
    "map_err",
    "flatten",
];

/// Methods that have an opposite.
const TURNS: &[(&str, &str)] = &[
    ("first", "last"),
    ("last", "first"),
    ("min", "max"),
    ("max", "min"),
    ("any", "all"),
    ("all", "any"),
    ("min_by_key", "max_by_key"),
    ("max_by_key", "min_by_key"),
    ("split_once", "rsplit_once"),
    ("rsplit_once", "split_once"),
    ("find", "rfind"),
    ("rfind", "find"),
    ("position", "rposition"),
    ("rposition", "position"),
    ("push_back", "push_front"),
    ("push_front", "push_back"),
    ("pop_front", "pop_back"),
    ("pop_back", "pop_front"),
    ("to_ascii_lowercase", "to_owned"),
    ("to_lowercase", "to_owned"),
    ("saturating_sub", "saturating_add"),
    ("saturating_add", "saturating_sub"),
    ("is_some_and", "is_none_or"),
    ("is_none_or", "is_some_and"),
];

/// Adds the unit variants of a file's enums.
pub(crate) fn collect_enums(file: &syn::File, enums: &mut Enums) {
    struct Finder<'a>(&'a mut Enums);
    impl<'ast> Visit<'ast> for Finder<'_> {
        fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
            let units = item.variants.iter().filter(|variant| variant.fields.is_empty());
            let known = self.0.entry(item.ident.to_string()).or_default();
            for unit in units.map(|variant| variant.ident.to_string()) {
                // Two enums of one name are taken for one: the compiler knows better.
                if !known.contains(&unit) {
                    known.push(unit);
                }
            }
        }
    }
    Finder(enums).visit_file(file);
}

/// The bytes of a file's tests.
pub(crate) fn test_ranges(file: &syn::File) -> Vec<(usize, usize)> {
    struct Finder(Vec<(usize, usize)>);
    impl<'ast> Visit<'ast> for Finder {
        fn visit_item(&mut self, item: &'ast syn::Item) {
            let attributes = match item {
                syn::Item::Mod(item) => &item.attrs,
                syn::Item::Fn(item) => &item.attrs,
                syn::Item::Impl(item) => &item.attrs,
                syn::Item::Use(item) => &item.attrs,
                _ => return visit::visit_item(self, item),
            };
            if is_test(attributes) { self.0.push(bytes(item.span())) } else { visit::visit_item(self, item) }
        }
    }
    let mut finder = Finder(Vec::new());
    finder.visit_file(file);
    finder.0
}

/// Returns every mutation of a file, in the order of their places.
pub(crate) fn points(name: &str, text: &str, file: &syn::File, enums: &Enums) -> Vec<Point> {
    let mut finder = Finder {
        name,
        text,
        enums,
        points: Vec::new(),
        functions: Vec::new(),
        types: Vec::new(),
        seen: HashSet::new(),
        decided: HashSet::new(),
        chained: HashSet::new(),
    };
    finder.visit_file(file);
    let mut points = finder.points;
    points.sort_by_key(|point| (point.start, std::cmp::Reverse(point.end)));
    // Equal texts in one function are told apart by their number.
    let mut count: HashMap<String, usize> = HashMap::new();
    for point in &mut points {
        let count = count.entry(point.key()).or_default();
        *count += 1;
        if *count > 1 {
            point.what = format!("{} #{count}", point.what);
        }
    }
    points
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::NameValue(_) => false,
    })
}

fn bytes(span: Span) -> (usize, usize) {
    let range = span.byte_range();
    (range.start, range.end)
}

struct Finder<'a> {
    name: &'a str,
    text: &'a str,
    enums: &'a Enums,
    points: Vec<Point>,
    functions: Vec<String>,
    types: Vec<String>,
    /// What was already made, by place and text.
    seen: HashSet<(usize, usize, String)>,
    /// Places that were made true and false: turning them round adds nothing.
    decided: HashSet<(usize, usize)>,
    /// Method calls that are part of a longer chain.
    chained: HashSet<(usize, usize)>,
}

impl Finder<'_> {
    fn source(&self, node: &impl Spanned) -> &str {
        let (start, end) = bytes(node.span());
        &self.text[start..end]
    }

    fn point(&mut self, (start, end): (usize, usize), what: String, before: String, behind: &str) -> Option<&mut Point> {
        if self.functions.is_empty() || !self.seen.insert((start, end, what.clone())) {
            return None;
        }
        let line = |at: usize| 1 + self.text[..at].matches('\n').count();
        self.points.push(Point {
            file: self.name.to_owned(),
            function: self.functions.last().cloned().unwrap_or_default(),
            what,
            start,
            end,
            lines: (line(start), line(end)),
            before,
            behind: behind.to_owned(),
            blamed: None,
        });
        self.points.last_mut()
    }

    /// An expression becomes another.
    fn replace(&mut self, node: &impl Spanned, by: &str) {
        let what = format!("`{}` → `{}`", short(self.source(node)), short(by));
        self.point(bytes(node.span()), what, format!("(if crate::mutant::on({{n}}) {{ {by} }} else {{ "), " })");
    }

    /// A question is answered.
    fn decide(&mut self, node: &Expr) {
        if matches!(node, Expr::Lit(_)) {
            return self.visit_expr(node);
        }
        let span = bytes(node.span());
        let text = short(self.source(node));
        self.decided.insert(span);
        self.point(span, format!("`{text}` → `true`"), "(crate::mutant::on({n}) || (".to_owned(), "))");
        self.point(span, format!("`{text}` → `false`"), "(!crate::mutant::on({n}) && (".to_owned(), "))");
        self.operands(node);
    }

    /// The parts of a condition can be left out, one by one.
    fn operands(&mut self, node: &Expr) {
        match node {
            Expr::Paren(paren) => self.operands(&paren.expr),
            Expr::Binary(binary) if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) => {
                let neutral = if matches!(binary.op, BinOp::And(_)) { "true" } else { "false" };
                for side in [&*binary.left, &*binary.right] {
                    let nested =
                        matches!(side, Expr::Binary(inner) if std::mem::discriminant(&inner.op) == std::mem::discriminant(&binary.op));
                    if !nested && !has_let(side) {
                        let (before, behind) = match neutral {
                            "true" => ("(crate::mutant::on({n}) || (", "))"),
                            _ => ("(!crate::mutant::on({n}) && (", "))"),
                        };
                        let span = bytes(side.span());
                        self.decided.insert(span);
                        let what = format!("`{}` left out of `{}`", short(self.source(side)), short(self.source(node)));
                        self.point(span, what, before.to_owned(), behind);
                    }
                    self.operands(side);
                }
            }
            other => self.visit_expr(other),
        }
    }

    /// A condition of `if` that may hold patterns.
    fn condition(&mut self, node: &Expr) {
        if !has_let(node) {
            return self.decide(node);
        }
        let (start, _) = bytes(node.span());
        let what = format!("`if {}` never", short(self.source(node)));
        self.point((start, start), what, "!crate::mutant::on({n}) && ".to_owned(), "");
        self.operands(node);
    }

    fn statement(&mut self, statement: &Stmt) {
        let (expression, span) = match statement {
            Stmt::Expr(expression, Some(_)) => (expression, bytes(statement.span())),
            Stmt::Local(local) if matches!(local.pat, syn::Pat::Wild(_)) => match &local.init {
                Some(init) if init.diverge.is_none() && local.attrs.is_empty() => (&*init.expr, bytes(statement.span())),
                _ => return,
            },
            _ => return,
        };
        if !can_be_left_out(expression) || self.is_trace(expression) {
            return;
        }
        let text = short(&self.text[span.0..span.1]);
        self.point(span, format!("`{text}` left out"), "if !crate::mutant::on({n}) { ".to_owned(), " }");
        if let (Expr::Try(inner), Stmt::Expr(..)) = (expression, statement) {
            let call = self.source(&inner.expr).to_owned();
            self.point(
                span,
                format!("error of `{text}` ignored"),
                format!("if crate::mutant::on({{n}}) {{ let _ = {call}; }} else {{ "),
                " }",
            );
        }
    }

    /// Whether it only marks a place for tests.
    fn is_trace(&self, node: &Expr) -> bool {
        self.source(node).contains("crash::")
    }

    /// Two neighbours change places.
    fn neighbours(&mut self, block: &Block) {
        let mut waiting: Option<&Stmt> = None;
        for statement in &block.stmts {
            let Stmt::Expr(expression, Some(_)) = statement else {
                waiting = None;
                continue;
            };
            if self.is_trace(expression) && matches!(expression, Expr::Call(_)) {
                continue;
            }
            if !can_be_left_out(expression) {
                waiting = None;
                continue;
            }
            let Some(first) = waiting.take() else {
                waiting = Some(statement);
                continue;
            };
            let ((start, middle), (second, end)) = (bytes(first.span()), bytes(statement.span()));
            let (a, between, b) = (&self.text[start..middle], &self.text[middle..second], &self.text[second..end]);
            let what = format!("`{}` before `{}`", short(b), short(a));
            let before = format!("if crate::mutant::on({{n}}) {{ {b} {between} {a} }} else {{ ");
            self.point((start, end), what, before, " }");
        }
    }

    fn function(&mut self, signature: &Signature, block: &Block) {
        let function = match self.types.last() {
            Some(owner) => format!("{owner}::{}", signature.ident),
            None => signature.ident.to_string(),
        };
        self.functions.push(function);
        if signature.ident != "fmt" && !block.stmts.is_empty() {
            let at = bytes(block.brace_token.span.open()).1;
            let whole = bytes(block.span());
            for value in defaults(&signature.output) {
                let what = if value.is_empty() { "body left out".to_owned() } else { format!("body → `{value}`") };
                let before = format!(" if crate::mutant::on({{n}}) {{ return {value}; }} ");
                if let Some(point) = self.point((at, at), what, before, "") {
                    point.lines.1 = point.lines.0;
                    point.blamed = Some(whole);
                }
            }
        }
        self.visit_block(block);
        self.functions.pop();
    }

    fn variants(&mut self, node: &syn::ExprPath) {
        let segments: Vec<String> = node.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let [.., owner, variant] = segments.as_slice() else {
            return self.constant(node, segments.last());
        };
        let name = match (owner.as_str(), self.types.last()) {
            ("Self", Some(owner)) => owner.clone(),
            _ => owner.clone(),
        };
        let Some(units) = self.enums.get(&name) else { return self.constant(node, Some(variant)) };
        let Some(index) = units.iter().position(|unit| unit == variant) else { return };
        let others: Vec<String> = units.iter().cycle().skip(index + 1).take(units.len() - 1).take(2).cloned().collect();
        let text = self.source(node).to_owned();
        let Some(head) = text.strip_suffix(variant.as_str()).map(str::to_owned) else { return };
        for other in others {
            self.replace(node, &format!("{head}{other}"));
        }
    }

    /// A limit is moved.
    fn constant(&mut self, node: &syn::ExprPath, name: Option<&String>) {
        let is_constant = |name: &String| name.len() > 2 && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if name.is_some_and(is_constant) {
            let text = self.source(node).to_owned();
            self.replace(node, &format!("{text} + 1"));
            self.replace(node, &format!("{text} / 24"));
        }
    }

    /// Parts of a chain of calls are left out, or turned round.
    fn chain(&mut self, outermost: &ExprMethodCall) {
        let (start, end) = bytes(outermost.span());
        let mut links = Vec::new();
        let mut at: &Expr = &outermost.receiver;
        links.push(outermost);
        loop {
            at = match at {
                Expr::MethodCall(call) => {
                    links.push(call);
                    self.chained.insert(bytes(call.span()));
                    &call.receiver
                }
                Expr::Try(inner) => &inner.expr,
                Expr::Await(inner) => &inner.base,
                Expr::Field(inner) => &inner.base,
                _ => break,
            };
        }
        for call in links {
            let name = call.method.to_string();
            let (_, receiver_end) = bytes(call.receiver.span());
            let (_, call_end) = bytes(call.span());
            if CUTS.contains(&name.as_str()) {
                let mutated = format!("{}{}", &self.text[start..receiver_end], &self.text[call_end..end]);
                let what = format!("`{}` left out of `{}`", short(self.text[receiver_end..call_end].trim()), short(&self.text[start..end]));
                self.point((start, end), what, format!("(if crate::mutant::on({{n}}) {{ {mutated} }} else {{ "), " })");
            }
            for (_, other) in TURNS.iter().filter(|(one, _)| *one == name) {
                let (from, to) = bytes(call.method.span());
                let mutated = format!("{}{other}{}", &self.text[start..from], &self.text[to..end]);
                let what = format!("`.{name}` → `.{other}` in `{}`", short(&self.text[start..end]));
                self.point((start, end), what, format!("(if crate::mutant::on({{n}}) {{ {mutated} }} else {{ "), " })");
            }
        }
    }

    fn binary(&mut self, node: &syn::ExprBinary) {
        let turned = match node.op {
            BinOp::Lt(_) => "<=",
            BinOp::Le(_) => "<",
            BinOp::Gt(_) => ">=",
            BinOp::Ge(_) => ">",
            BinOp::Eq(_) => "!=",
            BinOp::Ne(_) => "==",
            BinOp::Add(_) => "-",
            BinOp::Sub(_) => "+",
            BinOp::Mul(_) => "/",
            BinOp::Div(_) => "*",
            BinOp::Rem(_) => "/",
            _ => return,
        };
        let is_equality = matches!(node.op, BinOp::Eq(_) | BinOp::Ne(_));
        if is_equality && self.decided.contains(&bytes(node.span())) {
            return;
        }
        let mutated = format!("{} {turned} {}", self.source(&node.left), self.source(&node.right));
        self.replace(node, &mutated);
    }

    fn integer(&mut self, node: &syn::ExprLit, value: &syn::LitInt) {
        let Ok(number) = value.base10_parse::<u64>() else { return };
        let suffix = value.suffix();
        self.replace(node, &format!("{}{suffix}", number.saturating_add(1)));
        match number {
            0 => {}
            1..24 => self.replace(node, &format!("{}{suffix}", number - 1)),
            _ => self.replace(node, &format!("{}{suffix}", number / 24)),
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        match item {
            syn::Item::Mod(module) if is_test(&module.attrs) => {}
            syn::Item::Const(_) | syn::Item::Static(_) | syn::Item::Enum(_) | syn::Item::Use(_) | syn::Item::Macro(_) => {}
            other => visit::visit_item(self, other),
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if is_test(&item.attrs) {
            return;
        }
        let name = match &*item.self_ty {
            Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()),
            _ => None,
        };
        self.types.push(name.unwrap_or_default());
        visit::visit_item_impl(self, item);
        self.types.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_test(&item.attrs) && item.sig.constness.is_none() {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) && item.sig.constness.is_none() {
            self.function(&item.sig, &item.block);
        }
    }

    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}

    fn visit_expr_repeat(&mut self, node: &'ast syn::ExprRepeat) {
        self.visit_expr(&node.expr);
    }

    fn visit_block(&mut self, block: &'ast Block) {
        self.neighbours(block);
        visit::visit_block(self, block);
    }

    fn visit_stmt(&mut self, statement: &'ast Stmt) {
        self.statement(statement);
        if matches!(statement, Stmt::Expr(expression, Some(_)) if self.is_trace(expression) && matches!(expression, Expr::Call(_) | Expr::Try(_)))
        {
            return;
        }
        visit::visit_stmt(self, statement);
    }

    fn visit_expr_if(&mut self, node: &'ast syn::ExprIf) {
        self.condition(&node.cond);
        self.visit_block(&node.then_branch);
        if let Some((_, other)) = &node.else_branch {
            self.visit_expr(other);
        }
    }

    fn visit_expr_while(&mut self, node: &'ast syn::ExprWhile) {
        self.operands(&node.cond);
        self.visit_block(&node.body);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        self.visit_expr(&node.expr);
        let whole = bytes(node.span());
        let catches_all =
            node.arms.last().is_some_and(|arm| arm.guard.is_none() && matches!(arm.pat, syn::Pat::Wild(_) | syn::Pat::Ident(_)));
        for (index, arm) in node.arms.iter().enumerate() {
            if let Some((_, guard)) = &arm.guard {
                self.condition(guard);
            } else if catches_all && index + 1 < node.arms.len() {
                let (_, end) = bytes(arm.pat.span());
                let what = format!("arm `{}` never", short(self.source(&arm.pat)));
                if let Some(point) = self.point((end, end), what, " if !crate::mutant::on({n}) ".to_owned(), "") {
                    point.blamed = Some(whole);
                }
            }
            self.visit_expr(&arm.body);
        }
    }

    fn visit_expr_method_call(&mut self, node: &'ast ExprMethodCall) {
        let span = bytes(node.span());
        let name = node.method.to_string();
        if !self.chained.contains(&span) {
            self.chain(node);
        }
        if ANSWERS.contains(&name.as_str()) && !self.decided.contains(&span) {
            let text = self.source(node).to_owned();
            self.replace(node, &format!("!({text})"));
        }
        self.visit_expr(&node.receiver);
        for argument in &node.args {
            match argument {
                Expr::Closure(closure) if QUESTIONS.contains(&name.as_str()) && !matches!(*closure.body, Expr::Block(_)) => {
                    self.decide(&closure.body);
                }
                other => self.visit_expr(other),
            }
        }
    }

    fn visit_expr_call(&mut self, node: &'ast syn::ExprCall) {
        if self.source(&node.func) == "Some" {
            self.replace(node, "None");
        }
        // The function's own name is no variant to exchange.
        if !matches!(*node.func, Expr::Path(_)) {
            self.visit_expr(&node.func);
        }
        for argument in &node.args {
            self.visit_expr(argument);
        }
    }

    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        if matches!(node.op, BinOp::And(_) | BinOp::Or(_)) {
            return self.operands(&Expr::Binary(node.clone()));
        }
        self.binary(node);
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        if matches!(node.op, UnOp::Not(_)) && !self.decided.contains(&bytes(node.span())) {
            let inner = self.source(&node.expr).to_owned();
            self.replace(node, &inner);
        }
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_macro(&mut self, node: &'ast syn::ExprMacro) {
        if node.mac.path.is_ident("matches") && !self.decided.contains(&bytes(node.span())) {
            let text = self.source(node).to_owned();
            self.replace(node, &format!("!{text}"));
        }
    }

    fn visit_expr_lit(&mut self, node: &'ast syn::ExprLit) {
        match &node.lit {
            Lit::Bool(value) => self.replace(node, if value.value { "false" } else { "true" }),
            Lit::Int(value) => self.integer(node, value),
            _ => {}
        }
    }

    fn visit_expr_path(&mut self, node: &'ast syn::ExprPath) {
        self.variants(node);
    }
}

fn has_let(node: &Expr) -> bool {
    match node {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        Expr::Paren(inner) => has_let(&inner.expr),
        _ => false,
    }
}

fn can_be_left_out(node: &Expr) -> bool {
    match node {
        Expr::Call(call) => call.attrs.is_empty(),
        Expr::MethodCall(call) => call.attrs.is_empty(),
        Expr::Assign(assign) => assign.attrs.is_empty(),
        Expr::Binary(binary) => binary.attrs.is_empty(),
        Expr::Try(inner) => can_be_left_out(&inner.expr),
        Expr::Await(inner) => can_be_left_out(&inner.base),
        _ => false,
    }
}

/// Values that a function might return instead.
fn defaults(output: &ReturnType) -> Vec<&'static str> {
    let ReturnType::Type(_, of) = output else { return vec![""] };
    let text = of.to_token_stream().to_string();
    match text.as_str() {
        "bool" => vec!["true", "false"],
        "String" => vec!["String::new()"],
        "usize" | "u64" | "u32" | "i64" | "u16" | "u8" => vec!["0", "1"],
        "Duration" => vec!["std::time::Duration::ZERO"],
        "Result < bool >" => vec!["Ok(true)", "Ok(false)"],
        text if text.starts_with("Result < bool ,") => vec!["Ok(true)", "Ok(false)"],
        text if text.contains("Result < () ") => vec!["Ok(())"],
        text if text.contains("Result < Option <") => vec!["Ok(None)"],
        text if text.contains("Result < Vec <") => vec!["Ok(Vec::new())"],
        text if text.starts_with("Option <") => vec!["None"],
        text if text.starts_with("Vec <") => vec!["Vec::new()"],
        "& str" | "& 'static str" => vec!["\"\""],
        _ => Vec::new(),
    }
}
