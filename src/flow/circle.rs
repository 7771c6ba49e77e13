//! Which flows lead back to their own source. Pure.
//!
//! Two questions. *May* a flow's effect come back to it? Then its jobs carry the trail of their causes. And *must* it, each time?
//! Then it would go on until the hop limit ends it, and is refused when it is made. Certain are only steps that always start the
//! next flow: an event that another listens to, and a new row. An upsert, an update, a delete and a row that is kept end by themselves,
//! because a row that stays as it is goes no further and no flow runs twice for one row in a chain. What a call does is not known.

use super::event_type::Pattern;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Where a flow begins, or what it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `schema.table`
    Table(String),
    /// Listens to these.
    Pattern(Pattern),
    /// Emits this type.
    Type(String),
    /// Requests, times, calls.
    Elsewhere,
}

impl Place {
    /// What is here starts whoever listens there.
    fn starts(&self, source: &Self) -> bool {
        match (self, source) {
            (Self::Table(target), Self::Table(source)) => target == source,
            (Self::Type(event_type), Self::Pattern(pattern)) => pattern.means(event_type),
            _ => false,
        }
    }
}

impl Place {
    fn name(&self) -> Option<(u8, &str)> {
        match self {
            Self::Table(name) => Some((0, name)),
            Self::Pattern(pattern) => Some((1, &pattern.text)),
            Self::Type(event_type) => Some((2, event_type)),
            Self::Elsewhere => None,
        }
    }
}

/// Numbers (from 0) of the flows whose effect can lead back to their source. The work grows with flows, and with types times
/// patterns, but not with flows times flows.
pub fn back_to_themselves(flows: &[(Place, Place)]) -> HashSet<usize> {
    // Places are the points of a graph, and flows its arrows; an event leads to what means it. A flow is in a circle when both its
    // ends are in one strongly connected part.
    let points: BTreeMap<(u8, &str), &Place> =
        flows.iter().flat_map(|(source, target)| [source, target]).filter_map(|place| Some((place.name()?, place))).collect();
    let numbers: HashMap<(u8, &str), usize> = points.keys().enumerate().map(|(n, name)| (*name, n)).collect();
    let number = |place: &Place| place.name().map(|name| numbers[&name]);
    let points: Vec<&Place> = points.into_values().collect();
    let ends: Vec<Option<(usize, usize)>> = flows.iter().map(|(source, target)| number(source).zip(number(target))).collect();
    let mut leads: Vec<Vec<usize>> = vec![Vec::new(); points.len()];
    for (source, target) in ends.iter().flatten() {
        leads[*source].push(*target);
    }
    for (n, place) in points.iter().enumerate().filter(|(_, place)| matches!(place, Place::Type(_))) {
        leads[n].extend((0..points.len()).filter(|other| place.starts(points[*other])));
    }
    let parts = parts(&leads);
    ends.iter().enumerate().filter(|(_, ends)| ends.is_some_and(|(a, b)| parts[a] == parts[b])).map(|(n, _)| n).collect()
}

/// The strongly connected part of each point: forwards in any order, then backwards in the order in which that ended.
fn parts(leads: &[Vec<usize>]) -> Vec<usize> {
    let mut back: Vec<Vec<usize>> = vec![Vec::new(); leads.len()];
    for (from, to) in leads.iter().enumerate().flat_map(|(from, all)| all.iter().map(move |to| (from, *to))) {
        back[to].push(from);
    }
    let mut seen = vec![false; leads.len()];
    let mut ended = Vec::with_capacity(leads.len());
    for start in 0..leads.len() {
        let mut open = if std::mem::replace(&mut seen[start], true) { Vec::new() } else { vec![(start, 0)] };
        while let Some((point, next)) = open.pop() {
            match leads[point].get(next) {
                None => ended.push(point),
                Some(to) => {
                    open.push((point, next + 1));
                    if !std::mem::replace(&mut seen[*to], true) {
                        open.push((*to, 0));
                    }
                }
            }
        }
    }
    let mut part = vec![usize::MAX; leads.len()];
    for start in ended.into_iter().rev() {
        let mut open = vec![start];
        while let Some(point) = open.pop() {
            if part[point] == usize::MAX {
                part[point] = start;
                open.extend(&back[point]);
            }
        }
    }
    part
}

/// A flow as the check of a new one sees it: only what always starts another, and is always started.
#[derive(Debug, Clone)]
pub struct Step {
    pub name: String,
    pub source: Place,
    pub target: Place,
    /// It may go no further: it has an `"if"` or a check.
    pub may_end: bool,
    /// One half of this merge, whose halves do not start each other.
    pub pair: Option<String>,
}

impl Step {
    fn leads_to(&self, next: &Self) -> bool {
        let halves = self.pair.is_some() && self.pair == next.pair;
        !halves && self.target.starts(&next.source)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Circle {
    /// The names on the way, beginning and ending with the flow that was asked for.
    pub names: Vec<String>,
    /// None of them may end it.
    pub certain: bool,
}

/// The shortest way from a flow back to itself: a certain one, or else one that may end.
pub fn through(steps: &[Step], start: &str) -> Option<Circle> {
    let find = |certain: bool| {
        let usable: Vec<&Step> = steps.iter().filter(|step| !(certain && step.may_end)).collect();
        let first = usable.iter().position(|step| step.name == start)?;
        // By whom each was reached first.
        let mut by: Vec<Option<usize>> = vec![None; usable.len()];
        let mut open = VecDeque::from([first]);
        while let Some(at) = open.pop_front() {
            for next in (0..usable.len()).filter(|next| usable[at].leads_to(usable[*next])) {
                if next == first {
                    let mut names = vec![start.to_owned(), usable[at].name.clone()];
                    let mut step = at;
                    while let Some(before) = by[step] {
                        names.push(usable[before].name.clone());
                        step = before;
                    }
                    names.reverse();
                    return Some(Circle { names, certain });
                }
                if by[next].is_none() {
                    by[next] = Some(at);
                    open.push_back(next);
                }
            }
        }
        None
    };
    find(true).or_else(|| find(false))
}

#[cfg(test)]
mod unit {
    use super::*;
    use proptest::prelude::*;

    fn table(name: &str) -> Place {
        Place::Table(name.to_owned())
    }

    fn emits(name: &str) -> Place {
        Place::Type(name.to_owned())
    }

    fn hears(text: &str) -> Place {
        Place::Pattern(Pattern::parse(text).unwrap())
    }

    fn step(name: &str, source: Place, target: Place) -> Step {
        Step { name: name.to_owned(), source, target, may_end: false, pair: None }
    }

    fn names(circle: Option<Circle>) -> String {
        circle.map_or_else(String::new, |circle| format!("{}{}", circle.names.join(" "), if circle.certain { "" } else { "?" }))
    }

    #[test]
    fn a_circle_is_found_and_its_way_told() {
        let mut steps = vec![
            step("a", hears("orders.*"), emits("mail.sent")),
            step("b", hears("mail.**"), table("s.log")),
            step("c", table("s.log"), emits("orders.logged")),
            step("aside", hears("**"), table("s.other")),
        ];
        assert_eq!(names(through(&steps, "a")), "a b c a");
        assert_eq!(names(through(&steps, "c")), "c a b c");
        assert_eq!(names(through(&steps, "aside")), "");
        assert_eq!(names(through(&steps, "nobody")), "");
        steps[1].may_end = true;
        assert_eq!(names(through(&steps, "a")), "a b c a?");
        steps.push(step("d", hears("mail.sent"), emits("orders.again")));
        assert_eq!(names(through(&steps, "a")), "a d a");
        steps.push(step("self", hears("x.*"), emits("x.y")));
        assert_eq!(names(through(&steps, "self")), "self self");
    }

    #[test]
    fn the_halves_of_a_merge_do_not_start_each_other_and_others_may_lead_back_into_it() {
        let half =
            |name: &str, source, target| Step { pair: Some("pair".to_owned()), ..step(name, table(source), table(target)) };
        let mut steps = vec![half("pair", "s.a", "s.b"), half("pair:back", "s.b", "s.a")];
        assert_eq!(names(through(&steps, "pair")), "");
        assert_eq!(names(through(&steps, "pair:back")), "");
        steps.push(step("copy", table("s.b"), table("s.a")));
        assert_eq!(names(through(&steps, "copy")), "copy pair copy");
    }

    #[test]
    fn circles_of_tables_and_of_events_are_seen_and_what_leads_out_of_them_is_not_in_them() {
        let flows = [
            (table("a"), table("b")),
            (table("b"), table("a")),
            (table("b"), table("c")),
            (hears("e.*"), emits("e.x")),
            (table("c"), emits("e.y")),
            (Place::Elsewhere, Place::Elsewhere),
            (table("d"), table("d")),
        ];
        let mut found: Vec<usize> = back_to_themselves(&flows).into_iter().collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1, 3, 6]);
    }

    fn source() -> impl Strategy<Value = Place> {
        prop_oneof![
            "[a-d]".prop_map(Place::Table),
            "([ab*]|\\*\\*)(\\.[ab*])?".prop_map(|text| hears(&text)),
            Just(Place::Elsewhere),
        ]
    }

    fn target() -> impl Strategy<Value = Place> {
        prop_oneof!["[a-d]".prop_map(Place::Table), "[ab](\\.[ab])?".prop_map(Place::Type), Just(Place::Elsewhere)]
    }

    /// By trying every way.
    fn reaches(flows: &[(Place, Place)], from: usize, goal: usize) -> bool {
        let mut seen = vec![false; flows.len()];
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            for next in 0..flows.len() {
                if flows[at].1.starts(&flows[next].0) && !std::mem::replace(&mut seen[next], true) {
                    open.push(next);
                }
            }
        }
        seen[goal]
    }

    proptest! {
        #[test]
        fn who_is_in_a_circle_is_who_reaches_itself(flows in proptest::collection::vec((source(), target()), 0..12)) {
            let found = back_to_themselves(&flows);
            for n in 0..flows.len() {
                prop_assert_eq!(found.contains(&n), reaches(&flows, n, n), "{} of {:?}", n, flows);
            }
        }

        #[test]
        fn a_way_back_is_told_exactly_when_there_is_one(flows in proptest::collection::vec((source(), target(), any::<bool>()), 1..10)) {
            let steps: Vec<Step> = flows
                .iter()
                .enumerate()
                .map(|(n, (source, target, may_end))| Step { may_end: *may_end, ..step(&format!("f{n}"), source.clone(), target.clone()) })
                .collect();
            let all: Vec<(Place, Place)> = flows.iter().map(|(source, target, _)| (source.clone(), target.clone())).collect();
            let sure: Vec<(Place, Place)> = flows.iter().filter(|flow| !flow.2).map(|(source, target, _)| (source.clone(), target.clone())).collect();
            let certain = !flows[0].2 && reaches(&sure, 0, 0);
            let found = through(&steps, "f0");
            prop_assert_eq!(found.as_ref().map(|found| found.certain), if certain { Some(true) } else { reaches(&all, 0, 0).then_some(false) });
            if let Some(found) = found {
                let at = |name: &String| steps.iter().find(|step| step.name == *name).unwrap();
                prop_assert!(found.names.len() >= 2 && found.names[0] == "f0" && found.names.last().unwrap() == "f0");
                for pair in found.names.windows(2) {
                    prop_assert!(at(&pair[0]).target.starts(&at(&pair[1]).source));
                }
                prop_assert!(!found.certain || found.names.iter().all(|name| !at(name).may_end));
            }
        }
    }
}
