//! What a workflow needs of tables: which columns it reads and writes, by which keys it finds rows, which words it writes. Pure.
//!
//! Flows say it in their definitions, functions in their text; a function is asked for what it calls, and for the triggers of what it writes.

use super::functions;
use super::lex::{literals, replace_columns, replace_names, solid};
use super::model::{Model, qualified};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// `(schema.table, column)`.
pub type Name = (String, String);

/// What an INSERT of a function does with a row that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clash {
    Fails,
    Keeps,
    Updates,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    pub tables: BTreeSet<String>,
    pub reads: BTreeSet<Name>,
    /// Written by statements of flows: to the real table.
    pub writes: BTreeSet<Name>,
    /// Written by functions, which know the table by the pack's name only; each column with INSERT or UPDATE.
    pub inserted_by_functions: BTreeMap<String, BTreeSet<(Clash, BTreeSet<String>)>>,
    pub updated_by_functions: BTreeSet<Name>,
    /// The same, by table: columns that one statement changes together.
    pub updated_together: BTreeMap<String, BTreeSet<BTreeSet<String>>>,
    /// Of rows that are there, by flows.
    pub updated_by_flows: BTreeSet<Name>,
    /// Rows are made, by flows or functions, from these columns.
    pub inserts: BTreeMap<String, BTreeSet<BTreeSet<String>>>,
    pub deletes: BTreeSet<String>,
    pub keys: BTreeSet<(String, Vec<String>)>,
    /// Words that are written.
    pub words: BTreeMap<Name, BTreeSet<String>>,
    /// A condition compares the column with these: one of them must be there.
    pub waits: BTreeSet<(Name, Vec<String>)>,
    /// Rows are handed on as a whole, with the columns as they are called there.
    pub whole: BTreeSet<String>,
    pub merged: BTreeSet<String>,
    /// Columns that are checked before they are written: they cannot be left out.
    pub checked: BTreeSet<Name>,
    /// Rows are locked while they are read.
    pub locks: BTreeSet<String>,
    pub calls: BTreeSet<String>,
}

impl Needs {
    pub fn add(&mut self, other: &Self) {
        fn all<T: Ord + Clone>(to: &mut BTreeSet<T>, from: &BTreeSet<T>) {
            to.extend(from.iter().cloned());
        }
        all(&mut self.tables, &other.tables);
        all(&mut self.reads, &other.reads);
        all(&mut self.writes, &other.writes);
        all(&mut self.updated_by_functions, &other.updated_by_functions);
        all(&mut self.updated_by_flows, &other.updated_by_flows);
        all(&mut self.deletes, &other.deletes);
        all(&mut self.keys, &other.keys);
        all(&mut self.waits, &other.waits);
        all(&mut self.whole, &other.whole);
        all(&mut self.merged, &other.merged);
        all(&mut self.checked, &other.checked);
        all(&mut self.locks, &other.locks);
        all(&mut self.calls, &other.calls);
        for (table, found) in &other.inserted_by_functions {
            all(self.inserted_by_functions.entry(table.clone()).or_default(), found);
        }
        for (table, found) in &other.updated_together {
            all(self.updated_together.entry(table.clone()).or_default(), found);
        }
        for (table, found) in &other.inserts {
            all(self.inserts.entry(table.clone()).or_default(), found);
        }
        for (name, found) in &other.words {
            all(self.words.entry(name.clone()).or_default(), found);
        }
    }

    /// Columns that it uses in any way.
    pub fn columns(&self) -> BTreeSet<Name> {
        let of_functions = self.inserted_by_functions.iter().flat_map(|(table, inserts)| {
            inserts.iter().flat_map(|(_, columns)| columns).map(|column| (table.clone(), column.clone()))
        });
        let of_keys = self.keys.iter().flat_map(|(table, key)| key.iter().map(|column| (table.clone(), column.clone())));
        self.reads
            .iter()
            .chain(&self.writes)
            .chain(&self.updated_by_functions)
            .cloned()
            .chain(of_functions)
            .chain(of_keys)
            .collect()
    }

    /// Columns that it writes, in whatever way.
    pub fn written(&self) -> BTreeSet<Name> {
        let of_functions = self.inserted_by_functions.iter().flat_map(|(table, inserts)| {
            inserts.iter().flat_map(|(_, columns)| columns).map(|column| (table.clone(), column.clone()))
        });
        self.writes.iter().chain(&self.updated_by_functions).cloned().chain(of_functions).collect()
    }

    /// With what the functions that it calls need, and the triggers of the tables that it writes. Those do not stand on `bound` tables.
    pub fn whole_of(mut self, model: &Model, bound: &dyn Fn(&str) -> bool) -> Self {
        let mut known = BTreeSet::new();
        loop {
            let written: BTreeSet<String> =
                self.written().into_iter().map(|(table, _)| table).chain(self.deletes.iter().cloned()).collect();
            let triggers = written
                .iter()
                .filter(|table| !bound(table))
                .filter_map(|table| model.tables.get(table))
                .flat_map(|table| &table.triggers);
            let next: Vec<String> = self.calls.iter().chain(triggers).filter(|name| !known.contains(*name)).cloned().collect();
            if next.is_empty() {
                return self;
            }
            for name in next {
                if let Some(function) = model.functions.get(&name) {
                    self.add(&functions::needs(function, model));
                }
                known.insert(name);
            }
        }
    }
}

/// Functions of the pack that an expression calls.
pub fn called(sql: &str, model: &Model) -> BTreeSet<String> {
    let pieces = solid(sql);
    (0..pieces.len())
        .filter(|at| pieces.get(at + 3).is_some_and(|piece| piece.sign('(')) && (*at == 0 || !pieces[at - 1].sign('.')))
        .filter_map(|at| qualified(&pieces, at))
        .filter(|name| model.functions.contains_key(name) || name.starts_with("usher."))
        .collect()
}

/// What the aliases of an expression stand for.
type Aliases = BTreeMap<String, String>;

struct Reader<'a> {
    model: &'a Model,
    needs: Needs,
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(one) => vec![one.clone()],
        Value::Array(list) => list.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

impl Reader<'_> {
    fn read(&mut self, table: &str, column: &str) {
        self.needs.tables.insert(table.to_owned());
        self.needs.reads.insert((table.to_owned(), column.to_owned()));
    }

    fn expression(&mut self, value: &Value, aliases: &Aliases) {
        let Some(sql) = value.as_str() else { return };
        let mut found = Vec::new();
        replace_columns(sql, &mut |alias, column| {
            found.extend(aliases.get(alias).map(|table| (table.clone(), column.to_owned())));
            None
        });
        for (table, column) in found {
            self.read(&table, &column);
        }
        replace_names(sql, &mut |name| {
            self.needs.whole.extend(aliases.get(name).cloned());
            None
        });
        self.needs.calls.extend(called(sql, self.model));
    }

    /// The words that a condition waits for, column by column.
    fn condition(&mut self, value: &Value, aliases: &Aliases) {
        self.expression(value, aliases);
        let Some(sql) = value.as_str() else { return };
        let said = literals(sql);
        let mut found = BTreeSet::new();
        replace_columns(sql, &mut |alias, column| {
            // What was there before may be anything.
            found.extend(aliases.get(alias).filter(|_| alias != "old").map(|table| (table.clone(), column.to_owned())));
            None
        });
        for (table, column) in found {
            let known = self.model.tables.get(&table).and_then(|table| table.column(&column)).map(|column| column.words.clone());
            let words: Vec<String> = known.unwrap_or_default().into_iter().filter(|word| said.contains(word)).collect();
            if !words.is_empty() {
                self.needs.waits.insert(((table, column), words));
            }
        }
    }

    /// Columns of `table` that are written with expressions.
    fn write(&mut self, table: &str, set: &Value, aliases: &Aliases) -> BTreeSet<String> {
        let mut columns = BTreeSet::new();
        for (column, value) in entries(set) {
            self.expression(value, aliases);
            columns.insert(column.clone());
            self.needs.writes.insert((table.to_owned(), column.clone()));
            let words = self.model.tables.get(table).and_then(|table| table.column(column)).map(|column| &column.words);
            if let (Some(words), Some(sql)) = (words, value.as_str()) {
                let said = literals(sql).into_iter().filter(|word| words.contains(word));
                let known = self.needs.words.entry((table.to_owned(), column.clone())).or_default();
                known.extend(said);
            }
        }
        columns
    }

    /// `{"insert": …}` and its like, of a flow or a step.
    fn effect(&mut self, then: &Value, sets: [&Value; 2], aliases: &Aliases) -> Option<String> {
        for kind in ["insert", "upsert", "update", "delete"] {
            let Some(table) = then[kind].as_str() else { continue };
            self.needs.tables.insert(table.to_owned());
            let mut columns = BTreeSet::new();
            for set in sets {
                columns.extend(self.write(table, set, aliases));
            }
            let mut key = texts(&then["key"]);
            if kind == "upsert" || kind == "update" {
                let changed = entries(sets[0]).map(|(name, _)| name).filter(|name| !key.contains(name));
                self.needs.updated_by_flows.extend(changed.map(|name| (table.to_owned(), name.clone())));
            }
            let exact = kind == "upsert" || kind == "insert" && then["on_conflict"] == "keep";
            for column in &key {
                self.read(table, column);
            }
            if self.model.tables.get(table).is_some_and(|table| table.column("organization_id").is_some()) {
                self.needs.writes.insert((table.to_owned(), "organization_id".to_owned()));
                columns.insert("organization_id".to_owned());
                key.insert(0, "organization_id".to_owned());
            }
            if exact {
                self.needs.keys.insert((table.to_owned(), key));
            }
            match kind {
                "insert" | "upsert" => {
                    self.needs.inserts.entry(table.to_owned()).or_default().insert(columns);
                }
                "delete" => {
                    self.needs.deletes.insert(table.to_owned());
                }
                _ => {}
            }
            return Some(table.to_owned());
        }
        for set in sets {
            for (_, value) in entries(set) {
                self.expression(value, aliases);
            }
        }
        if let Some(function) = then["call"].as_str() {
            self.needs.calls.insert(function.to_owned());
        }
        None
    }

    fn merge(&mut self, then: &Value, left: &str, right: &str) {
        for table in [left, right] {
            self.needs.tables.insert(table.to_owned());
            self.needs.merged.insert(table.to_owned());
            self.read(table, "organization_id");
        }
        let of = |table: &str| Aliases::from([("new".to_owned(), table.to_owned())]);
        match &then["match"] {
            Value::Object(pairs) => {
                for (column, other) in pairs {
                    self.read(left, column);
                    self.read(right, other.as_str().unwrap_or_default());
                }
            }
            names => {
                for name in texts(names) {
                    self.read(left, &name);
                    self.read(right, &name);
                }
            }
        }
        let named: Vec<(String, Value)> = match &then["fields"] {
            Value::Array(_) => texts(&then["fields"]).into_iter().map(|name| (name, Value::Null)).collect(),
            fields => entries(fields).map(|(name, field)| (name.clone(), field.clone())).collect(),
        };
        for (name, field) in named {
            for (table, side) in [(left, "left"), (right, "right")] {
                let column = field[side].as_str().unwrap_or(&name).to_owned();
                self.read(table, &column);
                self.needs.updated_by_flows.insert((table.to_owned(), column.clone()));
                self.needs.writes.insert((table.to_owned(), column));
            }
            self.expression(&field["to_right"], &of(left));
            self.expression(&field["to_left"], &of(right));
        }
        for (table, side) in [(left, "left"), (right, "right")] {
            if let Some(column) = then["times"][side].as_str() {
                self.read(table, column);
            }
        }
        for (made, side, other, word) in [("new_right", right, left, "right"), ("new_left", left, right, "left")] {
            self.write(side, &then[made], &of(other));
            if then["creates"].as_str().is_none_or(|creates| creates == "both" || creates == word) {
                let written: BTreeSet<String> =
                    self.needs.writes.iter().filter(|(table, _)| table == side).map(|(_, column)| column.clone()).collect();
                self.needs.writes.insert((side.to_owned(), "organization_id".to_owned()));
                self.needs
                    .inserts
                    .entry(side.to_owned())
                    .or_default()
                    .insert(written.into_iter().chain(["organization_id".to_owned(), "id".to_owned()]).collect());
            }
            if then["deletes"] != "keep" {
                self.needs.deletes.insert(side.to_owned());
            }
        }
        self.expression(&then["back"]["if"], &of(right));
    }
}

/// What one flow needs by its definition.
pub fn of_flow(definition: &Value, model: &Model) -> Needs {
    let mut reader = Reader { model, needs: Needs::default() };
    let (source, then) = (definition["when"]["change"].as_str(), &definition["then"]);
    let mut aliases = Aliases::new();
    if let Some(source) = source {
        aliases.extend(["new", "old"].map(|alias| (alias.to_owned(), source.to_owned())));
        reader.read(source, "organization_id");
        let handed_on = then.get("call").is_some() || then.get("steps").is_some();
        if handed_on && definition.get("set").is_none() {
            reader.needs.whole.insert(source.to_owned());
        }
    }
    for (name, join) in entries(&definition["join"]) {
        if let Some(table) = join["table"].as_str() {
            reader.read(table, "organization_id");
            aliases.insert(name.clone(), table.to_owned());
        }
    }
    for (_, join) in entries(&definition["join"]) {
        reader.expression(&join["on"], &aliases);
    }
    reader.condition(&definition["if"], &aliases);
    for limit in definition["limits"].as_array().into_iter().flatten() {
        reader.expression(&limit["key"], &aliases);
    }
    let mut target = reader.effect(then, [&definition["set"], &definition["set_once"]], &aliases);
    for (_, check) in entries(&definition["check"]) {
        let sql = check.as_str().unwrap_or_default();
        reader.needs.calls.extend(called(sql, model));
        replace_names(sql, &mut |name| {
            let set = definition["set"].get(name).or_else(|| definition["set_once"].get(name));
            reader.needs.checked.extend(target.iter().filter(|_| set.is_some()).map(|table| (table.clone(), name.to_owned())));
            None
        });
    }
    for step in then["steps"].as_array().into_iter().flatten() {
        for part in [step, &step["undo"], &step["verify"]] {
            reader.effect(part, [&part["set"], &Value::Null], &Aliases::new());
            reader.expression(&part["if"], &Aliases::new());
        }
    }
    if let (Some(left), Some(right)) = (source, then["merge"].as_str()) {
        reader.merge(then, left, right);
        target = Some(right.to_owned());
    }
    let link = &definition["link"];
    reader.expression(&link["left"], &aliases);
    if let (Some(table), Some(column)) = (target, link["right"].as_str()) {
        reader.read(&table, column);
    }
    reader.needs
}

/// What an overlap rule needs.
pub fn of_rule(definition: &Value) -> Needs {
    let mut needs = Needs::default();
    let mut look = |at: &Value, names: Vec<String>| {
        let Some(table) = at["table"].as_str() else { return };
        needs.tables.insert(table.to_owned());
        needs.whole.insert(table.to_owned());
        let mut columns: Vec<String> = names.into_iter().chain(["organization_id".to_owned()]).collect();
        replace_columns(at["where"].as_str().unwrap_or_default(), &mut |_, column| {
            columns.push(column.to_owned());
            None
        });
        needs.reads.extend(columns.into_iter().map(|column| (table.to_owned(), column)));
    };
    look(definition, [texts(&definition["resource"]), texts(&definition["period"])].concat());
    let alternatives = &definition["alternatives"];
    look(alternatives, [texts(&alternatives["key"]), texts(&alternatives["same"])].concat());
    needs
}
