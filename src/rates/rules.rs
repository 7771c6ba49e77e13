//! The rules, and which of them a call has to keep to.

use crate::error::Result;
use crate::pg::buckets::Pace;
use crate::pg::{meters, relcache, role, spi, xact};
use crate::registry::identity;
use crate::setup;
use pgrx::Uuid;
use std::cell::RefCell;
use std::rc::Rc;

pub struct Rule {
    pub id: i32,
    pub function: Option<String>,
    pub organization: Option<Uuid>,
    pub role: Option<String>,
    pub pace: Pace,
}

/// A meter that a call is counted by.
pub struct Asked {
    pub key: u64,
    pub pace: Pace,
}

struct Known {
    generation: (u64, u64),
    rules: Rc<Vec<Rule>>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

/// All rules, as this process knows them.
fn all() -> Result<Rc<Vec<Rule>>> {
    let generation = relcache::generations();
    let known =
        KNOWN.with_borrow(|known| known.as_ref().filter(|known| known.generation == generation).map(|known| known.rules.clone()));
    if let Some(rules) = known {
        return Ok(rules);
    }
    let installed = setup::installed()?;
    if !installed.up_to_date {
        return Ok(Rc::default());
    }
    xact::remember_only_now();
    let _acting = role::internal(installed.owner);
    let rules = spi::read_all(
        "SELECT r.id, r.of_function, r.of_organization, r.of_role, r.nanoseconds, r.burst FROM usher.rpc_rules AS r ORDER BY r.id",
        &[],
        |row| {
            Ok(Rule {
                id: row.get::<i32>(1)?.unwrap_or(0),
                function: row.get::<String>(2)?,
                organization: row.get::<Uuid>(3)?,
                role: row.get::<String>(4)?,
                pace: Pace { interval: row.get::<i64>(5)?.unwrap_or(1), burst: row.get::<i64>(6)?.unwrap_or(1) },
            })
        },
    )?;
    let rules = Rc::new(rules);
    KNOWN.set(Some(Known { generation, rules: rules.clone() }));
    Ok(rules)
}

/// There are rules at all.
pub fn any() -> Result<bool> {
    Ok(!all()?.is_empty())
}

/// The meters that a call of this caller is counted by.
pub fn asked(function: &str, organization: Option<Uuid>) -> Result<Vec<Asked>> {
    let rules = all()?;
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    // Who the person is, also inside a SECURITY DEFINER function: those are often an operator's.
    let caller = role::outer();
    if role::is_superuser(caller) {
        return Ok(Vec::new());
    }
    let applies = |rule: &&Rule| {
        rule.function.as_deref().is_none_or(|named| named == function)
            && rule.organization.is_none_or(|named| Some(named) == organization)
            && match &rule.role {
                Some(named) => role::by_name(named).is_some_and(|named| role::has_rights_of(caller, named)),
                None => !identity::has_operator_rights(caller),
            }
    };
    let applying: Vec<&Rule> = rules.iter().filter(applies).collect();
    // Where no organization is named, each person is counted alone: nobody uses up what is others'.
    let whose = match organization {
        _ if applying.is_empty() => Vec::new(),
        Some(id) => id.as_bytes().to_vec(),
        None => format!("by {}", identity::actor()).into_bytes(),
    };
    Ok(applying.into_iter().map(|rule| Asked { key: key(rule.id, &whose), pace: rule.pace }).collect())
}

/// The meter of a rule for those bytes of an organization, or of a person.
pub fn key(rule: i32, whose: &[u8]) -> u64 {
    meters::key_of(&[rule.to_be_bytes().as_slice(), whose].concat())
}
