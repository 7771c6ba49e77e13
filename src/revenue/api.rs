//! SQL functions for ticket revenue: what clients call over a connection or PostgREST.

use super::sale::{Given, Sale};
use super::{batch, binding, ingest};
use crate::error::UsherError;
use crate::guard::audit;
use crate::rates;
use crate::registry::identity::{self, Right};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

/// Takes a sale in and has it booked, in one transaction. Returns the row; a call that repeats an earlier one returns that
/// one's row with `repeated`.
///
/// Arguments: `organization` (slug or id); `project_code`, NULL for an event without a project; `event_code`;
/// `ticket_count`; `gross_amount` in `currency` (ISO 4217), with no more digits than its minor unit; `source`, who sold;
/// `payload`, an object whose `reference` is the source's own number of the sale; `idempotency_key`, which comes before
/// the reference. Equal sales with neither are two sales: the second names the first in `possible_duplicate_of`.
/// Errors: 42501 unless the caller is an admin of the organization; 22023 for wrong input; 22003 for an amount out of
/// range; 42704 for an unknown project code; 23505 when the key or reference belongs to another sale; 55000 when nothing
/// is bound; and whatever the bound functions raise.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::too_many_arguments, reason = "the names of the seed documents' RPC")]
fn ingest_ticket_revenue(
    organization: Option<String>,
    project_code: Option<String>,
    event_code: Option<String>,
    ticket_count: Option<i32>,
    gross_amount: Option<AnyNumeric>,
    currency: default!(Option<String>, "'USD'"),
    source: default!(Option<String>, "'gvteway'"),
    payload: default!(Option<JsonB>, "'{}'"),
    idempotency_key: default!(Option<String>, "NULL"),
) -> Result<pgrx::composite_type!('static, "usher.ticket_revenue_ingestion"), ErrorReport> {
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    audit::note_legend("ingest_ticket_revenue", organization)?;
    rates::take("ingest_ticket_revenue", Some(organization))?;
    let sale = Sale::check(Given {
        project_code,
        event_code,
        ticket_count,
        gross_amount: gross_amount.map(|amount| amount.to_string()),
        currency,
        source,
        payload: payload.map(|payload| payload.0),
        idempotency_key,
    })?;
    Ok(ingest::ingest(organization, sale)?)
}

/// Takes many sales in, in one transaction: all of them, or none. Returns for each, in the order of the array, its number
/// from 1, the id of its row, and whether an earlier call has made that.
///
/// Arguments: `organization` (slug or id); `sales`, an array of at most 10,000 objects with the arguments of
/// `usher.ingest_ticket_revenue` by name (`gross_amount` as a number or a text). Each has an `idempotency_key` or a
/// `payload.reference`, so that the call can be repeated; one that is there twice is taken in once.
/// Errors: those of `usher.ingest_ticket_revenue`, with the number of the sale, from 1.
#[pg_extern(volatile, parallel_unsafe)]
fn ingest_ticket_revenue_batch(
    organization: Option<String>,
    sales: Option<JsonB>,
) -> Result<TableIterator<'static, (name!(sale, i32), name!(id, Uuid), name!(repeated, bool))>, ErrorReport> {
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    audit::note_legend("ingest_ticket_revenue_batch", organization)?;
    rates::take("ingest_ticket_revenue_batch", Some(organization))?;
    let sales = sales.ok_or_else(|| UsherError::missing("the array of sales"))?;
    let sales = batch::read(sales.0)?;
    let rows = batch::ingest(organization, sales)?;
    Ok(TableIterator::new((1..).zip(rows).map(|(sale, (id, repeated))| (sale, id, repeated))))
}

/// Takes a sale back: a row of its own with the opposite signs, which names it in `reverses`, and its booking. A second
/// call returns the first one's row with `repeated`.
///
/// Arguments: `ingestion`, the id of the sale; `reason`, kept with the row.
/// Errors: 42501 for members who may only read; 42704 for a sale that is not the caller's; 22023 without a reason; 55000
/// for a row that is itself a reversal, or when nothing is bound.
#[pg_extern(volatile, parallel_unsafe)]
fn reverse_ticket_revenue(
    ingestion: Option<Uuid>,
    reason: Option<String>,
) -> Result<pgrx::composite_type!('static, "usher.ticket_revenue_ingestion"), ErrorReport> {
    rates::take("reverse_ticket_revenue", None)?;
    Ok(ingest::reverse(ingestion, reason)?)
}

/// Names the functions that resolve codes and book ticket revenue (`schema.function`), in place of those bound before.
///
/// Arguments: `resolve`, a function `(organization_id uuid, project_code text, event_code text)` that returns the
/// project's id or NULL; `book`, a function `(organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid,
/// event_code text, ticket_count integer, gross_amount numeric, currency text, source text, payload jsonb,
/// ingested_at timestamptz)` that returns its journal's id; `run_as`, the role that they run as (by default the caller);
/// `book_batch`, a function that takes the sales of `usher.ingest_ticket_revenue_batch` together: `(organization_id uuid,
/// ingestion_ids uuid[], project_ids uuid[], event_codes text[], ticket_counts integer[], gross_amounts numeric[],
/// currencies text[], sources text[], payloads jsonb[], ingested_at timestamptz[])` that returns their journals' ids
/// (without it, `book` is called for each).
/// Errors: 42501 for callers who are no operators, may not use `run_as`, or name a role that may not call the functions;
/// 42883 for a function that is not there; 42704 for an unknown role; 22023 for a name without its schema.
#[pg_extern(volatile, parallel_unsafe)]
fn bind_ticket_revenue(
    resolve: Option<String>,
    book: Option<String>,
    run_as: default!(Option<String>, "NULL"),
    book_batch: default!(Option<String>, "NULL"),
) -> Result<String, ErrorReport> {
    identity::require_operator("bind ticket revenue")?;
    let installed = crate::setup::current()?;
    let (resolve, book) =
        (UsherError::given(resolve, "the resolving function")?, UsherError::given(book, "the booking function")?);
    let given = binding::Given {
        resolve: &resolve,
        book: &book,
        book_batch: book_batch.as_deref(),
        run_as: run_as.as_deref(),
        pack: None,
    };
    Ok(binding::bind(installed, &given)?)
}

/// Ends what `usher.bind_ticket_revenue` began. Errors: 42501 for callers who are no operators.
#[pg_extern(volatile, parallel_unsafe)]
fn unbind_ticket_revenue() -> Result<String, ErrorReport> {
    identity::require_operator("unbind ticket revenue")?;
    let installed = crate::setup::current()?;
    let words =
        if binding::unbind(installed, None)? { "ticket revenue is not bound any more" } else { "ticket revenue was not bound" };
    Ok(words.to_owned())
}
