//! What the pack live_events carries from a production to its guests, beyond the six cases of each workflow: orders of arrival, many at once, and back.

use std::thread;
use usher_clients::{Client, Database, Uuid, number, run, settled, text, value, wait};

const LONG: std::time::Duration = wait::LONG;

struct Show {
    database: Database,
    client: Client,
    production: Uuid,
    event: Uuid,
}

/// A production in Berlin whose event is on sale.
fn show(name: &str) -> Show {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    run(here, "SELECT usher.install_pack('live_events'); SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')");
    run(
        here,
        "CREATE FUNCTION public.acme() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT id FROM usher.organizations WHERE slug = 'acme' $$",
    );
    let sql = "INSERT INTO compvss.productions (organization_id, name, timezone, capacity, projected_attendance) VALUES (public.acme(), 'Night', 'Europe/Berlin', 500, 100) RETURNING id";
    let production: Uuid = value(here, sql, &[]);
    settled(here, LONG);
    let event: Uuid =
        value(here, "UPDATE gvteway.events SET status = 'on_sale' WHERE production_ref = $1 RETURNING id", &[&production]);
    Show { database, client, production, event }
}

impl Show {
    fn item(&mut self, title: &str, kind: &str, starts_at: &str) -> Uuid {
        let sql = format!(
            "INSERT INTO compvss.schedule_items (organization_id, production_id, kind, title, artist, starts_at, public)
             VALUES (public.acme(), $1, '{kind}', '{title}', '{title}', {starts_at}, true) RETURNING id"
        );
        value(&mut self.client, &sql, &[&self.production])
    }

    /// Does it, waits until all that follows is done, and asks.
    fn after(&mut self, sql: &str, ask: &str) -> String {
        run(&mut self.client, sql);
        settled(&mut self.client, LONG);
        assert_eq!(
            number(&mut self.client, "SELECT count(*) FROM usher.dead_letters"),
            0,
            "{sql}\n{}",
            wait::jobs(&mut self.client)
        );
        text(&mut self.client, ask)
    }
}

#[test]
fn what_was_there_before_the_event_reaches_it() {
    let mut stage = show("usher_test_before_event");
    let found = stage.after(
        "WITH p AS (INSERT INTO compvss.productions (organization_id, name, timezone) VALUES (public.acme(), 'Early', 'Europe/Berlin') RETURNING organization_id, id),
              s AS (INSERT INTO compvss.schedule_items (organization_id, production_id, kind, title, artist, starts_at, public)
                    SELECT p.*, k, 'Alto', 'Alto', '2031-08-01 18:00Z', true FROM p, unnest(ARRAY['set', 'curfew']) AS k),
              i AS (INSERT INTO compvss.guest_info (organization_id, production_id, kind, name, body)
                    SELECT p.*, k, k, '{\"text\": \"here\"}' FROM p, unnest(ARRAY['service', 'parking']) AS k),
              m AS (INSERT INTO compvss.media_files (organization_id, production_id, url, status) SELECT p.*, 'https://example.org/1', 'approved' FROM p),
              l AS (INSERT INTO compvss.venue_layouts (organization_id, production_id, capacity, status) SELECT p.*, 40, 'approved' FROM p RETURNING organization_id, id)
         INSERT INTO compvss.seating_sections (organization_id, layout_id, code, kind, rows, seats_per_row, capacity) SELECT l.*, 'A', 'seated', 2, 20, 40 FROM l",
        "SELECT concat_ws('|', e.lineup, e.curfew_at = '2031-08-01 18:00Z', e.capacity,
                          (SELECT count(*) FROM gvteway.set_times WHERE event_id = e.id), (SELECT count(*) FROM gvteway.event_info WHERE event_id = e.id),
                          (SELECT count(*) FROM gvteway.gallery_items WHERE event_id = e.id),
                          (SELECT count(*) FROM gvteway.seats AS x JOIN gvteway.sections AS g ON g.id = x.section_id WHERE g.event_id = e.id))
           FROM gvteway.events AS e WHERE e.title = 'Early'",
    );
    assert_eq!(found, "[\"Alto\"]|t|40|1|2|1|40");
}

#[test]
fn a_booking_and_a_production_at_the_same_time_have_one_event() {
    let mut stage = show("usher_test_booking_race");
    let here = &mut stage.client;
    run(
        here,
        "INSERT INTO atlvs.artists (organization_id, name) VALUES (public.acme(), 'Alto');
         INSERT INTO atlvs.deals (organization_id, title, kind, status, value, event_date) SELECT public.acme(), 'Deal ' || n, 'artist', 'proposal', 100, '2031-08-01' FROM generate_series(1, 20) AS n",
    );
    let sessions: Vec<_> = [
        "UPDATE atlvs.deals SET status = 'won' WHERE title = 'Deal ' || ",
        "INSERT INTO atlvs.artist_bookings (organization_id, artist_id, deal_id, event_on, status)
         SELECT d.organization_id, a.id, d.id, d.event_date, 'confirmed' FROM atlvs.deals AS d, atlvs.artists AS a WHERE d.title = 'Deal ' || ",
    ]
    .into_iter()
    .map(|sql| {
        let mut client = stage.database.connect();
        thread::spawn(move || (1..=20).for_each(|n| run(&mut client, &format!("{sql}{n}"))))
    })
    .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    let found = stage.after(
        "SELECT 1",
        "SELECT concat_ws('|', count(*), count(e.production_ref), count(e.deal_ref), count(DISTINCT e.deal_ref), count(*) FILTER (WHERE l.left_id IS NOT NULL))
           FROM gvteway.events AS e LEFT JOIN usher.links AS l
             ON l.kind = 'event' AND l.right_id = e.id::text AND l.left_id IN (SELECT id::text FROM atlvs.projects)
          WHERE e.title LIKE 'Deal%'",
    );
    assert_eq!(found, "20|20|20|20|20");
}

#[test]
fn scans_are_counted_exactly_and_together() {
    const SESSIONS: usize = 6;
    const EACH: usize = 200;
    let mut stage = show("usher_test_scans");
    let event = stage.event;
    let here = &mut stage.client;
    run(
        here,
        &format!(
            "WITH o AS (INSERT INTO gvteway.orders (organization_id, event_id, number) VALUES (public.acme(), '{event}', 'O-1') RETURNING organization_id, id),
                  i AS (INSERT INTO gvteway.order_items (organization_id, order_id, qty, unit_price) SELECT o.organization_id, o.id, 1200, 0 FROM o RETURNING organization_id, id)
             INSERT INTO gvteway.tickets (organization_id, item_id, code) SELECT i.*, 'T-' || n FROM i, generate_series(1, {}) AS n",
            SESSIONS * EACH
        ),
    );
    let begin = text(here, "SELECT now()::text");
    let sessions: Vec<_> = (0..SESSIONS)
        .map(|session| {
            let mut client = stage.database.connect();
            thread::spawn(move || {
                for n in 1..=EACH {
                    run(
                        &mut client,
                        &format!(
                            "INSERT INTO gvteway.ticket_scans (organization_id, ticket_id, gate, result, scanned_at)
                             SELECT organization_id, id, 'Gate ' || {n} % 3, CASE WHEN {n} % 10 = 0 THEN 'duplicate' ELSE 'ok' END, '2024-08-01 18:00Z'::timestamptz + interval '4 seconds' * {n}
                               FROM gvteway.tickets WHERE code = 'T-' || {}",
                            session * EACH + n
                        ),
                    );
                }
            })
        })
        .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    let differs = "SELECT count(*)::text FROM
        (SELECT gate, date_bin('5 minutes', scanned_at, '2000-01-01Z') AS bucket_at, count(*) AS n FROM gvteway.ticket_scans WHERE result = 'ok' GROUP BY 1, 2) AS s
        FULL JOIN compvss.access_counts AS a USING (gate, bucket_at) WHERE s.n IS DISTINCT FROM a.scanned AND NOT (s.n IS NULL AND a.scanned = 0)";
    assert_eq!(stage.after("SELECT 1", differs), "0");
    assert_eq!(number(&mut stage.client, "SELECT sum(scanned) FROM compvss.access_counts"), 1080);
    let updates = number(&mut stage.client, "SELECT sum(version)::bigint FROM compvss.access_counts");
    assert!(updates < 360, "gathered: 1080 scans were {updates} writes of counts");

    // All of them once more, and a tenth taken back while they run.
    run(&mut stage.client, &format!("SELECT usher.replay('live_events.count_scans', '{begin}', now())"));
    assert_eq!(
        stage.after("UPDATE gvteway.ticket_scans SET result = 'refused' WHERE result = 'ok' AND gate = 'Gate 1'", differs),
        "0"
    );
    assert_eq!(number(&mut stage.client, "SELECT sum(scanned) FROM compvss.access_counts WHERE gate = 'Gate 1'"), 0);
    assert_eq!(stage.after("UPDATE gvteway.ticket_scans SET gate = 'Gate 2', result = 'ok' WHERE gate = 'Gate 1'", differs), "0");
}

#[test]
fn the_day_of_a_show_is_its_own() {
    let mut stage = show("usher_test_show_day");
    let day = |here: &mut Client, moment: &str, starts: &str| {
        text(
            here,
            &format!("SELECT COALESCE(compvss.on_the_day('America/New_York', '{moment}', '{starts}')::text, 'nobody knows')"),
        )
    };
    let here = &mut stage.client;
    // 23:30 in New York, the set is half past midnight: another day in the calendar, the same show; in UTC it is one day.
    assert_eq!(day(here, "2026-08-02 03:30Z", "2026-08-02 04:30Z"), "true");
    // 10 in the morning, 8 in the evening, which is the next day in UTC.
    assert_eq!(day(here, "2026-08-01 14:00Z", "2026-08-02 00:00Z"), "true");
    // The evening before; and one day in UTC, though not there.
    assert_eq!(day(here, "2026-08-01 03:00Z", "2026-08-02 00:00Z"), "false");
    assert_eq!(day(here, "2026-08-01 03:00Z", "2026-08-01 23:00Z"), "false");
    // Moved to today, or away from it.
    assert_eq!(
        text(here, "SELECT compvss.on_the_day('UTC', '2026-08-01 12:00Z', '2026-08-05 12:00Z', '2026-08-01 22:00Z')::text"),
        "true"
    );
    assert_eq!(text(here, "SELECT (compvss.on_the_day('Mars/Olympus', now(), now()) IS NULL)::text"), "true");

    // Late, and on time again; one of two sets cancelled, and both.
    let (first, second) = (stage.item("Alto", "set", "now()"), stage.item("Basso", "set", "now() + interval '1 minute'"));
    let status =
        format!("SELECT status || (SELECT count(*) FROM gvteway.announcements) FROM gvteway.events WHERE id = '{}'", stage.event);
    let mut change =
        |item: Uuid, what: &str| stage.after(&format!("UPDATE compvss.schedule_items SET {what} WHERE id = '{item}'"), &status);
    assert_eq!(change(first, "status = 'delayed', delay_min = 20"), "delayed1");
    assert_eq!(change(second, "status = 'delayed', delay_min = 20"), "delayed2");
    assert_eq!(change(first, "status = 'scheduled', delay_min = 0"), "delayed3");
    assert_eq!(change(second, "status = 'scheduled', delay_min = 0"), "on_sale4");
    assert_eq!(change(first, "status = 'cancelled'"), "on_sale5");
    assert_eq!(change(second, "status = 'cancelled'"), "cancelled6");
}

#[test]
fn layouts_follow_each_other_and_seats_that_are_sold_stay() {
    let mut stage = show("usher_test_layouts");
    let layout = |revision: u32, sections: &str| {
        format!(
            "WITH l AS (INSERT INTO compvss.venue_layouts (organization_id, production_id, revision, capacity, status)
                        SELECT organization_id, id, {revision}, 30000, 'approved' FROM compvss.productions RETURNING organization_id, id)
             INSERT INTO compvss.seating_sections (organization_id, layout_id, code, kind, rows, seats_per_row, capacity) SELECT l.*, s.* FROM l, (VALUES {sections}) AS s"
        )
    };
    let seats = "SELECT string_agg(concat_ws(' ', code, seats), ', ' ORDER BY code) FROM (SELECT g.code, count(x.id) AS seats FROM gvteway.sections AS g LEFT JOIN gvteway.seats AS x ON x.section_id = g.id GROUP BY g.code) AS s";
    let first = layout(1, "('A', 'seated', 100, 200, 20000), ('B', 'seated', 10, 10, 100), ('C', 'ga', NULL, NULL, 50)");
    assert_eq!(stage.after(&first, seats), "A 20000, B 100, C 0");
    assert_eq!(text(&mut stage.client, "SELECT max(row_label) FROM gvteway.seats WHERE length(row_label) = 2"), "CV");
    let sold = "UPDATE gvteway.seats SET status = 'sold' WHERE (row_label, seat_no) IN (('CV', 200), ('A', 1)) AND section_id = (SELECT id FROM gvteway.sections WHERE code = 'A')";
    run(&mut stage.client, sold);
    // The second revision is smaller, and has no B any more; the first one, approved once more, does not come back.
    assert_eq!(stage.after(&layout(2, "('A', 'seated', 2, 3, 6), ('C', 'ga', NULL, NULL, 50)"), seats), "A 7, C 0");
    assert_eq!(stage.after("UPDATE compvss.venue_layouts SET updated_at = now() WHERE revision = 1", seats), "A 7, C 0");
    assert_eq!(
        text(
            &mut stage.client,
            "SELECT string_agg(row_label || seat_no || status, ',' ORDER BY row_label, seat_no) FROM gvteway.seats"
        ),
        "A1sold,A2open,A3open,B1open,B2open,B3open,CV200sold"
    );
    // Until the second is withdrawn.
    assert_eq!(
        stage.after("UPDATE compvss.venue_layouts SET status = 'superseded' WHERE revision = 2", seats),
        "A 20000, B 100, C 0"
    );
}

#[test]
fn what_is_withdrawn_leaves_the_guests() {
    let mut stage = show("usher_test_withdrawn");
    let production = stage.production;
    let event = stage.event;
    run(
        &mut stage.client,
        &format!(
            "INSERT INTO compvss.media_files (organization_id, production_id, url, status) VALUES (public.acme(), '{production}', 'https://example.org/1', 'approved');
             INSERT INTO compvss.guest_info (organization_id, production_id, kind, name, body) VALUES (public.acme(), '{production}', 'service', 'Gate one', '{{\"a\": 1}}');
             INSERT INTO gvteway.guests (organization_id, email, name) VALUES (public.acme(), 'ada@example.org', 'Ada');
             INSERT INTO gvteway.vip_guests (organization_id, event_id, guest_id) SELECT organization_id, '{event}', id FROM gvteway.guests;
             INSERT INTO compvss.incidents (organization_id, production_id, guest_impact, public_message) VALUES (public.acme(), '{production}', true, 'Gate two is closed');
             INSERT INTO compvss.alerts (organization_id, production_id, kind, level, headline) VALUES (public.acme(), '{production}', 'weather', 'warning', 'Storm')"
        ),
    );
    let (alto, _) = (stage.item("Alto", "set", "'2031-08-01 18:00Z'"), stage.item("Basso", "set", "'2031-08-01 20:00Z'"));
    let shown = "SELECT concat_ws('|', (SELECT count(*) FROM gvteway.gallery_items), (SELECT string_agg(kind, ',') FROM gvteway.event_info),
        (SELECT string_agg(name || ' ' || status, ',') FROM compvss.backstage_list), (SELECT count(*) FROM gvteway.set_times), (SELECT lineup FROM gvteway.events))";
    assert_eq!(stage.after("SELECT 1", shown), "1|service|Ada active|2|[\"Alto\", \"Basso\"]");
    assert_eq!(
        stage.after("UPDATE compvss.guest_info SET kind = 'parking'; UPDATE gvteway.guests SET name = 'Ada L.'; UPDATE gvteway.vip_guests SET status = 'declined'", shown),
        "1|parking|Ada L. revoked|2|[\"Alto\", \"Basso\"]"
    );
    let gone = format!(
        "UPDATE compvss.media_files SET status = 'rejected'; DELETE FROM compvss.guest_info; DELETE FROM gvteway.vip_guests; DELETE FROM compvss.schedule_items WHERE id = '{alto}'"
    );
    assert_eq!(stage.after(&gone, shown), "0|1|[\"Basso\"]");
    assert_eq!(stage.after("UPDATE compvss.schedule_items SET public = false", shown), "0|0|[]");

    let told =
        "SELECT string_agg(concat_ws(' ', kind, severity, message), ', ' ORDER BY kind, revision) FROM gvteway.announcements";
    assert_eq!(
        stage.after("UPDATE compvss.incidents SET guest_impact = false; UPDATE compvss.alerts SET status = 'resolved'", told),
        "incident info Gate two is closed, incident info All clear. This is over: Gate two is closed, weather critical Weather warning: Storm, weather info All clear. This is over: Storm"
    );
    // Nobody is told of an event that is not published.
    assert_eq!(
        stage.after("UPDATE gvteway.events SET status = 'draft'; UPDATE compvss.incidents SET guest_impact = true, public_message = 'Closed again'", told).matches(',').count(),
        3
    );
}

/// Showing and hiding are two flows, and nobody promises their order: both ask how the row is now.
#[test]
fn what_goes_back_and_forth_ends_as_it_is() {
    let mut stage = show("usher_test_back_and_forth");
    let production = stage.production;
    run(
        &mut stage.client,
        &format!(
            "INSERT INTO compvss.media_files (organization_id, production_id, url, caption) SELECT public.acme(), '{production}', 'https://example.org/' || n, n FROM generate_series(1, 40) AS n;
             INSERT INTO compvss.schedule_items (organization_id, production_id, kind, title, artist, starts_at)
             SELECT public.acme(), '{production}', 'set', n, n, '2031-08-01 18:00Z' FROM generate_series(1, 40) AS n"
        ),
    );
    let sessions: Vec<_> = (0..4)
        .map(|session| {
            let mut client = stage.database.connect();
            thread::spawn(move || {
                for turn in 0..11 {
                    for n in (1..=40).filter(|n| n % 4 == session) {
                        let odd = (turn + n) % 2 == 1;
                        run(
                            &mut client,
                            &format!(
                                "UPDATE compvss.media_files SET status = '{}' WHERE caption = '{n}'; UPDATE compvss.schedule_items SET public = {odd} WHERE title = '{n}'",
                                if odd { "approved" } else { "rejected" }
                            ),
                        );
                    }
                }
            })
        })
        .collect();
    sessions.into_iter().for_each(|session| session.join().expect("a session has panicked"));
    let found = stage.after(
        "SELECT 1",
        "SELECT concat_ws('|', (SELECT count(*) FROM compvss.media_files AS m FULL JOIN gvteway.gallery_items AS g ON g.source_ref = m.id::text WHERE (m.status = 'approved') <> (g.id IS NOT NULL)),
                          (SELECT count(*) FROM compvss.schedule_items AS s FULL JOIN gvteway.set_times AS t ON t.source_ref = s.id::text WHERE s.public <> (t.id IS NOT NULL)),
                          (SELECT count(*) FROM gvteway.gallery_items), (SELECT jsonb_array_length(lineup) FROM gvteway.events))",
    );
    assert_eq!(found, "0|0|20|20");
}
