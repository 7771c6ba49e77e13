//! Messages to clients that are connected: who hears which, once for each change that is committed, and nothing of others.

use std::collections::BTreeMap;
use std::time::Duration;
use usher_clients::postgres::fallible_iterator::FallibleIterator;
use usher_clients::postgrest::Rest;
use usher_clients::{
    Client, Database, Value, flow, json, number, realtime, refused, reload, role, run, serde_json, server, settled, text, wait,
};

const ANNA: &str = "11111111-0000-4000-8000-00000000000a";
const BERT: &str = "11111111-0000-4000-8000-00000000000b";
const STRANGER: &str = "11111111-0000-4000-8000-00000000000c";

/// Anna is a member of acme and Bert of globex; both write their orders through PostgREST. Returns the organizations' ids.
fn town(name: &str) -> (Database, Client, String, String) {
    let database = Database::create(name);
    let mut client = database.connect();
    let here = &mut client;
    realtime::install(here);
    role(here, "clients_publish", "NOLOGIN");
    run(
        here,
        "CREATE TABLE public.orders (organization_id uuid NOT NULL, id int NOT NULL, status text, secret text, PRIMARY KEY (organization_id, id));
         ALTER TABLE public.orders ENABLE ROW LEVEL SECURITY;
         CREATE POLICY members ON public.orders TO authenticated USING (organization_id = ANY ((SELECT usher.member_organizations())::uuid[]));
         GRANT USAGE ON SCHEMA public TO authenticated, clients_publish;
         GRANT SELECT, INSERT, UPDATE, DELETE ON public.orders TO authenticated;
         GRANT USAGE ON SCHEMA realtime TO clients_publish;
         GRANT INSERT ON realtime.messages TO clients_publish;
         CREATE POLICY sends ON realtime.messages FOR INSERT TO clients_publish WITH CHECK (true);
         CREATE POLICY members_hear ON realtime.messages FOR SELECT TO authenticated
             USING (extension = 'broadcast' AND split_part(realtime.topic(), ':', 1) = ANY ((SELECT usher.member_organizations())::text[]))",
    );
    let acme = text(here, "SELECT usher.create_organization('acme')::text");
    let globex = text(here, "SELECT usher.create_organization('globex')::text");
    run(here, &format!("SELECT usher.grant_membership('acme', '{ANNA}'), usher.grant_membership('globex', '{BERT}')"));
    (database, client, acme, globex)
}

fn order(organization: &str, id: i32) -> Value {
    json!({"organization_id": organization, "id": id, "status": "new", "secret": "s3cret"})
}

/// What was sent on a topic, each message with how often.
fn sent(client: &mut Client, topic: &str) -> String {
    let sql = "SELECT string_agg(concat_ws(' ', event, of, n), ', ' ORDER BY of, event)
                 FROM (SELECT event, COALESCE(payload #>> '{key,id}', payload ->> 'number') AS of, count(*) AS n
                         FROM realtime.messages WHERE topic = $1 AND private AND extension = 'broadcast' GROUP BY 1, 2) AS m";
    client.query_one(sql, &[&topic]).expect("the messages").get::<_, Option<String>>(0).unwrap_or_default()
}

#[test]
fn a_change_is_heard_in_its_organization_once_and_nowhere_else() {
    let (database, mut client, acme, globex) = town("usher_test_publish");
    let here = &mut client;
    let orders = json!({"change": "public.orders", "on": ["insert", "update", "delete"]});
    flow(here, "news", &json!({"run_as": "clients_publish", "when": orders, "then": {"publish": "orders"}}));
    flow(
        here,
        "at_once",
        &json!({
            "run_as": "clients_publish", "mode": "transactional", "when": {"change": "public.orders"},
            "then": {"publish": "order", "by": "number", "event": "seen"}, "set": {"number": "new.id", "status": "new.status"}
        }),
    );
    let mut anna = Rest::signed_in(&database, "public", ANNA);
    let mut bert = Rest::signed_in(&database, "public", BERT);
    anna.insert("orders", &order(&acme, 1)).ok();
    bert.insert("orders", &order(&globex, 2)).ok();
    assert_eq!(anna.insert("orders", &order(&globex, 3)).refused(), "42501");
    anna.update("orders", &[("id", "1")], &json!({"status": "paid"})).ok();
    bert.delete("orders", &[("id", "2")]).ok();
    // The same number in both organizations, and what was rolled back in all or in part.
    run(
        here,
        &format!(
            "BEGIN; INSERT INTO public.orders VALUES ('{acme}', 4); INSERT INTO public.orders VALUES ('{globex}', 4); ROLLBACK;
             BEGIN; SAVEPOINT s; INSERT INTO public.orders VALUES ('{acme}', 5); ROLLBACK TO s; INSERT INTO public.orders VALUES ('{globex}', 5); COMMIT"
        ),
    );
    run(here, &format!("BEGIN; INSERT INTO public.orders VALUES ('{acme}', 6)"));
    assert_eq!(sent(here, &format!("{acme}:order:6")), "seen 6 1", "in the writer's transaction");
    run(here, "ROLLBACK");
    settled(here, wait::LONG);
    assert_eq!(sent(here, &format!("{acme}:orders")), "INSERT 1 1, UPDATE 1 1");
    assert_eq!(sent(here, &format!("{globex}:orders")), "DELETE 2 1, INSERT 2 1, INSERT 5 1");
    assert_eq!(sent(here, &format!("{acme}:order:1")), "seen 1 2");
    assert_eq!(sent(here, &format!("{globex}:order:5")), "seen 5 1");
    assert_eq!(
        text(
            here,
            "SELECT string_agg(DISTINCT split_part(topic, ':', 1), ' ' ORDER BY split_part(topic, ':', 1)) FROM realtime.messages"
        ),
        {
            let mut both = [acme.as_str(), globex.as_str()];
            both.sort_unstable();
            both.join(" ")
        }
    );
    assert_eq!(number(here, "SELECT count(*) FROM realtime.messages"), 9);
    assert_eq!(number(here, "SELECT count(*) FROM realtime.messages WHERE payload::text LIKE '%s3cret%' OR NOT private"), 0);

    // Who may hear which, asked as Realtime asks: its login must be among those whose claims count.
    let hear = |sub: &str| [&acme, &globex].map(|of| realtime::may_hear(&database, sub, &format!("{of}:orders")));
    for person in [ANNA, BERT, STRANGER] {
        assert_eq!(hear(person), [false, false], "claims count from nobody's login yet");
    }
    let mut admin = database.connect();
    run(&mut admin, "ALTER SYSTEM SET usher.claims_roles = 'authenticator, clients_realtime'");
    reload(&mut admin);
    assert_eq!((hear(ANNA), hear(BERT), hear(STRANGER)), ([true, false], [false, true], [false, false]));
    assert!(!realtime::may_hear(&database, ANNA, "orders") && !realtime::may_hear(&database, ANNA, ""));
    run(&mut admin, "ALTER SYSTEM RESET usher.claims_roles");
    reload(&mut admin);
}

/// What a client has heard up to now: the channel, and the payload. Notifications come in the order of their commits, so that one
/// more tells when all have come.
fn heard(listener: &mut Client, sender: &mut Client) -> Vec<(String, Value)> {
    run(sender, "NOTIFY end_of_it");
    let mut all = Vec::new();
    let mut notifications = listener.notifications();
    let mut next = notifications.timeout_iter(Duration::from_secs(60));
    loop {
        let one = next.next().expect("a connection").expect("the last notification");
        if one.channel() == "end_of_it" {
            return all;
        }
        all.push((one.channel().to_owned(), serde_json::from_str(one.payload()).expect("JSON")));
    }
}

#[test]
fn a_listener_hears_each_committed_change_once_whatever_becomes_of_the_workers() {
    let (database, mut client, acme, globex) = town("usher_test_notify");
    let here = &mut client;
    let orders = json!({"change": "public.orders", "on": ["insert", "update", "delete"]});
    flow(here, "news", &json!({"run_as": "clients_publish", "when": orders, "then": {"publish": "orders", "via": "notify"}}));
    let listen = |channels: &[&str]| {
        let mut listener = database.connect();
        run(&mut listener, "LISTEN end_of_it");
        for channel in channels {
            run(&mut listener, &format!("LISTEN \"{channel}\""));
        }
        listener
    };
    let (of_acme, of_globex) = (format!("{acme}:orders"), format!("{globex}:orders"));
    let mut listens = listen(&[&of_acme]);
    let mut other = listen(&[&of_globex]);
    let mut without = listen(&["orders", &acme]);
    let mut anna = Rest::signed_in(&database, "public", ANNA);
    anna.insert("orders", &order(&acme, 1)).ok();
    anna.update("orders", &[("id", "1")], &json!({"status": "paid"})).ok();
    run(here, &format!("BEGIN; INSERT INTO public.orders VALUES ('{acme}', 2); ROLLBACK"));
    // Workers end while there is something to tell.
    for round in 1..=3 {
        run(here, &format!("INSERT INTO public.orders SELECT '{acme}', {round}000 + n FROM generate_series(1, 300) AS n"));
        if let Some(worker) = server::worker_of(here, "normal") {
            run(here, &format!("SELECT pg_terminate_backend({worker})"));
        }
    }
    settled(here, wait::LONG);
    assert_eq!(number(here, "SELECT count(*) FROM usher.dead_letters"), 0, "{}", wait::jobs(here));
    let all = heard(&mut listens, here);
    let mut times: BTreeMap<(String, i64), usize> = BTreeMap::new();
    for (channel, message) in &all {
        assert_eq!(*channel, of_acme);
        let names: Vec<&str> = message.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(names, ["event", "job", "key", "op", "organization", "table"]);
        assert_eq!((&message["organization"], &message["table"]), (&json!(acme), &json!("public.orders")));
        let key = (message["event"].as_str().unwrap().to_owned(), message["key"]["id"].as_i64().unwrap());
        *times.entry(key).or_default() += 1;
    }
    assert_eq!((times.len(), all.len()), (902, 902), "each change once");
    assert_eq!(times.get(&("UPDATE".to_owned(), 1)), Some(&1));
    assert_eq!(heard(&mut other, here), [], "another organization's topic");
    assert_eq!(heard(&mut without, here), [], "no topic without its organization");
}

#[test]
fn who_notifies_in_the_writers_transaction_cannot_prepare_it_and_who_does_so_afterwards_can() {
    let (database, mut client, acme, _) = town("usher_test_notify_prepared");
    let here = &mut client;
    let when = json!({"change": "public.orders", "on": ["insert"]});
    let then = json!({"publish": "orders", "via": "notify"});
    flow(here, "news", &json!({"run_as": "clients_publish", "when": when.clone(), "then": then.clone()}));
    let mut listener = database.connect();
    run(&mut listener, &format!("LISTEN end_of_it; LISTEN \"{acme}:orders\""));
    run(here, &format!("BEGIN; INSERT INTO public.orders VALUES ('{acme}', 1); PREPARE TRANSACTION 'usher_clients_publish'"));
    run(here, "COMMIT PREPARED 'usher_clients_publish'");
    settled(here, wait::LONG);
    assert_eq!(heard(&mut listener, here).len(), 1);
    run(
        here,
        &format!(
            "SELECT usher.alter_flow('news', '{}')",
            json!({"run_as": "clients_publish", "mode": "transactional", "on_error": "abort", "when": when, "then": then})
        ),
    );
    run(here, &format!("INSERT INTO public.orders VALUES ('{acme}', 2)"));
    assert_eq!(heard(&mut listener, here).len(), 1, "with the writer's own commit");
    run(here, &format!("BEGIN; INSERT INTO public.orders VALUES ('{acme}', 3)"));
    assert!(refused(here, "PREPARE TRANSACTION 'usher_clients_publish'").message().contains("NOTIFY"));
    run(here, "ROLLBACK");
    assert_eq!(heard(&mut listener, here), []);
}

#[test]
fn a_batch_of_messages_is_one_statement_and_keeps_their_order() {
    let (_database, mut client, acme, _) = town("usher_test_publish_batch");
    let here = &mut client;
    // How many go together is what a window over the batch sees.
    flow(
        here,
        "news",
        &json!({
            "run_as": "clients_publish", "when": {"change": "public.orders", "on": ["insert"]}, "then": {"publish": "orders"},
            "set": {"n": "new.id", "together": "count(*) OVER ()"}
        }),
    );
    run(here, "SELECT usher.pause_jobs(flow => 'news')");
    run(here, &format!("INSERT INTO public.orders SELECT '{acme}', n FROM generate_series(1, 400) AS n"));
    run(here, "SELECT usher.resume_jobs(flow => 'news')");
    settled(here, wait::LONG);
    assert_eq!(
        text(
            here,
            "SELECT concat_ws(' ', count(*), bool_and(n = (payload ->> 'n')::int)) FROM (SELECT *, row_number() OVER (ORDER BY tableoid, ctid) AS n FROM realtime.messages) AS m"
        ),
        "400 t"
    );
    let statements = number(here, "SELECT round(sum(1 / (payload ->> 'together')::numeric))::bigint FROM realtime.messages");
    assert!(statements <= 8, "{statements} statements for 400 messages");
}
