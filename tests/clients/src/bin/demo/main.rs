//! The story of an organization, two deals, three orders, a move, a tour and a season, told by the database itself.
//!
//! Every sentence that claims something is checked before it is printed; if one is not true, the demo ends there with
//! exit code 1. It works in the databases `usher_demo` and `usher_demo_moved`, which it makes anew each time.

mod money;
mod season;
mod tour;

use std::panic;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use usher_clients::postgres::types::ToSql;
use usher_clients::{Client, Database, Uuid, number, run, text, value, wait};

const WAIT: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    // A claim that does not hold is a panic somewhere below: show its sentence, not a backtrace.
    panic::set_hook(Box::new(|info| {
        let message = info.payload_as_str().unwrap_or("something unexpected");
        eprintln!("\nThe demo stops here, because this is not so:\n  {message}");
        eprintln!("The server's log: {}", std::env::var("USHER_LOG").unwrap_or_else(|_| "see scripts/cluster.sh env".to_owned()));
    }));
    let begin = Instant::now();
    match panic::catch_unwind(story) {
        Ok(()) => {
            println!(
                "\nThat was the whole story, in {:.0} seconds; everything it said was checked.",
                begin.elapsed().as_secs_f64()
            );
            println!("Look around in it: make psql, then \\c usher_demo_moved");
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

fn story() {
    chapter("1. A database, an extension, a pack");
    let database = Database::create("usher_demo");
    let mut here = database.connect();
    say("CREATE EXTENSION pg_usher; SELECT usher.setup(); and two workers stand by. No other service is running.");
    show("SELECT usher.install_pack('live_events')", &text(&mut here, "SELECT usher.install_pack('live_events')"));
    let organization: Uuid = value(&mut here, "SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')", &[]);
    show("SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')", &organization.to_string());
    say("Three systems share this database: atlvs sells, compvss produces, gvteway invites the guests.");

    a_deal_is_won(&database, &mut here, organization);
    a_deal_goes_wrong(&mut here, organization);
    money::orders_are_sold(&mut here, organization);
    let moved = money::the_database_moves(&database, &mut here, organization);
    let mut there = moved.connect();
    money::an_order_is_given_back(&mut there, organization);
    tour::a_tour_cannot_be_sold(&mut there);
    season::deals_to_books(&mut there);

    chapter("9. What the hub says about itself");
    status(&mut there);
    money::the_doctor_finds_nothing(&mut there);
}

fn a_deal_is_won(database: &Database, here: &mut Client, organization: Uuid) {
    chapter("2. A deal is won");
    let deal: Uuid = value(
        here,
        "INSERT INTO atlvs.deals (organization_id, title, status, value, currency, event_date, venue_name, venue_timezone, expected_attendance)
         VALUES ($1, 'Summer Night', 'proposal', 48000, 'EUR', current_date + 60, 'Tempodrom', 'Europe/Berlin', 3500) RETURNING id",
        &[&organization],
    );
    say("Acme has offered 'Summer Night' for 48,000 EUR. The client says yes:");
    let mut transaction = here.transaction().expect("BEGIN");
    sql("BEGIN");
    sql("UPDATE atlvs.deals SET status = 'won' WHERE title = 'Summer Night'");
    transaction.execute("UPDATE atlvs.deals SET status = 'won' WHERE id = $1", &[&deal]).expect("the deal can be won");
    let project = transaction
        .query_opt("SELECT id, code, budget_total::text, phase FROM atlvs.projects WHERE deal_id = $1", &[&deal])
        .expect("projects can be read");
    let project = project.unwrap_or_else(|| panic!("the project is there before the COMMIT"));
    sql("SELECT code, budget_total, phase FROM atlvs.projects   -- still in the same transaction");
    answer(&format!("{} | {} | {}", project.get::<_, String>(1), project.get::<_, String>(2), project.get::<_, String>(3)));
    say("The project is already here, in the seller's own transaction. Nobody else sees it yet.");
    let project: Uuid = project.get(0);

    // The second connection is ready before the COMMIT, so that only the hub's time is measured.
    let mut there = database.connect();
    let watch = there
        .prepare(
            "SELECT EXISTS (SELECT FROM compvss.productions WHERE project_ref = $1),
                    EXISTS (SELECT FROM gvteway.events e JOIN compvss.productions p ON p.id = e.production_ref WHERE p.project_ref = $1),
                    EXISTS (SELECT FROM atlvs.projects WHERE id = $1)",
        )
        .expect("productions and events can be read");
    let early = there.query_one(&watch, &[&project]).expect("a look before the COMMIT");
    assert!(!early.get::<_, bool>(2), "before the COMMIT nobody else sees the project");
    assert!(!early.get::<_, bool>(0) && !early.get::<_, bool>(1), "before the COMMIT there is neither production nor event");
    transaction.commit().expect("COMMIT");
    let committed = Instant::now();
    sql("COMMIT");

    let (mut production, mut event) = (None, None);
    while event.is_none() {
        assert!(
            committed.elapsed() < WAIT,
            "production and event come within {WAIT:?} of the COMMIT\n{}",
            wait::jobs(&mut there)
        );
        let look = there.query_one(&watch, &[&project]).expect("a look after the COMMIT");
        let now = committed.elapsed();
        production = production.or(look.get::<_, bool>(0).then_some(now));
        event = event.or(look.get::<_, bool>(1).then_some(now));
    }
    say("A second connection has been watching since the COMMIT returned:");
    answer(&format!("{:>6.1} ms  the production is in compvss.productions", milliseconds(production)));
    answer(&format!("{:>6.1} ms  the event is in gvteway.events", milliseconds(event)));
    let guests = text(
        here,
        "SELECT concat_ws(' | ', e.title, e.venue_name, e.starts_at AT TIME ZONE e.timezone, e.capacity || ' guests', e.status) FROM gvteway.events e",
    );
    show("SELECT title, venue_name, starts_at AT TIME ZONE timezone, capacity, status FROM gvteway.events", &guests);
    assert!(guests.starts_with("Summer Night | Tempodrom"), "the event carries the deal's title and venue, not: {guests}");

    run(here, "UPDATE atlvs.deals SET status = 'proposal'; UPDATE atlvs.deals SET status = 'won'");
    usher_clients::settled(here, WAIT);
    for table in ["atlvs.projects", "compvss.productions", "gvteway.events"] {
        assert_eq!(
            number(here, &format!("SELECT count(*) FROM {table}")),
            1,
            "winning a deal again makes no second row in {table}"
        );
    }
    say("Somebody clicks back to 'proposal' and wins it once more: still one project, one production, one event.");
}

fn milliseconds(delay: Option<Duration>) -> f64 {
    delay.unwrap_or_default().as_secs_f64() * 1000.0
}

const BAD_JOB: &str = "SELECT id, status, attempts, coalesce(error_message, '') FROM usher.sync_jobs
                        WHERE flow = 'live_events.create_project_from_won_deal' AND payload -> 'new' ->> 'title' = 'Winter Ball'";

fn a_deal_goes_wrong(here: &mut Client, organization: Uuid) {
    chapter("3. A deal with a mistake in it");
    let deal: Uuid = value(
        here,
        "INSERT INTO atlvs.deals (organization_id, title, status, value, currency, event_date, venue_name, venue_timezone, expected_attendance)
         VALUES ($1, 'Winter Ball', 'proposal', -9500, 'EUR', current_date + 200, 'Admiralspalast', 'Europe/Berlin', 1200) RETURNING id",
        &[&organization],
    );
    say("Somebody has typed a minus sign: 'Winter Ball' for -9,500 EUR. It is won all the same:");
    sql("UPDATE atlvs.deals SET status = 'won' WHERE title = 'Winter Ball'");
    here.execute("UPDATE atlvs.deals SET status = 'won' WHERE id = $1", &[&deal]).expect("the seller's UPDATE is never refused");
    let won = text(here, "SELECT status FROM atlvs.deals WHERE title = 'Winter Ball'");
    assert_eq!(won, "won", "the seller's UPDATE has gone through");
    say("The UPDATE goes through: a flow's error never hurts the one who writes. Its job is tried again after");
    say("1, 2 and 4 seconds, in case the reason goes away by itself (this takes about 7 seconds):");

    let begin = Instant::now();
    let mut seen = 0;
    let (job, reason) = wait::poll(WAIT, || {
        let row = here.query_opt(BAD_JOB, &[]).expect("the job can be read")?;
        let (status, attempts): (String, i32) = (row.get(1), row.get(2));
        if attempts > seen {
            seen = attempts;
            answer(&format!("{:>5.1} s  try {attempts}: {}", begin.elapsed().as_secs_f64(), row.get::<_, String>(3)));
        }
        (status == "dead").then(|| (row.get::<_, Uuid>(0), row.get::<_, String>(3)))
    })
    .unwrap_or_else(|| panic!("the job is a dead letter within {WAIT:?}\n{}", wait::jobs(here)));
    assert_eq!(seen, 4, "a job is tried four times");
    assert!(reason.contains("value of at least 0"), "the dead letter says which check failed, not: {reason}");
    assert_eq!(number(here, "SELECT count(*) FROM atlvs.projects"), 1, "a deal with a mistake gets no project");
    sql("SELECT id, error_message FROM usher.dead_letters");
    answer(&format!("{job} | {reason}"));
    say("It is kept, whole, with its reason. Correct the deal, tell the job, and it runs again:");

    here.execute("UPDATE atlvs.deals SET value = 9500 WHERE id = $1", &[&deal]).expect("the deal can be corrected");
    sql("UPDATE atlvs.deals SET value = 9500 WHERE title = 'Winter Ball'");
    here.query_one("SELECT usher.retry_sync_job($1, '{\"value\": 9500}')", &[&job]).unwrap_or_else(|e| {
        panic!("a dead letter can be retried: {}", wait::describe(&e));
    });
    sql("SELECT usher.retry_sync_job(…, '{\"value\": 9500}')");
    let repaired = wait::poll(WAIT, || arrived(here, &[&deal])).unwrap_or_else(|| {
        panic!("the repaired deal has project, production and event within {WAIT:?}\n{}", wait::jobs(here));
    });
    assert!(repaired.contains("9500.00"), "the project has the corrected value, not: {repaired}");
    answer(&repaired);
    let letters = number(here, "SELECT count(*) FROM usher.dead_letters");
    assert_eq!(letters, 0, "no dead letter is left");
    say("Project, production and event are there, and no dead letter is left.");
    usher_clients::settled(here, WAIT);
}

fn arrived(here: &mut Client, deal: &[&(dyn ToSql + Sync)]) -> Option<String> {
    let sql = "SELECT concat_ws(' | ', pr.code, pr.budget_total, pd.status, e.status || ' event ' || e.slug)
                 FROM atlvs.projects pr JOIN compvss.productions pd ON pd.project_ref = pr.id JOIN gvteway.events e ON e.production_ref = pd.id
                WHERE pr.deal_id = $1";
    here.query_opt(sql, deal).expect("the tables can be read").map(|row| row.get(0))
}

fn status(here: &mut Client) {
    let flows = "SELECT count(*) || ' flows, ' || count(*) FILTER (WHERE value = 'on') || ' of them on' FROM usher.status() WHERE section = 'flow'";
    show(flows, &text(here, flows));
    sql("SELECT * FROM usher.status() WHERE section <> 'flow'");
    let rows = here
        .query("SELECT section, item, value, coalesce(note, '') FROM usher.status() WHERE section <> 'flow'", &[])
        .expect("status() answers");
    let lines: Vec<[String; 4]> = rows.iter().map(|row| [row.get(0), row.get(1), row.get(2), row.get(3)]).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let (first, second, third) = (width(0), width(1), width(2));
    for [section, item, state, note] in &lines {
        answer(format!("{section:first$}  {item:second$}  {state:third$}  {note}").trim_end());
    }
    let working = lines.iter().filter(|line| line[0] == "worker" && ["waiting", "working"].contains(&line[2].as_str())).count();
    assert!(working > 0, "status() shows workers");
    let errors = lines.iter().any(|line| line[0] == "error" && line[1] != "none");
    assert!(!errors, "status() shows no errors at the end");
}

fn chapter(title: &str) {
    println!("\n{title}\n");
}

fn say(sentence: &str) {
    println!("  {sentence}");
}

fn sql(statement: &str) {
    println!("    =# {statement};");
}

fn answer(line: &str) {
    println!("       {line}");
}

fn show(statement: &str, result: &str) {
    sql(statement);
    answer(result);
}
