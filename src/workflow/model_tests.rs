//! Every run of every small workflow: whatever each job comes to, in every order, given up at every moment, every delivery twice.

use super::*;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// A run with what is open outside of it, and what has taken effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct World {
    run: Run,
    open: BTreeSet<Begin>,
    effects: BTreeMap<Place, u8>,
    retried: bool,
}

impl World {
    fn commit(&mut self, plan: &[Step], before: &BTreeMap<Place, State>) {
        let begin = self.run.settle(plan, before);
        // A crash after the commit: whoever looks at what is stored finds nothing more to do.
        let stored = self.run.places.clone();
        let mut again = self.run.clone();
        assert_eq!((again.settle(plan, &stored), &again), (Vec::new(), &self.run), "settled twice");
        for begin in begin {
            match begin {
                Begin::StopWaiting(place) => {
                    self.open.remove(&Begin::Wait(place));
                    self.open.remove(&Begin::Sleep(place));
                }
                Begin::Undo(place) => {
                    self.undo_is_right(plan, place);
                    self.open.insert(begin);
                }
                begin => {
                    assert!(self.open.insert(begin), "begun twice: {begin:?}");
                }
            }
        }
        self.is_right(plan);
    }

    fn undo_is_right(&self, plan: &[Step], place: Place) {
        assert_eq!(self.effects.get(&place), Some(&1), "undone without an effect: {place:?}");
        assert!(
            !plan.iter().enumerate().any(|(n, step)| step.pivot && self.effects.get(&(n, 0)) == Some(&1)),
            "undone behind the pivot"
        );
        for later in &plan[place.0].later {
            let left = self.effects.iter().any(|(other, many)| other.0 == *later && plan[*later].has_undo && *many > 0);
            assert!(!left, "{place:?} is undone before {later}");
        }
    }

    fn is_right(&self, plan: &[Step]) {
        let running: Vec<&Begin> = self.open.iter().collect();
        match self.run.phase {
            Phase::Running | Phase::Undoing => assert!(!running.is_empty(), "nobody is at work on {self:?}"),
            Phase::Parked => {
                assert!(running.is_empty(), "{self:?}");
                let stuck = self.run.places.values().any(|state| *state == State::Stuck);
                let failed = self.run.places.values().any(|state| *state == State::Failed);
                assert!(stuck || failed && self.run.is_past_pivot(plan), "parked without a reason: {self:?}");
            }
            Phase::Done => {
                assert!(running.is_empty(), "{self:?}");
                for (number, step) in plan.iter().enumerate() {
                    let skipped = self.run.places[&(number, 0)] == State::Skipped;
                    let elements = self.run.places.keys().filter(|place| place.0 == number && place.1 > 0).count();
                    let effects: usize =
                        self.effects.iter().filter(|(place, _)| place.0 == number).map(|(_, many)| usize::from(*many)).sum();
                    let wanted = if skipped {
                        0
                    } else if step.kind == Kind::Each {
                        elements
                    } else {
                        1
                    };
                    assert_eq!(effects, wanted, "step {number} of {self:?}");
                }
            }
            Phase::Undone => {
                assert!(running.is_empty(), "{self:?}");
                let left = self.effects.iter().any(|(place, many)| plan[place.0].has_undo && *many > 0);
                assert!(!left, "not all is undone: {self:?}");
                assert!(!self.run.is_past_pivot(plan));
            }
            Phase::Closed => {}
        }
    }

    /// Everything that may come next.
    fn next(&self, plan: &[Step]) -> Vec<World> {
        let mut worlds = Vec::new();
        for begin in &self.open {
            let (place, outcomes): (Place, &[Happening]) = match begin {
                Begin::Look(place) if plan[place.0].kind == Kind::Each => (
                    *place,
                    &[
                        Happening::Seen { wanted: true, elements: 2 },
                        Happening::Seen { wanted: true, elements: 0 },
                        Happening::Seen { wanted: false, elements: 0 },
                        Happening::Lost,
                    ],
                ),
                Begin::Look(place) => (
                    *place,
                    &[
                        Happening::Seen { wanted: true, elements: 0 },
                        Happening::Seen { wanted: false, elements: 0 },
                        Happening::Lost,
                    ],
                ),
                Begin::Do(place) => (*place, &[Happening::Over, Happening::Lost]),
                Begin::Wait(place) => (*place, &[Happening::Over, Happening::Late, Happening::Lost]),
                Begin::Sleep(place) => (*place, &[Happening::Over]),
                Begin::Undo(place) => (*place, &[Happening::TakenBack, Happening::NotTakenBack]),
                Begin::StopWaiting(_) => continue,
            };
            for what in outcomes {
                let mut world = self.clone();
                world.open.remove(begin);
                let before = world.run.places.clone();
                let late = *what == Happening::Late && plan[place.0].goes_on;
                match (what, begin) {
                    (Happening::Over, _) => *world.effects.entry(place).or_default() += 1,
                    (Happening::Late, _) if late => *world.effects.entry(place).or_default() += 1,
                    (Happening::TakenBack, _) => *world.effects.get_mut(&place).expect("there was an effect") -= 1,
                    _ => {}
                }
                let meant = world.run.happens(plan, place, *what);
                assert!(meant || self.run.phase.has_ended(), "{what:?} at {place:?} means nothing in {self:?}");
                let taken = world.run.clone();
                assert!(!world.run.happens(plan, place, *what) && world.run == taken, "{what:?} counts twice in {self:?}");
                world.commit(plan, &before);
                worlds.push(world);
            }
        }
        let change = |change: &dyn Fn(&mut World)| {
            let mut world = self.clone();
            let before = world.run.places.clone();
            change(&mut world);
            world.commit(plan, &before);
            world
        };
        if self.run.phase == Phase::Running && !self.run.is_past_pivot(plan) && !self.run.given_up {
            worlds.push(change(&|world| world.run.given_up = true));
        }
        if self.run.phase == Phase::Parked && !self.retried {
            worlds.push(change(&|world| {
                world.retried = true;
                assert!(world.run.retry(plan, None));
            }));
        }
        worlds
    }
}

/// Follows a workflow to all of its ends. Returns how many states there are.
fn explore(plan: &[Step]) -> usize {
    let mut first = World { run: Run::new(), open: BTreeSet::new(), effects: BTreeMap::new(), retried: false };
    first.commit(plan, &BTreeMap::new());
    let (mut seen, mut open) = (HashSet::from([first.clone()]), VecDeque::from([first]));
    while let Some(world) = open.pop_front() {
        for next in world.next(plan) {
            if seen.insert(next.clone()) {
                open.push_back(next);
            }
        }
    }
    seen.len()
}

fn later(after: &[Vec<usize>]) -> Vec<Vec<usize>> {
    (0..after.len())
        .map(|of| {
            let mut found = vec![false; after.len()];
            // Steps come in an order here, so one pass is enough.
            for number in of + 1..after.len() {
                found[number] = after[number].iter().any(|before| *before == of || found[*before]);
            }
            (0..after.len()).filter(|number| found[*number]).collect()
        })
        .collect()
}

fn kinds() -> Vec<Step> {
    let mut kinds = Vec::new();
    for has_undo in [false, true] {
        for looks in [false, true] {
            kinds.push(Step { has_undo, looks, ..Step::default() });
        }
        kinds.push(Step { has_undo, looks: true, kind: Kind::Each, ..Step::default() });
    }
    kinds.push(Step { kind: Kind::Wait, ..Step::default() });
    kinds.push(Step { kind: Kind::Wait, goes_on: true, ..Step::default() });
    kinds.push(Step { kind: Kind::Sleep, ..Step::default() });
    kinds
}

/// All workflows of so many steps with these kinds of steps, in every order, with no pivot or any one.
fn workflows(size: usize, kinds: &[Step]) -> Vec<Vec<Step>> {
    let orders: Vec<Vec<Vec<usize>>> = (0..size).fold(vec![Vec::new()], |orders, number| {
        let subsets: Vec<Vec<usize>> =
            (0..1_usize << number).map(|bits| (0..number).filter(|n| bits >> n & 1 == 1).collect()).collect();
        orders.iter().flat_map(|order| subsets.iter().map(|subset| [order.clone(), vec![subset.clone()]].concat())).collect()
    });
    let mut all = Vec::new();
    for after in &orders {
        let later = later(after);
        for choice in 0..kinds.len().pow(size as u32) {
            let plain: Vec<Step> = (0..size)
                .map(|number| Step {
                    after: after[number].clone(),
                    later: later[number].clone(),
                    ..kinds[choice / kinds.len().pow(number as u32) % kinds.len()].clone()
                })
                .collect();
            for pivot in 0..size {
                // An undo that never runs is refused when the workflow is made.
                let vain = plain[pivot].has_undo || plain[pivot].later.iter().any(|later| plain[*later].has_undo);
                if !vain {
                    let mut plan = plain.clone();
                    plan[pivot].pivot = true;
                    all.push(plan);
                }
            }
            all.push(plain);
        }
    }
    all
}

#[test]
fn every_small_workflow_ends_right_whatever_happens() {
    let (mut plans, mut states) = (0, 0);
    for size in 1..=2 {
        for plan in workflows(size, &kinds()) {
            states += explore(&plan);
            plans += 1;
        }
    }
    assert!(plans > 300 && states > 10_000, "{plans} workflows, {states} states");
}

#[test]
fn three_steps_in_every_order_end_right() {
    let kinds: Vec<Step> = vec![
        Step { has_undo: true, ..Step::default() },
        Step::default(),
        Step { has_undo: true, looks: true, kind: Kind::Each, ..Step::default() },
        Step { kind: Kind::Wait, ..Step::default() },
    ];
    let states: usize = workflows(3, &kinds).iter().map(|plan| explore(plan)).sum();
    assert!(states > 100_000, "{states} states");
}

#[test]
fn what_means_nothing_changes_nothing() {
    let plan = vec![Step::default()];
    let mut run = Run::new();
    assert!(!run.happens(&plan, (0, 0), Happening::Over) && !run.happens(&plan, (7, 0), Happening::Over));
    run.settle(&plan, &BTreeMap::new());
    assert!(!run.happens(&plan, (0, 0), Happening::TakenBack) && !run.happens(&plan, (0, 3), Happening::Over));
    assert!(run.happens(&plan, (0, 0), Happening::Over) && !run.retry(&plan, None));
}

#[test]
fn words_are_read_back() {
    assert!(State::ALL.iter().all(|(state, word)| State::named(word) == Some(*state) && state.word() == *word));
    assert!(Phase::ALL.iter().all(|(phase, word)| Phase::named(word) == Some(*phase) && phase.word() == *word));
}
