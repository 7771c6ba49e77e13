//! Commands that need a database without sessions: its workers give way.
//!
//! DROP DATABASE, ALTER DATABASE … RENAME or SET TABLESPACE, and CREATE DATABASE … TEMPLATE wait five seconds for others to
//! go and then refuse. Workers would never go by themselves. So whoever may give such a command, and does, first asks the
//! launcher to keep away from that database until the transaction ends.
//!
//! Every utility statement of the server comes by here. The way through is a plain call without a frame of Rust that an
//! error would have to cross: errors reach the client as they were raised.

use super::{bgw, catalog, shmem, xact};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::time::{Duration, Instant};

type Hook = unsafe extern "C-unwind" fn(
    *mut pg_sys::PlannedStmt,
    *const c_char,
    bool,
    pg_sys::ProcessUtilityContext::Type,
    pg_sys::ParamListInfo,
    *mut pg_sys::QueryEnvironment,
    *mut pg_sys::DestReceiver,
    *mut pg_sys::QueryCompletion,
);

unsafe extern "C-unwind" {
    /// The server's own, without the frame that pgrx puts around it.
    #[link_name = "standard_ProcessUtility"]
    fn standard(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

static mut NEXT: Option<Hook> = None;

/// How long the command waits for the workers; the server itself waits another five seconds for all sessions.
const PATIENCE: Duration = Duration::from_secs(5);

/// Once, in the postmaster, while the library is being preloaded.
pub fn install() {
    // SAFETY: the only thread of the postmaster, before any child exists; the type is that of the hook.
    unsafe {
        NEXT = pg_sys::ProcessUtility_hook;
        pg_sys::ProcessUtility_hook = Some(pass);
    }
}

#[allow(clippy::too_many_arguments, reason = "the server's own signature")]
unsafe extern "C-unwind" fn pass(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    use pg_sys::NodeTag::{T_AlterDatabaseStmt, T_CreatedbStmt, T_DropdbStmt, T_RenameStmt};
    // SAFETY: the arguments are handed on as they came; the statement's node is valid and starts with its tag. Nothing in
    // this frame has to be dropped when the server jumps over it.
    unsafe {
        let node = (*statement).utilityStmt;
        if matches!((*node).type_, T_DropdbStmt | T_RenameStmt | T_CreatedbStmt | T_AlterDatabaseStmt) {
            make_way(node);
        }
        let next = NEXT.unwrap_or(standard);
        next(statement, text, read_only, context, parameters, environment, receiver, completion);
    }
}

/// The database that a command wants without sessions. Some("") when it only changes the list of databases.
unsafe fn wanted(node: *mut pg_sys::Node) -> Option<String> {
    use pg_sys::NodeTag::{T_AlterDatabaseStmt, T_CreatedbStmt, T_DropdbStmt, T_RenameStmt};
    // SAFETY: a node is read as what its tag says; names are NUL-terminated strings of the parse tree.
    unsafe {
        let text = |name: *const c_char| (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned());
        match (*node).type_ {
            T_DropdbStmt => text((*node.cast::<pg_sys::DropdbStmt>()).dbname),
            T_RenameStmt => {
                let rename = node.cast::<pg_sys::RenameStmt>();
                if (*rename).renameType == pg_sys::ObjectType::OBJECT_DATABASE { text((*rename).subname) } else { None }
            }
            T_CreatedbStmt => {
                let template = option((*node.cast::<pg_sys::CreatedbStmt>()).options, "template");
                Some(template.and_then(|given| text(pg_sys::defGetString(given))).unwrap_or_default())
            }
            T_AlterDatabaseStmt => {
                let alter = node.cast::<pg_sys::AlterDatabaseStmt>();
                let moves = option((*alter).options, "tablespace").is_some();
                Some(if moves { text((*alter).dbname).unwrap_or_default() } else { String::new() })
            }
            _ => None,
        }
    }
}

unsafe fn option(list: *mut pg_sys::List, name: &str) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: a list of DefElem as the grammar makes it; names are NUL-terminated.
    unsafe {
        // Dropping this view of the list leaves the parse tree's own alone.
        pgrx::PgList::<pg_sys::DefElem>::from_pg(list)
            .iter_ptr()
            .find(|given| CStr::from_ptr((**given).defname).to_bytes() == name.as_bytes() && !(**given).arg.is_null())
    }
}

thread_local! {
    static PENDING: Cell<bool> = const { Cell::new(false) };
}

fn over() {
    if PENDING.take() {
        shmem::end_holds();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn make_way(node: *mut pg_sys::Node) {
    // SAFETY: called by the hook inside a transaction, with the node it was given.
    let Some(name) = (unsafe { wanted(node) }) else { return };
    if !shmem::available() || bgw::is_worker() {
        return;
    }
    // The launcher looks at the list again when the transaction is over, whatever becomes of it.
    xact::at_end(over);
    PENDING.set(true);
    let Some(database) = catalog::database_by_name(&name) else { return };
    // SAFETY: a look-up of rights inside a transaction.
    let may = unsafe { owns(database, pg_sys::GetUserId()) };
    if !may || !shmem::hold(database.to_u32()) {
        return;
    }
    shmem::wake_launcher();
    let until = Instant::now() + PATIENCE;
    loop {
        let pids = shmem::pids_of(database.to_u32());
        // Those of a slot that the launcher has not taken back yet may still be on their way.
        if pids.is_empty() || Instant::now() >= until {
            return;
        }
        bgw::pause(Duration::from_millis(10));
    }
}

#[cfg(feature = "pg15")]
unsafe fn owns(database: Oid, role: Oid) -> bool {
    // SAFETY: the caller is inside a transaction.
    unsafe { pg_sys::pg_database_ownercheck(database, role) }
}

#[cfg(not(feature = "pg15"))]
unsafe fn owns(database: Oid, role: Oid) -> bool {
    // SAFETY: the caller is inside a transaction.
    unsafe { pg_sys::object_ownercheck(pg_sys::DatabaseRelationId, database, role) }
}
