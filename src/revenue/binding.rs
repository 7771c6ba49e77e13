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
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use pgrx::{FromDatum, IntoDatum, Uuid};
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

/// One bound function.
struct Bound {
    /// As the operator wrote it.
    named: String,
    schema: String,
    name: String,
    sql: String,
    parameters: &'static [Oid],
    signature: &'static str,
}

impl Bound {
    fn new(named: &str, parameters: &'static [Oid], signature: &'static str) -> Result<Self> {
        let (schema, name) = split(named).ok_or_else(|| {
            UsherError::invalid(format!("\"{named}\" is not a qualified function name"))
                .hint("Write schema.function, without arguments.")
        })?;
        let numbers = (1..=parameters.len()).map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT {}.{}({numbers})", quote_identifier(&schema), quote_identifier(&name));
        Ok(Self { named: named.to_owned(), schema, name, sql, parameters, signature })
    }

    fn find(&self) -> Option<Oid> {
        catalog::function(&self.schema, &self.name, self.parameters, pg_sys::UUIDOID)
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
    book: Bound,
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
    let found = spi::read_all("SELECT resolve, book, run_as::oid FROM usher.revenue_bindings", &[], |row| {
        Ok((
            row.get::<String>(1)?.unwrap_or_default(),
            row.get::<String>(2)?.unwrap_or_default(),
            row.get::<Oid>(3)?.unwrap_or(Oid::INVALID),
        ))
    })?;
    found
        .into_iter()
        .next()
        .map(|(resolve, book, run_as)| {
            Ok(Binding {
                resolve: Bound::new(&resolve, RESOLVE, RESOLVE_SIGNATURE)?,
                book: Bound::new(&book, BOOK, BOOK_SIGNATURE)?,
                run_as,
            })
        })
        .transpose()
}

/// Binds two functions, in place of those that were bound. Returns what is bound now, in words.
pub fn bind(installed: Installed, resolve: &str, book: &str, run_as: Option<&str>, pack: Option<&str>) -> Result<String> {
    let by = identity::actor();
    let run_as = chosen(run_as)?;
    let as_name = role::name_of(run_as).unwrap_or_default();
    let (resolve, book) = (Bound::new(resolve, RESOLVE, RESOLVE_SIGNATURE)?, Bound::new(book, BOOK, BOOK_SIGNATURE)?);
    for function in [&resolve, &book] {
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
        "INSERT INTO usher.revenue_bindings (resolve, book, run_as, pack, bound_by) VALUES ($1, $2, $3::oid::regrole, $4, $5)
         ON CONFLICT ON CONSTRAINT revenue_bindings_pkey DO UPDATE
            SET resolve = EXCLUDED.resolve, book = EXCLUDED.book, run_as = EXCLUDED.run_as, pack = EXCLUDED.pack,
                bound_by = EXCLUDED.bound_by, bound_at = pg_catalog.now()",
        &[
            spi::arg(resolve.named.as_str()),
            spi::arg(book.named.as_str()),
            spi::arg(run_as),
            spi::arg(pack.map(str::to_owned)),
            spi::arg(by),
        ],
    )?;
    changed(installed);
    if role::is_superuser(run_as) {
        warning!("ticket revenue is booked as superuser {as_name}: name a role with just the rights it needs in run_as");
    }
    Ok(format!("ticket revenue is resolved by {} and booked by {}, as {as_name}", resolve.named, book.named))
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
        self.call::<Uuid>(&self.resolve, organization, &arguments)
    }

    /// Books a row of `usher.ticket_revenue_ingestions`; the arguments are those of the bound function.
    pub fn book(&self, organization: Uuid, arguments: Args<'_>) -> Result<Uuid> {
        self.call::<Uuid>(&self.book, organization, arguments)?.ok_or_else(|| {
            UsherError::new(PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{} has booked nothing", self.book.named))
                .detail("A booking function returns the id of its journal; it returned NULL. Nothing was taken in.")
                .hint("Let it raise an error with the reason, or return the journal's id.")
        })
    }

    fn call<T: FromDatum + IntoDatum>(&self, function: &Bound, organization: Uuid, arguments: Args<'_>) -> Result<Option<T>> {
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
        let value = spi::one::<T>(&function.sql, arguments)?;
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
