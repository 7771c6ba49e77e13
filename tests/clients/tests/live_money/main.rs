//! The money of the pack live_events beyond the six cases: currencies, what is booked stays, replays, a planted cent, stock under
//! concurrency, worth, tax; and what a guest says against what the CRM says.

mod books;
mod counts;

use usher_clients::{Client, Database, Uuid, run, settled, text, value, wait};

fn pack(name: &str) -> (Database, Client, Uuid) {
    let database = Database::create(name);
    let mut client = database.connect();
    run(&mut client, "SELECT usher.install_pack('live_events')");
    let acme = value(&mut client, "SELECT usher.create_organization('acme', 'Acme Live', 'Europe/Berlin')", &[]);
    run(
        &mut client,
        "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": []}}') FROM usher.flows WHERE pack = 'live_events' AND strpos(name, ':') = 0",
    );
    (database, client, acme)
}

fn event(client: &mut Client, organization: Uuid, slug: &str) -> Uuid {
    let sql = "INSERT INTO gvteway.events (organization_id, slug, title) VALUES ($1, $2, $2) RETURNING id";
    value(client, sql, &[&organization, &slug])
}

/// A pending order of one ticket.
fn order(client: &mut Client, organization: Uuid, event: Uuid, number: &str, price: &str, currency: &str) -> Uuid {
    let sql = "WITH o AS (INSERT INTO gvteway.orders (organization_id, event_id, number, subtotal, total, currency)
                          VALUES ($1, $2, $3, $4::text::numeric, $4::text::numeric, $5) RETURNING organization_id, id),
                    i AS (INSERT INTO gvteway.order_items (organization_id, order_id, kind, unit_price) SELECT o.organization_id, o.id, 'ticket', $4::text::numeric FROM o)
               SELECT id FROM o";
    value(client, sql, &[&organization, &event, &number, &price, &currency])
}

fn done(client: &mut Client) {
    settled(client, wait::LONG);
}

#[track_caller]
fn nothing_failed(client: &mut Client) {
    done(client);
    assert_eq!(text(client, "SELECT COALESCE(string_agg(error_message, '; '), 'nothing') FROM usher.dead_letters"), "nothing");
}

/// Balances by account and currency.
fn balances(client: &mut Client) -> String {
    text(
        client,
        "SELECT COALESCE(string_agg(b, ', ' ORDER BY b), 'none')
           FROM (SELECT concat_ws(' ', a.code, j.currency, sum(e.debit - e.credit)) AS b
                   FROM atlvs.ledger_entries e
                   JOIN atlvs.journals j ON j.organization_id = e.organization_id AND j.id = e.journal_id
                   JOIN atlvs.ledger_accounts a ON a.organization_id = e.organization_id AND a.id = e.account_id
                  GROUP BY a.code, j.currency HAVING sum(e.debit - e.credit) <> 0) AS s",
    )
}
