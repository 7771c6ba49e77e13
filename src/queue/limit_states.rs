//! How limits stand, for people.

use super::limits::{self, Keys};
use crate::error::Result;
use crate::flow::limits::Bound;
use crate::flow::store as flows;
use crate::pg::spi;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::prelude::*;

pub struct State {
    pub per: &'static str,
    pub flow: Option<String>,
    pub system: Option<String>,
    pub organization: Option<String>,
    pub key: Option<String>,
    pub allowed: String,
    pub available: i64,
    /// Of limits on concurrency.
    pub in_flight: Option<i64>,
    pub waiting: i64,
    pub next_at: Option<TimestampWithTimeZone>,
}

/// Keys that count something, that hold something back, or whose jobs are in flight. `$1` organizations, `$2` whether all are
/// to be seen, `$3`-`$5` keys of systems with their systems and organizations.
const KEYS: &str = "
WITH l AS (
    SELECT w.limit_keys, w.organization_id FROM usher.queue_waiting w WHERE w.waiting_for = 'external call' AND w.leased_by IS NOT NULL),
x AS (
    SELECT w.target_system, w.organization_id FROM usher.queue_waiting w
     WHERE w.waiting_for = 'external worker' AND w.leased_by IS NOT NULL AND w.due_at > pg_catalog.clock_timestamp()),
k AS (
    SELECT m.limit_key, m.organization_id, 0 AS waiting, NULL::timestamptz AS next_at, 0 AS in_flight
      FROM usher.limit_marks m WHERE m.spent_until > pg_catalog.clock_timestamp()
    UNION ALL
    SELECT w.limit_key, CASE WHEN w.limit_key ~ '^[^,]*, limit [0-9]+, organization ' THEN w.organization_id END, 1, w.due_at, 0
      FROM usher.queue_waiting w WHERE w.limit_key IS NOT NULL
    UNION ALL
    SELECT u.key, CASE WHEN u.key ~ '^[^,]*, limit [0-9]+, organization ' THEN l.organization_id END, 0, NULL, 1
      FROM l CROSS JOIN LATERAL unnest(l.limit_keys) AS u (key)
    UNION ALL
    SELECT s.key, s.organization_id, 0, NULL,
           (SELECT pg_catalog.count(*) FROM x WHERE x.target_system = s.system AND (s.organization_id IS NULL OR x.organization_id = s.organization_id))
      FROM unnest($3::text[], $4::text[], $5::uuid[]) AS s (key, system, organization_id))
SELECT k.limit_key, k.organization_id, o.slug, pg_catalog.sum(k.waiting)::bigint, pg_catalog.min(k.next_at), pg_catalog.sum(k.in_flight)::bigint
  FROM k LEFT JOIN usher.organizations o ON o.id = k.organization_id
 WHERE $2 OR k.organization_id = ANY ($1)
 GROUP BY k.limit_key, k.organization_id, o.slug ORDER BY k.limit_key";

/// Systems with limits have their keys even when nothing is counted; connections, when the organization has a job there.
const CONNECTIONS: &str = "
SELECT DISTINCT w.target_system, w.organization_id FROM usher.queue_waiting w
 WHERE w.waiting_for = 'external worker' AND w.target_system = ANY ($1)";

struct Seen {
    key: String,
    organization: Option<Uuid>,
    slug: Option<String>,
    waiting: i64,
    next_at: Option<TimestampWithTimeZone>,
    in_flight: i64,
}

pub fn all(installed: Installed, organizations: Vec<Uuid>, everything: bool) -> Result<Vec<State>> {
    let systems = limits::systems(installed)?;
    let names: Vec<String> = systems.keys().cloned().collect();
    let connections = spi::read_all(CONNECTIONS, &[spi::arg(names.clone())], |row| {
        Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<Uuid>(2)?))
    })?;
    let mut known: (Vec<String>, Vec<String>, Vec<Option<Uuid>>) = Default::default();
    for (name, organization) in names.iter().map(|name| (name, None)).chain(connections.iter().map(|(name, id)| (name, *id))) {
        for rule in limits::of_system(installed, name)? {
            let of = organization.unwrap_or_else(|| Uuid::from_bytes([0; 16]));
            if rule.organization(of).is_some() == organization.is_some() {
                known.0.push(rule.key(of, &[]));
                known.1.push(name.clone());
                known.2.push(organization);
            }
        }
    }
    let arguments = [spi::arg(organizations), spi::arg(everything), spi::arg(known.0), spi::arg(known.1), spi::arg(known.2)];
    let seen = spi::read_all(KEYS, &arguments, |row| {
        Ok(Seen {
            key: row.get::<String>(1)?.unwrap_or_default(),
            organization: row.get::<Uuid>(2)?,
            slug: row.get::<String>(3)?,
            waiting: row.get::<i64>(4)?.unwrap_or(0),
            next_at: row.get::<TimestampWithTimeZone>(5)?,
            in_flight: row.get::<i64>(6)?.unwrap_or(0),
        })
    })?;
    let mut states = Vec::with_capacity(seen.len());
    let mut keys = Keys::default();
    for seen in seen {
        states.extend(state(installed, seen, &mut keys)?);
    }
    // In one go for all of them.
    let rooms = keys.look()?;
    Ok(states
        .into_iter()
        .map(|(state, index)| match index {
            Some(index) => State { available: rooms[index], ..state },
            None => state,
        })
        .collect())
}

/// With the index of its key, if it is a rate. None: a key of a limit that is there no more.
fn state(installed: Installed, seen: Seen, keys: &mut Keys) -> Result<Option<(State, Option<usize>)>> {
    let owner = seen.key.split(", ").next().unwrap_or_default().to_owned();
    let Some((rule, _)) = limits::rule_of(installed, &seen.key)? else { return Ok(None) };
    let mut state = State {
        per: "flow",
        flow: None,
        system: owner.strip_prefix("system ").map(str::to_owned),
        organization: seen.slug,
        key: seen.key.split_once(", key ").map(|(_, key)| key.to_owned()).filter(|_| rule.is_per_key()),
        allowed: String::new(),
        available: 0,
        in_flight: None,
        waiting: seen.waiting,
        next_at: seen.next_at,
    };
    let limits = match owner.strip_prefix("flow ").and_then(|id| id.parse::<i32>().ok()) {
        Some(id) => {
            let flow = flows::newest(id)?;
            state.flow = flow.as_ref().map(|flow| flow.name.clone());
            flow.map(|flow| flow.definition.limits.clone()).unwrap_or_default()
        }
        None => limits::systems(installed)?.get(state.system.as_deref().unwrap_or_default()).cloned().unwrap_or_default(),
    };
    state.per = match (&state.system, rule.is_per_key(), seen.organization) {
        (_, true, _) => "key",
        (Some(_), _, Some(_)) => "connection",
        (Some(_), ..) => "system",
        (None, _, Some(_)) => "organization",
        (None, ..) => "flow",
    };
    state.allowed = limits.get(rule.number()).map(|limit| limit.text.clone()).unwrap_or_default();
    match rule.bound {
        Bound::Concurrency(most) => {
            state.in_flight = Some(seen.in_flight);
            state.available = (i64::from(most) - seen.in_flight).max(0);
            Ok(Some((state, None)))
        }
        Bound::Rate(rate) => {
            let pace = crate::pg::buckets::Pace { interval: rate.interval, burst: rate.burst };
            Ok(Some((state, Some(keys.add(seen.key, pace, seen.organization)))))
        }
    }
}
