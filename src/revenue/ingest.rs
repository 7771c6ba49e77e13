//! Taking a sale in, and taking it back.
//!
//! Row and booking are of one transaction. The unique indexes of `usher.ticket_revenue_ingestions` decide who was first: a
//! second call with the same key waits for the first one's transaction and then finds its row, or makes it if that is undone.

use super::binding::{self, Binding};
use super::sale::{Once, Sale};
use crate::error::{Result, UsherError};
use crate::guard::audit;
use crate::pg::spi::{self, Args, Raw};
use crate::pg::{ids, locks, role, xact};
use crate::registry::identity::{self, Right};
use crate::setup::{self, Installed};
use pgrx::prelude::*;
use pgrx::{AllocatedByRust, JsonB, Uuid};
use std::cell::Cell;

pub type Row = PgHeapTuple<'static, AllocatedByRust>;

/// Locks of equal sales that one transaction takes. A bulk load would fill the server's lock table; its later sales see
/// what is committed, and their own transaction's, only.
const MOST_LOCKS: u32 = 64;

thread_local! {
    static LOCKS: Cell<u32> = const { Cell::new(0) };
}

fn forget() {
    LOCKS.set(0);
}

/// `usher.ticket_revenue_ingestion` of a row `i`.
macro_rules! composite {
    ($repeated:literal) => {
        concat!(
            "ROW(i.id, i.organization_id, i.project_id, i.event_code, i.ticket_count, i.gross_amount, i.currency, i.ingestion_source, i.payload, ",
            "i.ingested_at, ", $repeated, ", i.possible_duplicate_of, i.reverses)::usher.ticket_revenue_ingestion"
        )
    };
}

/// What the booking function is given, of a row `i`.
macro_rules! booking {
    () => {
        "i.organization_id, i.id, i.reverses, i.project_id, i.event_code, i.ticket_count, i.gross_amount, i.currency, i.ingestion_source, i.payload, i.ingested_at"
    };
}

/// What a repeat must say as the first call did: project_code, event_code, ticket_count, gross_amount, currency and source of
/// this call, in SQL.
macro_rules! differences {
    ($project:literal, $event:literal, $count:literal, $gross:literal, $currency:literal, $source:literal) => {
        concat!(
            "pg_catalog.concat_ws(', ',
            CASE WHEN i.project_code IS DISTINCT FROM ",
            $project,
            " THEN pg_catalog.format('project_code was %L and is %L', i.project_code, ",
            $project,
            ") END,
            CASE WHEN i.event_code IS DISTINCT FROM ",
            $event,
            " THEN pg_catalog.format('event_code was %L and is %L', i.event_code, ",
            $event,
            ") END,
            CASE WHEN i.ticket_count <> ",
            $count,
            " THEN pg_catalog.format('ticket_count was %s and is %s', i.ticket_count, ",
            $count,
            ") END,
            CASE WHEN i.gross_amount <> ",
            $gross,
            " THEN pg_catalog.format('gross_amount was %s and is %s', i.gross_amount, ",
            $gross,
            ") END,
            CASE WHEN i.currency <> ",
            $currency,
            " THEN pg_catalog.format('currency was %s and is %s', i.currency, ",
            $currency,
            ") END,
            CASE WHEN i.ingestion_source <> ",
            $source,
            " THEN pg_catalog.format('source was %L and is %L', i.ingestion_source, ",
            $source,
            ") END)"
        )
    };
}
pub(super) use differences;

/// Both look-ups take the parameters of the INSERT; the one that a look-up does not need is named for its type.
const BY_KEY: &str = concat!(
    "SELECT ",
    composite!("true"),
    ", ",
    differences!("$4", "$5", "$6", "$7", "$8", "$9"),
    " FROM usher.ticket_revenue_ingestions AS i WHERE i.organization_id = $1 AND i.idempotency_key = $2 AND $3::text IS NOT DISTINCT FROM $3"
);

const BY_REFERENCE: &str = concat!(
    "SELECT ", composite!("true"), ", ", differences!("$4", "$5", "$6", "$7", "$8", "$9"),
    " FROM usher.ticket_revenue_ingestions AS i
      WHERE i.organization_id = $1 AND i.ingestion_source = $9 AND i.reference = $3 AND i.idempotency_key IS NULL AND $2::text IS NULL"
);

/// An equal sale of the last ten minutes that has not been taken back.
macro_rules! equal {
    ($event:literal) => {
        concat!(
            "(SELECT e.id FROM usher.ticket_revenue_ingestions AS e
               WHERE e.organization_id = $1 AND ", $event, " AND e.gross_amount = $7 AND e.ticket_count = $6
                 AND e.ingested_at > pg_catalog.now() - '10 minutes'::interval AND e.currency = $8 AND e.ingestion_source = $9
                 AND e.project_code IS NOT DISTINCT FROM $4 AND e.reverses IS NULL
                 AND NOT EXISTS (SELECT FROM usher.ticket_revenue_ingestions AS r WHERE r.organization_id = e.organization_id AND r.reverses = e.id)
               ORDER BY e.ingested_at DESC LIMIT 1)"
        )
    };
}

macro_rules! insert {
    ($equal:expr) => {
        concat!(
            "INSERT INTO usher.ticket_revenue_ingestions AS i (organization_id, idempotency_key, reference, project_code, event_code, ticket_count,
                    gross_amount, currency, ingestion_source, id, project_id, payload, possible_duplicate_of)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, ", $equal, ")
             ON CONFLICT DO NOTHING RETURNING ", composite!("false"), ", ", booking!(), ", i.possible_duplicate_of"
        )
    };
}

const INSERT: &str = insert!("NULL");
const INSERT_EQUAL_EVENT: &str = insert!(equal!("e.event_code = $5"));
const INSERT_EQUAL_NO_EVENT: &str = insert!(equal!("e.event_code IS NULL AND $5::text IS NULL"));

const REVERSE: &str = concat!(
    "INSERT INTO usher.ticket_revenue_ingestions AS i (organization_id, id, project_id, project_code, event_code, ticket_count, gross_amount,
            currency, ingestion_source, payload, reverses, reason)
     SELECT o.organization_id, $3, o.project_id, o.project_code, o.event_code, -o.ticket_count, -o.gross_amount,
            o.currency, o.ingestion_source, o.payload, o.id, $4
       FROM usher.ticket_revenue_ingestions AS o WHERE o.organization_id = $1 AND o.id = $2
     ON CONFLICT DO NOTHING RETURNING ", composite!("false"), ", ", booking!(), ", i.possible_duplicate_of"
);

const REVERSED: &str = concat!(
    "SELECT ",
    composite!("true"),
    " FROM usher.ticket_revenue_ingestions AS i WHERE i.organization_id = $1 AND i.reverses = $2"
);

/// Takes a sale in: one row, booked; or the row that an earlier call with the same key has made.
pub fn ingest(organization: Uuid, sale: Sale) -> Result<Row> {
    let installed = setup::current()?;
    let binding = binding::get(installed)?;
    let gross_amount = AnyNumeric::try_from(sale.gross_amount.as_str())
        .map_err(|e| UsherError::internal(format!("a checked amount is no number: {e}")))?;
    let mut arguments = vec![
        spi::arg(organization),
        spi::arg(sale.idempotency_key.clone()),
        spi::arg(sale.reference.clone()),
        spi::arg(sale.project_code.clone()),
        spi::arg(sale.event_code.clone()),
        spi::arg(sale.ticket_count),
        spi::arg(gross_amount),
        spi::arg(sale.currency.code.as_str()),
        spi::arg(sale.source.as_str()),
    ];
    if let Some(first) = earlier(installed, &sale, &arguments)? {
        return Ok(first);
    }
    let project = resolve(&binding, organization, &sale)?;
    let insert = match (sale.once(), &sale.event_code) {
        (Once::Never, event) => {
            wait_for_equal(organization, &sale);
            if event.is_some() { INSERT_EQUAL_EVENT } else { INSERT_EQUAL_NO_EVENT }
        }
        _ => INSERT,
    };
    arguments.push(spi::arg(ids::uuid_v7()));
    arguments.push(spi::arg(project));
    arguments.push(spi::arg(JsonB(sale.payload.clone())));
    if let Some((row, duplicate)) = booked(installed, &binding, organization, insert, &arguments)? {
        if let Some(duplicate) = duplicate {
            notice!(
                "this sale equals sale {duplicate} of the last ten minutes and is taken in as another one; give an idempotency_key or payload.reference to tell repeats from new sales"
            );
        }
        return Ok(row);
    }
    // Somebody was faster; the insertion has waited for that transaction.
    earlier(installed, &sale, &arguments[..9])?.ok_or_else(|| UsherError::internal("a sale was neither taken in nor found"))
}

/// The row of an earlier call with the same key or reference, if that call said the same.
fn earlier(installed: Installed, sale: &Sale, arguments: Args<'_>) -> Result<Option<Row>> {
    let (sql, what, given) = match sale.once() {
        Once::Key(key) => (BY_KEY, "idempotency_key", key),
        Once::Reference(reference) => (BY_REFERENCE, "reference", reference),
        Once::Never => return Ok(None),
    };
    let _acting = role::internal(installed.owner);
    let found = spi::all(sql, arguments, |table| Ok((table.get::<Row>(1)?, table.get::<String>(2)?.unwrap_or_default())))?;
    match found.into_iter().next() {
        None => Ok(None),
        Some((row, differences)) if differences.is_empty() => Ok(row),
        Some((_, differences)) => Err(differs(what, given, &differences)),
    }
}

/// The key or reference is that of a sale which was another one.
pub(super) fn differs(what: &str, given: &str, differences: &str) -> UsherError {
    UsherError::new(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, format!("{what} \"{given}\" belongs to another sale"))
        .detail(format!("The sale that was taken in with it differs: {differences}."))
        .hint(format!(
            "Repeat a call with what it said first; give a new sale its own {what}; correct a sale with usher.reverse_ticket_revenue() and take it in anew."
        ))
}

fn resolve(binding: &Binding, organization: Uuid, sale: &Sale) -> Result<Option<Uuid>> {
    let found = binding.resolve(organization, sale.project_code.as_deref(), sale.event_code.as_deref())?;
    known(sale.project_code.as_deref(), found)
}

/// A project code that is given means a project.
pub(super) fn known(project_code: Option<&str>, found: Option<Uuid>) -> Result<Option<Uuid>> {
    match (project_code, found) {
        (Some(code), None) => Err(UsherError::not_found(format!("project code \"{code}\" is unknown"))
            .hint("Check the spelling; an event without a project is taken in with project_code NULL.")),
        (_, found) => Ok(found),
    }
}

/// Two equal sales that arrive at once see each other: the second waits for the first.
fn wait_for_equal(organization: Uuid, sale: &Sale) {
    if LOCKS.get() < MOST_LOCKS {
        xact::at_end(forget);
        LOCKS.set(LOCKS.get() + 1);
        locks::take_equal(sale.fingerprint(organization.as_bytes()));
    }
}

/// Inserts a row and books it. None when the row was there already.
fn booked(
    installed: Installed,
    binding: &Binding,
    organization: Uuid,
    insert: &str,
    arguments: Args<'_>,
) -> Result<Option<(Row, Option<Uuid>)>> {
    Spi::connect_mut(|client| {
        let table = {
            let _acting = role::internal(installed.owner);
            spi::query(client, insert, arguments)?
        };
        if table.is_empty() {
            return Ok(None);
        }
        let table = table.first();
        let of_booking = (2..=12).map(|n| Ok(Raw::read(&table, n)?.arg())).collect::<Result<Vec<_>>>()?;
        binding.book(organization, &of_booking)?;
        let row = table.get::<Row>(1)?.ok_or_else(|| UsherError::internal("a new row could not be shown"))?;
        Ok(Some((row, table.get::<Uuid>(13)?)))
    })
}

fn unknown(ingestion: Uuid) -> UsherError {
    UsherError::not_found(format!("ticket revenue {ingestion} does not exist, or is not one of yours"))
        .hint("SELECT id, event_code, gross_amount FROM usher.ticket_revenue_ingestions shows what you may see.")
}

/// Takes a sale back: a row with the opposite signs, booked; or the row that an earlier call has made.
pub fn reverse(ingestion: Option<Uuid>, reason: Option<String>) -> Result<Row> {
    let installed = setup::current()?;
    let ingestion = ingestion.ok_or_else(|| {
        UsherError::invalid("the ingestion's id is missing").hint("Give the id that usher.ingest_ticket_revenue() returned.")
    })?;
    let organization = find(installed, ingestion)?;
    let reason = reason.filter(|text| !text.trim().is_empty()).ok_or_else(|| UsherError::missing("the reason"))?;
    let binding = binding::get(installed)?;
    if let Some(first) = reversed(installed, organization, ingestion)? {
        return Ok(first);
    }
    let arguments = [spi::arg(organization), spi::arg(ingestion), spi::arg(ids::uuid_v7()), spi::arg(reason)];
    match booked(installed, &binding, organization, REVERSE, &arguments)? {
        Some((row, _)) => Ok(row),
        None => reversed(installed, organization, ingestion)?.ok_or_else(|| unknown(ingestion)),
    }
}

fn reversed(installed: Installed, organization: Uuid, ingestion: Uuid) -> Result<Option<Row>> {
    let _acting = role::internal(installed.owner);
    spi::one::<Row>(REVERSED, &[spi::arg(organization), spi::arg(ingestion)])
}

/// The organization of a sale that the caller may take back. Whether another organization's exists is not told.
fn find(installed: Installed, ingestion: Uuid) -> Result<Uuid> {
    let mine = identity::organizations(Right::Read)?;
    let found = {
        let _acting = role::internal(installed.owner);
        spi::read_all(
            "SELECT organization_id, reverses FROM usher.ticket_revenue_ingestions WHERE id = $1 AND organization_id = ANY ($2)",
            &[spi::arg(ingestion), spi::arg(mine)],
            |row| Ok((row.get::<Uuid>(1)?, row.get::<Uuid>(2)?)),
        )?
    };
    let Some((Some(organization), reverses)) = found.into_iter().next() else { return Err(unknown(ingestion)) };
    if !identity::manages(organization)? {
        return Err(UsherError::forbidden("members may read ticket revenue, not change it")
            .detail(format!("You act as \"{}\".", identity::actor()))
            .hint("Ask an admin of the organization."));
    }
    audit::note_legend("reverse_ticket_revenue", organization)?;
    if let Some(of) = reverses {
        return Err(UsherError::state(format!("ticket revenue {ingestion} is itself a reversal"))
            .detail(format!("It takes {of} back."))
            .hint("Take the sale in anew with usher.ingest_ticket_revenue() and a key of its own."));
    }
    Ok(organization)
}
