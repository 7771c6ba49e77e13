//! What an expression is made of, read from PostgreSQL's node text. Pure.
//!
//! Two questions are answered here: which columns of `new` and `old` does it use, and can it fail? Only what cannot fail
//! (columns, constants, comparisons, AND, OR, NOT, IS NULL) is evaluated inside the writer's own statement.

/// A piece of node text: `{TAG item …}`, `(item …)`, `"string"` or a bare word.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Node(String, Vec<Item>),
    List(Vec<Item>),
    Text(String),
    Word(String),
}

impl Item {
    fn field(&self, name: &str) -> Option<&Item> {
        let Self::Node(_, items) = self else { return None };
        let at = items.iter().position(|item| matches!(item, Self::Word(word) if word == name))?;
        items.get(at + 1)
    }

    fn tag(&self) -> &str {
        match self {
            Self::Node(tag, _) => tag,
            _ => "",
        }
    }

    fn children(&self) -> &[Item] {
        match self {
            Self::Node(_, items) | Self::List(items) => items,
            _ => &[],
        }
    }
}

/// A column that an expression names: `alias.column`, or the whole row of `alias`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnUse {
    pub alias: String,
    pub column: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    pub columns: Vec<ColumnUse>,
    /// Pairs of columns that are compared with each other: they need one type to be safe in the writer.
    pub compared: Vec<(ColumnUse, ColumnUse)>,
    /// Made only of what cannot fail.
    pub simple: bool,
    /// A bare literal, which takes the type of the column it is written to.
    pub literal: bool,
    /// Contains a query of its own.
    pub has_subquery: bool,
    /// Every use of a column, with the field that is taken out of it by `->` or `->>`, if it is one that is named.
    pub fields: Vec<(ColumnUse, Option<String>)>,
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

/// Nodes and lists inside each other. Whoever reads, walks or drops them calls itself for each: without a limit a long enough
/// chain of operators ends the whole server, as there is no stack left to raise an error on.
const DEEPEST: usize = 1_000;

impl Reader<'_> {
    fn skip(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn items(&mut self, end: Option<u8>) -> Option<Vec<Item>> {
        self.depth += 1;
        let items = if self.depth > DEEPEST { None } else { self.items_inside(end) };
        self.depth -= 1;
        items
    }

    fn items_inside(&mut self, end: Option<u8>) -> Option<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            self.skip();
            match self.text.get(self.at) {
                None => return end.is_none().then_some(items),
                Some(byte) if Some(*byte) == end => {
                    self.at += 1;
                    return Some(items);
                }
                Some(b'{') => {
                    self.at += 1;
                    let mut inner = self.items(Some(b'}'))?;
                    let tag = match inner.first() {
                        // PostgreSQL 15 writes the tag of operators without its underscore.
                        Some(Item::Word(word)) if word == "AEXPR" => "A_EXPR".to_owned(),
                        Some(Item::Word(word)) => word.clone(),
                        _ => return None,
                    };
                    inner.remove(0);
                    items.push(Item::Node(tag, inner));
                }
                Some(b'(') => {
                    self.at += 1;
                    items.push(Item::List(self.items(Some(b')'))?));
                }
                Some(b'"') => {
                    self.at += 1;
                    let text = self.token(|byte| byte == b'"')?;
                    self.at += 1;
                    items.push(Item::Text(text));
                }
                Some(b'}' | b')') => return None,
                Some(_) => {
                    let word = self.token(|byte| byte.is_ascii_whitespace() || matches!(byte, b'{' | b'}' | b'(' | b')'))?;
                    items.push(Item::Word(word));
                }
            }
        }
    }

    /// Up to an unescaped end; a backslash takes the next byte as it is.
    fn token(&mut self, is_end: impl Fn(u8) -> bool) -> Option<String> {
        let mut out = Vec::new();
        while let Some(byte) = self.text.get(self.at).copied() {
            if is_end(byte) {
                break;
            }
            self.at += 1;
            if byte == b'\\' {
                out.push(*self.text.get(self.at)?);
                self.at += 1;
            } else {
                out.push(byte);
            }
        }
        String::from_utf8(out).ok()
    }
}

/// Reads PostgreSQL's text of one raw expression. None when it has a form that is not understood: then nothing is
/// known and nothing may be assumed.
pub fn read(nodes: &str) -> Option<Shape> {
    read_over(nodes, &["new", "old"])
}

/// The same for an expression over these rows.
pub fn read_over(nodes: &str, rows: &[&str]) -> Option<Shape> {
    let mut reader = Reader { text: nodes.as_bytes(), at: 0, depth: 0 };
    let items = reader.items(None)?;
    let [root] = items.as_slice() else { return None };
    let mut shape = Shape { simple: is_simple(root, rows), literal: is_literal(root), ..Shape::default() };
    walk(root, &mut shape);
    shape.columns.sort();
    shape.columns.dedup();
    shape.fields.sort();
    shape.fields.dedup();
    Some(shape)
}

fn walk(item: &Item, shape: &mut Shape) {
    match item.tag() {
        "COLUMNREF" => {
            shape.columns.extend(column(item));
            shape.fields.extend(column(item).map(|used| (used, None)));
        }
        "SUBLINK" => shape.has_subquery = true,
        "A_EXPR" => {
            if let (Some(left), Some(right)) = (item.field(":lexpr"), item.field(":rexpr"))
                && left.tag() == "COLUMNREF"
                && right.tag() == "COLUMNREF"
            {
                shape.compared.extend(column(left).zip(column(right)));
            }
            if let Some((used, field)) = taken_out(item) {
                shape.columns.push(used.clone());
                shape.fields.push((used, Some(field)));
                return;
            }
        }
        _ => {}
    }
    item.children().iter().for_each(|child| walk(child, shape));
}

/// `alias.column -> 'field'` and `alias.column ->> 'field'`.
fn taken_out(item: &Item) -> Option<(ColumnUse, String)> {
    let Some(Item::List(name)) = item.field(":name") else { return None };
    if !matches!(name.last(), Some(Item::Text(operator)) if operator == "->" || operator == "->>") {
        return None;
    }
    let (left, right) = (item.field(":lexpr")?, item.field(":rexpr")?);
    match (left.tag(), right.tag(), right.field(":val")) {
        ("COLUMNREF", "A_CONST", Some(Item::Text(field))) => Some((column(left)?, field.clone())),
        _ => None,
    }
}

/// A column of a view by its name, and the columns that it is made of: relation and number.
pub type ViewColumn = (String, Vec<(u32, i16)>);

/// What each column of a view is made of, from PostgreSQL's text of its query (`pg_rewrite.ev_action`). None when it has a form that is
/// not understood.
pub fn view_columns(nodes: &str) -> Option<Vec<ViewColumn>> {
    let mut reader = Reader { text: nodes.as_bytes(), at: 0, depth: 0 };
    let items = reader.items(None)?;
    let [Item::List(queries)] = items.as_slice() else { return None };
    let [query] = queries.as_slice() else { return None };
    let (Some(Item::List(tables)), Some(Item::List(targets))) = (query.field(":rtable"), query.field(":targetList")) else {
        return None;
    };
    let relations: Vec<Option<u32>> = tables.iter().map(|table| number(table, ":relid")).collect();
    let mut found = Vec::new();
    for target in targets {
        let Some(Item::Word(name)) = target.field(":resname") else { continue };
        let mut columns = Vec::new();
        made_of(target.field(":expr")?, &relations, &mut columns);
        columns.sort_unstable();
        columns.dedup();
        found.push((name.clone(), columns));
    }
    Some(found)
}

fn number<T: std::str::FromStr>(item: &Item, field: &str) -> Option<T> {
    match item.field(field) {
        Some(Item::Word(word)) => word.parse().ok(),
        _ => None,
    }
}

fn made_of(item: &Item, relations: &[Option<u32>], columns: &mut Vec<(u32, i16)>) {
    if item.tag() == "VAR"
        && number(item, ":varlevelsup") == Some(0)
        && let (Some(table), Some(column)) = (number::<usize>(item, ":varno"), number::<i16>(item, ":varattno"))
        && let Some(Some(relation)) = table.checked_sub(1).and_then(|at| relations.get(at))
    {
        columns.push((*relation, column));
    }
    item.children().iter().for_each(|child| made_of(child, relations, columns));
}

fn column(item: &Item) -> Option<ColumnUse> {
    let Some(Item::List(fields)) = item.field(":fields") else { return None };
    match fields.as_slice() {
        [Item::Text(alias), Item::Text(column)] => Some(ColumnUse { alias: alias.clone(), column: Some(column.clone()) }),
        [Item::Text(alias)] | [Item::Text(alias), Item::Node(..)] => Some(ColumnUse { alias: alias.clone(), column: None }),
        // alias.column.field and the like: counts as the whole row.
        [Item::Text(alias), ..] => Some(ColumnUse { alias: alias.clone(), column: None }),
        _ => None,
    }
}

fn is_literal(item: &Item) -> bool {
    item.tag() == "A_CONST"
}

fn is_row_column(item: &Item, rows: &[&str]) -> bool {
    item.tag() == "COLUMNREF" && column(item).is_some_and(|c| c.column.is_some() && rows.contains(&c.alias.as_str()))
}

fn is_constant(item: &Item) -> bool {
    match item.tag() {
        "A_CONST" => true,
        // TRUE and FALSE arrive as a constant cast to bool.
        "TYPECAST" => item.field(":arg").is_some_and(|arg| {
            arg.tag() == "A_CONST" && matches!(arg.field(":val"), Some(Item::Word(word)) if word == "true" || word == "false")
        }),
        // A sign in front of a number.
        "A_EXPR" => {
            matches!(item.field(":name"), Some(Item::List(name)) if name == &[Item::Text("-".into())])
                && matches!(item.field(":lexpr"), Some(Item::Word(word)) if word == "<>")
                && item.field(":rexpr").is_some_and(|right| right.tag() == "A_CONST")
        }
        _ => false,
    }
}

fn is_operand(item: &Item, rows: &[&str]) -> bool {
    is_row_column(item, rows) || is_constant(item)
}

fn is_simple(item: &Item, rows: &[&str]) -> bool {
    match item.tag() {
        "COLUMNREF" => is_row_column(item, rows),
        "TYPECAST" | "A_CONST" => is_constant(item),
        "BOOLEXPR" => match item.field(":args") {
            Some(Item::List(args)) => args.iter().all(|arg| is_simple(arg, rows)),
            _ => false,
        },
        "NULLTEST" | "BOOLEANTEST" => item.field(":arg").is_some_and(|arg| is_operand(arg, rows)),
        "A_EXPR" => is_comparison(item, rows),
        _ => false,
    }
}

fn is_comparison(item: &Item, rows: &[&str]) -> bool {
    let Item::Node(_, items) = item else { return false };
    let kind = match items.first() {
        Some(Item::Word(word)) if !word.starts_with(':') => word.as_str(),
        _ => "",
    };
    let Some(Item::List(name)) = item.field(":name") else { return false };
    let [Item::Text(operator)] = name.as_slice() else { return false };
    let (Some(left), Some(right)) = (item.field(":lexpr"), item.field(":rexpr")) else { return false };
    match kind {
        "" => {
            matches!(operator.as_str(), "=" | "<>" | "<" | ">" | "<=" | ">=") && is_operand(left, rows) && is_operand(right, rows)
        }
        "DISTINCT" | "NOT_DISTINCT" => is_operand(left, rows) && is_operand(right, rows),
        "IN" | "BETWEEN" | "NOT_BETWEEN" => {
            is_operand(left, rows) && matches!(right, Item::List(values) if values.iter().all(is_constant))
        }
        _ => false,
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn column_use(alias: &str, column: &str) -> ColumnUse {
        ColumnUse { alias: alias.into(), column: Some(column.into()) }
    }

    #[test]
    fn a_comparison_of_a_column_is_simple() {
        let shape = read(r#"{A_EXPR  :name ("=") :lexpr {COLUMNREF :fields ("new" "status") :location 0} :rexpr {A_CONST :val "won" :location 13} :location 11}"#).unwrap();
        assert!(shape.simple && !shape.literal && !shape.has_subquery);
        assert_eq!(shape.columns, [column_use("new", "status")]);
    }

    #[test]
    fn the_form_of_postgresql_15_is_understood() {
        let shape = read(r#"{BOOLEXPR :boolop and :args ({AEXPR IN  :name ("=") :lexpr {COLUMNREF :fields ("new" "status") :location 0} :rexpr ({A_CONST :val "a" :location 15} {A_CONST :val "b" :location 19}) :location 11} {BOOLEXPR :boolop not :args ({AEXPR  :name (">") :lexpr {COLUMNREF :fields ("new" "total") :location 33} :rexpr {A_CONST :val -1 :location 45} :location 43}) :location 28} {AEXPR BETWEEN  :name ("BETWEEN") :lexpr {COLUMNREF :fields ("new" "total") :location 53} :rexpr ({A_CONST :val 1 :location 71} {A_CONST :val 3 :location 77}) :location 63} {NULLTEST :arg {COLUMNREF :fields ("old" "status") :location 83} :nulltesttype 1 :argisrow false :location 94} {A_CONST :val true :location 110}) :location 24}"#).unwrap();
        assert!(shape.simple);
        assert_eq!(shape.columns, [column_use("new", "status"), column_use("new", "total"), column_use("old", "status")]);
    }

    #[test]
    fn two_columns_are_noted_as_compared() {
        let shape = read(r#"{A_EXPR  DISTINCT :name ("=") :lexpr {COLUMNREF :fields ("old" "a") :location 0} :rexpr {COLUMNREF :fields ("new" "a") :location 13} :location 11}"#).unwrap();
        assert!(shape.simple);
        assert_eq!(shape.compared, [(column_use("old", "a"), column_use("new", "a"))]);
    }

    #[test]
    fn what_can_fail_is_not_simple() {
        for nodes in [
            r#"{FUNCCALL :funcname ("lower") :args ({COLUMNREF :fields ("new" "a") :location 6})}"#,
            r#"{A_EXPR  :name ("/") :lexpr {A_CONST :val 1 :location 0} :rexpr {COLUMNREF :fields ("new" "a") :location 4} :location 2}"#,
            r#"{TYPECAST :arg {COLUMNREF :fields ("new" "a") :location 0} :typeName {TYPENAME :names ("int4")}}"#,
            r#"{COLUMNREF :fields ("status") :location 0}"#,
        ] {
            assert!(!read(nodes).unwrap().simple, "{nodes}");
        }
    }

    #[test]
    fn what_is_too_deep_is_not_understood() {
        let chain = |length: usize| {
            let (open, close) = ("{A_EXPR :lexpr ".repeat(length), "}".repeat(length));
            read(&format!("{open}{{A_CONST :val 1}}{close}"))
        };
        assert!(chain(900).is_some());
        assert!(chain(1_000).is_none() && chain(1_000_000).is_none() && read(&"(".repeat(1_000_000)).is_none());
    }

    #[test]
    fn braces_and_quotes_inside_strings_do_not_confuse() {
        let shape = read(r#"{A_CONST :val "it\ is\ \"\{SUBLINK\}\ \(x\)" :location 0}"#).unwrap();
        assert!(shape.literal && !shape.has_subquery && shape.columns.is_empty());
    }

    #[test]
    fn a_field_that_is_taken_out_is_told_by_name() {
        let data = || ColumnUse { alias: "event".into(), column: Some("data".into()) };
        let node = |operator: &str| {
            format!(
                r#"{{A_EXPR :name ("{operator}") :lexpr {{COLUMNREF :fields ("event" "data") :location 0}} :rexpr {{A_CONST :val "order_id" :location 15}} :location 11}}"#
            )
        };
        for operator in ["->", "->>"] {
            let shape = read(&node(operator)).unwrap();
            assert_eq!(shape.fields, [(data(), Some("order_id".to_owned()))]);
            assert_eq!(shape.columns, [data()]);
        }
        assert_eq!(read(&node("||")).unwrap().fields, [(data(), None)]);
    }

    #[test]
    fn a_view_says_what_its_columns_are_made_of() {
        let var = |number: u32, column: u32, up: u32| {
            format!("{{VAR :varno {number} :varattno {column} :vartype 25 :varlevelsup {up} :location 7}}")
        };
        let view = format!(
            r"({{QUERY :commandType 1 :rtable ({{RANGETBLENTRY :rtekind 0 :relid 900}} {{RANGETBLENTRY :rtekind 0 :relid 500}} {{RANGETBLENTRY :rtekind 1}})
               :targetList ({{TARGETENTRY :expr {} :resno 1 :resname id :resjunk false}}
                            {{TARGETENTRY :expr {{CASEEXPR :args ({} {} {})}} :resno 2 :resname two\ words :resjunk false}}
                            {{TARGETENTRY :expr {{CONST :constvalue <>}} :resno 3 :resname none :resjunk false}})}})",
            var(2, 1, 0),
            var(2, 3, 0),
            var(3, 1, 0),
            var(1, 9, 1)
        );
        assert_eq!(
            view_columns(&view).unwrap(),
            [("id".to_owned(), vec![(500, 1)]), ("two words".to_owned(), vec![(500, 3)]), ("none".to_owned(), vec![])]
        );
        assert!(view_columns("nothing").is_none() && view_columns("({QUERY :a 1})").is_none());
    }

    #[test]
    fn a_whole_row_is_a_use_of_all() {
        let shape = read(r#"{FUNCCALL :funcname ("to_jsonb") :args ({COLUMNREF :fields ("new") :location 9})}"#).unwrap();
        assert_eq!(shape.columns, [ColumnUse { alias: "new".into(), column: None }]);
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}() \"\\\\:a-zA-Z_<>]{0,80}") {
            let _ = read(&text);
            let _ = view_columns(&text);
        }
    }
}
