//! What a flow says: the typed form of its JSON, without any look at the database.
//!
//! A key that is not known is refused with the nearest one that is; a kind that the model knows and this version does
//! not run is refused as such. Pure: no pgrx.

use super::call;
use super::emit;
use super::event_type::Pattern;
use super::fields::{Parsed, Refusal, duration, expressions, known_keys, object, one_of, refuse, text, texts, yes_or_no};
use super::gather::{self, Gather};
use super::limits::{self, Limit};
use super::merge::{self, Merge};
use super::publish::{self, Publish};
use super::retry::Retry;
use super::schedule::Schedule;
use super::steps::{self, Part, Step};
use crate::error::did_you_mean;
use serde_json::Value;
use std::collections::BTreeMap;

fn not_there<T>(what: &str) -> Parsed<T> {
    Err(Refusal {
        message: format!("{what} is not there yet in this version"),
        hint:
            "This version runs \"when\": change, request, event and schedule, \"then\": insert, upsert, update, delete, merge, call, emit, publish and steps, \
               \"mode\": transactional, realtime, async and batch."
                .to_owned(),
        unsupported: true,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Transactional,
    Realtime,
    Async,
    Batch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Insert,
    Update,
    Delete,
}

impl Change {
    pub fn word(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }

    /// The letter that a job carries.
    pub fn letter(self) -> char {
        match self {
            Self::Insert => 'I',
            Self::Update => 'U',
            Self::Delete => 'D',
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum When {
    Change {
        table: String,
        on: Vec<Change>,
    },
    Request {
        action: String,
    },
    Schedule(Schedule),
    Event(Pattern),
    /// A part of a step: the run of this workflow says when.
    Step(String),
}

impl When {
    /// As messages name it.
    pub fn article(&self) -> &'static str {
        if matches!(self, Self::Event(_)) { "an" } else { "a" }
    }

    /// As `job.op` names it where no row has changed, and as messages do.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Change { .. } => "change",
            Self::Request { .. } => "request",
            Self::Schedule(_) => "schedule",
            Self::Event(_) => "event",
            Self::Step(_) => "step",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnConflict {
    Error,
    Keep,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    Insert {
        table: String,
        key: Vec<String>,
        on_conflict: OnConflict,
    },
    Upsert {
        table: String,
        key: Vec<String>,
    },
    Update {
        table: String,
        key: Vec<String>,
    },
    Delete {
        table: String,
        key: Vec<String>,
    },
    /// `external`: its work leaves the database, so it is made outside of any batch. `keep_result`: what it returns is kept.
    /// `per_batch`: once for all jobs of a gathered batch.
    Call {
        function: String,
        external: bool,
        keep_result: bool,
        per_batch: bool,
    },
    /// A workflow: each job begins a run of it, whose input is "set".
    Steps(Vec<Step>),
    /// Part of a step: "set" is what is to be known.
    Collect(Part),
    /// An event of this type, with the fields of "set" as its data.
    Emit {
        event_type: String,
    },
    /// Two tables that are kept equal.
    Merge(Box<Merge>),
    /// A message to clients that are connected.
    Publish(Publish),
}

impl Then {
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Insert { table, .. } | Self::Upsert { table, .. } | Self::Update { table, .. } | Self::Delete { table, .. } => {
                Some(table)
            }
            Self::Merge(merge) => Some(&merge.table),
            Self::Call { .. } | Self::Steps(_) | Self::Collect(_) | Self::Emit { .. } | Self::Publish(_) => None,
        }
    }

    pub fn key(&self) -> &[String] {
        match self {
            Self::Insert { key, .. } | Self::Upsert { key, .. } | Self::Update { key, .. } | Self::Delete { key, .. } => key,
            Self::Call { .. } | Self::Steps(_) | Self::Collect(_) | Self::Emit { .. } | Self::Merge(_) | Self::Publish(_) => &[],
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub kind: String,
    pub left: String,
    pub right: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    pub table: String,
    pub on: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    Continue,
    Abort,
}

/// Lanes by rank; jobs of a higher lane are served more often, none is starved.
pub const LANES: [&str; 5] = ["emergency", "critical", "high", "normal", "low"];

/// The lane of a priority; `medium` is `normal`.
pub fn lane(priority: &str) -> Option<usize> {
    let priority = if priority == "medium" { "normal" } else { priority };
    LANES.iter().position(|name| *name == priority)
}

#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub from: Option<String>,
    pub to: Option<String>,
    pub mode: Mode,
    /// Of mode batch: when its jobs run.
    pub batch: Option<Gather>,
    pub when: When,
    pub organization: Option<String>,
    pub condition: Option<String>,
    pub joins: BTreeMap<String, Join>,
    pub then: Then,
    pub set: BTreeMap<String, String>,
    pub set_once: BTreeMap<String, String>,
    pub check: BTreeMap<String, String>,
    pub link: Option<Link>,
    pub on_error: OnError,
    pub run_as: Option<String>,
    pub lane: usize,
    pub retry: Retry,
    pub trigger_name: Option<String>,
    /// Milliseconds that the effect may wait for a lock.
    pub lock_timeout: i64,
    /// Milliseconds that its effect may take.
    pub timeout: Option<i64>,
    /// Its jobs run and what they would have written is recorded, but nothing of it stays.
    pub shadow: bool,
    /// Several pending changes of one row are applied once.
    pub coalesce: bool,
    /// How much may go through.
    pub limits: Vec<Limit>,
}

const KEYS: [&str; 23] = [
    "from",
    "to",
    "mode",
    "batch",
    "when",
    "organization",
    "if",
    "join",
    "then",
    "set",
    "set_once",
    "check",
    "link",
    "on_error",
    "run_as",
    "priority",
    "retry",
    "trigger_name",
    "lock_timeout",
    "timeout",
    "shadow",
    "coalesce",
    "limits",
];
const DESCRIPTION: &str = "description";

/// The kinds of change that `"on"` lists; insert and update when it is not there.
pub fn changes(on: Option<&Value>) -> Parsed<Vec<Change>> {
    let Some(list) = on else { return Ok(vec![Change::Insert, Change::Update]) };
    texts(list, "\"on\"")?
        .iter()
        .map(|word| match word.as_str() {
            "insert" => Ok(Change::Insert),
            "update" => Ok(Change::Update),
            "delete" => Ok(Change::Delete),
            other => refuse(
                format!("\"{other}\" in \"on\" is not a change"),
                did_you_mean(other, &["insert", "update", "delete"]) + "Use insert, update, delete.",
            ),
        })
        .collect()
}

fn when(value: &Value) -> Parsed<When> {
    let object = object(value, "\"when\"")?;
    // Not told to anybody: the engine writes it.
    if let Some(workflow) = object.get("step") {
        known_keys(object, &["step"], "\"when\"")?;
        return Ok(When::Step(text(workflow, "\"step\"")?));
    }
    let (kind, value) = one_of(object, &["change", "request", "event", "schedule", "webhook"], "\"when\"")?;
    match kind {
        "change" => {
            known_keys(object, &["change", "on"], "\"when\"")?;
            let table = text(value, "\"change\"")?;
            let on = changes(object.get("on"))?;
            if on.is_empty() {
                return refuse("\"on\" is empty", "Name at least one of insert, update, delete.");
            }
            Ok(When::Change { table, on })
        }
        "request" => {
            known_keys(object, &["request"], "\"when\"")?;
            Ok(When::Request { action: text(value, "\"request\"")? })
        }
        "schedule" => {
            known_keys(object, &["schedule", "timezone", "missed"], "\"when\"")?;
            Schedule::parse(object).map(When::Schedule).map_err(|(message, hint)| Refusal { message, hint, unsupported: false })
        }
        "event" => {
            known_keys(object, &["event"], "\"when\"")?;
            Pattern::parse(&text(value, "\"event\"")?).map(When::Event)
        }
        other => not_there(&format!("\"when\": \"{other}\"")),
    }
}

fn then(value: &Value) -> Parsed<Then> {
    let object = object(value, "\"then\"")?;
    if let Some(part) = object.get("collect") {
        known_keys(object, &["collect"], "\"then\"")?;
        return match Part::named(&text(part, "\"collect\"")?) {
            Some(part) => Ok(Then::Collect(part)),
            None => refuse("\"collect\" is for the parts of a step", "Use one of the other kinds."),
        };
    }
    let kinds = ["insert", "upsert", "update", "delete", "merge", "call", "send", "emit", "publish", "notify", "steps"];
    let (kind, value) = one_of(object, &kinds, "\"then\"")?;
    if matches!(kind, "send" | "notify") {
        return not_there(&format!("\"then\": \"{kind}\""));
    }
    if kind == "steps" {
        known_keys(object, &["steps"], "\"then\"")?;
        return steps::parse(value).map(Then::Steps);
    }
    if kind == "emit" {
        return emit::then(object, value);
    }
    if kind == "merge" {
        return merge::definition::then(object, value);
    }
    if kind == "publish" {
        return publish::then(object, value);
    }
    if kind == "call" {
        return call::then(object, value);
    }
    let table = text(value, &format!("\"{kind}\""))?;
    let key = object.get("key").map(|key| texts(key, "\"key\"")).transpose()?.unwrap_or_default();
    if kind == "insert" {
        known_keys(object, &["insert", "key", "on_conflict"], "\"then\"")?;
        let on_conflict = match object.get("on_conflict").map(|v| text(v, "\"on_conflict\"")).transpose()?.as_deref() {
            None | Some("error") => OnConflict::Error,
            Some("keep") => OnConflict::Keep,
            Some("update") => {
                return refuse("\"on_conflict\": \"update\" is an upsert", "Write \"then\": {\"upsert\": table, \"key\": […]}.");
            }
            Some(other) => return refuse(format!("on_conflict \"{other}\" is unknown"), "Use \"keep\" or \"error\"."),
        };
        return Ok(Then::Insert { table, key, on_conflict });
    }
    known_keys(object, &[kind, "key"], "\"then\"")?;
    if key.is_empty() {
        return refuse(format!("\"{kind}\" needs a \"key\""), "Name the columns that find the row: \"key\": [\"order_id\"].");
    }
    Ok(match kind {
        "upsert" => Then::Upsert { table, key },
        "update" => Then::Update { table, key },
        _ => Then::Delete { table, key },
    })
}

fn link(value: &Value) -> Parsed<Link> {
    let object = object(value, "\"link\"")?;
    known_keys(object, &["kind", "left", "right"], "\"link\"")?;
    let part = |name: &str| match object.get(name) {
        Some(value) => text(value, &format!("\"{name}\" in \"link\"")),
        None => refuse(
            format!("\"link\" lacks \"{name}\""),
            "A link has a kind, a left (expression over the source) and a right (column of the target).",
        ),
    };
    Ok(Link { kind: part("kind")?, left: part("left")?, right: part("right")? })
}

fn joins(value: Option<&Value>) -> Parsed<BTreeMap<String, Join>> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    object(value, "\"join\"")?
        .iter()
        .map(|(name, value)| {
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if !plain || matches!(name.as_str(), "new" | "old" | "job" | "b" | "t" | "s" | "v") || name.starts_with("usher") {
                return refuse(
                    format!("\"{name}\" cannot name a join"),
                    "Use a short lower-case name other than new, old, job, b, t, s, v.",
                );
            }
            let part = object(value, &format!("join \"{name}\""))?;
            known_keys(part, &["table", "on"], &format!("join \"{name}\""))?;
            let get = |key: &str| match part.get(key) {
                Some(value) => text(value, &format!("\"{key}\" of join \"{name}\"")),
                None => refuse(format!("join \"{name}\" lacks \"{key}\""), "A join has a table and an on."),
            };
            Ok((name.clone(), Join { table: get("table")?, on: get("on")? }))
        })
        .collect()
}

impl Definition {
    pub fn parse(value: &Value) -> Parsed<Self> {
        let top = object(value, "the definition")?;
        let known: Vec<&str> = KEYS.iter().copied().chain([DESCRIPTION]).collect();
        known_keys(top, &known, "the definition")?;
        let optional = |key: &str| top.get(key).map(|value| text(value, &format!("\"{key}\""))).transpose();
        let needed = |key: &str, hint: &str| match top.get(key) {
            Some(value) => Ok(value),
            None => refuse(format!("the definition lacks \"{key}\""), hint),
        };
        let when = when(needed("when", "Say what starts it: \"when\": {\"change\": \"public.orders\"}.")?)?;
        let then = then(needed("then", "Say what happens: \"then\": {\"insert\": \"books.invoices\"}.")?)?;
        let mode = gather::mode(optional("mode")?.as_deref())?;
        let on_error = match optional("on_error")?.as_deref() {
            None | Some("continue") => OnError::Continue,
            Some("abort") => OnError::Abort,
            Some(other) => {
                return refuse(format!("on_error \"{other}\" is unknown"), "Use \"continue\" or \"abort\".");
            }
        };
        let lane = match optional("priority")? {
            None if matches!(mode, Mode::Async | Mode::Batch) => 4,
            None => 3,
            Some(priority) => match lane(&priority) {
                Some(lane) => lane,
                None => {
                    return refuse(format!("priority \"{priority}\" is unknown"), format!("Use one of: {}.", LANES.join(", ")));
                }
            },
        };
        let retry = match top.get("retry") {
            None => Retry::default(),
            Some(value) => {
                let object = object(value, "\"retry\"")?;
                known_keys(object, &["delays", "jitter"], "\"retry\"")?;
                Retry::parse(object).map_err(|message| Refusal {
                    message,
                    hint: "Write \"retry\": {\"delays\": [1, 2, 4], \"jitter\": 0.2}: seconds before each further try."
                        .to_owned(),
                    unsupported: false,
                })?
            }
        };
        let mut definition = Self {
            from: optional("from")?,
            to: optional("to")?,
            mode,
            batch: gather::parse(top, mode)?,
            organization: optional("organization")?,
            condition: optional("if")?,
            joins: joins(top.get("join"))?,
            set: expressions(top.get("set"), "\"set\"")?,
            set_once: expressions(top.get("set_once"), "\"set_once\"")?,
            check: expressions(top.get("check"), "\"check\"")?,
            link: top.get("link").map(link).transpose()?,
            on_error,
            run_as: optional("run_as")?,
            lane,
            retry,
            trigger_name: optional("trigger_name")?,
            lock_timeout: match top.get("lock_timeout") {
                None => 2_000,
                Some(value) => duration(value, "\"lock_timeout\"")?,
            },
            timeout: top.get("timeout").map(call::timeout).transpose()?,
            shadow: yes_or_no(top, "shadow")?,
            coalesce: yes_or_no(top, "coalesce")?,
            limits: limits::of_flow(top.get("limits"))?,
            when,
            then,
        };
        definition.agrees_with_itself()?;
        definition.steps_agree(value)?;
        definition.merge_agrees(value)?;
        super::coalesce::agrees(&definition)?;
        limits::agrees(&definition)?;
        gather::agrees(&definition)?;
        Ok(definition)
    }

    /// The effect takes place in the transaction of the writer.
    pub fn in_writer(&self) -> bool {
        self.mode == Mode::Transactional && !self.shadow
    }

    /// Parts that are each fine and do not fit together.
    fn agrees_with_itself(&self) -> Parsed<()> {
        let is_request = matches!(self.when, When::Request { .. });
        call::agrees(self)?;
        emit::agrees(self)?;
        publish::agrees(self)?;
        if is_request && (self.from.is_none() || self.to.is_none()) {
            return refuse(
                "a flow for a request needs \"from\" and \"to\"",
                "They are the source and target system that callers of enqueue_sync_job name.",
            );
        }
        let word = self.when.word();
        let has_row = matches!(self.when, When::Change { .. });
        if !has_row && self.mode == Mode::Transactional {
            return refuse(format!("{} {word} cannot be transactional", self.when.article()), "Use \"mode\": \"realtime\".");
        }
        if !has_row && self.trigger_name.is_some() {
            return refuse(
                format!("{} {word} has no trigger", self.when.article()),
                "Leave out \"trigger_name\", or use \"when\": {\"change\": …}.",
            );
        }
        if matches!(self.when, When::Request { .. } | When::Event(_)) && self.organization.is_some() {
            return refuse(format!("the organization of the {word} is the caller's argument"), "Leave out \"organization\".");
        }
        if matches!(self.when, When::Step(_)) && self.joins.contains_key("run") {
            return refuse("\"run\" cannot name a join", "It is the run of the workflow; use another name.");
        }
        if matches!(self.when, When::Event(_)) && self.joins.contains_key("event") {
            return refuse("\"event\" cannot name a join", "It is what has happened; use another name.");
        }
        if self.on_error == OnError::Abort && self.mode != Mode::Transactional {
            return refuse(
                "\"on_error\": \"abort\" needs \"mode\": \"transactional\"",
                "Only in the writer's own transaction can a flow's error abort the writer.",
            );
        }
        if self.then.key().iter().any(|column| column == "organization_id")
            || self.set.contains_key("organization_id")
            || self.set_once.contains_key("organization_id")
        {
            return refuse(
                "organization_id is set by the engine",
                "Leave it out of set, set_once and key: a flow writes only within its job's organization.",
            );
        }
        if !self.set_once.is_empty() && !matches!(self.then, Then::Upsert { .. }) {
            return refuse("\"set_once\" belongs to an upsert", "Move its fields to \"set\".");
        }
        if let Some(both) = self.set.keys().find(|column| self.set_once.contains_key(*column)) {
            return refuse(format!("\"{both}\" is in set and in set_once"), "Keep it in one of them.");
        }
        if let Some(lost) = self.then.key().iter().find(|c| !self.set.contains_key(*c) && !self.set_once.contains_key(*c)) {
            return refuse(format!("key column \"{lost}\" has no value"), format!("Add it to \"set\": \"{lost}\": \"new.…\"."));
        }
        match &self.then {
            Then::Insert { key, on_conflict: OnConflict::Keep, .. } if key.is_empty() => {
                return refuse("\"on_conflict\": \"keep\" needs a \"key\"", "Name the unique columns that tell a repeat.");
            }
            Then::Insert { .. } | Then::Upsert { .. } | Then::Update { .. }
                if self.set.is_empty() && self.set_once.is_empty() =>
            {
                return refuse("\"set\" is empty", "Say what to write: \"set\": {\"amount\": \"new.total\"}.");
            }
            _ => {}
        }
        if self.link.is_some() && self.then.key().is_empty() && self.merge().is_none() {
            return refuse("\"link\" needs a \"key\"", "The key tells which target row belongs to which source row.");
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "definition_tests.rs"]
mod unit;
