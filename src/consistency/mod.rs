//! What must hold of the application's rows, and the rows for which it does not.
//!
//! Owns `usher.rules`, `usher.rule_dependencies`, `usher.rule_counts`, `usher.violations` and `usher.rule_checks`. A rule is a query of bad rows. The same query is asked by whoever wants to
//! commit (a gate), after a commit (the keys that it has touched), by a sweep of everything, and on demand; each time the same
//! statement writes down what is new and ends what is not bad any more. Called by clients, by `capture` to keep the triggers there and to
//! look at rules again when the schema has changed, by packs, and by the worker.
//!
//! How the other parts of this room call in:
//!
//! - [`store::rules`], [`store::by_name`], [`store::by_id`] give a [`store::Rule`]; [`store::Rule::fit`] puts it on the database as it is
//!   now, a [`fit::Fitted`] with the key, the tables that are read and, for each table of `"touches"`, a [`fit::Touch`].
//! - [`statement::Form::touched`] is SQL for the keys that the rows of a relation (a transition table, say) concern.
//! - [`look::Keys`] carries keys: organizations (None: any) and keys as JSON, as `usher.violations` has them; a key that lacks columns of the
//!   rule's key means all keys that are alike in the others.
//! - [`look::find`] asks for the bad rows among keys, with the rights of the rule, and writes nothing: for a gate.
//! - [`look::look`] asks and writes down: for what runs after the commit. Before it takes [`crate::pg::locks::look_for_rule`], so that two
//!   looks of one rule do not write what they saw at different times; in a transaction that sees new commits.
//! - [`fit::fence`] and `role::act_as(fitted.run_as)` are put around everything that runs as the rule's role.
//! - [`trigger`] and [`touched`] know which keys the open transaction has touched, [`gate`] refuses it before it commits, and [`touched_checks`] writes down
//!   what a worker looks at afterwards (`usher.rule_checks`). Whoever changes a rule says so with [`attach::changed`], [`attach::marked`] or
//!   [`attach::dropped`].
//! - [`keyed`] knows of which rules it is enough to look at touched keys for a while; whoever cannot say which keys were touched says so with
//!   [`keyed::doubt`].
//! - [`repair_auto::auto_repair`] is what a rule repairs by itself; [`repair_auto::next_repair`] says when there is something again.
//! - A repair takes violations from the table, runs what [`definition::Repair`] says, and has their keys looked at again with
//!   [`look::look`]; it sets the status `repaired` itself, which a look takes as "not bad any more".

mod alone;
mod api;
mod aside;
pub mod attach;
mod definition;
pub mod drift;
mod explain;
mod fit;
mod gate;
mod keyed;
mod keys;
mod life;
mod look;
mod manage;
mod monitor;
mod repair;
mod repair_api;
mod repair_auto;
mod repair_fit;
mod repair_images;
mod repair_store;
mod repair_undo;
mod slices;
mod statement;
mod store;
mod tells;
mod touched;
mod touched_checks;
mod trigger;

#[cfg(test)]
pub fn is_well_formed(definition: &serde_json::Value) -> bool {
    definition::Definition::parse(definition).is_ok()
}

pub use life::prune;
pub use life::{escalate, next_escalation};
pub use manage::{alter as alter_rule, create as create_rule, drop as drop_rule, rule_definition, rules_of};
pub use monitor::{turn, without_workers};
pub use repair_images::detach_all;
pub use tells::{Mends, Told, told};
pub use touched_checks::{turn as touched_turn, without_workers as touched_without_workers};

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod fuzz;
