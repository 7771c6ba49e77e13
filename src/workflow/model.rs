//! What a run does next: a pure function of where its steps stand. No database.
//!
//! Whatever happens to a run first changes the state of one step ([`Run::happens`]); then [`Run::settle`] draws all conclusions, which
//! are further states and what is to be begun. Both are stored in the transaction in which it happened, so a crash loses either all of
//! it or nothing, and settling what is settled changes nothing.

use std::collections::BTreeMap;

/// A step as the machine sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Steps that come first, by their numbers.
    pub after: Vec<usize>,
    /// All that come after it, however far.
    pub later: Vec<usize>,
    pub looks: bool,
    pub kind: Kind,
    pub has_undo: bool,
    pub pivot: bool,
    /// When its deadline is over the run goes on without it.
    pub goes_on: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    #[default]
    Effect,
    /// Once for each element of a list.
    Each,
    Wait,
    Sleep,
}

/// A step, or (from 1) one of the elements for which it is done.
pub type Place = (usize, i32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Its expressions are evaluated.
    Looking,
    Running,
    Waiting,
    Sleeping,
    Done,
    /// Its condition does not hold.
    Skipped,
    Failed,
    /// It waited when the run was given up.
    Cancelled,
    Undoing,
    Undone,
    /// Its undo failed.
    Stuck,
}

impl State {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Looking, "looking"),
        (Self::Running, "running"),
        (Self::Waiting, "waiting"),
        (Self::Sleeping, "sleeping"),
        (Self::Done, "done"),
        (Self::Skipped, "skipped"),
        (Self::Failed, "failed"),
        (Self::Cancelled, "cancelled"),
        (Self::Undoing, "undoing"),
        (Self::Undone, "undone"),
        (Self::Stuck, "stuck"),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, word)| word)
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(state, _)| *state)
    }

    /// Somebody is at work on it, or it waits for something.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Looking | Self::Running | Self::Waiting | Self::Sleeping | Self::Undoing)
    }

    /// Nothing that comes after it has to wait.
    fn is_past(self) -> bool {
        matches!(self, Self::Done | Self::Skipped)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    Running,
    Undoing,
    /// Somebody has to decide.
    Parked,
    Done,
    Undone,
    /// Somebody has ended it as it stood.
    Closed,
}

impl Phase {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Running, "running"),
        (Self::Undoing, "undoing"),
        (Self::Parked, "parked"),
        (Self::Done, "done"),
        (Self::Undone, "undone"),
        (Self::Closed, "closed"),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(phase, _)| *phase == self).map_or("", |(_, word)| word)
    }

    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(phase, _)| *phase)
    }

    pub fn has_ended(self) -> bool {
        matches!(self, Self::Done | Self::Undone | Self::Closed)
    }
}

/// What may happen to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happening {
    /// Its look tells whether it is wanted, and for how many elements.
    Seen { wanted: bool, elements: i32 },
    /// The effect is there, the time has come, or what it waited for has happened.
    Over,
    /// Its look, its effect or its waiting has failed for good.
    Lost,
    /// Its time to wait is over.
    Late,
    /// What it had done is undone.
    TakenBack,
    /// Its undo has failed for good.
    NotTakenBack,
}

/// What is to be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Begin {
    Look(Place),
    Do(Place),
    Wait(Place),
    Sleep(Place),
    Undo(Place),
    /// It is not to wait any longer.
    StopWaiting(Place),
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run {
    pub phase: Phase,
    /// Somebody wants it undone.
    pub given_up: bool,
    pub places: BTreeMap<Place, State>,
}

impl Run {
    pub fn new() -> Self {
        Self { phase: Phase::Running, given_up: false, places: BTreeMap::new() }
    }

    fn of(&self, place: Place) -> Option<State> {
        self.places.get(&place).copied()
    }

    /// The elements of a step.
    fn elements(&self, step: usize) -> impl Iterator<Item = (Place, State)> + '_ {
        self.places.range((step, 1)..=(step, i32::MAX)).map(|(place, state)| (*place, *state))
    }

    /// Everything of a step.
    fn all_of(&self, step: usize) -> impl Iterator<Item = (Place, State)> + '_ {
        self.places.range((step, 0)..=(step, i32::MAX)).map(|(place, state)| (*place, *state))
    }

    /// From here on the run only goes forward.
    pub fn is_past_pivot(&self, plan: &[Step]) -> bool {
        plan.iter().enumerate().any(|(number, step)| step.pivot && self.of((number, 0)) == Some(State::Done))
    }

    /// Takes in what has happened. False: it means nothing here, and changes nothing.
    pub fn happens(&mut self, plan: &[Step], place: Place, what: Happening) -> bool {
        let Some(step) = plan.get(place.0) else { return false };
        let Some(state) = self.of(place) else { return false };
        let next = match (state, what) {
            (State::Looking, Happening::Seen { wanted: false, .. }) => State::Skipped,
            // Given up meanwhile: it is not begun.
            (State::Looking, Happening::Seen { .. }) if self.phase != Phase::Running => State::Cancelled,
            (State::Looking, Happening::Seen { elements, .. }) => {
                if step.kind == Kind::Each {
                    self.places.extend((1..=elements).map(|element| ((place.0, element), State::Running)));
                }
                begun(step.kind)
            }
            (State::Running | State::Sleeping | State::Waiting, Happening::Over) => State::Done,
            (State::Waiting, Happening::Late) if step.goes_on => State::Done,
            (State::Waiting, Happening::Late) => State::Failed,
            (State::Looking | State::Running | State::Sleeping | State::Waiting, Happening::Lost) => State::Failed,
            (State::Undoing, Happening::TakenBack) => State::Undone,
            (State::Undoing, Happening::NotTakenBack) => State::Stuck,
            _ => return false,
        };
        // What a step does for each element is told by the elements.
        if step.kind == Kind::Each && place.1 == 0 && state == State::Running {
            return false;
        }
        self.places.insert(place, next);
        true
    }

    /// Draws all conclusions, and says what is to be begun. `before`: the states that were stored; what is new is begun.
    pub fn settle(&mut self, plan: &[Step], before: &BTreeMap<Place, State>) -> Vec<Begin> {
        loop {
            let was = self.clone();
            match self.phase {
                Phase::Running => self.forward(plan),
                Phase::Undoing => self.backward(plan),
                Phase::Parked | Phase::Done | Phase::Undone | Phase::Closed => {}
            }
            if *self == was {
                break;
            }
        }
        let mut begin = Vec::new();
        for (place, state) in &self.places {
            let old = before.get(place);
            if old == Some(state) {
                continue;
            }
            match state {
                State::Looking => begin.push(Begin::Look(*place)),
                // The step itself of one that is done for each element has nothing to do.
                State::Running if plan[place.0].kind == Kind::Each && place.1 == 0 => {}
                State::Running => begin.push(Begin::Do(*place)),
                State::Waiting => begin.push(Begin::Wait(*place)),
                State::Sleeping => begin.push(Begin::Sleep(*place)),
                State::Undoing => begin.push(Begin::Undo(*place)),
                _ => {}
            }
            if matches!(old, Some(State::Waiting | State::Sleeping)) {
                begin.push(Begin::StopWaiting(*place));
            }
        }
        begin
    }

    /// Steps done for each element: what their elements come to.
    fn gather(&mut self, plan: &[Step]) {
        for (number, _) in plan.iter().enumerate().filter(|(_, step)| step.kind == Kind::Each) {
            if self.of((number, 0)) != Some(State::Running) || self.elements(number).any(|(_, state)| state.is_open()) {
                continue;
            }
            let failed = self.elements(number).any(|(_, state)| state != State::Done);
            self.places.insert((number, 0), if failed { State::Failed } else { State::Done });
        }
    }

    fn forward(&mut self, plan: &[Step]) {
        self.gather(plan);
        let failed = self.places.values().any(|state| *state == State::Failed);
        if self.given_up || failed {
            if !self.is_past_pivot(plan) {
                self.phase = Phase::Undoing;
                return;
            }
            // What does not come after the failure is done first.
            self.given_up = false;
        }
        for (number, step) in plan.iter().enumerate() {
            let due = step.after.iter().all(|before| self.of((*before, 0)).is_some_and(State::is_past));
            if due && self.of((number, 0)).is_none() {
                self.places.insert((number, 0), if step.looks { State::Looking } else { begun(step.kind) });
            }
        }
        let open = self.places.values().any(|state| state.is_open());
        if !open && failed {
            self.phase = Phase::Parked;
        } else if !open && (0..plan.len()).all(|number| self.of((number, 0)).is_some_and(State::is_past)) {
            self.phase = Phase::Done;
        }
    }

    fn backward(&mut self, plan: &[Step]) {
        self.gather(plan);
        // A pivot that ended while the run was being given up: its effect is there, and from there on nothing is undone.
        if self.is_past_pivot(plan)
            && !self.places.values().any(|state| matches!(state, State::Undoing | State::Undone | State::Stuck))
        {
            (self.phase, self.given_up) = (Phase::Running, false);
            self.places.retain(|_, state| *state != State::Cancelled);
            return;
        }
        let stuck = self.places.values().any(|state| *state == State::Stuck);
        // Nothing is undone, and no waiting ends, while something runs that may be the pivot, or comes to count.
        let running = self.places.values().any(|state| matches!(state, State::Looking | State::Running));
        if !running {
            for state in self.places.values_mut().filter(|state| matches!(state, State::Waiting | State::Sleeping)) {
                *state = State::Cancelled;
            }
        }
        if !running && !stuck {
            for (number, step) in plan.iter().enumerate().filter(|(_, step)| step.has_undo) {
                let free = step.later.iter().all(|later| self.is_taken_back(*later, &plan[*later]));
                if !free {
                    continue;
                }
                let done: Vec<Place> = self
                    .all_of(number)
                    .filter(|(place, state)| *state == State::Done && (step.kind != Kind::Each || place.1 > 0))
                    .map(|(place, _)| place)
                    .collect();
                for place in done {
                    self.places.insert(place, State::Undoing);
                }
            }
        }
        for number in (0..plan.len()).filter(|number| plan[*number].kind == Kind::Each) {
            let undone = self.elements(number).any(|(_, state)| state == State::Undone);
            let whole = self.elements(number).all(|(_, state)| state == State::Undone);
            if undone && whole && self.of((number, 0)) == Some(State::Done) {
                self.places.insert((number, 0), State::Undone);
            }
        }
        if !self.places.values().any(|state| state.is_open()) {
            self.phase = if stuck { Phase::Parked } else { Phase::Undone };
        }
    }

    /// Ends a run as it stands.
    pub fn close(&mut self) {
        for state in self.places.values_mut().filter(|state| state.is_open()) {
            *state = State::Cancelled;
        }
        self.phase = Phase::Closed;
    }

    /// Nothing of the step is left that an undo would have to take back first.
    fn is_taken_back(&self, number: usize, step: &Step) -> bool {
        !self.all_of(number).any(|(place, state)| {
            let counts = step.kind != Kind::Each || place.1 > 0;
            counts && (state.is_open() || state == State::Stuck || step.has_undo && state == State::Done)
        })
    }

    /// Goes on after somebody has looked at a run that is parked: forward from what has failed, or from an earlier step, or back with the
    /// undo that has failed. False: it is not parked.
    pub fn retry(&mut self, plan: &[Step], from: Option<usize>) -> bool {
        if self.phase != Phase::Parked {
            return false;
        }
        if self.places.values().any(|state| *state == State::Stuck) {
            for state in self.places.values_mut().filter(|state| **state == State::Stuck) {
                *state = State::Done;
            }
            self.phase = Phase::Undoing;
            return true;
        }
        let again = |number: usize, places: &BTreeMap<Place, State>| match from {
            Some(from) => number == from || plan[from].later.contains(&number),
            None => places.get(&(number, 0)) == Some(&State::Failed),
        };
        let steps: Vec<usize> = (0..plan.len()).filter(|number| again(*number, &self.places)).collect();
        for number in steps {
            // Of a step for each element, those that are done stay so; chosen by hand, all are done again.
            let partly = from.is_none() && self.elements(number).next().is_some();
            if partly {
                self.places.insert((number, 0), State::Running);
                let failed: Vec<Place> =
                    self.elements(number).filter(|(_, state)| *state != State::Done).map(|(place, _)| place).collect();
                for place in failed {
                    self.places.insert(place, State::Running);
                }
            } else {
                self.places.retain(|place, _| place.0 != number);
            }
        }
        self.phase = Phase::Running;
        true
    }
}

fn begun(kind: Kind) -> State {
    match kind {
        Kind::Effect | Kind::Each => State::Running,
        Kind::Wait => State::Waiting,
        Kind::Sleep => State::Sleeping,
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod unit;
