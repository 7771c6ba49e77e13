//! What a rule does, in words, and the SQL that it runs.

use super::definition::{Mend, Tell};
use super::manage::span;
use super::statement::{Bounds, Form, Shape};
use super::store::{self, Rule};
use crate::error::Result;
use crate::pg::role;
use crate::setup::Installed;
use serde_json::Value;
use std::fmt::Write;

pub fn explain(installed: Installed, name: &str) -> Result<String> {
    let _acting = role::internal(installed.owner);
    let rule = store::by_name(name)?;
    let mut out = String::new();
    let _ = writeln!(out, "rule {}{}", rule.name, if rule.enabled { "" } else { " (off)" });
    let definition = rule.definition()?;
    if let Some(description) = &definition.description {
        let _ = writeln!(out, "  says:     {description}");
    }
    let _ = writeln!(out, "  severity: {}", definition.severity);
    let mut when = Vec::new();
    if definition.in_transaction {
        when.push("before each commit, which is refused while a row is bad".to_owned());
    }
    if definition.after_sync {
        when.push("after each commit, the keys that it has touched".to_owned());
    }
    match definition.every {
        Some(every) => {
            when.push(format!("everything every {}, more rarely while its tables do not change and all is well", span(every)))
        }
        None => when.push("everything on demand: usher.check_rule()".to_owned()),
    }
    for (at, when) in when.iter().enumerate() {
        let _ = writeln!(out, "  {}{when}", if at == 0 { "looks:    " } else { "          " });
    }
    if definition.grace > 0 {
        let _ = writeln!(out, "  grace:    a row counts once it has been bad for {}", span(definition.grace));
    }
    if definition.tolerance > 0 {
        let _ = writeln!(out, "  tolerates {} bad rows of an organization", definition.tolerance);
    }
    if let Some(escalate) = &definition.escalate {
        let told = match &escalate.tell {
            Tell::Emit(event_type) => format!("emits {event_type}"),
            Tell::Notify(words) => format!("makes a notice: {words}"),
        };
        let _ = writeln!(out, "  escalate: what is open for {} {told}", span(escalate.after));
    }
    if let Some(repair) = &definition.repair {
        let mend = match &repair.mend {
            Mend::Statement(_) => "a statement".to_owned(),
            Mend::Call(function) => format!("function {function}"),
            Mend::Flow(flow) => format!("flow {flow}"),
        };
        let _ = writeln!(
            out,
            "  repair:   {mend}, {}, at most {} times",
            if repair.auto { "by itself" } else { "when somebody asks" },
            repair.most
        );
    }
    let _ = writeln!(out, "  runs as:  {}", role::name_of(rule.run_as).unwrap_or_else(|| "a role that is gone".to_owned()));
    statements(installed, &rule, &mut out);
    Ok(out)
}

fn statements(installed: Installed, rule: &Rule, out: &mut String) {
    let fitted = match store::fitted(rule, installed) {
        Ok(fitted) => fitted,
        Err(failure) => {
            let _ = writeln!(out, "  broken:   {}", failure.line());
            return;
        }
    };
    let form = Form { fitted: &fitted, installed };
    let columns: Vec<&str> = fitted.columns.iter().map(|column| column.name.as_str()).collect();
    let _ = writeln!(out, "  gives:    {}; the key is {}", columns.join(", "), fitted.definition.key.join(", "));
    for table in &fitted.reads {
        let watched = if fitted.touches.iter().any(|touch| touch.table.oid == table.oid) { "watched" } else { "not watched" };
        let _ = writeln!(out, "  reads:    {}, {watched}", table.name);
    }
    for touch in fitted.touches.iter().filter(|touch| !fitted.reads.iter().any(|table| table.oid == touch.table.oid)) {
        let _ = writeln!(out, "  reads:    {}, by what the query calls, watched", touch.table.name);
    }
    match &fitted.slices {
        Some(slices) => {
            let by: Vec<&str> = slices.columns.iter().map(|part| part.table.as_str()).collect();
            let _ = writeln!(out, "  parts:    everything is looked at in parts, by {} of {}", by.join(", "), slices.table.name);
            let bounds = Bounds { behind: Some(Value::Null), up_to: Some(Value::Null) };
            let _ = writeln!(out, "  a part:\n{}", form.between(slices, &bounds));
        }
        None => {
            let _ = writeln!(out, "  parts:    none, everything is looked at at once: the key is no unique key of a table");
        }
    }
    if fitted.touches.is_empty() {
        let _ = writeln!(out, "  keys:     it is not known which keys a changed row concerns: no \"touches\"");
    } else {
        let _ = writeln!(out, "  some keys:\n{}", form.at_keys(&Shape::whole(&fitted)));
    }
    let _ = writeln!(out, "  everything:\n{}", form.everywhere());
}
