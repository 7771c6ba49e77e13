//! Whose functions resolve codes and book, and calling them.
//!
//! Functions are kept as text and looked up for every call: one that is dropped and made again is found, one that is gone
//! is said. They run behind the fence of a flow's effect, with the rights of the role that the binding names.

use crate::error::{Result, UsherError};
use crate::flow::catalog::split;
use crate::pg::guc::Nest;
use crate::pg::spi::{self, Args};
use crate::pg::{catalog, relcache, role, xact};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::Uuid;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use std::cell::RefCell;
use std::rc::Rc;

const RESOLVE: &[Oid] = &[pg_sys::UUIDOID, pg_sys::TEXTOID, pg_sys::TEXTOID];
const RESOLVE_SIGNATURE: &str = "(organization_id uuid, project_code text, event_code text) RETURNS uuid";
const BOOK: &[Oid] = &[
    pg_sys::UUIDOID,
    pg_sys::UUIDOID,
    pg_sys::UUIDOID,
    pg_sys::UUIDOID,
    pg_sys::TEXTOID,
    pg_sys::INT4OID,
    pg_sys::NUMERICOID,
    pg_sys::TEXTOID,
    pg_sys::TEXTOID,
    pg_sys::JSONBOID,
    pg_sys::TIMESTAMPTZOID,
];
const BOOK_SIGNATURE: &str = "(organization_id uuid, ingestion_id uuid, reverses uuid, project_id uuid, event_code text, ticket_count integer, \
    gross_amount numeric, currency text, source text, payload jsonb, ingested_at timestamptz) RETURNS uuid";
const BOOK_BATCH: &[Oid] = &[
    pg_sys::UUIDOID,
    pg_sys::UUIDARRAYOID,
    pg_sys::UUIDARRAYOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::INT4ARRAYOID,
    pg_sys::NUMERICARRAYOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::TEXTARRAYOID,
    pg_sys::JSONBARRAYOID,
    pg_sys::TIMESTAMPTZARRAYOID,
];
const BOOK_BATCH_SIGNATURE: &str = "(organization_id uuid, ingestion_ids uuid[], project_ids uuid[], event_codes text[], ticket_counts integer[], \
    gross_amounts numeric[], currencies text[], sources text[], payloads jsonb[], ingested_at timestamptz[]) RETURNS uuid[]";

/// One bound function.
struct Bound {
    /// As the operator wrote it.
    named: String,
    schema: String,
    name: String,
    sql: String,
    parameters: &'static [Oid],
    result: Oid,
    signature: &'static str,
}

impl Bound {
    fn resolve(named: &str) -> Result<Self> {
        Self::new(named, RESOLVE, pg_sys::UUIDOID, RESOLVE_SIGNATURE)
    }

    fn book(named: &str) -> Result<Self> {
        Self::new(named, BOOK, pg_sys::UUIDOID, BOOK_SIGNATURE)
    }

    fn book_batch(named: &str) -> Result<Self> {
        Self::new(named, BOOK_BATCH, pg_sys::UUIDARRAYOID, BOOK_BATCH_SIGNATURE)
    }

    fn new(named: &str, parameters: &'static [Oid], result: Oid, signature: &'static str) -> Result<Self> {
        let (schema, name) = split(named).ok_or_else(|| {
            UsherError::invalid(format!("\"{named}\" is not a qualified function name"))
                .hint("Write schema.function, without arguments.")
        })?;
        let numbers = (1..=parameters.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {}.{}({numbers})", quote_identifier(&schema), quote_identifier(&name));
        Ok(Self { named: named.to_owned(), schema, name, sql, parameters, result, signature })
    }

    fn sql_name(&self) -> String {
        format!("{}.{}", quote_identifier(&self.schema), quote_identifier(&self.name))
    }

    fn find(&self) -> Option<Oid> {
        catalog::function(&self.schema, &self.name, self.parameters, self.result)
    }

    fn missing(&self) -> UsherError {
        UsherError::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            format!("function {} is not there, or not with the parameters that ticket revenue needs", self.named),
        )
        .detail(format!("It must be {}{}.", self.named, self.signature))
    }
}

pub struct Binding {
    resolve: Bound,
    /// All codes of a batch by one statement.
    resolve_each: String,
    book: Bound,
    /// All sales of a batch by one statement, where nothing is bound that takes them together.
    book_each: String,
    book_batch: Option<Bound>,
    run_as: Oid,
}

thread_local! {
    /// The binding as of a generation of `usher.flows`, which a change of the binding moves on, too.
    static KNOWN: RefCell<Option<(u64, Option<Rc<Binding>>)>> = const { RefCell::new(None) };
}

/// The binding of this installation, or what to do about there being none.
pub fn get(installed: Installed) -> Result<Rc<Binding>> {
    let generation = relcache::generation();
    let known = KNOWN.with_borrow(|known| known.as_ref().filter(|(at, _)| *at == generation).map(|(_, found)| found.clone()));
    let found = match known {
        Some(found) => found,
        None => {
            xact::remember_only_now();
            let found = load(installed)?.map(Rc::new);
            KNOWN.set(Some((generation, found.clone())));
            found
        }
    };
    found.ok_or_else(|| {
        UsherError::state("nothing is bound that could book ticket revenue")
            .detail(
                "Which project a code means and which accounts a sale moves is for a pack, or for functions of your own, to say.",
            )
            .hint("Let an operator run SELECT usher.install_pack('live_events'); or usher.bind_ticket_revenue(resolve, book).")
    })
}

fn load(installed: Installed) -> Result<Option<Binding>> {
    let _acting = role::internal(installed.owner);
    let found = spi::read_all("SELECT resolve, book, run_as::oid, book_batch FROM usher.revenue_bindings", &[], |row| {
        Ok((
            row.get::<String>(1)?.unwrap_or_default(),
            row.get::<String>(2)?.unwrap_or_default(),
            row.get::<Oid>(3)?.unwrap_or(Oid::INVALID),
            row.get::<String>(4)?,
        ))
    })?;
    found
        .into_iter()
        .next()
        .map(|(resolve, book, run_as, book_batch)| {
            let (resolve, book) = (Bound::resolve(&resolve)?, Bound::book(&book)?);
            Ok(Binding {
                resolve_each: format!(
                    "SELECT c.n::integer, {}($1, c.project, c.event) FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS c (project, event, n)",
                    resolve.sql_name()
                ),
                book_each: format!(
                    "SELECT pg_catalog.array_agg({}($1, s.id, NULL::pg_catalog.uuid, s.project, s.event, s.tickets, s.gross, s.currency, s.source, s.payload, s.at))
                       FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10) AS s (id, project, event, tickets, gross, currency, source, payload, at)",
                    book.sql_name()
                ),
                resolve,
                book,
                book_batch: book_batch.as_deref().map(Bound::book_batch).transpose()?,
                run_as,
            })
        })
        .transpose()
}

/// What is to be bound, as it is written.
pub struct Given<'a> {
    pub resolve: &'a str,
    pub book: &'a str,
    pub book_batch: Option<&'a str>,
    pub run_as: Option<&'a str>,
    pub pack: Option<&'a str>,
}

/// Binds functions, in place of those that were bound. Returns what is bound now, in words.
pub fn bind(installed: Installed, given: &Given<'_>) -> Result<String> {
    let by = identity::actor();
    let run_as = chosen(given.run_as)?;
    let as_name = role::name_of(run_as).unwrap_or_default();
    let (resolve, book) = (Bound::resolve(given.resolve)?, Bound::book(given.book)?);
    let book_batch = given.book_batch.map(Bound::book_batch).transpose()?;
    for function in [&resolve, &book].into_iter().chain(&book_batch) {
        let oid = function
            .find()
            .ok_or_else(|| function.missing().hint("Create it, then bind it; other functions of the same name do no harm."))?;
        let _path = Nest::pinned_path();
        let allowed = spi::read::<bool>(
            "SELECT pg_catalog.has_function_privilege($1, $2, 'EXECUTE') AND pg_catalog.has_schema_privilege($1, $3, 'USAGE')",
            &[spi::arg(run_as), spi::arg(oid), spi::arg(function.schema.as_str())],
        )?;
        if allowed != Some(true) {
            return Err(UsherError::forbidden(format!("{as_name} may not call {}", function.named)).hint(format!(
                "GRANT USAGE ON SCHEMA {} TO {as_name} and GRANT EXECUTE ON FUNCTION {} TO {as_name}, or name another role in run_as.",
                function.schema, function.named
            )));
        }
    }
    let _acting = role::internal(installed.owner);
    spi::run(
        "INSERT INTO usher.revenue_bindings (resolve, book, run_as, pack, bound_by, book_batch) VALUES ($1, $2, $3::oid::regrole, $4, $5, $6)
         ON CONFLICT ON CONSTRAINT revenue_bindings_pkey DO UPDATE
            SET resolve = EXCLUDED.resolve, book = EXCLUDED.book, run_as = EXCLUDED.run_as, pack = EXCLUDED.pack,
                bound_by = EXCLUDED.bound_by, book_batch = EXCLUDED.book_batch, bound_at = pg_catalog.now()",
        &[
            spi::arg(resolve.named.as_str()),
            spi::arg(book.named.as_str()),
            spi::arg(run_as),
            spi::arg(given.pack.map(str::to_owned)),
            spi::arg(by),
            spi::arg(book_batch.as_ref().map(|function| function.named.clone())),
        ],
    )?;
    changed(installed);
    if role::is_superuser(run_as) {
        warning!("ticket revenue is booked as superuser {as_name}: name a role with just the rights it needs in run_as");
    }
    let batches = book_batch.map_or_else(String::new, |function| format!(", batches by {}", function.named));
    Ok(format!("ticket revenue is resolved by {} and booked by {}{batches}, as {as_name}", resolve.named, book.named))
}

/// The binding's pack, if there is a binding: `Some(None)` is an operator's own.
pub fn holder(installed: Installed) -> Result<Option<Option<String>>> {
    let _acting = role::internal(installed.owner);
    let found = spi::read_all("SELECT pack FROM usher.revenue_bindings", &[], |row| Ok(row.get::<String>(1)?))?;
    Ok(found.into_iter().next())
}

/// Ends the binding: any, or only that of a pack. False when there was none.
pub fn unbind(installed: Installed, pack: Option<&str>) -> Result<bool> {
    let _acting = role::internal(installed.owner);
    let gone =
        spi::run("DELETE FROM usher.revenue_bindings WHERE $1 IS NULL OR pack = $1", &[spi::arg(pack.map(str::to_owned))])?;
    changed(installed);
    Ok(gone > 0)
}

/// Every session forgets the binding when this transaction commits; this one now.
fn changed(installed: Installed) {
    catalog::invalidate(installed.flows);
    KNOWN.set(None);
}

/// The role that the functions run as: the one named, else the caller.
fn chosen(named: Option<&str>) -> Result<Oid> {
    let me = role::current();
    let Some(named) = named else { return Ok(me) };
    let found = role::by_name(named).ok_or_else(|| {
        UsherError::not_found(format!("role \"{named}\" in run_as does not exist"))
            .hint("Create the role, or name one that exists.")
    })?;
    if !role::is_member(me, found) {
        return Err(UsherError::forbidden(format!("you may not let ticket revenue be booked as \"{named}\""))
            .hint(format!("Ask for GRANT {named} TO your role.")));
    }
    Ok(found)
}

impl Binding {
    /// What the codes mean; None when the bound function knows nothing of them.
    pub fn resolve(&self, organization: Uuid, project_code: Option<&str>, event_code: Option<&str>) -> Result<Option<Uuid>> {
        let arguments =
            [spi::arg(organization), spi::arg(project_code.map(str::to_owned)), spi::arg(event_code.map(str::to_owned))];
        self.call(&self.resolve, organization, || spi::one::<Uuid>(&self.resolve.sql, &arguments))
    }

    /// The same for many pairs of codes, in their order.
    pub fn resolve_each(&self, organization: Uuid, codes: &[(Option<String>, Option<String>)]) -> Result<Vec<Option<Uuid>>> {
        let (projects, events): (Vec<_>, Vec<_>) = codes.iter().cloned().unzip();
        let arguments = [spi::arg(organization), spi::arg(projects), spi::arg(events)];
        let found = self.call(&self.resolve, organization, || {
            spi::all(&self.resolve_each, &arguments, |row| Ok((row.get::<i32>(1)?.unwrap_or(0), row.get::<Uuid>(2)?)))
        })?;
        let mut projects = vec![None; codes.len()];
        for (n, project) in found {
            if let Some(place) = usize::try_from(n - 1).ok().and_then(|n| projects.get_mut(n)) {
                *place = project;
            }
        }
        Ok(projects)
    }

    /// Books a row of `usher.ticket_revenue_ingestions`; the arguments are those of the bound function.
    pub fn book(&self, organization: Uuid, arguments: Args<'_>) -> Result<Uuid> {
        self.call(&self.book, organization, || spi::one::<Uuid>(&self.book.sql, arguments))?
            .ok_or_else(|| Self::nothing_booked(&self.book))
    }

    /// Books `count` rows together; the arguments are those of a function for batches: the organization, then arrays.
    pub fn book_batch(&self, organization: Uuid, arguments: Args<'_>, count: usize) -> Result<()> {
        let (function, sql) = match &self.book_batch {
            Some(function) => (function, &function.sql),
            None => (&self.book, &self.book_each),
        };
        let journals = self.call(function, organization, || spi::one::<Vec<Option<Uuid>>>(sql, arguments))?;
        let booked = journals.unwrap_or_default().into_iter().flatten().count();
        if booked < count { Err(Self::nothing_booked(function)) } else { Ok(()) }
    }

    fn nothing_booked(function: &Bound) -> UsherError {
        UsherError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{} has booked nothing", function.named))
            .detail("A booking function returns the id of its journal; it returned NULL. Nothing was taken in.")
            .hint("Let it raise an error with the reason, or return the journal's id.")
    }

    fn call<T>(&self, function: &Bound, organization: Uuid, run: impl FnOnce() -> Result<T>) -> Result<T> {
        if function.find().is_none() {
            return Err(function.missing().hint(
                "Make it again, or let an operator bind another with usher.bind_ticket_revenue(); a pack's function comes back with usher.install_pack().",
            ));
        }
        if role::name_of(self.run_as).is_none() {
            return Err(UsherError::not_found("the role that ticket revenue is booked as is gone").hint(
                "Let an operator name another: usher.bind_ticket_revenue(resolve, book, run_as), or install the pack again.",
            ));
        }
        let _fence = Nest::fence();
        // Deferred triggers would run at COMMIT, with the rights of whoever commits.
        let before = if xact::may_defer()? { Some(xact::pending(true)?) } else { None };
        let _for_flow = identity::for_flow(Some(organization));
        let _acting = role::act_as(self.run_as);
        let value = run()?;
        if let Some(before) = &before
            && !xact::pending(true)?.is_subset(before)
        {
            return Err(UsherError::state(format!(
                "{} left something for COMMIT, where it would run with other rights",
                function.named
            ))
            .detail("A deferred trigger on a table that it writes is pending.")
            .hint("Make the trigger immediate; a statement-level trigger can check a whole journal at once."));
        }
        Ok(value)
    }
}
