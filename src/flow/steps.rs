//! `"then": {"steps": […]}`: the steps of a workflow, and the flows that do their work. Pure.
//!
//! What a step does is done by flows of its own, its **parts**: `look` (whatever expressions must be known before), `do`, `undo`,
//! `hear` (an event that it may wait for), and one `clock` for the whole workflow, which does nothing but be due. Their jobs are jobs
//! like any other: batches, tries, limits, drift and dead letters are not made twice. A part is named `workflow:step:part`, which no
//! other flow can be.

use super::definition::{Definition, Mode, Then, When};
use super::event_type::Pattern;
use super::fields::{Parsed, Refusal, known_keys, object, one_of, refuse, text, texts};
use crate::error::did_you_mean;
use serde_json::{Map, Value, json};

/// Steps that a workflow may have.
const MOST: usize = 100;
/// Seconds: two years.
const LONGEST: f64 = 63_072_000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Look,
    Do,
    Undo,
    Hear,
    Clock,
}

impl Part {
    pub const ALL: [Self; 5] = [Self::Look, Self::Do, Self::Undo, Self::Hear, Self::Clock];

    pub fn word(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Do => "do",
            Self::Undo => "undo",
            Self::Hear => "hear",
            Self::Clock => "clock",
        }
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.word() == word)
    }

    /// The name of a workflow's part; a listener's, see [`Step::part`].
    fn flow(self, workflow: &str, step: &str) -> String {
        match self {
            Self::Do => format!("{workflow}:{step}"),
            Self::Clock => format!("{workflow}::clock"),
            part => format!("{workflow}:{step}:{}", part.word()),
        }
    }
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Awaits {
    /// An event whose data have, in the fields that are named, the values that the run expects.
    Event(Pattern),
    /// `usher.signal_workflow()` with this name.
    Signal(String),
    /// The same, with a yes or a no; true: any member may say it.
    Approval(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// One of the kinds of "then".
    Effect,
    Wait(Awaits),
    /// Seconds; None: until a time that its look tells.
    Sleep(Option<f64>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub name: String,
    /// The steps that come first, by their numbers.
    pub after: Vec<usize>,
    pub kind: Kind,
    /// Expressions must be known before it begins.
    pub looks: bool,
    /// Once for each element of a list.
    pub fans_out: bool,
    pub has_undo: bool,
    /// Once it is done, nothing is undone any more.
    pub pivot: bool,
    /// Seconds that it waits; and whether the workflow goes on when they are over.
    pub deadline: Option<f64>,
    pub goes_on: bool,
    /// Its expressions name what other steps returned.
    pub needs_results: bool,
    /// Its own lane, instead of the run's.
    pub lane: Option<usize>,
    /// What its listener's name ends with: another pattern, or other fields, is another listener, so that runs of an older version hear on.
    hears: Option<String>,
    /// What its effect returns is kept.
    pub keeps_result: bool,
    /// Definitions of its parts.
    parts: Vec<(Part, Value)>,
}

impl Step {
    /// The name of one of its parts.
    pub fn part(&self, part: Part, workflow: &str) -> String {
        let name = part.flow(workflow, &self.name);
        match (&self.hears, part) {
            (Some(mark), Part::Hear) => format!("{name}_{mark}"),
            _ => name,
        }
    }
}

/// A text of few letters for a definition, the same for the same one (FNV-1a).
fn mark(definition: &Value) -> String {
    let hash = definition
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

/// Kinds of "then" that a step, or its undo, may be.
const EFFECTS: [&str; 7] = ["insert", "upsert", "update", "delete", "call", "emit", "publish"];
/// What goes with them into the part's "then".
const BESIDE: [&str; 7] = ["key", "on_conflict", "effect", "keep_result", "event", "via", "by"];
/// What goes into the part's definition.
const OF_FLOW: [&str; 11] =
    ["set", "set_once", "check", "join", "link", "retry", "timeout", "lock_timeout", "priority", "run_as", "limits"];
/// What is the step's own.
const OWN: [&str; 12] =
    ["step", "after", "if", "for_each", "undo", "pivot", "wait", "approval", "sleep", "sleep_until", "deadline", "on_deadline"];

/// Seconds of `"90 s"`, `"10 min"`, `"2 h"`, `"3 days"` or a plain number of seconds.
pub fn span(value: &Value, at: &str) -> Parsed<f64> {
    let seconds = super::fields::seconds(value, 1.0);
    match seconds {
        Some(seconds) if (0.001..=LONGEST).contains(&seconds) => Ok(seconds),
        _ => refuse(
            format!("{at} is not a duration"),
            "Write seconds, such as 30, or a text such as \"90 s\", \"10 min\", \"2 h\" or \"3 days\", at most two years.",
        ),
    }
}

fn within(name: &str) -> impl Fn(Refusal) -> Refusal {
    let name = name.to_owned();
    move |mut refusal| {
        refusal.message = format!("step \"{name}\": {}", refusal.message);
        refusal
    }
}

/// Reads the steps of a workflow.
pub fn parse(value: &Value) -> Parsed<Vec<Step>> {
    let remedy = "Write \"steps\": [{\"step\": \"reserve\", \"insert\": \"stock.holds\", \"set\": {…}}, …].";
    let list = match value {
        Value::Array(list) if !list.is_empty() => list,
        _ => return refuse("\"steps\" must be a list that is not empty", remedy),
    };
    if list.len() > MOST {
        return refuse(
            format!("{} steps are more than {MOST}", list.len()),
            "Let a step emit an event or write a row that starts another workflow.",
        );
    }
    let mut names: Vec<String> = Vec::new();
    for value in list {
        let step = object(value, "each of \"steps\"")?;
        let Some(name) = step.get("step") else {
            return refuse("one of \"steps\" lacks \"step\", its name", remedy);
        };
        let name = text(name, "\"step\"")?;
        let plain = name.len() <= 40
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !plain {
            return refuse(
                format!("\"{name}\" cannot name a step"),
                "Use lower-case letters, digits and \"_\", beginning with a letter, at most 40.",
            );
        }
        if names.contains(&name) {
            return refuse(format!("two steps are named \"{name}\""), "Give each step a name of its own.");
        }
        names.push(name);
    }
    let mut steps = Vec::new();
    for (number, value) in list.iter().enumerate() {
        steps.push(step(number, object(value, "a step")?, &names).map_err(within(&names[number]))?);
    }
    said_once(&steps)?;
    in_order(&steps)?;
    undone_in_vain(&steps)?;
    Ok(steps)
}

/// Refuses two steps that wait for the same word.
fn said_once(steps: &[Step]) -> Parsed<()> {
    let word = |step: &Step| match &step.kind {
        Kind::Wait(Awaits::Signal(signal)) => Some(signal.clone()),
        Kind::Wait(Awaits::Approval(_)) => Some(step.name.clone()),
        _ => None,
    };
    for (number, step) in steps.iter().enumerate() {
        let Some(said) = word(step) else { continue };
        if let Some(other) = steps[..number].iter().find(|other| word(other).as_deref() == Some(said.as_str())) {
            return refuse(
                format!("steps \"{}\" and \"{}\" both wait for the signal \"{said}\"", other.name, step.name),
                "Give each a signal of its own; an approval waits for the name of its step.",
            );
        }
    }
    Ok(())
}

fn after(number: usize, step: &Map<String, Value>, names: &[String]) -> Parsed<Vec<usize>> {
    let Some(value) = step.get("after") else {
        return Ok(number.checked_sub(1).into_iter().collect());
    };
    let mut after = Vec::new();
    for name in texts(value, "\"after\"")? {
        let Some(at) = names.iter().position(|known| *known == name) else {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            return refuse(
                format!("there is no step \"{name}\" that it could come after"),
                format!("{}Steps: {}.", did_you_mean(&name, &known), known.join(", ")),
            );
        };
        if !after.contains(&at) {
            after.push(at);
        }
    }
    Ok(after)
}

fn step(number: usize, given: &Map<String, Value>, names: &[String]) -> Parsed<Step> {
    let name = &names[number];
    let known: Vec<&str> = OWN.iter().chain(&EFFECTS).chain(&BESIDE).chain(&OF_FLOW).copied().collect();
    known_keys(given, &known, "a step")?;
    let kinds: Vec<&'static str> = EFFECTS.into_iter().chain(["wait", "approval", "sleep", "sleep_until"]).collect();
    let (word, value) = one_of(given, &kinds, "the step")?;
    let pivot = super::fields::yes_or_no(given, "pivot")?;
    let mut look = Map::new();
    if let Some(condition) = given.get("if") {
        look.insert("if".to_owned(), Value::from(format!("({}\n) IS TRUE", text(condition, "\"if\"")?)));
    }
    let mut parts = Vec::new();
    let kind = match word {
        "wait" => Kind::Wait(wait(value, name, &mut look, &mut parts)?),
        "approval" => Kind::Wait(approval(value)?),
        "sleep" => Kind::Sleep(Some(span(value, "\"sleep\"")?)),
        "sleep_until" => {
            look.insert(
                "until".to_owned(),
                Value::from(format!("({}\n)::pg_catalog.timestamptz", text(value, "\"sleep_until\"")?)),
            );
            Kind::Sleep(None)
        }
        _ => Kind::Effect,
    };
    let fans_out = given.contains_key("for_each");
    if let Some(each) = given.get("for_each") {
        look.insert("each".to_owned(), Value::from(format!("({}\n)::pg_catalog.jsonb", text(each, "\"for_each\"")?)));
    }
    let has_undo = given.contains_key("undo");
    if kind == Kind::Effect {
        parts.push((Part::Do, part(given)?));
        if let Some(undo) = given.get("undo") {
            let undo = object(undo, "\"undo\"")?;
            let known: Vec<&str> = EFFECTS.iter().chain(&BESIDE).chain(&OF_FLOW).copied().collect();
            known_keys(undo, &known, "\"undo\"")?;
            one_of(undo, &EFFECTS, "\"undo\"")?;
            parts.push((Part::Undo, part(undo)?));
        }
    } else {
        let lost =
            OF_FLOW.iter().chain(&BESIDE).chain(&["for_each", "undo"]).find(|key| given.contains_key(**key) && **key != "join");
        if let Some(lost) = lost {
            return refuse(format!("\"{lost}\" does not belong to a step that only waits"), "Leave it out.");
        }
    }
    let waits = matches!(kind, Kind::Wait(_));
    if !waits && (given.contains_key("deadline") || given.contains_key("on_deadline")) {
        return refuse(
            "\"deadline\" belongs to a step that waits",
            "Use \"timeout\" for how long an effect may take, \"sleep\" for a pause.",
        );
    }
    let goes_on = match given.get("on_deadline").map(|word| text(word, "\"on_deadline\"")).transpose()?.as_deref() {
        None | Some("fail") => false,
        Some("continue") => true,
        Some(other) => return refuse(format!("on_deadline \"{other}\" is unknown"), "Use \"fail\" or \"continue\"."),
    };
    if given.contains_key("on_deadline") && !given.contains_key("deadline") {
        return refuse("\"on_deadline\" lacks a \"deadline\"", "Write \"deadline\": \"3 days\".");
    }
    let looks = !look.is_empty();
    if looks {
        let mut definition = json!({"set": look});
        if let Some(join) = given.get("join") {
            definition["join"] = join.clone();
        }
        parts.insert(0, (Part::Look, definition));
    } else if given.contains_key("join") && kind != Kind::Effect {
        return refuse("\"join\" is used by nothing", "Leave it out.");
    }
    let all = Value::from(parts.iter().map(|(_, definition)| definition.clone()).collect::<Vec<_>>()).to_string();
    Ok(Step {
        name: name.clone(),
        after: after(number, given, names)?,
        kind,
        looks,
        fans_out,
        has_undo,
        pivot,
        deadline: given.get("deadline").map(|value| span(value, "\"deadline\"")).transpose()?,
        goes_on,
        needs_results: all.contains("results"),
        lane: match given.get("priority") {
            None => None,
            Some(priority) => super::definition::lane(&text(priority, "\"priority\"")?),
        },
        hears: parts.iter().find(|(part, _)| *part == Part::Hear).map(|(_, definition)| mark(definition)),
        keeps_result: given.get("keep_result") == Some(&Value::Bool(true)),
        parts,
    })
}

/// `{"event": pattern, "match": {field: expression}}` or `{"signal": name}`.
fn wait(value: &Value, name: &str, look: &mut Map<String, Value>, parts: &mut Vec<(Part, Value)>) -> Parsed<Awaits> {
    let wait = object(value, "\"wait\"")?;
    known_keys(wait, &["event", "match", "signal"], "\"wait\"")?;
    let (word, what) = one_of(wait, &["event", "signal"], "\"wait\"")?;
    if word == "signal" {
        if wait.contains_key("match") {
            return refuse("\"match\" belongs to an event", "A signal names its run by itself; leave out \"match\".");
        }
        return Ok(Awaits::Signal(text(what, "\"signal\"")?));
    }
    let pattern = Pattern::parse(&text(what, "\"event\"")?)?;
    let mut heard = Map::new();
    if let Some(fields) = wait.get("match") {
        for (field, expression) in super::fields::expressions(Some(fields), "\"match\"")? {
            look.insert(format!("match.{field}"), Value::from(format!("({expression}\n)::pg_catalog.text")));
            heard.insert(field.clone(), Value::from(format!("event.data ->> '{}'", field.replace('\'', "''"))));
        }
    }
    if heard.is_empty() {
        return refuse(
            format!("the event that \"{name}\" waits for has no \"match\""),
            "Say which one is this run's: \"match\": {\"order_id\": \"run.input ->> 'order_id'\"} means that event.data ->> 'order_id' is that.",
        );
    }
    parts.push((Part::Hear, json!({"when": {"event": pattern.text}, "set": heard})));
    Ok(Awaits::Event(pattern))
}

fn approval(value: &Value) -> Parsed<Awaits> {
    let approval = object(value, "\"approval\"")?;
    known_keys(approval, &["by"], "\"approval\"")?;
    match approval.get("by").map(|by| text(by, "\"by\"")).transpose()?.as_deref() {
        None | Some("admin") => Ok(Awaits::Approval(false)),
        Some("member") => Ok(Awaits::Approval(true)),
        Some(other) => refuse(format!("\"by\": \"{other}\" is unknown"), "Use \"admin\" or \"member\" of the organization."),
    }
}

/// The definition of a part that has an effect.
fn part(given: &Map<String, Value>) -> Parsed<Value> {
    let pick = |keys: &mut dyn Iterator<Item = &&str>| -> Map<String, Value> {
        keys.filter_map(|key| given.get(*key).map(|value| ((*key).to_owned(), value.clone()))).collect()
    };
    let mut definition = pick(&mut OF_FLOW.iter());
    definition.insert("then".to_owned(), Value::Object(pick(&mut EFFECTS.iter().chain(&BESIDE))));
    Ok(Value::Object(definition))
}

/// Refuses steps that wait for each other.
fn in_order(steps: &[Step]) -> Parsed<()> {
    let mut done = vec![false; steps.len()];
    loop {
        let mut moved = false;
        for (number, step) in steps.iter().enumerate() {
            if !done[number] && step.after.iter().all(|before| done[*before]) {
                (done[number], moved) = (true, true);
            }
        }
        if !moved {
            break;
        }
    }
    let stuck: Vec<&str> = steps.iter().zip(&done).filter(|(_, done)| !**done).map(|(step, _)| step.name.as_str()).collect();
    match stuck.as_slice() {
        [] => Ok(()),
        [one] => refuse(format!("step \"{one}\" comes after itself"), "Leave it out of its \"after\"."),
        several => refuse(
            format!("steps wait for each other: {}", several.join(", ")),
            "Break the circle: one of them must come \"after\" none of the others.",
        ),
    }
}

/// For each step, those that come after it, however far.
pub fn followers(steps: &[Step]) -> Vec<Vec<usize>> {
    (0..steps.len())
        .map(|of| {
            let mut found = vec![false; steps.len()];
            let mut open = vec![of];
            while let Some(at) = open.pop() {
                for (number, step) in steps.iter().enumerate() {
                    if step.after.contains(&at) && !found[number] {
                        found[number] = true;
                        open.push(number);
                    }
                }
            }
            (0..steps.len()).filter(|number| found[*number]).collect()
        })
        .collect()
}

/// After a pivot nothing is undone, so an undo there would never run.
fn undone_in_vain(steps: &[Step]) -> Parsed<()> {
    for (pivot, later) in followers(steps).into_iter().enumerate().filter(|(number, _)| steps[*number].pivot) {
        if let Some(vain) = later.into_iter().chain([pivot]).find(|number| steps[*number].has_undo) {
            return refuse(
                format!("step \"{}\" has an \"undo\" that would never run", steps[vain].name),
                format!(
                    "Once the pivot \"{}\" is done, nothing is undone; leave out \"undo\" or move \"pivot\".",
                    steps[pivot].name
                ),
            );
        }
    }
    Ok(())
}

/// The definitions of all parts of a workflow, by their names; `definition` is the workflow's.
pub fn parts(workflow: &str, definition: &Value, steps: &[Step]) -> Vec<(String, Value)> {
    let part = |part: Part, own: Value| -> Value {
        let mut whole = own;
        if whole.get("when").is_none() {
            whole["when"] = json!({"step": workflow});
        }
        if whole.get("then").is_none() {
            whole["then"] = json!({"collect": part.word()});
        }
        for key in ["from", "to", "run_as", "priority", "lock_timeout"] {
            if let (None, Some(value)) = (whole.get(key), definition.get(key)) {
                whole[key] = value.clone();
            }
        }
        whole
    };
    let mut found: Vec<(String, Value)> = steps
        .iter()
        .flat_map(|step| step.parts.iter().map(|(kind, own)| (step.part(*kind, workflow), part(*kind, own.clone()))))
        .collect();
    found.push((Part::Clock.flow(workflow, ""), part(Part::Clock, json!({}))));
    found
}

impl Definition {
    /// The steps of a workflow.
    pub fn steps(&self) -> &[Step] {
        match &self.then {
            Then::Steps(steps) => steps,
            _ => &[],
        }
    }

    /// Only the engine makes flows like this.
    pub fn is_part(&self) -> bool {
        matches!(self.when, When::Step(_))
            || matches!(self.then, Then::Collect(_))
            || self.merge().is_some_and(|merge| merge.side == super::merge::Side::Right)
    }

    /// What a workflow cannot be, and what each of its parts must be by itself.
    pub(super) fn steps_agree(&self, value: &Value) -> Parsed<()> {
        let Then::Steps(steps) = &self.then else { return Ok(()) };
        if self.mode == Mode::Transactional {
            return refuse("a workflow cannot be transactional", "Its steps run after the commit; use \"mode\": \"realtime\".");
        }
        if self.shadow {
            return refuse(
                "a workflow cannot be in shadow",
                "Its steps would have to see what was not written; usher.preview_flow() shows the input of a run.",
            );
        }
        for (name, part) in parts("w", value, steps) {
            let step = name.split(':').nth(1).unwrap_or_default().to_owned();
            Definition::parse(&part).map_err(within(&step))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod unit;
