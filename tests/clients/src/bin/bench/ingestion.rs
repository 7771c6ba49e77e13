//! What `usher.ingest_ticket_revenue` costs against the same rows by hand: one row of revenue, one journal, two entries.
//!
//! By hand is one prepared statement that knows all ids beforehand, into tables with the same columns, keys, indexes, checks,
//! foreign keys and balance trigger, written by their owner: no rights, no look for an earlier call, no resolving of codes.
//! One connection, prepared, every sale with a key of its own; as one sale a transaction, and as many in one. The workers are
//! held and the flow that counts tickets is off, so that neither side pays for what happens afterwards.

use crate::pipe::{HOLD, RELEASE};
use crate::{Figure, Gate, level, median};
use std::time::{Duration, Instant};
use usher_clients::postgres::types::ToSql;
use usher_clients::postgres::{GenericClient, Statement};
use usher_clients::{Client, Database, Uuid, number, run, value};

pub const METHOD: &str = "one prepared statement by hand into tables of the same shape that knows all ids beforehand, against \
usher.ingest_ticket_revenue; one sale a transaction, and 500. 2 s each, interleaved, median of 5";

const ROUNDS: usize = 5;
const SPELL: Duration = Duration::from_secs(2);
/// Sales in one transaction, where there are many.
const MANY: u32 = 500;

const OURS: &str =
    "SELECT id FROM usher.ingest_ticket_revenue('bench', 'P-BENCH', 'E-BENCH', 2, 120.50, idempotency_key => $1::text)";

/// `$1` key, `$2` organization, `$3` project, `$4` clearing account, `$5` revenue account.
const BY_HAND: &str = "
    WITH i AS (
        INSERT INTO byhand.ingestions (organization_id, id, project_id, project_code, event_code, ticket_count, gross_amount, currency,
                                       ingestion_source, payload, idempotency_key)
        VALUES ($2::uuid, usher.uuid_v7(), $3::uuid, 'P-BENCH', 'E-BENCH', 2, 120.50, 'USD', 'gvteway', '{}', $1::text) RETURNING id),
    j AS (
        INSERT INTO byhand.journals (organization_id, id, project_id, entry_on, memo, currency, source_system, source_ref)
        SELECT $2::uuid, usher.uuid_v7(), $3::uuid, (now() AT TIME ZONE 'UTC')::date, 'Ticket revenue E-BENCH', 'USD', 'ticket_revenue', i.id::text
          FROM i RETURNING id)
    INSERT INTO byhand.entries (organization_id, journal_id, line, account_id, debit, credit)
    SELECT $2::uuid, j.id, l.line, l.account_id, l.debit, l.credit
      FROM j, (VALUES (1, $4::uuid, 120.50, 0), (2, $5::uuid, 0, 120.50)) AS l (line, account_id, debit, credit)";

pub fn measure(database: &Database) -> Vec<Figure> {
    let mut client = database.connect();
    let here = &mut client;
    let organization: Uuid = value(here, "SELECT usher.create_organization('bench')", &[]);
    run(
        here,
        "SELECT usher.install_pack('live_events');
         SELECT usher.disable_flow('live_events.update_production_from_revenue')",
    );
    let project: Uuid = value(
        here,
        "INSERT INTO atlvs.projects (organization_id, code, name) VALUES ($1, 'P-BENCH', 'Bench') RETURNING id",
        &[&organization],
    );
    // The usual accounts are made by the first sale.
    value::<Uuid>(here, OURS, &[&"first"]);
    let account = |here: &mut Client, code: &str| -> Uuid {
        value(here, "SELECT id FROM atlvs.ledger_accounts WHERE organization_id = $1 AND code = $2", &[&organization, &code])
    };
    let (clearing, revenue) = (account(here, "1100"), account(here, "4000"));
    prepare(here);

    let mut figures = Vec::new();
    for (name, many) in [("ingestion", 1), ("ingestion_many_per_transaction", MANY)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            run(
                here,
                "ALTER TABLE atlvs.journals DISABLE TRIGGER keep_ledger; ALTER TABLE atlvs.ledger_entries DISABLE TRIGGER keep_ledger;
                 TRUNCATE byhand.ingestions, byhand.journals, byhand.entries, usher.ticket_revenue_ingestions, atlvs.journals, atlvs.ledger_entries;
                 ALTER TABLE atlvs.journals ENABLE TRIGGER keep_ledger; ALTER TABLE atlvs.ledger_entries ENABLE TRIGGER keep_ledger",
            );
            level(here);
            let mut holder = database.connect();
            run(&mut holder, HOLD);
            theirs.push(rate(
                here,
                many,
                BY_HAND,
                &[&organization, &project, &clearing, &revenue],
                "byhand.ingestions",
                "byhand.entries",
            ));
            ours.push(rate(here, many, OURS, &[], "usher.ticket_revenue_ingestions", "atlvs.ledger_entries"));
            run(&mut holder, RELEASE);
        }
        figures.push(Figure::new(name, median(ours), median(theirs), "sales/s", Gate::AtLeast(0.5)));
    }
    figures
}

/// The same tables by hand. LIKE takes columns, keys, indexes and checks; foreign keys and triggers are made here.
fn prepare(client: &mut Client) {
    run(
        client,
        "CREATE SCHEMA byhand;
         CREATE TABLE byhand.ingestions (LIKE usher.ticket_revenue_ingestions INCLUDING ALL,
             FOREIGN KEY (organization_id, reverses) REFERENCES byhand.ingestions (organization_id, id));
         CREATE TABLE byhand.journals (LIKE atlvs.journals INCLUDING ALL,
             FOREIGN KEY (organization_id, project_id) REFERENCES atlvs.projects (organization_id, id),
             FOREIGN KEY (organization_id, reverses) REFERENCES byhand.journals (organization_id, id));
         CREATE TABLE byhand.entries (LIKE atlvs.ledger_entries INCLUDING ALL,
             FOREIGN KEY (organization_id, journal_id) REFERENCES byhand.journals (organization_id, id),
             FOREIGN KEY (organization_id, account_id) REFERENCES atlvs.ledger_accounts (organization_id, id));
         CREATE FUNCTION byhand.check_balance() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM (SELECT DISTINCT organization_id, journal_id FROM inserted) AS t
                          JOIN byhand.entries e USING (organization_id, journal_id)
                         GROUP BY organization_id, journal_id HAVING sum(e.debit) <> sum(e.credit)) THEN
                 RAISE EXCEPTION 'a journal does not balance';
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER check_balance AFTER INSERT ON byhand.entries
             REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION byhand.check_balance()",
    );
}

/// Sales a second over a spell; afterwards every sale must be there with its two entries.
fn rate(client: &mut Client, many: u32, sql: &str, more: &[&Uuid], sales: &str, entries: &str) -> f64 {
    let statement = client.prepare(sql).expect("the statement fits");
    let begin = Instant::now();
    let mut done = 0_u32;
    while begin.elapsed() < SPELL {
        if many == 1 {
            sell(client, &statement, done, more);
        } else {
            let mut transaction = client.transaction().expect("BEGIN");
            (0..many).for_each(|n| sell(&mut transaction, &statement, done + n, more));
            transaction.commit().expect("COMMIT");
        }
        done += many;
    }
    let rate = f64::from(done) / begin.elapsed().as_secs_f64();
    for (table, per_sale) in [(sales, 1), (entries, 2)] {
        assert_eq!(number(client, &format!("SELECT count(*) FROM {table}")), i64::from(done) * per_sale, "{table}");
    }
    rate
}

fn sell(client: &mut impl GenericClient, statement: &Statement, n: u32, more: &[&Uuid]) {
    let key = format!("k{n}");
    let mut arguments: Vec<&(dyn ToSql + Sync)> = vec![&key];
    arguments.extend(more.iter().map(|id| *id as &(dyn ToSql + Sync)));
    client.execute(statement, &arguments).expect("a sale");
}
