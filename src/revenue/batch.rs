//! Taking many sales in together: a handful of statements for all of them, in one transaction.
//!
//! Each sale has a key or a reference: whoever sends a thousand at once sends them again when the answer is lost. What a
//! single sale may be besides, and what books it, is the same as in [`super::ingest`].

use super::binding;
use super::ingest::{differences, differs, known};
use super::sale::{Given, Once, Sale};
use crate::error::{Result, UsherError};
use crate::flow::fields;
use crate::pg::spi::{self, Raw};
use crate::pg::{ids, role};
use crate::setup;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// Sales of one call.
const MOST: usize = 10_000;

/// The arguments of `usher.ingest_ticket_revenue`, by which an object of the array says what it means.
const FIELDS: [&str; 8] =
    ["project_code", "event_code", "ticket_count", "gross_amount", "currency", "source", "payload", "idempotency_key"];

/// `unnest` of several arrays is the grammar's, in which no schema is looked at. Sale by sale by an index: a plan that was
/// made while there were few rows must not read all of them when there are many.
const FOUND: &str = concat!(
    "SELECT s.n, i.id, ",
    differences!("s.project_code", "s.event_code", "s.ticket_count", "s.gross_amount", "s.currency", "s.source"),
    " FROM unnest($2, $3, $4, $5, $6, $7, $8::numeric[], $9, $10)
             AS s (n, key, reference, project_code, event_code, ticket_count, gross_amount, currency, source)
     CROSS JOIN LATERAL (
         (SELECT * FROM usher.ticket_revenue_ingestions AS k WHERE k.organization_id = $1 AND k.idempotency_key = s.key LIMIT 1)
         UNION ALL
         (SELECT * FROM usher.ticket_revenue_ingestions AS r
           WHERE s.key IS NULL AND r.organization_id = $1 AND r.ingestion_source = s.source AND r.reference = s.reference
             AND r.idempotency_key IS NULL LIMIT 1)) AS i"
);

/// Makes the rows and says of those that were not there yet what a booking function for batches is given. By key, so that
/// two who take the same ones in wait for each other and do not meet crosswise.
const INSERT: &str = "
    WITH made AS (
        INSERT INTO usher.ticket_revenue_ingestions (organization_id, idempotency_key, reference, project_code, event_code,
               ticket_count, gross_amount, currency, ingestion_source, id, project_id, payload)
        SELECT $1, s.key, s.reference, s.project_code, s.event_code, s.ticket_count, s.gross_amount, s.currency, s.source, s.id, s.project_id, s.payload
          FROM unnest($2, $3, $4, $5, $6, $7::numeric[], $8, $9, $10, $11, $12)
               AS s (key, reference, project_code, event_code, ticket_count, gross_amount, currency, source, id, project_id, payload)
         ORDER BY s.key, s.source, s.reference
        ON CONFLICT DO NOTHING RETURNING *)
    SELECT pg_catalog.array_agg(m.id), pg_catalog.array_agg(m.project_id), pg_catalog.array_agg(m.event_code),
           pg_catalog.array_agg(m.ticket_count), pg_catalog.array_agg(m.gross_amount), pg_catalog.array_agg(m.currency),
           pg_catalog.array_agg(m.ingestion_source), pg_catalog.array_agg(m.payload), pg_catalog.array_agg(m.ingested_at)
      FROM made AS m";

/// Reads the sales of a call. Pure.
pub fn read(sales: Value) -> Result<Vec<Sale>> {
    let Value::Array(sales) = sales else {
        return Err(UsherError::invalid("the sales are not a JSON array").hint(
            "Give [{\"event_code\": \"gala\", \"ticket_count\": 2, \"gross_amount\": \"90.00\", \"idempotency_key\": \"S-1\"}, …].",
        ));
    };
    if sales.len() > MOST {
        return Err(UsherError::invalid(format!("these are {} sales", sales.len()))
            .hint(format!("At most {MOST} are taken in by one call: make several.")));
    }
    sales
        .into_iter()
        .enumerate()
        .map(|(n, sale)| {
            one(sale).map_err(|mut error| {
                error.message = format!("sale {}: {}", n + 1, error.message);
                error
            })
        })
        .collect()
}

fn one(sale: Value) -> Result<Sale> {
    let Value::Object(mut sale) = sale else {
        return Err(UsherError::invalid("it is not a JSON object").hint(format!("Its fields are {}.", FIELDS.join(", "))));
    };
    fields::known_keys(&sale, &FIELDS, "a sale").map_err(|refused| UsherError::invalid(refused.message).hint(refused.hint))?;
    let sale = Sale::check(Given {
        project_code: text(&mut sale, "project_code")?,
        event_code: text(&mut sale, "event_code")?,
        ticket_count: count(&mut sale)?,
        gross_amount: amount(&mut sale)?,
        currency: text(&mut sale, "currency")?.or_else(|| Some("USD".to_owned())),
        source: text(&mut sale, "source")?.or_else(|| Some("gvteway".to_owned())),
        payload: sale.remove("payload").filter(|payload| !payload.is_null()),
        idempotency_key: text(&mut sale, "idempotency_key")?,
    })?;
    match sale.once() {
        Once::Never => Err(UsherError::invalid("it has neither idempotency_key nor payload.reference")
            .hint("Give one of them, so that the whole call can be repeated; a sale without them is taken in by usher.ingest_ticket_revenue().")),
        _ => Ok(sale),
    }
}

fn text(sale: &mut Map<String, Value>, key: &str) -> Result<Option<String>> {
    match sale.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(UsherError::invalid(format!("{key} is not a text")).hint("Put it in quotes.")),
    }
}

fn count(sale: &mut Map<String, Value>) -> Result<Option<i32>> {
    match sale.remove("ticket_count") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().and_then(|count| i32::try_from(count).ok()).map(Some).ok_or_else(|| {
            UsherError::invalid("ticket_count is not a whole number").hint("Write \"ticket_count\": 2, without quotes.")
        }),
    }
}

/// A number, digit for digit, or a text.
fn amount(sale: &mut Map<String, Value>) -> Result<Option<String>> {
    match sale.remove("gross_amount") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(UsherError::invalid("gross_amount is no amount").hint("Write \"gross_amount\": \"90.00\".")),
    }
}

/// Takes the sales in: all of them, or none. Returns for each, in their order, the id of its row and whether that was there
/// before.
pub fn ingest(organization: Uuid, mut sales: Vec<Sale>) -> Result<Vec<(Uuid, bool)>> {
    if sales.is_empty() {
        return Ok(Vec::new());
    }
    let installed = setup::current()?;
    let binding = binding::get(installed)?;
    let mut rows: Vec<Option<(Uuid, bool)>> = vec![None; sales.len()];
    {
        let _acting = role::internal(installed.owner);
        earlier(organization, &sales, &mut rows)?;
    }
    let new: Vec<usize> = (0..sales.len()).filter(|n| rows[*n].is_none()).collect();
    if !new.is_empty() {
        let projects = resolve(&binding, organization, &sales, &new)?;
        let ids: Vec<Uuid> = new.iter().map(|_| ids::uuid_v7()).collect();
        let of: HashMap<[u8; 16], usize> = ids.iter().zip(&new).map(|(id, n)| (*id.as_bytes(), *n)).collect();
        let payloads = new.iter().map(|n| JsonB(std::mem::take(&mut sales[*n].payload))).collect();
        let arguments = insertion(organization, &sales, &new, &ids, projects, payloads);
        let made = Spi::connect_mut(|client| {
            let table = {
                let _acting = role::internal(installed.owner);
                spi::query(client, INSERT, &arguments)?
            };
            let table = table.first();
            let made = table.get::<Vec<Uuid>>(1)?.unwrap_or_default();
            if !made.is_empty() {
                let mut booking = vec![spi::arg(organization)];
                for column in 1..=9 {
                    booking.push(Raw::read(&table, column)?.arg());
                }
                binding.book_batch(organization, &booking, made.len())?;
            }
            Ok::<_, UsherError>(made)
        })?;
        for id in made {
            if let Some(n) = of.get(id.as_bytes()) {
                rows[*n] = Some((id, false));
            }
        }
        // Somebody was faster, or the array has one twice.
        if rows.iter().any(Option::is_none) {
            let _acting = role::internal(installed.owner);
            earlier(organization, &sales, &mut rows)?;
        }
    }
    let rows: Vec<(Uuid, bool)> = rows.into_iter().flatten().collect();
    if rows.len() < sales.len() {
        return Err(UsherError::internal("a sale was neither taken in nor found"));
    }
    Ok(rows)
}

/// Notes the rows that there are of sales which have none yet, if they said the same.
fn earlier(organization: Uuid, sales: &[Sale], rows: &mut [Option<(Uuid, bool)>]) -> Result<()> {
    let open: Vec<usize> = (0..sales.len()).filter(|n| rows[*n].is_none()).collect();
    let each = |n: &usize| &sales[*n];
    let arguments = [
        spi::arg(organization),
        spi::arg(open.iter().map(|n| i32::try_from(*n).unwrap_or(-1)).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).idempotency_key.clone()).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).reference.clone()).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).project_code.clone()).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).event_code.clone()).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).ticket_count).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).gross_amount.clone()).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).currency.code.clone()).collect::<Vec<_>>()),
        spi::arg(open.iter().map(|n| each(n).source.clone()).collect::<Vec<_>>()),
    ];
    let found = spi::all(FOUND, &arguments, |row| {
        Ok((row.get::<i32>(1)?.unwrap_or(-1), row.get::<Uuid>(2)?, row.get::<String>(3)?.unwrap_or_default()))
    })?;
    for (n, id, differences) in found {
        let n = usize::try_from(n).map_err(|_| UsherError::internal("a sale without its number"))?;
        if !differences.is_empty() {
            let mut error = match sales[n].once() {
                Once::Reference(reference) => differs("reference", reference, &differences),
                Once::Key(key) => differs("idempotency_key", key, &differences),
                Once::Never => UsherError::internal("a sale without a key was found"),
            };
            error.message = format!("sale {}: {}", n + 1, error.message);
            return Err(error);
        }
        rows[n] = id.map(|id| (id, true));
    }
    Ok(())
}

/// The projects of some sales, each pair of codes asked for once.
fn resolve(binding: &binding::Binding, organization: Uuid, sales: &[Sale], new: &[usize]) -> Result<Vec<Option<Uuid>>> {
    let codes = |n: usize| (sales[n].project_code.clone(), sales[n].event_code.clone());
    let mut places: BTreeMap<(Option<String>, Option<String>), usize> = new.iter().map(|n| (codes(*n), 0)).collect();
    places.values_mut().enumerate().for_each(|(at, place)| *place = at);
    let pairs: Vec<_> = places.keys().cloned().collect();
    let found = binding.resolve_each(organization, &pairs)?;
    new.iter()
        .map(|n| {
            let at = places.get(&codes(*n)).copied().unwrap_or(0);
            known(sales[*n].project_code.as_deref(), found[at]).map_err(|mut error| {
                error.message = format!("sale {}: {}", n + 1, error.message);
                error
            })
        })
        .collect()
}

fn insertion(
    organization: Uuid,
    sales: &[Sale],
    new: &[usize],
    ids: &[Uuid],
    projects: Vec<Option<Uuid>>,
    payloads: Vec<JsonB>,
) -> Vec<DatumWithOid<'static>> {
    let new: Vec<&Sale> = new.iter().map(|n| &sales[*n]).collect();
    vec![
        spi::arg(organization),
        spi::arg(new.iter().map(|sale| sale.idempotency_key.clone()).collect::<Vec<_>>()),
        spi::arg(new.iter().map(|sale| sale.reference.clone()).collect::<Vec<_>>()),
        spi::arg(new.iter().map(|sale| sale.project_code.clone()).collect::<Vec<_>>()),
        spi::arg(new.iter().map(|sale| sale.event_code.clone()).collect::<Vec<_>>()),
        spi::arg(new.iter().map(|sale| sale.ticket_count).collect::<Vec<_>>()),
        spi::arg(new.iter().map(|sale| sale.gross_amount.clone()).collect::<Vec<_>>()),
        spi::arg(new.iter().map(|sale| sale.currency.code.clone()).collect::<Vec<_>>()),
        spi::arg(new.iter().map(|sale| sale.source.clone()).collect::<Vec<_>>()),
        spi::arg(ids.to_vec()),
        spi::arg(projects),
        spi::arg(payloads),
    ]
}

#[cfg(test)]
mod unit {
    use super::*;
    use serde_json::json;

    fn sale() -> Value {
        json!({"event_code": "E-1", "ticket_count": 2, "gross_amount": 90.10, "idempotency_key": "S-1"})
    }

    fn refused(change: impl FnOnce(&mut Map<String, Value>)) -> String {
        let mut second = sale();
        change(second.as_object_mut().unwrap());
        let error = read(json!([sale(), second])).unwrap_err();
        assert!(error.hint.is_some() && error.message.starts_with("sale 2: "), "{error}");
        error.message
    }

    #[test]
    fn sales_are_read_as_a_single_one_is() {
        let sales = read(json!([sale(), {"project_code": "P", "ticket_count": 0, "gross_amount": "7", "currency": "jpy", "payload": {"reference": 7}}])).unwrap();
        assert_eq!(
            (sales[0].gross_amount.as_str(), sales[0].source.as_str(), sales[0].once()),
            ("90.10", "gvteway", Once::Key("S-1"))
        );
        assert_eq!((sales[1].gross_amount.as_str(), sales[1].once()), ("7", Once::Reference("7")));
        assert!(read(json!([])).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_one_is_named() {
        assert!(refused(|s| drop(s.insert("gros_amount".into(), json!(1)))).contains("gros_amount"));
        assert!(refused(|s| drop(s.insert("ticket_count".into(), json!("2")))).contains("ticket_count"));
        assert!(refused(|s| drop(s.insert("ticket_count".into(), json!(1e12)))).contains("ticket_count"));
        assert!(refused(|s| drop(s.insert("gross_amount".into(), json!([])))).contains("gross_amount"));
        assert!(refused(|s| drop(s.insert("event_code".into(), json!(1)))).contains("event_code"));
        assert!(refused(|s| drop(s.remove("idempotency_key"))).contains("neither"));
        assert!(refused(|s| drop(s.remove("gross_amount"))).contains("gross_amount"));
        assert!(read(json!([sale(), 5])).unwrap_err().message.starts_with("sale 2: "));
        assert!(read(json!({})).is_err());
        assert!(read(Value::Array(vec![sale(); MOST + 1])).unwrap_err().hint.is_some());
    }
}
