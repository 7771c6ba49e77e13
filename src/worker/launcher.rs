//! The launcher: sees to it that every database of `usher.databases` has its workers.

use crate::pg::bgw::{self, Child};
use crate::pg::catalog;
use crate::pg::shmem::{self, Found};
use crate::settings;
use pgrx::prelude::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_secs(60);
/// A worker that ends sooner than this found nothing to do or failed at once.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// When no process or slot is left: how soon it is tried again, without a word.
const SOON: Duration = Duration::from_secs(5);
/// After so many processes in a row that ended inside a batch unasked, the next one does jobs one by one.
const MOST_INSIDE: u32 = 2;
const LANES_TOP: u32 = 0b00011;
const LANES_REST: u32 = 0b11100;

/// A database that is to have workers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Database {
    oid: u32,
    name: String,
    /// Named by `*` only: it may have nothing to do with us.
    any: bool,
}

struct Running {
    slot: usize,
    child: Child,
    since: Instant,
}

struct Post {
    database: Database,
    lanes: u32,
    running: Option<Running>,
    /// None: when somebody asks.
    not_before: Option<Instant>,
    short_lives: u32,
    /// Processes in a row that ended inside a batch and had not been asked to.
    inside: u32,
    /// Somebody asked for workers while one was running, which may have looked before.
    asked: bool,
}

#[derive(Default)]
struct Launcher {
    posts: Vec<Post>,
    /// What workers have found in the databases that `*` names.
    found: HashMap<u32, Found>,
    complained_at: Option<Instant>,
    /// Listed databases that do not exist, of which the log knows.
    missing: Vec<String>,
    /// Slots of processes that an earlier launcher has started and that have not ended yet.
    orphans: Vec<usize>,
}

#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_launcher_main(_arg: pg_sys::Datum) {
    bgw::prepare_process();
    bgw::connect_without_database();
    shmem::launcher_arrives();
    let mut launcher = Launcher { orphans: end_orphans(), ..Launcher::default() };
    loop {
        bgw::reset_latch();
        pgrx::check_for_interrupts!();
        // A session that ran setup(), or new settings, may have changed what a waiting post would find.
        let reloaded = bgw::reload_if_asked();
        launcher.listen(shmem::launcher_was_asked().filter(|_| !reloaded));
        launcher.orphans.retain(|slot| !shmem::release_orphan(*slot));
        launcher.align();
        bgw::sleep(launcher.rest() + Duration::from_millis(1));
    }
}

/// Workers of a launcher that has died go on unknown to us: they end, and their slots are free for new ones. Returns the slots
/// of those that take longer: a process keeps its slot, with its latch, as long as it lives.
fn end_orphans() -> Vec<usize> {
    let orphans = shmem::orphans();
    for (_, pid) in &orphans {
        bgw::ask_to_end(*pid);
    }
    let until = Instant::now() + SHORT_LIFE;
    while Instant::now() < until && shmem::orphans().iter().any(|(_, pid)| *pid != 0) {
        bgw::pause(Duration::from_millis(20));
    }
    orphans.into_iter().map(|(slot, _)| slot).filter(|slot| !shmem::release_orphan(*slot)).collect()
}

/// None when the databases could not be read: then everything stays as it is.
fn wanted(missing: &mut Vec<String>) -> Option<Vec<(Database, u32)>> {
    let listed = settings::databases();
    let held = shmem::held();
    let all = bgw::transaction(|_| None, || Ok(catalog::databases())).ok()?;
    let gone = absent(&all, &listed);
    for name in gone.iter().filter(|name| !missing.contains(name)) {
        log!("usher launcher: usher.databases names \"{name}\", and there is no such database");
    }
    *missing = gone;
    let databases = chosen(all, &listed).into_iter().filter(|database| !held.contains(&database.oid));
    let lanes: &[u32] = if settings::workers() >= 2 { &[LANES_REST, LANES_TOP] } else { &[LANES_TOP | LANES_REST] };
    // Callers only where a flow or a job wants them: most databases have none, and processes are few.
    let callers = |oid| (0..if shmem::callers_are_wanted(oid) { settings::callers() } else { 0 }).map(shmem::caller);
    let posts = databases.flat_map(|database| {
        let all: Vec<u32> = lanes.iter().copied().chain(callers(database.oid)).collect();
        all.into_iter().map(move |lanes| (database.clone(), lanes))
    });
    Some(posts.collect())
}

/// What is listed and does not exist.
fn absent(all: &[(u32, String)], listed: &[String]) -> Vec<String> {
    listed.iter().filter(|name| *name != "*" && !all.iter().any(|(_, known)| known == *name)).cloned().collect()
}

/// The databases of a list in which `*` stands for all.
fn chosen(all: Vec<(u32, String)>, listed: &[String]) -> Vec<Database> {
    let any = listed.iter().any(|name| name == "*");
    let choose = |(oid, name): (u32, String)| {
        let named = listed.contains(&name);
        (named || any).then_some(Database { oid, name, any: !named })
    };
    all.into_iter().filter_map(choose).collect()
}

/// 0.2 s after a long life, then doubling to a minute: a database without the extension is asked once a minute.
fn pause(short_lives: u32) -> Duration {
    if short_lives == 0 { Duration::from_millis(200) } else { Duration::from_secs(1 << short_lives.min(6)).min(TICK) }
}

impl Launcher {
    /// Databases in which somebody asks for workers; None: look at all again.
    fn listen(&mut self, asked: Option<Vec<u32>>) {
        let concerns = |oid: u32| asked.as_ref().is_none_or(|asked| asked.contains(&oid));
        for post in self.posts.iter_mut().filter(|post| concerns(post.database.oid)) {
            post.asked = post.running.is_some();
            if !post.asked {
                post.not_before = Some(Instant::now());
            }
        }
        self.found.retain(|oid, found| !concerns(*oid) || *found == Found::Tables);
    }

    fn align(&mut self) {
        let Some(wanted) = wanted(&mut self.missing) else { return };
        let is = |post: &Post, (database, lanes): &(Database, u32)| {
            database.oid == post.database.oid && database.name == post.database.name && *lanes == post.lanes
        };
        let keeps = |post: &Post| wanted.iter().any(|place| is(post, place));
        // All are asked before any is waited for.
        for running in self.posts.iter().filter(|post| !keeps(post)).filter_map(|post| post.running.as_ref()) {
            bgw::ask_to_end(shmem::pid_of(running.slot));
        }
        for post in &mut self.posts {
            let keep = keeps(post);
            let Some(running) = &mut post.running else { continue };
            if !keep {
                running.child.stop();
            }
            let gone = !keep || running.child.is_gone();
            let found = match shmem::found(running.slot) {
                Found::NoTables if post.asked => Found::Nothing,
                found => found,
            };
            if post.database.any {
                self.found.insert(post.database.oid, found);
            }
            if gone {
                post.ended(found);
            }
        }
        self.posts.retain(keeps);
        self.found.retain(|oid, _| wanted.iter().any(|(database, _)| database.oid == *oid));
        for place in &wanted {
            match self.posts.iter_mut().find(|post| is(post, place)) {
                // It may be named now, or no longer.
                Some(post) => post.database.any = place.0.any,
                None => self.posts.push(Post::new(place)),
            }
        }
        for index in 0..self.posts.len() {
            let post = &self.posts[index];
            let due = post.running.is_none() && post.not_before.is_some_and(|at| Instant::now() >= at);
            if due && self.may_start(index) {
                self.start(index);
            }
        }
    }

    /// Of the databases that `*` names, one at a time is looked at, by one process: only where it finds our tables, all
    /// workers start.
    fn may_start(&self, index: usize) -> bool {
        let looks = |post: &Post| {
            let unknown = self.found.get(&post.database.oid).is_none_or(|found| *found == Found::Nothing);
            post.database.any && unknown && post.running.as_ref().is_some_and(|running| running.since.elapsed() < SHORT_LIFE)
        };
        let database = &self.posts[index].database;
        match self.found.get(&database.oid) {
            _ if !database.any => true,
            Some(Found::Tables) => true,
            Some(Found::NoTables) => false,
            Some(Found::Nothing) | None => !self.posts.iter().any(looks),
        }
    }

    fn start(&mut self, index: usize) {
        let post = &mut self.posts[index];
        let name = &post.database.name;
        let (kind, function) = if shmem::is_caller(post.lanes) {
            ("usher caller", "usher_caller_main")
        } else {
            ("usher worker", "usher_worker_main")
        };
        let why = match shmem::reserve(post.database.oid, post.lanes, post.inside >= MOST_INSIDE) {
            None => format!("no slot is left for database {name}; at most {} workers run", shmem::SLOTS),
            Some(slot) => match bgw::start_worker(kind, name, function, shmem::invitation(slot)) {
                Some(child) => {
                    post.running = Some(Running { slot, child, since: Instant::now() });
                    return;
                }
                None => {
                    shmem::release(slot);
                    format!("no worker process is left for database {name}; raise max_worker_processes")
                }
            },
        };
        post.not_before = Some(Instant::now() + SOON);
        // Once a minute for all of them together.
        if self.complained_at.is_none_or(|at| at.elapsed() >= TICK) {
            self.complained_at = Some(Instant::now());
            log!("usher launcher: {why}; it starts when one is free");
        }
    }

    /// Until something is to be done that nobody will wake us for.
    fn rest(&self) -> Duration {
        let waiting = self.posts.iter().enumerate().filter(|(_, post)| post.running.is_none());
        let soonest = waiting.filter_map(|(index, post)| {
            let rest = post.not_before?.saturating_duration_since(Instant::now());
            match self.found.get(&post.database.oid) {
                _ if self.may_start(index) => Some(rest),
                Some(Found::NoTables) => None,
                // Somebody else's look may never end.
                _ => Some(rest.max(SHORT_LIFE)),
            }
        });
        // Nobody tells us that they have ended.
        let most = if self.orphans.is_empty() { TICK } else { SOON };
        soonest.min().unwrap_or(most).min(most)
    }
}

impl Post {
    fn new((database, lanes): &(Database, u32)) -> Self {
        Self {
            database: database.clone(),
            lanes: *lanes,
            running: None,
            not_before: Some(Instant::now()),
            short_lives: 0,
            inside: 0,
            asked: false,
        }
    }

    /// Its process is gone.
    fn ended(&mut self, found: Found) {
        let Some(running) = self.running.take() else { return };
        let nothing_here = found == Found::NoTables;
        self.asked = false;
        self.inside = if shmem::ended_inside(running.slot) { self.inside + 1 } else { 0 };
        shmem::release(running.slot);
        self.short_lives = if running.since.elapsed() < SHORT_LIFE { self.short_lives + 1 } else { 0 };
        // After an end inside a batch there is work to do.
        let pause = if self.inside > 0 { Duration::from_secs(1) } else { pause(self.short_lives) };
        self.not_before = if self.database.any && nothing_here { None } else { Some(Instant::now() + pause) };
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_star_stands_for_all_databases() {
        let all = || vec![(1, "shop".to_owned()), (2, "crm".to_owned())];
        let names = |listed: &[&str]| {
            let listed: Vec<String> = listed.iter().map(|name| (*name).to_owned()).collect();
            chosen(all(), &listed).into_iter().map(|found| (found.name, found.any)).collect::<Vec<_>>()
        };
        assert_eq!(names(&["crm", "gone"]), [("crm".to_owned(), false)]);
        assert_eq!(names(&["*"]), [("shop".to_owned(), true), ("crm".to_owned(), true)]);
        assert_eq!(names(&["shop", "*"]), [("shop".to_owned(), false), ("crm".to_owned(), true)]);
        assert!(names(&[]).is_empty());
        assert_eq!(absent(&all(), &["*".to_owned(), "gone".to_owned(), "crm".to_owned()]), ["gone"]);
    }

    #[test]
    fn a_database_with_nothing_in_it_is_asked_less_and_less() {
        assert_eq!(
            (0..8).map(|lives| pause(lives).as_millis()).collect::<Vec<_>>(),
            [200, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
        );
    }
}
