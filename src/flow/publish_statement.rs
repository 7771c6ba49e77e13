//! The statement of a `publish`: a message to clients for each job, all of a batch in one statement.
//!
//! Every topic begins with the organization's id, which no two share and which stays when a slug changes hands. The message is the
//! fields of "set"; without them it says which row has changed, not what is in it.

use super::apply::Batch;
use super::catalog::Table;
use super::compile::Writer;
use super::definition::{Change, Definition, When};
use super::publish::{Publish, Via};
use crate::error::{Result, UsherError};
use crate::pg::{role, spi};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::{quote_identifier, quote_literal};
use std::fmt::Write as _;

/// Columns that the message names although no expression does: the row's key.
pub(super) fn also_needs(definition: &Definition, source: Option<&Table>, new: &mut Vec<String>, old: &mut Vec<String>) {
    let (When::Change { on, .. }, Some(source)) = (&definition.when, source) else { return };
    if definition.publishes().is_none() || !definition.set.is_empty() {
        return;
    }
    let add = |side: &mut Vec<String>| {
        for name in source.own_key() {
            if !side.iter().any(|known| known == name) {
                side.push(name.to_owned());
            }
        }
    };
    if on.iter().any(|change| *change != Change::Delete) {
        add(new);
    }
    if on.contains(&Change::Delete) {
        add(old);
    }
}

/// SQL for what the message says has happened.
fn event(definition: &Definition, publish: &Publish) -> String {
    match (&publish.event, &definition.when) {
        (Some(event), _) => quote_literal(event),
        (None, When::Change { .. }) => "CASE b.op WHEN 'I' THEN 'INSERT' WHEN 'U' THEN 'UPDATE' ELSE 'DELETE' END".to_owned(),
        (None, When::Event(_)) => "b.new ->> 'type'".to_owned(),
        (None, when) => quote_literal(when.word().to_uppercase()),
    }
}

/// The message of a flow without "set": where to look.
fn whereabouts(w: &Writer<'_>, event: &str) -> String {
    let mut fields = format!("'organization', b.organization_id, 'job', b.id, 'event', {event}");
    match (&w.definition.when, w.source) {
        (When::Change { .. }, Some(source)) => {
            let op = "CASE b.op WHEN 'I' THEN 'insert' WHEN 'U' THEN 'update' ELSE 'delete' END";
            let _ = write!(fields, ", 'op', {op}, 'table', {}", quote_literal(&source.name));
            let key: Vec<String> = source
                .own_key()
                .into_iter()
                .map(|name| {
                    let name = quote_literal(name);
                    let value = match (!w.new.is_empty(), w.has_old()) {
                        (true, true) => format!("COALESCE(b.new -> {name}, b.old -> {name})"),
                        (false, true) => format!("b.old -> {name}"),
                        _ => format!("b.new -> {name}"),
                    };
                    format!("{name}, {value}")
                })
                .collect();
            if !key.is_empty() {
                let _ = write!(fields, ", 'key', pg_catalog.jsonb_build_object({})", key.join(", "));
            }
        }
        (When::Event(_), _) => fields += ", 'op', 'event', 'event_id', b.new -> 'id'",
        (when, _) => {
            let _ = write!(fields, ", 'op', {}", quote_literal(when.word()));
        }
    }
    format!("pg_catalog.jsonb_build_object({fields})")
}

pub(super) fn statement(w: &Writer<'_>, publish: &Publish) -> (String, String) {
    let definition = w.definition;
    let event = event(definition, publish);
    let mut fields = String::new();
    for (name, text) in &definition.set {
        let _ = write!(fields, ", ({text}\n) AS {}", quote_identifier(name));
    }
    let message = if definition.set.is_empty() {
        let _ = write!(fields, ", {} AS usher_said", whereabouts(w, &event));
        "s.usher_said"
    } else {
        "pg_catalog.to_jsonb(s.*) - '{usher_n,usher_topic,usher_event}'::text[]"
    };
    let mut checks = String::new();
    for (name, text) in &definition.check {
        let _ = write!(checks, " WHEN ({text}\n) IS FALSE THEN {}", quote_literal(name));
    }
    let check = if checks.is_empty() { "NULL::text".to_owned() } else { format!("CASE{checks} END") };
    let mut fits = String::new();
    let topic = match &publish.by {
        None => "s.usher_topic".to_owned(),
        Some(by) => {
            let _ = write!(
                fits,
                " WHEN m.usher_topic IS NULL THEN {} WHEN pg_catalog.octet_length(m.usher_topic) > {1} THEN 'the topic has at most {1} bytes'",
                quote_literal(format!("{by}, the last part of the topic, has a value")),
                publish.most_of_topic()
            );
            format!("s.usher_topic || ':' || NULLIF(s.{}::text, '')", quote_identifier(by))
        }
    };
    let rows = format!(
        "WITH s AS MATERIALIZED (SELECT b.n AS usher_n, b.organization_id::text || {prefix} AS usher_topic, {event} AS usher_event{fields} FROM {from}{range}),
 m AS MATERIALIZED (SELECT s.usher_n, {topic} AS usher_topic, s.usher_event, {message} AS usher_message, {check} AS usher_failed FROM s),
 v AS MATERIALIZED (SELECT m.usher_n, m.usher_topic, m.usher_event, m.usher_message,
        CASE WHEN m.usher_failed IS NOT NULL THEN m.usher_failed{fits}
             WHEN pg_catalog.octet_length(m.usher_message::text) > {most} THEN 'a message by {via} has at most {most} bytes' END AS usher_failed FROM m)",
        prefix = quote_literal(format!(":{}", publish.topic)),
        from = w.from(),
        range = w.range(),
        most = publish.most_of_message(),
        via = publish.via.word(),
    );
    let send = match publish.via {
        Via::Realtime => "realtime.send(v.usher_message, v.usher_event, v.usher_topic, true)",
        Via::Notify => "pg_catalog.pg_notify(v.usher_topic, v.usher_message::text)",
    };
    let apply = format!(
        // The count makes every message go; the row without a number that it leaves is skipped by the reader.
        "{rows}, w AS MATERIALIZED (SELECT {send} FROM v WHERE v.usher_failed IS NULL ORDER BY v.usher_n)
 SELECT v.usher_n::integer, v.usher_failed, false
   FROM (SELECT pg_catalog.count(*) AS messages FROM w) AS done LEFT JOIN v ON v.usher_failed IS NOT NULL ORDER BY 1"
    );
    let preview = format!(
        "{rows} SELECT CASE WHEN v.usher_failed IS NULL
        THEN pg_catalog.jsonb_build_object('publish', v.usher_topic, 'via', {}, 'event', v.usher_event, 'message', v.usher_message)
        ELSE pg_catalog.jsonb_build_object('failed check', v.usher_failed) END FROM v",
        quote_literal(publish.via.word())
    );
    (apply, preview)
}

/// `$1` the role that the flow runs as.
const REALTIME: &str = "
SELECT p.oid, pg_catalog.has_schema_privilege($1, p.pronamespace, 'USAGE') AND pg_catalog.has_function_privilege($1, p.oid, 'EXECUTE'),
       p.prosecdef OR c.oid IS NULL OR pg_catalog.has_table_privilege($1, c.oid, 'INSERT'),
       p.prosecdef OR c.oid IS NULL OR NOT c.relrowsecurity OR r.rolsuper OR r.rolbypassrls
       OR (NOT c.relforcerowsecurity AND pg_catalog.pg_has_role($1, c.relowner, 'USAGE'))
       OR EXISTS (SELECT FROM pg_catalog.pg_policy AS o
                   WHERE o.polrelid = c.oid AND o.polpermissive AND o.polcmd IN ('a', '*')
                     AND EXISTS (SELECT FROM unnest(o.polroles) AS u (role)
                                  WHERE CASE WHEN u.role = 0::oid THEN true ELSE pg_catalog.pg_has_role($1, u.role, 'USAGE') END))
  FROM pg_catalog.pg_roles AS r
  LEFT JOIN pg_catalog.pg_proc AS p ON p.oid = pg_catalog.to_regprocedure('realtime.send(jsonb, text, text, boolean)')
  LEFT JOIN pg_catalog.pg_class AS c ON c.oid = pg_catalog.to_regclass('realtime.messages')
 WHERE r.oid = $1";

/// Refuses a flow whose messages would never arrive: `realtime.send` makes a warning of every error, and goes on.
pub(super) fn usable(definition: &Definition, run_as: Oid) -> Result<()> {
    if definition.publishes().is_none_or(|publish| publish.via != Via::Realtime) {
        return Ok(());
    }
    let found = spi::read_all(REALTIME, &[spi::arg(run_as)], |row| {
        let yes = |at: usize| -> Result<bool> { Ok(row.get::<bool>(at)? == Some(true)) };
        Ok((row.get::<Oid>(1)?.is_some(), yes(2)?, yes(3)?, yes(4)?))
    })?;
    let (there, may_call, may_insert, passes) = found.into_iter().next().unwrap_or_default();
    let name = role::name_of(run_as).unwrap_or_default();
    if !there {
        return Err(UsherError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            "\"publish\": Supabase Realtime is not in this database: there is no realtime.send(jsonb, text, text, boolean)",
        )
        .hint("Install it, or say \"via\": \"notify\": then NOTIFY tells which row has changed, to everybody who listens."));
    }
    const SWALLOWED: &str = "realtime.send makes a warning of an error, and the message is lost.";
    if !may_call {
        return Err(UsherError::forbidden(format!("\"publish\": {name}, the role that the flow runs as, may not call realtime.send"))
            .hint(format!(
                "GRANT USAGE ON SCHEMA realtime TO {name}; GRANT EXECUTE ON FUNCTION realtime.send(jsonb, text, text, boolean) TO {name}; or name another role in \"run_as\"."
            )));
    }
    if !may_insert {
        return Err(UsherError::forbidden(format!(
            "\"publish\": {name}, the role that the flow runs as, may not insert into realtime.messages"
        ))
        .detail(SWALLOWED)
        .hint(format!("GRANT INSERT ON realtime.messages TO {name}, or name another role in \"run_as\".")));
    }
    if !passes {
        return Err(UsherError::forbidden(format!(
            "\"publish\": no policy of realtime.messages lets {name}, the role that the flow runs as, insert"
        ))
        .detail(SWALLOWED)
        .hint(format!(
            "CREATE POLICY … ON realtime.messages FOR INSERT TO {name} WITH CHECK (…), or name a role with BYPASSRLS in \"run_as\"."
        )));
    }
    Ok(())
}

const ANY_HOMELESS: &str = "
SELECT EXISTS (SELECT FROM unnest($1::uuid[]) AS o (id) WHERE NOT EXISTS (SELECT FROM usher.organizations AS h WHERE h.id = o.id))";

/// Refuses rows of no organization: in the writer's transaction nobody has looked yet.
pub(super) fn require_homes(owner: Oid, batch: &Batch) -> Result<()> {
    let _acting = role::internal(owner);
    if spi::read::<bool>(ANY_HOMELESS, &[batch.organizations.arg()])? == Some(true) {
        return Err(UsherError::state("a message needs an organization that exists")
            .hint("Let the flow's \"organization\" name one, or fill the row's organization_id."));
    }
    Ok(())
}
