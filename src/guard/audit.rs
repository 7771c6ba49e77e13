//! Whose act it is, and entries for acts that are no change of a row.

use crate::error::{self, Result};
use crate::pg::spi::{self, Raw};
use crate::pg::{bgw, ids, role, xact};
use crate::registry::identity;
use crate::setup::Installed;
use pgrx::pg_sys::Oid;
use pgrx::{JsonB, Uuid};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// For each row of the target that a batch has written: the number of its job, and the row's key.
pub type Parents = dyn Fn() -> Result<(Vec<i32>, Vec<i64>)>;

/// A flow at work over jobs `from..=to` of a batch.
#[derive(Clone)]
pub struct Work {
    pub flow: String,
    pub run_as: Oid,
    /// `schema.table` that it writes.
    pub target: Option<String>,
    /// In the transaction of the person whose change it follows.
    pub in_writer: bool,
    pub ids: Raw,
    pub from: i32,
    pub to: i32,
    /// Asked only when an audited table was written.
    pub parents: Option<Rc<Parents>>,
}

thread_local! {
    static WORK: RefCell<Option<Work>> = const { RefCell::new(None) };
    static TRANSACTION: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
}

/// Until dropped, what is written is written by a flow.
pub struct ByFlow(Option<Work>);

pub fn by_flow(work: Work) -> ByFlow {
    ByFlow(WORK.replace(Some(work)))
}

impl Drop for ByFlow {
    fn drop(&mut self) {
        WORK.set(self.0.take());
    }
}

pub fn flow_at_work() -> bool {
    WORK.with_borrow(Option::is_some)
}

fn forget() {
    TRANSACTION.set(None);
}

/// One id for everything that people do in this transaction.
fn transaction() -> [u8; 16] {
    xact::at_end(forget);
    let id = TRANSACTION.get().unwrap_or_else(|| *ids::uuid_v7().as_bytes());
    TRANSACTION.set(Some(id));
    id
}

/// Who acts now.
pub struct Author {
    pub actor: String,
    pub role: String,
    pub flow: Option<String>,
    pub correlation: Uuid,
    /// Jobs by the keys of the rows that they have written, where one statement did several.
    pub jobs: Option<(Vec<i64>, Vec<Uuid>)>,
}

/// The author of a change of `table` (`schema.table`), or of an act.
pub fn author(table: Option<&str>) -> Result<Author> {
    let work = WORK.with_borrow(Clone::clone);
    let person = || if bgw::is_worker() { "worker".to_owned() } else { identity::author() };
    let Some(work) = work else {
        return Ok(Author {
            actor: person(),
            role: role::name_of(role::outer()).unwrap_or_default(),
            flow: None,
            correlation: Uuid::from_bytes(transaction()),
            jobs: None,
        });
    };
    let mut correlation = None;
    let mut jobs = None;
    if work.from == work.to {
        correlation = spi::read::<Uuid>("SELECT ($1::uuid[])[$2]", &[work.ids.arg(), spi::arg(work.from)])?;
    } else if let Some(parents) = work.parents.as_ref().filter(|_| table.is_some() && table == work.target.as_deref()) {
        let (numbers, keys) = parents()?;
        let ids = spi::read::<Vec<Uuid>>(
            "SELECT pg_catalog.array_agg(($1::uuid[])[n] ORDER BY o) FROM pg_catalog.unnest($2::integer[]) WITH ORDINALITY AS u (n, o)",
            &[work.ids.arg(), spi::arg(numbers)],
        )?;
        jobs = ids.map(|ids| (keys, ids));
    }
    Ok(Author {
        actor: if work.in_writer { person() } else { format!("flow {}", work.flow) },
        role: role::name_of(work.run_as).unwrap_or_default(),
        flow: Some(work.flow),
        correlation: correlation.unwrap_or_else(|| Uuid::from_bytes(transaction())),
        jobs,
    })
}

/// Enters an act that is no change of a row: `action` in the past tense (`usher.packs.installed`), `object` is what was
/// acted upon. Values under a secret's name are masked. Does nothing on tables of an older version, which have no log.
pub fn note(
    installed: Installed,
    organization: Option<Uuid>,
    action: &str,
    object: &str,
    old: Option<Value>,
    new: Option<Value>,
) -> Result<()> {
    if !installed.up_to_date {
        return Ok(());
    }
    let author = author(None)?;
    let masked = |value: Option<Value>| value.map(|value| JsonB(mask(value)));
    let _acting = role::internal(installed.owner);
    // Before the position is drawn: see guard/seal.rs. Where rows were changed there is one already.
    xact::take_number();
    spi::run(
        "INSERT INTO usher.audit_log (id, organization_id, recorded_at, actor, role, action, object, old, new, correlation_id, flow)
         VALUES ($1, $2, pg_catalog.clock_timestamp(), $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            spi::arg(ids::uuid_v7()),
            spi::arg(organization),
            spi::arg(author.actor),
            spi::arg(author.role),
            spi::arg(action),
            spi::arg(object),
            spi::arg(masked(old)),
            spi::arg(masked(new)),
            spi::arg(author.correlation),
            spi::arg(author.flow),
        ],
    )?;
    Ok(())
}

/// Enters that a legend has called a function for an organization to which that person does not belong. Others' calls are
/// not entered. Runs with the caller's rights, not with the owner's.
pub fn note_legend(function: &str, organization: Uuid) -> Result<()> {
    if !identity::is_legend_elsewhere(organization)? {
        return Ok(());
    }
    note(crate::setup::installed()?, Some(organization), "usher.legend.called", function, None, None)
}

/// Puts `***` in the place of every value whose key is a secret's name, and of what follows one inside a text.
fn mask(value: Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| {
                let shown = if error::is_secret_name(&name) && !value.is_null() { Value::from("***") } else { mask(value) };
                (name, shown)
            })
            .collect(),
        Value::Array(list) => list.into_iter().map(mask).collect(),
        Value::String(text) => Value::from(error::mask(&text)),
        other => other,
    }
}

#[cfg(test)]
mod unit {
    use super::mask;
    use serde_json::json;

    #[test]
    fn secrets_are_masked_at_any_depth() {
        let shown =
            mask(json!({"a": 1, "list": [{"api_key": "abc"}], "Reset_Token": {"x": 1}, "note": "password=x y", "secret": null}));
        let wanted =
            json!({"a": 1, "list": [{"api_key": "***"}], "Reset_Token": "***", "note": "password=*** y", "secret": null});
        assert_eq!(shown, wanted);
    }

    proptest::proptest! {
        #[test]
        fn what_is_no_secret_stays(key in "[b-d]{1,8}", text in "[b-d ]{0,20}") {
            let value = json!({key: [text, 7, null]});
            proptest::prop_assert_eq!(mask(value.clone()), value);
        }
    }
}
