//! What a rule does, in words, and the SQL that it runs.

use super::definition::{Mend, Tell};
use super::fit::Fitted;
use super::keyed;
use super::manage::span;
use super::statement::{Bounds, Form, Shape};
use super::store::{self, Rule};
use crate::error::Result;
use crate::pg::{role, spi};
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
    let fitted = store::fitted(&rule, installed);
    let keyed = fitted.as_ref().is_ok_and(|fitted| fitted.whole.is_none());
    match definition.every {
        Some(every) if keyed => {
            if definition.in_transaction && !definition.after_sync {
                when.push(format!("what is bad already, every {}", span(every)));
            } else if !definition.after_sync {
                when.push(format!("what was touched since, every {}", span(every)));
            }
            when.push(format!("everything every {}", span(definition.full.unwrap_or(every))));
        }
        Some(every) => {
            when.push(format!("everything every {}, more rarely while its tables do not change and all is well", span(every)))
        }
        None => when.push("everything on demand: usher.check_rule()".to_owned()),
    }
    for (at, when) in when.iter().enumerate() {
        let _ = writeln!(out, "  {}{when}", if at == 0 { "looks:    " } else { "          " });
    }
    match &fitted {
        Ok(Fitted { whole: Some(why), .. }) if definition.every.is_some() && !definition.touches.is_empty() => {
            let _ = writeln!(out, "            not only what was touched: {why}");
        }
        Ok(fitted) if keyed => {
            if let Some(why) = for_now(&rule, fitted)? {
                let every = definition.every.unwrap_or_default();
                let _ = writeln!(out, "            for now everything every {}: {why}", span(every));
            }
        }
        _ => {}
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
    match fitted {
        Ok(fitted) => statements(installed, &fitted, &mut out),
        Err(failure) => {
            let _ = writeln!(out, "  broken:   {}", failure.line());
        }
    }
    Ok(out)
}

/// Why it is not enough now to look at what was touched; None: it is.
fn for_now(rule: &Rule, fitted: &Fitted) -> Result<Option<String>> {
    if let Some(gap) = keyed::watch(fitted)?.gap {
        return Ok(Some(gap));
    }
    spi::read::<String>(
        "SELECT COALESCE(l.whole_because, 'everything has still to be looked at') FROM usher.rules AS l WHERE l.id = $1 AND l.enabled AND NOT l.keyed_now",
        &[spi::arg(rule.id)],
    )
}

fn statements(installed: Installed, fitted: &Fitted, out: &mut String) {
    let form = Form { fitted, installed };
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
        let _ = writeln!(out, "  some keys:\n{}", form.at_keys(&Shape::whole(fitted)));
    }
    let _ = writeln!(out, "  everything:\n{}", form.everywhere());
}
