//! Asking for bad rows, and writing down what was found.

use super::definition::Definition;
use super::fit::{self, Fitted};
use super::statement::{self, Bounds, Extent, Form, Shape};
use super::store::Rule;
use crate::error::{Result, UsherError};
use crate::event;
use crate::pg::spi::{self, Raw};
use crate::pg::{role, xact};
use crate::setup::Installed;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::SpiTupleTable;
use pgrx::{JsonB, Uuid};
use std::collections::BTreeMap;

/// Keys of a rule, as `usher.violations` has them; one that lacks some columns means all keys that are alike in the others.
#[derive(Debug, Default)]
pub struct Keys {
    /// None: the key of whichever organization.
    pub organizations: Vec<Option<Uuid>>,
    pub keys: Vec<JsonB>,
}

/// What is looked at.
pub enum Scope<'a> {
    Keys(&'a Keys),
    /// Everything of one organization, or of all.
    All(Option<Uuid>),
    /// A part of everything. What it does not find is not gone yet.
    Part(&'a Bounds),
    /// What is in no part.
    Beside,
}

/// What a look has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bad rows that were none before.
    pub new: i64,
    /// Bad rows that were known.
    pub still: i64,
    /// Violations that ended.
    pub gone: i64,
}

/// A bad row, for whoever refuses it.
pub struct Bad {
    pub organization: Uuid,
    pub key: serde_json::Value,
}

/// What a look has found: four arrays of a row that lives as long as the SPI connection.
struct Found([Raw; 4]);

fn ask(client: &mut pgrx::spi::SpiClient<'_>, fitted: &Fitted, sql: &str, arguments: spi::Args<'_>) -> Result<Found> {
    let _fence = fit::fence();
    let _acting = role::act_as(fitted.run_as);
    let table: SpiTupleTable<'_> = spi::query(client, sql, arguments)?.first();
    Ok(Found([Raw::read(&table, 1)?, Raw::read(&table, 2)?, Raw::read(&table, 3)?, Raw::read(&table, 4)?]))
}

/// From so many keys on they are told apart by their values, so that the plan is made for them.
const MANY: usize = 500;

fn ask_many(
    client: &mut pgrx::spi::SpiClient<'_>,
    form: &Form<'_>,
    shape: &Shape,
    keys: &[DatumWithOid<'_>; 2],
) -> Result<Found> {
    let fitted = form.fitted;
    let _fence = fit::fence().custom_plan();
    let _acting = role::act_as(fitted.run_as);
    let values: SpiTupleTable<'_> = spi::query(client, &form.values(shape), keys)?.first();
    let arguments =
        (1..=shape.given.len() + 3).map(|column| Ok(Raw::read(&values, column)?.arg())).collect::<Result<Vec<_>>>()?;
    let table: SpiTupleTable<'_> = spi::query(client, &form.at_many(shape), &arguments)?.first();
    Ok(Found([Raw::read(&table, 1)?, Raw::read(&table, 2)?, Raw::read(&table, 3)?, Raw::read(&table, 4)?]))
}

/// The bad rows among some keys, asked for with the rights of the rule. Nothing is written.
pub fn find(installed: Installed, fitted: &Fitted, keys: Keys) -> Result<Vec<Bad>> {
    let form = Form { fitted, installed };
    let mut bad = Vec::new();
    for (shape, keys) in by_shape(fitted, &keys) {
        Spi::connect_mut(|client| -> Result<()> {
            let found = ask(client, fitted, &form.at_keys(&shape), &[spi::arg(keys.organizations), spi::arg(keys.keys)])?;
            let organizations = found.0[0].value::<Vec<Uuid>>()?.unwrap_or_default();
            let keys = found.0[1].value::<Vec<JsonB>>()?.unwrap_or_default();
            let rows = organizations.into_iter().zip(keys);
            bad.extend(rows.map(|(organization, key)| Bad { organization, key: key.0 }));
            Ok(())
        })?;
    }
    Ok(bad)
}

/// Asks, with the rights of the rule, and writes down what was found, with the owner's. Runs with the owner's rights.
pub fn look(installed: Installed, rule: &Rule, fitted: &Fitted, scope: &Scope<'_>) -> Result<Seen> {
    let form = Form { fitted, installed };
    Spi::connect_mut(|client| {
        let nothing = (DatumWithOid::null_oid(pg_sys::UUIDOID), DatumWithOid::null_oid(pg_sys::JSONBARRAYOID));
        match scope {
            Scope::Keys(keys) => {
                let mut seen = Seen::default();
                for (shape, keys) in by_shape(fitted, keys) {
                    let many = keys.keys.len() >= MANY;
                    let arguments = [spi::arg(keys.organizations), spi::arg(keys.keys)];
                    let found = if many {
                        ask_many(client, &form, &shape, &arguments)?
                    } else {
                        ask(client, fitted, &form.at_keys(&shape), &arguments)?
                    };
                    let [organizations, keys] = arguments;
                    let extent = match shape.organization && shape.is_whole(fitted) {
                        true if many => Extent::ManyKeys,
                        true => Extent::Keys,
                        false => Extent::Alike,
                    };
                    let known = shape.given.iter().chain(&shape.null).map(|at| fitted.key[*at].name.clone()).collect();
                    let more = settle(rule, fitted, extent, &found, (organizations, keys), known)?;
                    seen = Seen { new: seen.new + more.new, still: seen.still + more.still, gone: seen.gone + more.gone };
                }
                Ok(seen)
            }
            Scope::All(organization) => {
                let found = ask(client, fitted, &form.everywhere(), &[spi::arg(*organization)])?;
                settle(rule, fitted, Extent::All, &found, (spi::arg(*organization), nothing.1), Vec::new())
            }
            Scope::Part(bounds) => {
                let Some(slices) = &fitted.slices else { return Err(UsherError::internal("a rule without parts has none")) };
                let json = |value: &Option<serde_json::Value>| spi::arg(value.clone().map(JsonB));
                let found = ask(client, fitted, &form.between(slices, bounds), &[json(&bounds.behind), json(&bounds.up_to)])?;
                settle(rule, fitted, Extent::Part, &found, nothing, Vec::new())
            }
            Scope::Beside => {
                let Some(slices) = &fitted.slices else { return Err(UsherError::internal("a rule without parts has none")) };
                let found = ask(client, fitted, &form.beside(slices), &[])?;
                settle(rule, fitted, Extent::Part, &found, nothing, Vec::new())
            }
        }
    })
}

/// Keys with those that are known as far as they: each needs a statement of its own.
fn by_shape(fitted: &Fitted, keys: &Keys) -> BTreeMap<Shape, Keys> {
    let mut shapes: BTreeMap<Shape, Keys> = BTreeMap::new();
    for (organization, key) in keys.organizations.iter().zip(&keys.keys) {
        let same = shapes.entry(Shape::of(fitted, organization.is_some(), &key.0)).or_default();
        same.organizations.push(*organization);
        same.keys.push(JsonB(key.0.clone()));
    }
    shapes
}

/// What is to be told: organizations and events, in the same order.
type Told = (Vec<Uuid>, Vec<JsonB>);

fn told(row: &SpiTupleTable<'_>, at: usize) -> Result<Told> {
    Ok((row.get::<Vec<Uuid>>(at)?.unwrap_or_default(), row.get::<Vec<JsonB>>(at + 1)?.unwrap_or_default()))
}

fn settle(
    rule: &Rule,
    fitted: &Fitted,
    extent: Extent,
    found: &Found,
    of: (DatumWithOid<'_>, DatumWithOid<'_>),
    known: Vec<String>,
) -> Result<Seen> {
    let Definition { severity, grace, tolerance, escalate, .. } = &fitted.definition;
    let escalate = escalate.as_ref().map(|escalate| escalate.after);
    let rows = spi::all(
        &statement::settle(extent),
        &[
            found.0[0].arg(),
            found.0[1].arg(),
            found.0[2].arg(),
            found.0[3].arg(),
            spi::arg(rule.id),
            spi::arg(rule.name.as_str()),
            spi::arg(*severity),
            spi::arg(*grace),
            of.0,
            of.1,
            spi::arg(*tolerance > 0),
            spi::arg(escalate),
            spi::arg(known),
        ],
        |row| {
            let count = |at| row.get::<i64>(at).map(Option::unwrap_or_default);
            Ok((Seen { new: count(1)?, still: count(2)?, gone: count(3)? }, told(row, 4)?, told(row, 6)?))
        },
    )?;
    let (seen, opened, gone) = rows.into_iter().next().unwrap_or_default();
    if seen.new > 0 && (*grace > 0 || escalate.is_some()) {
        // A worker is there when its time comes.
        xact::note_overlaps();
    }
    tell("usher.violation.opened", opened)?;
    tell("usher.violation.gone", gone)?;
    // Of a part not all rows are known yet.
    if *tolerance > 0 && extent != Extent::Part {
        weigh(rule.id, *tolerance, escalate)?;
    }
    Ok(seen)
}

/// One or the other, of the rows that an organization has: `$1` rule, `$2` rows that are tolerated, `$3` milliseconds until somebody is told.
const WEIGH: &str = "
WITH n AS MATERIALIZED (
    SELECT v.organization_id, pg_catalog.count(*) FILTER (WHERE v.status <> 'waived') > $2 AS too_many FROM usher.violations AS v
     WHERE v.rule_id = $1 AND v.status IN ('pending', 'open', 'waived') GROUP BY v.organization_id),
up AS (
    UPDATE usher.violations AS v SET status = 'open', opened_at = pg_catalog.clock_timestamp(),
           escalate_at = pg_catalog.clock_timestamp() + $3::bigint * '1 millisecond'::interval
      FROM n WHERE v.organization_id = n.organization_id AND n.too_many AND v.rule_id = $1 AND v.status = 'pending' AND v.due_at IS NULL
    RETURNING v.*),
down AS (
    UPDATE usher.violations AS v SET status = 'pending', opened_at = NULL, escalate_at = NULL, escalated_at = NULL
      FROM n WHERE v.organization_id = n.organization_id AND NOT n.too_many AND v.rule_id = $1 AND v.status = 'open'
    RETURNING v.*)
SELECT true, v.organization_id, pg_catalog.jsonb_build_object('id', v.id, 'rule', v.rule, 'key', v.key, 'wrong', v.wrong, 'severity', v.severity, 'first_seen_at', v.first_seen_at) FROM up AS v
UNION ALL
SELECT false, v.organization_id, pg_catalog.jsonb_build_object('id', v.id, 'rule', v.rule, 'key', v.key, 'wrong', v.wrong, 'severity', v.severity, 'first_seen_at', v.first_seen_at) FROM down AS v";

/// What is within the tolerance of a rule is no violation.
pub fn weigh(rule: i32, tolerance: i64, escalate: Option<i64>) -> Result<()> {
    let rows = spi::all(WEIGH, &[spi::arg(rule), spi::arg(tolerance), spi::arg(escalate)], |row| {
        Ok((row.get::<bool>(1)? == Some(true), row.get::<Uuid>(2)?, row.get::<JsonB>(3)?))
    })?;
    let (mut opened, mut gone) = (Told::default(), Told::default());
    for (up, organization, event) in rows {
        let told = if up { &mut opened } else { &mut gone };
        if let (Some(organization), Some(event)) = (organization, event) {
            told.0.push(organization);
            told.1.push(event);
        }
    }
    tell("usher.violation.opened", opened)?;
    tell("usher.violation.gone", gone)
}

/// On the bus. What is nobody's is told to nobody.
pub fn tell(event_type: &str, (organizations, events): Told) -> Result<()> {
    let (organizations, events): (Vec<Uuid>, Vec<JsonB>) =
        organizations.into_iter().zip(events).filter(|(organization, _)| organization.as_bytes() != &[0; 16]).unzip();
    if organizations.is_empty() {
        return Ok(());
    }
    event::tell(event_type, &organizations, events)
}
