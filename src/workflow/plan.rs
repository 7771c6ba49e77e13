//! A workflow at one version, as the machine needs it, and the flows of its parts.

use super::model::{self, Kind};
use crate::error::{Result, UsherError};
use crate::flow::steps::{self, Part, Step};
use crate::flow::store as flows;
use crate::pg::{relcache, spi};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

pub struct Plan {
    pub name: String,
    pub version: i32,
    pub steps: Vec<Step>,
    pub model: Vec<model::Step>,
    /// Flows of parts by their names.
    parts: HashMap<String, i32>,
}

/// By flow and version.
type Plans = HashMap<(i32, i32), Rc<Plan>>;

thread_local! {
    /// Known as of a generation of `usher.flows`, which names the parts.
    static KNOWN: RefCell<(u64, Plans)> = RefCell::default();
}

impl Plan {
    /// The flow of a step's part.
    pub fn part(&self, part: Part, step: usize) -> Result<i32> {
        let step = self.steps.get(step).ok_or_else(|| UsherError::internal("a step is gone"))?;
        let name = step.part(part, &self.name);
        self.parts.get(&name).copied().ok_or_else(|| UsherError::internal(format!("flow \"{name}\" is gone")))
    }

    pub fn number(&self, step: &str) -> Option<usize> {
        self.steps.iter().position(|known| known.name == step)
    }
}

/// The steps of a version of a workflow. Runs with the owner's rights.
/// None: the workflow is gone.
pub fn get(flow: i32, version: i32) -> Result<Option<Rc<Plan>>> {
    let generation = relcache::generation();
    let found = KNOWN.with_borrow_mut(|(known, plans)| {
        if *known != generation {
            (*known, *plans) = (generation, HashMap::new());
        }
        plans.get(&(flow, version)).cloned()
    });
    if found.is_some() {
        return Ok(found);
    }
    let Some(whole) = flows::get(flow, version)? else { return Ok(None) };
    let steps = whole.definition.steps().to_vec();
    let parts = spi::read_all(
        "SELECT f.name, f.id FROM usher.flows AS f JOIN usher.flow_versions AS v ON v.flow_id = f.id AND v.version = $2
          WHERE pg_catalog.starts_with(f.name, $1 || ':')",
        &[spi::arg(whole.name.as_str()), spi::arg(version)],
        |row| Ok((row.get::<String>(1)?.unwrap_or_default(), row.get::<i32>(2)?.unwrap_or_default())),
    )?;
    let followers = steps::followers(&steps);
    let model = steps.iter().zip(followers).map(|(step, later)| machine(step, later)).collect();
    let plan = Rc::new(Plan { name: whole.name.clone(), version, steps, model, parts: parts.into_iter().collect() });
    KNOWN.with_borrow_mut(|(_, plans)| plans.insert((flow, version), plan.clone()));
    Ok(Some(plan))
}

fn machine(step: &Step, later: Vec<usize>) -> model::Step {
    model::Step {
        after: step.after.clone(),
        later,
        looks: step.looks,
        kind: match &step.kind {
            steps::Kind::Effect if step.fans_out => Kind::Each,
            steps::Kind::Effect => Kind::Effect,
            steps::Kind::Wait(_) => Kind::Wait,
            steps::Kind::Sleep(_) => Kind::Sleep,
        },
        has_undo: step.has_undo,
        pivot: step.pivot,
        goes_on: step.goes_on,
    }
}
