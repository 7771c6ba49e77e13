//! The house rules that a machine can check: arrows point down, `unsafe` stays in its room, every SQL file has one.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms from the top to the bottom; rooms of one row do not call each other.
const ROWS: &[&[&str]] = &[
    &["worker"],
    &["pack", "insight", "expose", "notify"],
    // Below the packs: a pack binds the functions that book for it.
    // Privacy asks other systems by jobs, and the worker looks again.
    &["revenue", "privacy"],
    // Its steps are jobs; the worker tells it which have ended.
    &["workflow"],
    &["capture"],
    // Below capture, which tells it what has changed and looks after its triggers; above the bus, on which it tells what it has found.
    &["consistency"],
    // Runs merges over plans, and writes down what they could not decide. Comparing writes nothing; it knows flows, and beside migration it stands
    // so that whoever checks rules can ask it.
    &["migration", "compare"],
    // Makes jobs, as capture does; flows that emit are to be applied by both.
    // Conflicts: below capture, which looks after all triggers of the application's tables.
    &["event", "conflict"],
    &["queue"],
    // Below what clients call; its words of a rate are those of flows.
    &["rates"],
    &["flow"],
    // Below the flows, whose rows it seals; above the secrets, whose keys it uses.
    &["protect"],
    // Below the flows: what a flow calls may need one.
    &["secrets"],
    &["guard"],
    &["registry"],
    &["setup"],
    GROUND,
];
/// What everything stands on; these three know each other.
const GROUND: &[&str] = &["pg", "settings", "error"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn all() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .filter(|(name, _)| !name.starts_with("architecture"))
        .collect()
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for (file, text) in all() {
        let from = room(&file);
        let Some(height) = row(from) else { continue };
        for part in text.split("crate::").skip(1) {
            let to: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            let Some(depth) = row(&to) else { continue };
            let ground = GROUND.contains(&from) && GROUND.contains(&to.as_str());
            if to != from && depth <= height && !ground {
                wrong.push(format!("{file} calls {to}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_room_has_its_row() {
    let mut unknown: Vec<String> =
        all().iter().map(|(file, _)| room(file).to_owned()).filter(|room| room != "lib" && row(room).is_none()).collect();
    unknown.dedup();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn unsafe_code_stays_in_its_room_and_says_why() {
    let mut wrong = Vec::new();
    for (file, text) in all() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap();
            if !code.contains("unsafe {") && !code.contains("unsafe impl") {
                continue;
            }
            let reasoned = lines[at.saturating_sub(4)..=at].iter().any(|line| line.contains("SAFETY:"));
            if room(&file) != "pg" || !reasoned {
                wrong.push(format!("{file}:{}", at + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = all()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > 600)
        .map(|(file, text)| format!("{file}: {} lines", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}
