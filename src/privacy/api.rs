//! SQL functions of privacy.

use super::declare::{self, Definition};
use super::mask::Mask;
use super::retention::{self, Action};
use super::{erase, export, graph, receipt, rows, store};
use crate::error::{Result, UsherError, did_you_mean};
use crate::guard::audit;
use crate::pg::guc::Nest;
use crate::pg::{ids, role, spi};
use crate::registry::identity::{self, Right};
use crate::registry::tables;
use crate::setup::{self, Installed};
use pgrx::JsonB;
use pgrx::PgRelation;
use pgrx::Uuid;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Sql<T> = std::result::Result<T, ErrorReport>;
type Names = Option<Vec<Option<String>>>;

fn names(given: Names) -> Vec<String> {
    given.unwrap_or_default().into_iter().flatten().collect()
}

/// Defines a kind of person: each row of a table is one. Where the data of a person is follows from foreign keys and links, see
/// `usher.subject_graph()`. A second call replaces the definition.
///
/// Arguments: `kind`, its name, such as guest; `target`, a table with a primary key of one column beside organization_id; `follow`
/// and `leave`, references (schema.table.constraint, or a flow that links) whose rows are the person's too, or are not; `links`, kinds of
/// links by which remote and external systems know the person; `run_as`, the role with whose rights rows are read and erased,
/// by default the caller.
/// Errors: 42501 for callers who are no operators, do not own the table or are not in the role; 22023 for a name or table that
/// cannot be used; 42704 for an unknown role or reference.
#[pg_extern(volatile, parallel_unsafe)]
fn define_subject(
    kind: Option<String>,
    target: Option<PgRelation>,
    follow: default!(Names, "NULL"),
    leave: default!(Names, "NULL"),
    links: default!(Names, "NULL"),
    run_as: default!(Option<String>, "NULL"),
) -> Sql<String> {
    let installed = identity::require_operator("define kinds of persons")?;
    setup::current()?;
    let definition = Definition {
        kind: UsherError::given(kind, "the kind of person")?,
        table: tables::of_application(target, "SELECT usher.define_subject('guest', 'shop.guests');", "used")?,
        follow: names(follow),
        leave: names(leave),
        links: names(links),
        run_as,
    };
    Ok(declare::subject(installed, &definition, &identity::author())?)
}

/// Forgets a kind of person; its data stays, and so do receipts. Errors: 42501 for callers who are no operators, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn drop_subject(kind: Option<String>) -> Sql<()> {
    let installed = identity::require_operator("forget kinds of persons")?;
    setup::current()?;
    let kind = UsherError::given(kind, "the kind of person")?;
    declare::forgotten(installed, &kind)?;
    let _acting = role::internal(installed.owner);
    if spi::run("DELETE FROM usher.subject_kinds AS k WHERE k.kind = $1", &[spi::arg(kind.as_str())])? == 0 {
        store::subject(&kind)?;
    }
    Ok(audit::note(installed, None, "usher.subjects.forgotten", &kind, None, None)?)
}

/// Declares columns of a table as personal, or with NULL as personal no more; returns how many there are now.
///
/// Arguments: `target`; `columns`, an object by column: `{"email": {"identifies": true, "category": "contact", "purpose": "tickets",
/// "basis": "contract", "erase": "pseudonym"}}`, all keys optional. `identifies`: its values (of 4 characters and more) name the person
/// wherever they stand. `erase`: what it becomes, "null", "pseudonym", "keep" or {"value": …}; by default a pseudonym where the column
/// identifies or may not be NULL, else NULL.
/// Errors: 42501 for callers who are no operators or do not own the table, 42703 for an unknown column, 22023 for a declaration
/// that could not be carried out.
#[pg_extern(volatile, parallel_unsafe)]
fn declare_personal(target: Option<PgRelation>, columns: Option<JsonB>) -> Sql<String> {
    let installed = identity::require_operator("declare personal columns")?;
    setup::current()?;
    let table = tables::of_application(target, "SELECT usher.declare_personal('shop.guests', '{\"email\": {}}');", "used")?;
    let columns = columns.ok_or_else(|| UsherError::missing("the columns"))?;
    Ok(declare::personal(installed, &table, &columns.0, &identity::author())?)
}

/// Where the data of a kind of person is, one row for each way to a table: `relation` says "the person", "owned" (exported and
/// erased), "mentions" (only its key is exported) or "left out". Errors: 42501 unless the caller is an operator or reader, 42704.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn subject_graph(
    kind: Option<String>,
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(depth, i32),
            name!(table_name, String),
            name!(relation, String),
            name!(via, Option<String>),
            name!(personal, Vec<String>),
        ),
    >,
    ErrorReport,
> {
    if !identity::has_reader_rights(role::current()) {
        return Err(UsherError::forbidden("only operators and readers may see where data of persons is")
            .hint("Ask an administrator for GRANT usher_reader TO your role.")
            .into());
    }
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let graph = graph::of(&UsherError::given(kind, "the kind of person")?)?;
    let rows = graph.nodes.into_iter().map(|node| {
        let personal = node.personal.iter().map(|personal| personal.column.clone()).collect();
        let via = Some(node.via).filter(|via| !via.is_empty());
        (i32::try_from(node.depth).unwrap_or(i32::MAX), node.table.name.clone(), node.standing.word().to_owned(), via, personal)
    });
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// The organization, for a caller who may do in it what `function` does.
fn managed(function: &str, organization: Option<String>) -> Result<(Installed, Uuid)> {
    let installed = setup::current()?;
    let organization = identity::organization(&UsherError::given(organization, "the organization")?, Right::Manage)?;
    audit::note_legend(function, organization)?;
    Ok((installed, organization))
}

/// The organization, and the person.
fn person(
    function: &str,
    organization: Option<String>,
    kind: Option<String>,
    key: Option<String>,
) -> Result<(Uuid, String, String)> {
    let (_, organization) = managed(function, organization)?;
    Ok((organization, UsherError::given(kind, "the kind of person")?, UsherError::given(key, "the person's key")?))
}

/// Everything that is known of a person, as JSON: rows of all tables of the graph, rows that mention the person, links, jobs,
/// audit entries, and why the data is kept. That it was asked for is entered into the audit log.
///
/// Arguments: `organization`, `kind`, `key`: the key of the person's row. Errors: 42501 unless the caller manages the organization,
/// 42704 when there is no such kind or person.
#[pg_extern(volatile, parallel_unsafe)]
fn export_subject(organization: Option<String>, kind: Option<String>, key: Option<String>) -> Sql<JsonB> {
    let (organization, kind, key) = person("export_subject", organization, kind, key)?;
    Ok(JsonB(export::run(setup::current()?, organization, &kind, &key)?))
}

/// What `usher.erase_subject()` would do: rows by table, what becomes of their columns, and the systems that would be asked.
/// Errors: as `usher.export_subject()`.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn plan_erasure(
    organization: Option<String>,
    kind: Option<String>,
    key: Option<String>,
) -> std::result::Result<
    TableIterator<'static, (name!(place, String), name!(action, String), name!(rows, Option<i64>), name!(columns, Vec<String>))>,
    ErrorReport,
> {
    let (organization, kind, key) = person("plan_erasure", organization, kind, key)?;
    let installed = setup::current()?;
    let _acting = role::internal(installed.owner);
    let found = erase::find(organization, &kind, &key)?;
    let mut rows = Vec::new();
    if let Some(why) = erase::held(&found, &kind)? {
        rows.push(("legal hold".to_owned(), format!("refused: {why}"), None, Vec::new()));
    }
    for (node, count) in found.graph.nodes.iter().zip(&found.counts) {
        let columns: Vec<String> = match node.standing {
            graph::Standing::Person | graph::Standing::Owned => {
                node.personal.iter().filter(|p| p.erase != store::Erase::Keep).map(|p| p.column.clone()).collect()
            }
            _ => Vec::new(),
        };
        let (action, count) = match node.standing {
            graph::Standing::LeftOut => ("left out", None),
            _ if columns.is_empty() => ("kept", Some(*count)),
            _ => ("erased", Some(*count)),
        };
        rows.push((node.table.name.clone(), action.to_owned(), count, columns));
    }
    for place in erase::elsewhere(organization, &found.graph.subject.links, &found.key)? {
        let action = if place.reachable { "asked to erase" } else { "takes no request: see to it by hand" };
        rows.push((format!("system {}", place.system), action.to_owned(), None, Vec::new()));
    }
    Ok(TableIterator::new(rows))
}

/// Erases a person: personal columns of the person's rows become what was declared, the rows stay under a pseudonym; jobs, history,
/// dead letters and audit entries are masked, and the audit log's chain still verifies; systems that know the person by a link are asked
/// by sync jobs. Returns a signed receipt, see `usher.verify_receipt()`.
///
/// Arguments: as `usher.export_subject()`, and `reason`. Errors: as there; 55000 under a legal hold, and without a key file, since
/// nothing could be signed; an error of the application's constraints names the table, and nothing is erased then.
#[pg_extern(volatile, parallel_unsafe)]
fn erase_subject(organization: Option<String>, kind: Option<String>, key: Option<String>, reason: Option<String>) -> Sql<JsonB> {
    let (organization, kind, key) = person("erase_subject", organization, kind, key)?;
    let reason = UsherError::given(reason, "the reason")?;
    Ok(JsonB(erase::run(setup::current()?, organization, &kind, &key, &reason)?))
}

/// The signed receipt of an erasure as things stand now: what other systems have answered is in it.
/// Errors: 42501 unless the caller manages the organization, 42704, 55000 without a key file.
#[pg_extern(volatile, parallel_unsafe)]
fn erasure_receipt(organization: Option<String>, erasure: Option<Uuid>) -> Sql<JsonB> {
    let (installed, organization) = managed("erasure_receipt", organization)?;
    let erasure = erasure.ok_or_else(|| UsherError::missing("the erasure"))?;
    Ok(JsonB(erase::receipt_of(installed, organization, erasure)?))
}

/// True when a receipt is as it was signed. With `public_key` (64 hexadecimal digits) by whoever has that key, on any server;
/// without it by this server, which needs its key file. Errors: 22023 for what is no receipt, 55000 without a key file.
#[pg_extern(volatile, parallel_unsafe)]
fn verify_receipt(receipt: Option<JsonB>, public_key: default!(Option<String>, "NULL")) -> Sql<bool> {
    let receipt = receipt.ok_or_else(|| UsherError::missing("the receipt"))?;
    let trusted = public_key.as_deref().map_or_else(receipt::own, |key| Ok(vec![receipt::public_key(key)?]))?;
    Ok(receipt::verify(&receipt.0, &trusted)?)
}

/// Keeps a person from being erased, and the person's rows from retention; returns the hold's id. `key` NULL: everybody of
/// the kind. Errors: 42501 unless the caller manages the organization, 42704 for an unknown kind.
#[pg_extern(volatile, parallel_unsafe)]
fn hold_subject(organization: Option<String>, kind: Option<String>, key: Option<String>, reason: Option<String>) -> Sql<Uuid> {
    let (installed, organization) = managed("hold_subject", organization)?;
    let (kind, reason) = (UsherError::given(kind, "the kind of person")?, UsherError::given(reason, "the reason")?);
    if key.as_deref().is_some_and(|key| key.trim().is_empty()) {
        return Err(UsherError::missing("the person's key").into());
    }
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    let graph = graph::of(&kind)?;
    let key = match key {
        // As the row shows it, by which it is compared.
        Some(given) => Some(rows::key(&graph, &given).ok_or_else(|| {
            UsherError::invalid(format!("\"{given}\" is no key of a {kind}")).hint("Give the key of the person's row.")
        })?),
        None => None,
    };
    let id = ids::uuid_v7();
    spi::run(
        "INSERT INTO usher.legal_holds (organization_id, id, kind, subject, reason, held_by) VALUES ($1, $2, $3, $4, $5, $6)",
        &[spi::arg(organization), spi::arg(id), spi::arg(kind.as_str()), spi::arg(key), spi::arg(reason), spi::arg(by)],
    )?;
    audit::note(
        installed,
        Some(organization),
        "usher.legal_holds.set",
        &id.to_string(),
        None,
        Some(serde_json::json!({"kind": kind})),
    )?;
    Ok(id)
}

/// Ends a legal hold. Errors: 42501 unless the caller manages the organization, 42704.
#[pg_extern(volatile, parallel_unsafe)]
fn release_hold(organization: Option<String>, hold: Option<Uuid>) -> Sql<()> {
    let (installed, organization) = managed("release_hold", organization)?;
    let hold = hold.ok_or_else(|| UsherError::missing("the hold"))?;
    let by = identity::author();
    let _acting = role::internal(installed.owner);
    let ended = spi::run(
        "UPDATE usher.legal_holds AS h SET released_at = pg_catalog.now(), released_by = $3 WHERE h.organization_id = $1 AND h.id = $2 AND h.released_at IS NULL",
        &[spi::arg(organization), spi::arg(hold), spi::arg(by)],
    )?;
    if ended == 0 {
        return Err(UsherError::not_found("there is no such hold in this organization, or it has ended")
            .hint("SELECT id, kind, reason FROM usher.legal_holds WHERE released_at IS NULL;")
            .into());
    }
    Ok(audit::note(installed, Some(organization), "usher.legal_holds.released", &hold.to_string(), None, None)?)
}

fn action(named: Option<String>) -> Result<Action> {
    let named = UsherError::given(named, "the action")?;
    Action::named(&named).ok_or_else(|| {
        let near = did_you_mean(&named, &["delete", "erase"]);
        UsherError::invalid(format!("the action \"{named}\" is unknown")).hint(format!("{near}Use delete or erase."))
    })
}

/// Says how long rows of a table are kept: then they are deleted, or (`erase`) their personal columns become what was declared. Workers
/// see to it within minutes, at most 10,000 rows of a table at a time; rows of held persons stay.
///
/// Arguments: `target`; `time_column`, of type timestamptz, timestamp or date; `keep`, an interval; `action`, delete or erase; `run_as`, the role with
/// whose rights it is done, by default the caller. Errors: 42501 for callers who are no operators or do not own the table, 42703,
/// 22023.
#[pg_extern(volatile, parallel_unsafe)]
fn set_retention(
    target: Option<PgRelation>,
    time_column: Option<String>,
    keep: Option<Interval>,
    action: default!(Option<String>, "'delete'"),
    run_as: default!(Option<String>, "NULL"),
) -> Sql<String> {
    let installed = identity::require_operator("say how long rows are kept")?;
    setup::current()?;
    let named = tables::of_application(target, "SELECT usher.set_retention('shop.carts', 'created_at', '30 days');", "used")?;
    declare::owns(&named, "say how long its rows are kept")?;
    let action = self::action(action)?;
    let keep = keep.ok_or_else(|| UsherError::missing("how long they are kept"))?;
    let table = tables::by_oid(named.oid)?.ok_or_else(|| UsherError::internal("a table is not in the catalog"))?;
    let time = UsherError::given(time_column, "the time column")?;
    let column = table.expect(&time, "time_column")?;
    if !["timestamp with time zone", "timestamp without time zone", "date"].contains(&column.base_sql.as_str()) {
        return Err(UsherError::invalid(format!("{}.{time} is of type {}, which is no time", table.name, column.type_sql))
            .hint("Name a column of type timestamptz, timestamp or date.")
            .into());
    }
    if spi::read::<bool>("SELECT $1 <= '0'::interval", &[spi::arg(keep)])? == Some(true) {
        return Err(UsherError::invalid("rows cannot be kept for no time or less")
            .hint("Give an interval such as '30 days'.")
            .into());
    }
    let formats = Nest::open().pinned_formats();
    let text = spi::read::<String>("SELECT $1::text", &[spi::arg(keep)])?.unwrap_or_default();
    drop(formats);
    let run_as = declare::run_as(run_as.as_deref())?;
    declare::warn_of_superuser(run_as, &format!("retention of {}", table.name));
    retention::set(installed, &named, &time, &text, action, run_as, &identity::author())?;
    Ok(format!("rows of {} are {} {text} after {time}", table.name, if action == Action::Delete { "deleted" } else { "erased" }))
}

/// Ends a rule of `usher.set_retention()`. Errors: 42501 for callers who are no operators, 42704 when there is none.
#[pg_extern(volatile, parallel_unsafe)]
fn unset_retention(target: Option<PgRelation>, action: default!(Option<String>, "'delete'")) -> Sql<()> {
    let installed = identity::require_operator("say how long rows are kept")?;
    setup::current()?;
    let named = tables::of_application(target, "SELECT usher.unset_retention('shop.carts');", "used")?;
    declare::owns(&named, "say how long its rows are kept")?;
    let action = self::action(action)?;
    let _acting = role::internal(installed.owner);
    let ended = spi::run(
        "DELETE FROM usher.retention_rules AS r WHERE r.schema_name = $1 AND r.table_name = $2 AND r.action = $3",
        &[spi::arg(named.schema.as_str()), spi::arg(named.name.as_str()), spi::arg(action.word())],
    )?;
    if ended == 0 {
        return Err(UsherError::not_found(format!("no rule {}s rows of {}.{}", action.word(), named.schema, named.name))
            .hint("SELECT * FROM usher.retention_rules; shows them.")
            .into());
    }
    Ok(audit::note(installed, None, "usher.retention.unset", &format!("{}.{}", named.schema, named.name), None, None)?)
}

/// Goes through the rules of `usher.set_retention()`, of one table or of all: what is due, its oldest time, what a hold keeps. With `dry_run` (the
/// default) nothing is done. Errors: 42501 for callers who are no operators; what keeps one rule from working is in its row.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity, reason = "the columns of the result")]
fn apply_retention(
    dry_run: default!(bool, true),
    target: default!(Option<PgRelation>, "NULL"),
) -> std::result::Result<
    TableIterator<
        'static,
        (
            name!(table_name, String),
            name!(action, String),
            name!(rows, i64),
            name!(oldest, Option<String>),
            name!(held, i64),
            name!(error, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let installed = identity::require_operator("apply retention")?;
    setup::current()?;
    let only = target.map(|relation| relation.oid());
    let _acting = role::internal(installed.owner);
    let rows = retention::apply(installed, dry_run, only, None)?
        .into_iter()
        .map(|due| (due.table, due.action.word().to_owned(), due.rows, due.oldest, due.held, due.error));
    Ok(TableIterator::new(rows.collect::<Vec<_>>()))
}

/// Goes once more through the rows of erasures beside which nothing runs any more, as a worker does once a minute: what work that ran
/// meanwhile has written of the person goes too. Returns how many erasures. Errors: 42501 for callers who are no operators.
#[pg_extern(volatile, parallel_unsafe)]
fn sweep_erasures() -> Sql<i64> {
    let installed = identity::require_operator("look at erasures again")?;
    setup::current()?;
    let _acting = role::internal(installed.owner);
    Ok(erase::sweep(installed, None)?)
}

/// JSON, as text, without a person: `fields` are masked whatever they hold, `identifiers` wherever they stand. Internal.
#[pg_extern(immutable, parallel_safe)]
fn mask_person(value: &str, fields: Vec<String>, identifiers: Vec<String>, pseudonym: &str) -> Sql<String> {
    let masked = Mask { fields: &fields, identifiers: &identifiers, pseudonym }.apply_to(value);
    Ok(masked.map_err(|e| UsherError::invalid(format!("this is no JSON: {e}")))?)
}
