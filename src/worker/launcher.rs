//! The launcher: sees to it that every database of `usher.databases` has its workers.

use crate::pg::bgw::{self, Child};
use crate::pg::{catalog, shmem};
use crate::settings;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_secs(60);
/// A worker that ends sooner than this found nothing to do or failed at once.
const SHORT_LIFE: Duration = Duration::from_secs(5);
const LANES_TOP: u32 = 0b00011;
const LANES_REST: u32 = 0b11100;

struct Post {
    database: u32,
    name: String,
    lanes: u32,
    running: Option<(usize, Child, Instant)>,
    not_before: Instant,
    short_lives: u32,
}

#[pg_guard]
#[allow(unsafe_code, reason = "the server looks this function up by its name")]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn usher_launcher_main(_arg: pg_sys::Datum) {
    bgw::prepare_process();
    bgw::connect_without_database();
    shmem::launcher_arrives();
    end_orphans();
    let mut posts: Vec<Post> = Vec::new();
    loop {
        bgw::reset_latch();
        pgrx::check_for_interrupts!();
        // A session that ran setup(), or new settings, may have changed what a waiting post would find.
        let reloaded = bgw::reload_if_asked();
        if shmem::launcher_was_asked() || reloaded {
            for post in posts.iter_mut().filter(|post| post.running.is_none()) {
                post.not_before = Instant::now();
            }
        }
        align(&mut posts);
        let soonest = posts.iter().filter(|post| post.running.is_none()).map(|post| post.not_before).min();
        let rest = soonest.map_or(TICK, |at| at.saturating_duration_since(Instant::now()).min(TICK));
        bgw::sleep(rest + Duration::from_millis(1));
    }
}

/// Workers of a launcher that has died go on unknown to us: they end, and their slots are free for new ones.
fn end_orphans() {
    let orphans = shmem::orphans();
    for (_, pid) in &orphans {
        bgw::ask_to_end(*pid);
    }
    let until = Instant::now() + SHORT_LIFE;
    while Instant::now() < until && shmem::orphans().iter().any(|(_, pid)| *pid != 0) {
        bgw::pause(Duration::from_millis(20));
    }
    for (slot, _) in orphans {
        shmem::release(slot);
    }
}

/// None when the databases could not be read: then everything stays as it is.
fn wanted() -> Option<Vec<(u32, String, u32)>> {
    let lanes: &[u32] = if settings::workers() >= 2 { &[LANES_TOP, LANES_REST] } else { &[LANES_TOP | LANES_REST] };
    let listed = settings::databases();
    let found = bgw::transaction(|_| None, || Ok(catalog::databases()));
    let databases = found.ok()?;
    let databases = databases.into_iter().filter(|(_, name)| listed.contains(name));
    // Callers only where a flow or a job wants them: most databases have none, and processes are few.
    let callers = |oid| (0..if shmem::callers_are_wanted(oid) { settings::callers() } else { 0 }).map(shmem::caller);
    Some(
        databases
            .flat_map(|(oid, name)| lanes.iter().copied().chain(callers(oid)).map(move |lanes| (oid, name.clone(), lanes)))
            .collect(),
    )
}

fn align(posts: &mut Vec<Post>) {
    let Some(wanted) = wanted() else { return };
    for post in posts.iter_mut() {
        let keep = wanted.iter().any(|(database, _, lanes)| *database == post.database && *lanes == post.lanes);
        if let Some((slot, child, since)) = &mut post.running {
            if !keep {
                child.stop();
            }
            if !keep || child.is_gone() {
                shmem::release(*slot);
                post.short_lives = if since.elapsed() < SHORT_LIFE { post.short_lives + 1 } else { 0 };
                post.not_before = Instant::now() + pause(post.short_lives);
                post.running = None;
            }
        }
    }
    posts.retain(|post| wanted.iter().any(|(database, _, lanes)| *database == post.database && *lanes == post.lanes));
    for (database, name, lanes) in wanted {
        if !posts.iter().any(|post| post.database == database && post.lanes == lanes) {
            posts.push(Post { database, name, lanes, running: None, not_before: Instant::now(), short_lives: 0 });
        }
    }
    for post in posts.iter_mut().filter(|post| post.running.is_none() && Instant::now() >= post.not_before) {
        start(post);
    }
}

/// 0.2 s after a long life, then doubling to a minute: a database without the extension is asked once a minute.
fn pause(short_lives: u32) -> Duration {
    if short_lives == 0 { Duration::from_millis(200) } else { Duration::from_secs(1 << short_lives.min(6)).min(TICK) }
}

fn start(post: &mut Post) {
    let Some(slot) = shmem::reserve(post.database, post.lanes) else {
        log!("usher launcher: no slot is left for database {}; at most {} workers run", post.name, shmem::SLOTS);
        post.not_before = Instant::now() + TICK;
        return;
    };
    let (kind, function) =
        if shmem::is_caller(post.lanes) { ("usher caller", "usher_caller_main") } else { ("usher worker", "usher_worker_main") };
    match bgw::start_worker(kind, &post.name, function, slot) {
        Some(child) => post.running = Some((slot, child, Instant::now())),
        None => {
            shmem::release(slot);
            log!("usher launcher: no worker process is left for database {}; raise max_worker_processes", post.name);
            post.not_before = Instant::now() + TICK;
        }
    }
}
