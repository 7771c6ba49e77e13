//! Which workflows can run at an application's tables, and what the others lack. Pure, but for where the tables were looked at.

use super::fitted::{Fitted, Mapped, loses};
use super::model::Model;
use super::needs::{Clash, Name, Needs, of_flow, of_rule};
use super::notes;
use super::parse::Bind;
use super::rewrite::Fits;
use super::views::{Writes, identity};
use crate::pack::workflow::Parts;
use pgrx::spi::quote_identifier;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A workflow, and what became of the question whether it can run.
#[derive(Debug)]
pub struct Line {
    pub workflow: String,
    pub title: String,
    pub lacks: BTreeSet<String>,
    /// SQL that would give it something of what it lacks.
    pub remedies: BTreeSet<String>,
    /// What is otherwise than with tables of the pack's own.
    pub notes: BTreeSet<String>,
    pub needs: Needs,
}

impl Line {
    fn new(workflow: String, title: String, needs: Needs) -> Self {
        Self { workflow, title, lacks: BTreeSet::new(), remedies: BTreeSet::new(), notes: BTreeSet::new(), needs }
    }

    pub fn runs(&self) -> bool {
        self.lacks.is_empty()
    }
}

#[derive(Debug)]
pub struct Plan {
    pub lines: Vec<Line>,
    pub writes: BTreeMap<String, Writes>,
    /// What the functions need that book ticket revenue, if they can.
    revenue: Option<Needs>,
}

struct Judge<'a> {
    model: &'a Model,
    bind: &'a Bind,
    fits: &'a Fits,
    shown: &'a BTreeSet<&'a str>,
}

/// The functions behind `usher.ingest_ticket_revenue()`, as the manifest names them.
fn booking(manifest: &Value) -> Vec<String> {
    ["resolve", "book", "book_batch"].iter().filter_map(|part| manifest["revenue"][*part].as_str().map(str::to_owned)).collect()
}

fn needs_of(parts: &Parts, model: &Model, manifest: &Value, bind: &Bind) -> Needs {
    let mut needs = Needs::default();
    parts.flows.values().for_each(|flow| needs.add(&of_flow(flow, model)));
    parts.overlap_rules.values().for_each(|rule| needs.add(&of_rule(rule)));
    let bound = |table: &str| bind.takes(table);
    let mut needs = needs.whole_of(model, &bound);
    // What is taken in is booked by the functions that are bound for it.
    if ["usher.ingest_ticket_revenue", "usher.ingest_ticket_revenue_batch", "usher.reverse_ticket_revenue"]
        .iter()
        .any(|name| needs.calls.contains(*name))
    {
        needs.calls.extend(booking(manifest));
        needs = needs.whole_of(model, &bound);
    }
    needs
}

impl Judge<'_> {
    fn type_of(&self, (table, column): &Name) -> &str {
        self.model.tables.get(table).and_then(|table| table.column(column)).map_or("", |column| column.type_sql.as_str())
    }

    fn column(&self, fitted: &Fitted, name: &Name, needs: &Needs, line: &mut Line) {
        let (table, column) = name;
        let written = needs.written().contains(name);
        match fitted.mapped(column) {
            Mapped::Missing => {
                line.lacks.insert(format!("{} has no column for {column}", fitted.table));
            }
            Mapped::Unfit { column: theirs, is } => {
                line.lacks.insert(format!("{}.{theirs} is {is}, {column} is {}", fitted.table, self.type_of(name)));
            }
            Mapped::Fixed(sql) => {
                let key = needs.keys.iter().any(|(other, key)| other == table && key.contains(column));
                if column == "organization_id" || column == "id" {
                    line.lacks.insert(format!("{} has no column for {column}, without which no row is known", fitted.table));
                } else if key || needs.merged.contains(table) && written {
                    line.lacks.insert(format!("{} has no column for {column}, which finds rows", fitted.table));
                } else if needs.checked.contains(name) {
                    line.lacks.insert(format!("{} has no column for {column}, which is checked", fitted.table));
                } else if written {
                    line.notes.insert(format!("{table}.{column} is not written"));
                } else {
                    line.notes.insert(format!("{table}.{column} is always {sql}"));
                }
            }
            Mapped::Same(theirs) | Mapped::Words { column: theirs, .. } => {
                let Some(theirs) = fitted.theirs(theirs).filter(|_| written) else { return };
                if theirs.generated {
                    line.lacks.insert(format!("{}.{} is generated, and {column} is written", fitted.table, theirs.name));
                }
                if loses(self.type_of(name), &theirs.base_sql) {
                    line.lacks.insert(format!(
                        "{}.{} is {}, and {column} is written as {}",
                        fitted.table,
                        theirs.name,
                        theirs.type_sql,
                        self.type_of(name)
                    ));
                }
            }
        }
    }

    fn words(&self, fitted: &Fitted, needs: &Needs, line: &mut Line) {
        for ((_, column), words) in needs.words.iter().filter(|((table, _), _)| *table == fitted.name) {
            for word in words.iter().filter(|word| !fitted.says(column, word)) {
                line.lacks.insert(format!(
                    "{}.{} has no word for \"{word}\"",
                    fitted.table,
                    fitted.column(column).unwrap_or(column)
                ));
            }
        }
        for ((_, column), words) in needs.waits.iter().filter(|((table, _), _)| *table == fitted.name) {
            if !words.iter().any(|word| fitted.says(column, word)) {
                let said: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                line.lacks.insert(format!(
                    "{}.{} has no word for {}",
                    fitted.table,
                    fitted.column(column).unwrap_or(column),
                    said.join(" or ")
                ));
            }
        }
    }

    fn keys(&self, fitted: &Fitted, needs: &Needs, line: &mut Line) {
        for (_, key) in needs.keys.iter().filter(|(table, _)| *table == fitted.name) {
            let Some(columns) = key.iter().map(|name| fitted.column(name).map(str::to_owned)).collect::<Option<Vec<_>>>() else {
                continue;
            };
            let set = columns.iter().cloned().collect();
            let names: Vec<&str> = columns.iter().map(String::as_str).collect();
            let one_null = self.model.tables.get(&fitted.name).is_some_and(|table| notes::one_null(table, key))
                && fitted.may_be_null(&names);
            if if one_null { fitted.one_null.contains(&set) } else { fitted.uniques.contains(&set) } {
                continue;
            }
            let but = if fitted.uniques.contains(&set) {
                " to which NULL is a value"
            } else if fitted.partial.contains(&set) {
                ", a partial one does not do"
            } else {
                ""
            };
            line.lacks.insert(format!("{} lacks a unique index on ({}){but}", fitted.table, columns.join(", ")));
            let columns: Vec<String> = columns.iter().map(quote_identifier).collect();
            let nulls = if one_null { " NULLS NOT DISTINCT" } else { "" };
            line.remedies.insert(format!("CREATE UNIQUE INDEX ON {} ({}){nulls};", fitted.sql, columns.join(", ")));
        }
    }

    /// Columns of the application that a new row must be given, and that nobody gives it.
    fn inserts(&self, fitted: &Fitted, needs: &Needs, line: &mut Line) {
        for columns in needs.inserts.get(&fitted.name).into_iter().flatten() {
            let given: Vec<&str> = columns.iter().filter_map(|name| fitted.column(name)).collect();
            for theirs in fitted.must_have() {
                if !given.contains(&theirs.name.as_str()) && !fitted.fill.contains_key(&theirs.name) {
                    line.lacks.insert(format!("{}.{} must be given a value (\"fill\"), or a default", fitted.table, theirs.name));
                }
            }
        }
    }

    /// What functions write goes through a view, which is the same for all.
    fn views(&self, writes: &BTreeMap<String, Writes>, line: &mut Line) {
        let needs = line.needs.clone();
        for (fitted, writes) in needs.tables.iter().filter_map(|table| Some((self.fits.get(table)?, writes.get(table)?))) {
            self.view(fitted, writes, &needs, line);
        }
    }

    fn view(&self, fitted: &Fitted, writes: &Writes, needs: &Needs, line: &mut Line) {
        if writes.insert_by_function(fitted) {
            let mixed = writes.clashes.contains(&Clash::Fails) && writes.clashes.contains(&Clash::Keeps);
            for (clash, _) in needs.inserted_by_functions.get(&fitted.name).into_iter().flatten() {
                if *clash == Clash::Updates || mixed && *clash == Clash::Keeps {
                    let columns: Vec<&str> =
                        writes.inserted.iter().filter(|name| !fitted.is_plain(name)).map(String::as_str).collect();
                    line.lacks.insert(format!(
                        "a function inserts into {} or changes what is there, for which {} must be just as in {}",
                        fitted.table,
                        columns.join(", "),
                        fitted.name
                    ));
                }
            }
        }
        let updated = needs.updated_by_functions.iter().any(|(table, _)| *table == fitted.name);
        if updated && writes.update_by_function(fitted) {
            let key = self.model.tables.get(&fitted.name).and_then(identity);
            if key.is_none_or(|key| key.iter().any(|name| fitted.column(name).is_none())) {
                line.lacks.insert(format!("{} has no columns for the key of {}", fitted.table, fitted.name));
            }
        }
    }

    fn judge(&self, line: &mut Line) {
        let needs = line.needs.clone();
        for table in needs.tables.iter().filter(|table| self.bind.is_absent(table)) {
            line.lacks.insert(format!("there is no {table}"));
        }
        let columns = needs.columns();
        for fitted in needs.tables.iter().filter_map(|table| self.fits.get(table)) {
            for name in columns.iter().filter(|(table, _)| *table == fitted.name) {
                self.column(fitted, name, &needs, line);
            }
            self.words(fitted, &needs, line);
            self.keys(fitted, &needs, line);
            self.inserts(fitted, &needs, line);
            if needs.whole.contains(&fitted.name) && fitted.column("organization_id") != Some("organization_id") {
                line.lacks.insert(format!(
                    "{} is read as a whole, for which its organization must be in organization_id",
                    fitted.table
                ));
            }
            line.notes.extend(notes::about(fitted, self.model, &needs, self.shown));
        }
    }
}

/// What members change when they call a function of the pack themselves. It is made in any case, and works with their rights.
fn for_members(model: &Model, bind: &Bind, fits: &Fits) -> Vec<Line> {
    let line = |name: &String| {
        let needs =
            Needs { calls: BTreeSet::from([name.clone()]), ..Needs::default() }.whole_of(model, &|table| bind.takes(table));
        let mut line = Line::new(name.clone(), String::new(), needs);
        let made: Vec<&String> = line
            .needs
            .inserted_by_functions
            .keys()
            .chain(&line.needs.deletes)
            .filter(|table| fits.contains_key(*table))
            .collect();
        for table in made {
            line.lacks.insert(format!("it makes or deletes rows of {}, which is bound", fits[table].table));
        }
        let changes = line.needs.updated_by_functions.iter().any(|(table, _)| fits.contains_key(table));
        (changes || !line.lacks.is_empty()).then_some(line)
    };
    model.for_members.iter().filter_map(line).collect()
}

pub fn plan(all: &[Parts], manifest: &Value, model: &Model, bind: &Bind, fits: &Fits) -> Plan {
    let mut lines: Vec<Line> = all
        .iter()
        .map(|parts| Line::new(parts.workflow.clone(), parts.title.clone(), needs_of(parts, model, manifest, bind)))
        .collect();
    let booking = Needs { calls: booking(manifest).into_iter().collect(), ..Needs::default() };
    lines.push(Line::new(String::new(), String::new(), booking.whole_of(model, &|table| bind.takes(table))));
    let mut members = for_members(model, bind, fits);
    let shown = notes::shown(manifest).into_iter().filter(|table| !bind.takes(table)).collect();
    let judge = Judge { model, bind, fits, shown: &shown };
    lines.iter_mut().chain(&mut members).for_each(|line| judge.judge(line));
    // What cannot run writes nothing: views and their triggers are for what the others write.
    let writes = |lines: &[Line], members: &[Line]| -> BTreeMap<String, Writes> {
        fn runs(lines: &[Line]) -> impl Iterator<Item = &Needs> {
            lines.iter().filter(|line| line.runs()).map(|line| &line.needs)
        }
        fits.keys().map(|table| (table.clone(), Writes::of(table, runs(lines), runs(members)))).collect()
    };
    let first = writes(&lines, &members);
    for line in lines.iter_mut().chain(&mut members).filter(|line| line.runs()) {
        judge.views(&first, line);
    }
    for member in members.iter().filter(|member| !member.runs()) {
        let lacks: Vec<&str> = member.lacks.iter().map(String::as_str).collect();
        let note = format!("{}() cannot be called: {}", member.workflow, lacks.join("; "));
        let changed: BTreeSet<String> =
            member.needs.written().into_iter().map(|(table, _)| table).filter(|table| fits.contains_key(table)).collect();
        for line in lines.iter_mut().filter(|line| !line.needs.tables.is_disjoint(&changed)) {
            line.notes.insert(note.clone());
        }
    }
    let writes = writes(&lines, &members);
    let revenue = lines.pop().filter(Line::runs).map(|line| line.needs);
    Plan { lines, writes, revenue }
}

impl Plan {
    /// The functions that book ticket revenue can work.
    pub fn books(&self) -> bool {
        self.revenue.is_some()
    }

    /// What all workflows that run need together, and what books ticket revenue.
    pub fn needs(&self) -> Needs {
        let mut needs = self.revenue.clone().unwrap_or_default();
        self.lines.iter().filter(|line| line.runs()).for_each(|line| needs.add(&line.needs));
        needs
    }
}
