//! An imitation of Supabase Realtime: what it makes in a database, and how its server asks who may hear a topic.

use crate::{Client, Database, json, role, run};

/// The login of Realtime's server.
const LOGIN: &str = "clients_realtime";

/// Makes schema `realtime` and the roles that Supabase has.
#[track_caller]
pub fn install(client: &mut Client) {
    role(client, LOGIN, "LOGIN SUPERUSER");
    role(client, "authenticator", "LOGIN NOINHERIT");
    role(client, "authenticated", "NOLOGIN");
    run(client, "GRANT authenticated TO authenticator; GRANT usher_member TO authenticated");
    run(client, include_str!("../../pg_regress/realtime.sql"));
    run(
        client,
        "GRANT USAGE ON SCHEMA realtime TO authenticated; GRANT SELECT, INSERT, UPDATE ON realtime.messages TO authenticated",
    );
}

/// True when a signed-in person may hear a private topic. As the server finds it out: it puts a message there, becomes the
/// person, looks whether the policies show it, and takes everything back.
#[track_caller]
pub fn may_hear(database: &Database, sub: &str, topic: &str) -> bool {
    let mut server = database.connect_as(LOGIN);
    let claims = json!({"role": "authenticated", "sub": sub}).to_string();
    let mut asking = server.transaction().expect("BEGIN");
    let id: uuid::Uuid = asking
        .query_one(
            "INSERT INTO realtime.messages (topic, extension, private) VALUES ($1, 'broadcast', true) RETURNING id",
            &[&topic],
        )
        .expect("a message that nobody gets")
        .get(0);
    asking
        .query_one(
            "SELECT set_config('role', 'authenticated', true), set_config('realtime.topic', $1, true), set_config('request.jwt.claims', $2, true)",
            &[&topic, &claims],
        )
        .expect("the person's role");
    let seen = asking.query_opt("SELECT id FROM realtime.messages WHERE id = $1", &[&id]).expect("the policies can be asked");
    asking.rollback().expect("ROLLBACK");
    seen.is_some()
}
