//! What a definition says about a merge. Pure.

use super::super::definition::{Definition, Mode, Then, When};
use super::super::fields::{Parsed, expressions, known_keys, object, refuse, text, texts};
use crate::error::did_you_mean;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The name of the part that follows the right side: `flow:back`.
pub const BACK: &str = "back";
/// Stands for the whole row where fields are named.
pub const WHOLE_ROW: &str = "*";
const MOST_FIELDS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Side {
    pub fn word(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
        }
    }

    pub fn other(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
        }
    }
}

/// Who decides when both sides have changed a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// The left side: the table of "when".
    Source,
    /// The right side: the table of "merge".
    Target,
    /// The row that was written last.
    Latest,
    /// Both: what each has added since the base.
    Add,
    /// Somebody.
    Manual,
    /// This function, given base, left and right.
    Function(String),
}

const STRATEGIES: [&str; 5] = ["source", "target", "latest", "add", "manual"];

impl Strategy {
    fn parse(value: &Value, at: &str) -> Parsed<Self> {
        if let Some(object) = value.as_object() {
            known_keys(object, &["function"], at)?;
            let Some(function) = object.get("function") else { return refuse(format!("{at} names no function"), REMEDY) };
            return Ok(Self::Function(text(function, &format!("\"function\" in {at}"))?));
        }
        match text(value, at)?.as_str() {
            "source" => Ok(Self::Source),
            "target" => Ok(Self::Target),
            "latest" => Ok(Self::Latest),
            "add" => Ok(Self::Add),
            "manual" => Ok(Self::Manual),
            other => {
                refuse(format!("\"{other}\" in {at} is not a strategy"), format!("{}{REMEDY}", did_you_mean(other, &STRATEGIES)))
            }
        }
    }

    pub fn word(&self) -> String {
        match self {
            Self::Source => "source".to_owned(),
            Self::Target => "target".to_owned(),
            Self::Latest => "latest".to_owned(),
            Self::Add => "add".to_owned(),
            Self::Manual => "manual".to_owned(),
            Self::Function(name) => name.clone(),
        }
    }
}

const REMEDY: &str = "Use one of source, target, latest, add, manual, or {\"function\": \"schema.name\"}.";

/// How bad it is that two sides differ; the order is that of their weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    fn parse(value: &Value, at: &str) -> Parsed<Self> {
        let word = text(value, at)?;
        match Self::ALL.into_iter().find(|severity| severity.word() == word) {
            Some(severity) => Ok(severity),
            None => refuse(
                format!("\"{word}\" in {at} is not a severity"),
                format!("{}Use info, warning or critical.", did_you_mean(&word, &["info", "warning", "critical"])),
            ),
        }
    }

    /// Seconds after which somebody is told of a conflict that is still open, where the definition does not say: of what is for
    /// information only nobody.
    fn patience(self) -> Option<f64> {
        match self {
            Self::Critical => Some(3_600.0),
            Self::Warning => Some(86_400.0),
            Self::Info => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Names it in conflicts, the base and decisions.
    pub name: String,
    pub left: String,
    pub right: String,
    /// Over `new`, the row of the left side; the column itself where it is not there.
    pub to_right: Option<String>,
    pub to_left: Option<String>,
    pub strategy: Strategy,
    pub severity: Severity,
}

/// What happens to the other row when one is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletes {
    Follow,
    Keep,
}

/// One side deletes what the other has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgainstEdit {
    /// The row that was deleted comes back.
    Edit,
    Delete,
    Manual,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Merge {
    /// The table of the other side.
    pub table: String,
    /// The side that this flow listens to.
    pub side: Side,
    pub fields: Vec<Field>,
    /// Who decides on fields that name nobody.
    pub strategy: Strategy,
    /// Columns by which rows without a link find each other: left, right.
    pub matches: Vec<(String, String)>,
    pub creates_left: bool,
    pub creates_right: bool,
    pub deletes: Deletes,
    pub against_edit: AgainstEdit,
    /// When rows were last written: columns of left and right. Without them the order of the transactions.
    pub times: Option<(String, String)>,
    /// Further columns of rows that are made, over `new`, the row of the other side.
    pub new_left: BTreeMap<String, String>,
    pub new_right: BTreeMap<String, String>,
    /// Of which organization a row of the other side is, over `new`, where no column organization_id says it.
    pub other_organization: Option<String>,
    /// Of conflicts over whole rows.
    pub severity: Severity,
    /// Seconds by severity.
    pub escalate_after: BTreeMap<&'static str, f64>,
}

const KEYS: [&str; 14] = [
    "merge",
    "fields",
    "strategy",
    "match",
    "creates",
    "deletes",
    "delete_against_edit",
    "times",
    "new_left",
    "new_right",
    "back",
    "severity",
    "escalate_after",
    "side",
];

fn field(name: &str, value: &Value, default: &Strategy, severity: Severity) -> Parsed<Field> {
    let at = format!("field \"{name}\"");
    let mut field = Field {
        name: name.to_owned(),
        left: name.to_owned(),
        right: name.to_owned(),
        to_right: None,
        to_left: None,
        strategy: default.clone(),
        severity,
    };
    if [WHOLE_ROW, ""].contains(&name) {
        return refuse(format!("\"{name}\" cannot name a field"), "Name a column of the left table.");
    }
    let Some(object) = value.as_object().filter(|object| !object.contains_key("function")) else {
        field.strategy = Strategy::parse(value, &at)?;
        return Ok(field);
    };
    known_keys(object, &["left", "right", "to_right", "to_left", "strategy", "severity"], &at)?;
    let optional = |key: &str| object.get(key).map(|value| text(value, &format!("\"{key}\" of {at}"))).transpose();
    field.left = optional("left")?.unwrap_or(field.left);
    field.right = optional("right")?.unwrap_or(field.right);
    field.to_right = optional("to_right")?;
    field.to_left = optional("to_left")?;
    if field.to_right.is_some() != field.to_left.is_some() {
        let (given, lost) = if field.to_right.is_some() { ("to_right", "to_left") } else { ("to_left", "to_right") };
        return refuse(
            format!("{at} has \"{given}\" and no \"{lost}\""),
            format!("Both ways are needed: \"{lost}\": \"new.…\", over the row of the other side."),
        );
    }
    if let Some(strategy) = object.get("strategy") {
        field.strategy = Strategy::parse(strategy, &format!("\"strategy\" of {at}"))?;
    }
    if let Some(severity) = object.get("severity") {
        field.severity = Severity::parse(severity, &format!("\"severity\" of {at}"))?;
    }
    Ok(field)
}

fn fields(value: Option<&Value>, default: &Strategy, severity: Severity) -> Parsed<Vec<Field>> {
    let remedy = "Name them: \"fields\": {\"name\": \"latest\", \"notes\": {\"right\": \"remarks\", \"strategy\": \"manual\"}}, or [\"name\", \"notes\"].";
    let found = match value {
        None => return refuse("a \"merge\" lacks \"fields\"", remedy),
        Some(Value::Array(_)) => {
            let names = texts(value.unwrap_or(&Value::Null), "\"fields\"")?;
            names.iter().map(|name| field(name, &json!({}), default, severity)).collect::<Parsed<Vec<_>>>()?
        }
        Some(value) => object(value, "\"fields\"")?
            .iter()
            .map(|(name, value)| field(name, value, default, severity))
            .collect::<Parsed<Vec<_>>>()?,
    };
    if found.is_empty() || found.len() > MOST_FIELDS {
        return refuse(format!("\"fields\" must be 1 to {MOST_FIELDS}, and they are {}", found.len()), remedy);
    }
    for (at, one) in found.iter().enumerate() {
        if let Some(other) = found[..at].iter().find(|other| other.left == one.left || other.right == one.right) {
            let (side, column) = if other.left == one.left { ("left", &one.left) } else { ("right", &one.right) };
            return refuse(
                format!("column \"{column}\" of the {side} side is in two fields"),
                "A column belongs to one field: who else would decide?",
            );
        }
    }
    Ok(found)
}

fn matches(value: Option<&Value>) -> Parsed<Vec<(String, String)>> {
    match value {
        None => Ok(Vec::new()),
        Some(Value::Object(pairs)) => {
            pairs.iter().map(|(left, right)| Ok((left.clone(), text(right, &format!("\"{left}\" in \"match\""))?))).collect()
        }
        Some(names) => Ok(texts(names, "\"match\"")?.into_iter().map(|name| (name.clone(), name)).collect()),
    }
}

fn creates(value: Option<&Value>) -> Parsed<(bool, bool)> {
    match value.map(|value| text(value, "\"creates\"")).transpose()?.as_deref() {
        None | Some("both") => Ok((true, true)),
        Some("left") => Ok((true, false)),
        Some("right") => Ok((false, true)),
        Some("none") => Ok((false, false)),
        Some(other) => refuse(
            format!("\"creates\": \"{other}\" is unknown"),
            format!(
                "{}Use both, left, right or none: on which sides rows are made.",
                did_you_mean(other, &["both", "left", "right", "none"])
            ),
        ),
    }
}

/// Of one severity, or of each: `"2 h"`, or `{"critical": "15 min"}`.
fn escalations(value: Option<&Value>) -> Parsed<BTreeMap<&'static str, f64>> {
    let mut found: BTreeMap<&'static str, f64> =
        Severity::ALL.into_iter().filter_map(|severity| Some((severity.word(), severity.patience()?))).collect();
    let span = |value: &Value| super::super::steps::span(value, "\"escalate_after\"");
    match value {
        None => {}
        Some(Value::Object(each)) => {
            known_keys(each, &["info", "warning", "critical"], "\"escalate_after\"")?;
            for severity in Severity::ALL {
                if let Some(value) = each.get(severity.word()) {
                    found.insert(severity.word(), span(value)?);
                }
            }
        }
        Some(value) => {
            let seconds = span(value)?;
            found = Severity::ALL.into_iter().map(|severity| (severity.word(), seconds)).collect();
        }
    }
    Ok(found)
}

/// `{"merge": table, "fields": {…}, …}`.
pub fn then(all: &Map<String, Value>, table: &Value) -> Parsed<Then> {
    known_keys(all, &KEYS, "\"then\"")?;
    let word = |key: &str| all.get(key).map(|value| text(value, &format!("\"{key}\""))).transpose();
    let strategy = all.get("strategy").map_or(Ok(Strategy::Manual), |value| Strategy::parse(value, "\"strategy\""))?;
    let severity = all.get("severity").map_or(Ok(Severity::Warning), |value| Severity::parse(value, "\"severity\""))?;
    let (creates_left, creates_right) = creates(all.get("creates"))?;
    let times = match all.get("times") {
        None => None,
        Some(value) => {
            let times = object(value, "\"times\"")?;
            known_keys(times, &["left", "right"], "\"times\"")?;
            match (times.get("left"), times.get("right")) {
                (Some(left), Some(right)) => Some((text(left, "\"left\" in \"times\"")?, text(right, "\"right\" in \"times\"")?)),
                _ => {
                    return refuse(
                        "\"times\" names one side only",
                        "Write \"times\": {\"left\": \"updated_at\", \"right\": \"updated_at\"}: two times are compared.",
                    );
                }
            }
        }
    };
    let deletes = match word("deletes")?.as_deref() {
        None | Some("follow") => Deletes::Follow,
        Some("keep") => Deletes::Keep,
        Some(other) => {
            return refuse(
                format!("\"deletes\": \"{other}\" is unknown"),
                format!("{}Use follow (the other row is deleted too) or keep.", did_you_mean(other, &["follow", "keep"])),
            );
        }
    };
    let against_edit = match word("delete_against_edit")?.as_deref() {
        None if strategy == Strategy::Manual => AgainstEdit::Manual,
        None | Some("edit") => AgainstEdit::Edit,
        Some("delete") => AgainstEdit::Delete,
        Some("manual") => AgainstEdit::Manual,
        Some(other) => {
            return refuse(
                format!("\"delete_against_edit\": \"{other}\" is unknown"),
                format!("{}Use edit, delete or manual.", did_you_mean(other, &["edit", "delete", "manual"])),
            );
        }
    };
    let other_organization = match all.get("back") {
        None => None,
        Some(back) => {
            let back = object(back, "\"back\"")?;
            known_keys(back, &["if", "organization", "on"], "\"back\"")?;
            back.get("organization").map(|value| text(value, "\"organization\" in \"back\"")).transpose()?
        }
    };
    Ok(Then::Merge(Box::new(Merge {
        table: text(table, "\"merge\"")?,
        side: match word("side")?.as_deref() {
            None => Side::Left,
            Some("right") => Side::Right,
            Some(_) => return refuse("\"side\" is not for you to say", "Leave it out."),
        },
        fields: fields(all.get("fields"), &strategy, severity)?,
        strategy,
        matches: matches(all.get("match"))?,
        creates_left,
        creates_right,
        deletes,
        against_edit,
        times,
        new_left: expressions(all.get("new_left"), "\"new_left\"")?,
        new_right: expressions(all.get("new_right"), "\"new_right\"")?,
        other_organization,
        severity,
        escalate_after: escalations(all.get("escalate_after"))?,
    })))
}

/// The column that an expression like `new.id` names.
pub fn plain_column(text: &str) -> Option<&str> {
    let name = text.trim().strip_prefix("new.")?;
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    plain.then_some(name)
}

/// The flow that follows the right side.
pub fn back(definition: &Value) -> Value {
    let mut back = definition.clone();
    let take = |value: &mut Value, key: &str| value.as_object_mut().and_then(|object| object.remove(key));
    for key in ["description", "trigger_name", "if", "organization"] {
        take(&mut back, key);
    }
    let (from, to) = (take(&mut back, "from"), take(&mut back, "to"));
    for (key, value) in [("from", to), ("to", from)] {
        if let Some(value) = value {
            back[key] = value;
        }
    }
    let own = take(&mut back["then"], "back").unwrap_or(Value::Null);
    let right = back["then"]["merge"].take();
    back["then"]["merge"] = back["when"]["change"].take();
    back["when"]["change"] = right;
    back["then"]["side"] = json!("right");
    if let Some(on) = own.get("on") {
        back["when"]["on"] = on.clone();
    }
    // A row of the other side belongs to whom that row says; a fixed organization is that of both.
    let fixed =
        definition.get("organization").filter(|text| text.as_str().is_some_and(|text| text.trim_start().starts_with('\'')));
    for (key, value) in [("if", own.get("if")), ("organization", own.get("organization").or(fixed))] {
        if let Some(value) = value {
            back[key] = value.clone();
        }
    }
    if let Some(organization) = definition.get("organization") {
        back["then"]["back"] = json!({"organization": organization});
    }
    // Each side's own column is the left one of its own half, as of any flow that links.
    let left = back["link"]["left"].as_str().and_then(plain_column).map(str::to_owned);
    let right = back["link"]["right"].as_str().map(str::to_owned);
    if let (Some(left), Some(right)) = (left, right) {
        back["link"]["left"] = json!(format!("new.{right}"));
        back["link"]["right"] = json!(left);
    }
    back
}

impl Definition {
    pub fn merge(&self) -> Option<&Merge> {
        match &self.then {
            Then::Merge(merge) => Some(merge),
            _ => None,
        }
    }

    /// Columns that name the rows of the side that this flow follows, and of the other one.
    pub fn merge_ids(&self) -> Option<(&str, &str)> {
        let link = self.link.as_ref()?;
        self.merge().and_then(|_| Some((plain_column(&link.left)?, link.right.as_str())))
    }

    /// What a merge cannot be; and where it can, a delete is told whatever the condition says, because it has no row to ask.
    pub(in super::super) fn merge_agrees(&mut self, value: &Value) -> Parsed<()> {
        let Then::Merge(merge) = &self.then else { return Ok(()) };
        if !matches!(self.when, When::Change { .. }) {
            return refuse(
                "a \"merge\" needs a \"change\" in \"when\"",
                "It follows the rows of two tables: \"when\": {\"change\": \"public.orders\"}.",
            );
        }
        if self.mode == Mode::Transactional {
            return refuse(
                "a \"merge\" cannot be transactional",
                "It locks both rows, which writers of either side would wait for in turn; use \"mode\": \"realtime\".",
            );
        }
        if self.shadow {
            return refuse(
                "a \"merge\" cannot be in shadow",
                "usher.reconcile() shows without writing what it would do to the rows of both sides.",
            );
        }
        let of_other_kinds = [
            (
                "set",
                !self.set.is_empty(),
                "\"fields\" say what is kept equal, \"new_left\" and \"new_right\" what else a new row gets.",
            ),
            ("set_once", !self.set_once.is_empty(), "Use \"new_left\" and \"new_right\"."),
            ("join", !self.joins.is_empty(), "Use a function in \"to_right\" and \"to_left\", or a one-way flow."),
            ("check", !self.check.is_empty(), "Give the table a CHECK constraint: both sides are written."),
            ("coalesce", self.coalesce, "Each row of a batch is merged once anyway."),
        ];
        if let Some((key, _, remedy)) = of_other_kinds.into_iter().find(|(_, there, _)| *there) {
            return refuse(format!("\"{key}\" does not go with a \"merge\""), remedy);
        }
        let id = match &self.link {
            None => {
                return refuse(
                    "a \"merge\" needs a \"link\"",
                    "It keeps what both sides agreed on: \"link\": {\"kind\": \"project\", \"left\": \"new.id\", \"right\": \"id\"}.",
                );
            }
            Some(link) => match plain_column(&link.left) {
                Some(column) => column.to_owned(),
                None => {
                    return refuse(
                        "the \"left\" of a merge's \"link\" must be a column",
                        "Write it as \"new.id\": the right side must be able to find its row.",
                    );
                }
            },
        };
        for (side, ids) in [(Side::Left, &merge.new_left), (Side::Right, &merge.new_right)] {
            let lost =
                merge.fields.iter().find(|field| ids.contains_key(if side == Side::Left { &field.left } else { &field.right }));
            if let Some(field) = lost {
                return refuse(
                    format!("\"{}\" is in \"fields\" and in \"new_{}\"", field.name, side.word()),
                    "Keep it in \"fields\": a new row gets it from there.",
                );
            }
            if ids.contains_key("organization_id") {
                return refuse("organization_id is set by the engine", format!("Leave it out of \"new_{}\".", side.word()));
            }
        }
        if merge.fields.iter().any(|field| field.left == "organization_id" || field.right == "organization_id") {
            return refuse("organization_id is no field", "Both rows are of one organization by themselves.");
        }
        if let Some(condition) = &self.condition {
            self.condition = Some(format!("new.{id} IS NULL OR ({condition}\n)"));
        }
        if self.merge().is_some_and(|merge| merge.side == Side::Left) {
            Definition::parse(&back(value)).map_err(|mut refusal| {
                refusal.message = format!("the way back: {}", refusal.message);
                refusal
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod unit;
