//! An imitation of PostgREST: requests as transactions in the form in which it sends them.
//!
//! It logs in as `authenticator` (NOINHERIT). Each request is one transaction: BEGIN, one statement of `set_config` (search
//! path, role, claims, method, path, headers), the main statement prepared inside, COMMIT. Names go in as identifiers, values
//! as parameters or in the body, and the answer is one JSON text, as PostgREST builds it.

use crate::{Client, Database, Value, json, wait};
use postgres::types::ToSql;

/// A client of the API: who it is by its token, and the schema that it speaks to.
pub struct Rest {
    client: Client,
    schema: String,
    role: String,
    claims: Value,
}

/// What came back: an HTTP status and a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        self.body
    }

    /// The SQLSTATE of a refusal.
    #[track_caller]
    pub fn refused(self) -> String {
        assert!(self.status >= 400, "should have been refused: {} {}", self.status, self.body);
        self.body["code"].as_str().unwrap_or_default().to_owned()
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Rest {
    /// A signed-in person; `sub` is the user's id.
    #[track_caller]
    pub fn signed_in(database: &Database, schema: &str, sub: &str) -> Self {
        let claims = json!({"role": "authenticated", "sub": sub, "aud": "authenticated"});
        Self { client: database.connect_as("authenticator"), schema: schema.to_owned(), role: "authenticated".to_owned(), claims }
    }

    /// Signed in with claims of one's own making.
    #[track_caller]
    pub fn with_claims(database: &Database, schema: &str, claims: Value) -> Self {
        Self { client: database.connect_as("authenticator"), schema: schema.to_owned(), role: "authenticated".to_owned(), claims }
    }

    /// Without a token.
    #[track_caller]
    pub fn anonymous(database: &Database, schema: &str) -> Self {
        Self {
            client: database.connect_as("authenticator"),
            schema: schema.to_owned(),
            role: "anon".to_owned(),
            claims: json!({"role": "anon"}),
        }
    }

    fn name(&self, object: &str) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(object))
    }

    /// One request; `main` yields one row with one JSON text.
    fn request(&mut self, method: &str, path: &str, main: &str, arguments: &[&(dyn ToSql + Sync)]) -> Answer {
        let mode = if method == "GET" { "READ ONLY" } else { "READ WRITE" };
        let begin = format!("BEGIN ISOLATION LEVEL READ COMMITTED {mode}");
        if let Err(error) = self.client.batch_execute(&begin) {
            return refusal(&error, &self.role);
        }
        let outcome = self.inside(method, path, main, arguments);
        let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
        match (outcome, self.client.batch_execute(end)) {
            (Ok(body), Ok(())) => {
                let status = if method == "POST" && !path.starts_with("/rpc/") { 201 } else { 200 };
                Answer { status, body }
            }
            (Err(error), _) | (_, Err(error)) => refusal(&error, &self.role),
        }
    }

    fn inside(
        &mut self,
        method: &str,
        path: &str,
        main: &str,
        arguments: &[&(dyn ToSql + Sync)],
    ) -> Result<Value, postgres::Error> {
        let search_path = format!("{}, \"public\"", quoted(&self.schema));
        let headers = json!({"content-type": "application/json", "prefer": "return=representation"}).to_string();
        self.client.query(
            "SELECT set_config('search_path', $1, true), set_config('role', $2, true), set_config('request.jwt.claims', $3, true),
                    set_config('request.method', $4, true), set_config('request.path', $5, true), set_config('request.headers', $6, true),
                    set_config('request.cookies', '{}', true)",
            &[&search_path, &self.role, &self.claims.to_string(), &method, &path, &headers],
        )?;
        // Prepared after the role is set: it is the role that must be able to see the schema.
        let statement = self.client.prepare(main)?;
        let row = self.client.query_one(&statement, arguments)?;
        let body: Option<String> = row.get(0);
        Ok(body.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null))
    }

    /// `POST /rpc/f` with a JSON object: arguments by name. A function that returns one composite answers one object.
    pub fn rpc(&mut self, function: &str, body: &Value) -> Answer {
        let types = match self.parameters(function) {
            Ok(types) => types,
            Err(error) => return refusal(&error, &self.role),
        };
        let given: Vec<&String> = body.as_object().map(|object| object.keys().collect()).unwrap_or_default();
        let Some(columns) = given
            .iter()
            .map(|name| types.iter().find(|(known, _)| known == *name).map(|(_, kind)| format!("{} {kind}", quoted(name))))
            .collect::<Option<Vec<_>>>()
        else {
            return Answer { status: 404, body: json!({"code": "PGRST202"}) };
        };
        let call: Vec<String> = given.iter().map(|name| format!("{0} := pgrst_args.{0}", quoted(name))).collect();
        let args = if columns.is_empty() {
            "".to_owned()
        } else {
            format!("SELECT * FROM json_to_record($1) AS _({})", columns.join(", "))
        };
        let source = format!(
            "SELECT pgrst_call.* FROM ({args}) AS pgrst_args, LATERAL {}({}) AS pgrst_call",
            self.name(function),
            call.join(", ")
        );
        let main = format!(
            "WITH pgrst_source AS ({source}) SELECT coalesce((json_agg(_postgrest_t)->0)::text, 'null') AS body FROM (SELECT * FROM pgrst_source) AS _postgrest_t"
        );
        self.request("POST", &format!("/rpc/{function}"), &main, &[body])
    }

    /// Names and types of a function's parameters: PostgREST's schema cache, read as its login.
    fn parameters(&mut self, function: &str) -> Result<Vec<(String, String)>, postgres::Error> {
        let sql = "SELECT a.name, format_type(a.type, NULL) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
                    CROSS JOIN LATERAL unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) AS a (name, type)
                   WHERE n.nspname = $1 AND p.proname = $2";
        let rows = self.client.query(sql, &[&self.schema, &function])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// `GET /table?column=eq.value&order=…`: the rows as an array. Values arrive as texts without a type.
    pub fn get(&mut self, table: &str, filters: &[(&str, &str)], order: &str) -> Answer {
        let name = self.name(table);
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {name}.{}", quoted(order)) };
        let main = format!(
            "WITH pgrst_source AS (SELECT {name}.* FROM {name} {}{order})
             SELECT coalesce(json_agg(_postgrest_t), '[]')::text AS body FROM (SELECT * FROM pgrst_source) AS _postgrest_t",
            conditions(&name, filters)
        );
        self.request("GET", &format!("/{table}"), &main, &[])
    }

    /// `POST /table` with an array of objects (or one), `Prefer: return=representation`.
    pub fn insert(&mut self, table: &str, body: &Value) -> Answer {
        let rows = if body.is_array() { body.clone() } else { json!([body]) };
        let columns: Vec<String> = rows[0].as_object().map(|row| row.keys().map(|key| quoted(key)).collect()).unwrap_or_default();
        let name = self.name(table);
        let main = format!(
            "WITH pgrst_source AS (WITH pgrst_payload AS (SELECT $1::json AS json_data)
                INSERT INTO {name} ({0}) SELECT {0} FROM pgrst_payload, LATERAL (SELECT * FROM json_populate_recordset(null::{name}, json_data)) AS _
                RETURNING {name}.*)
             SELECT coalesce(json_agg(_postgrest_t), '[]')::text AS body FROM (SELECT * FROM pgrst_source) AS _postgrest_t",
            columns.join(", ")
        );
        self.request("POST", &format!("/{table}"), &main, &[&rows])
    }

    /// `PATCH /table?column=eq.value` with an object, `Prefer: return=representation`.
    pub fn update(&mut self, table: &str, filters: &[(&str, &str)], body: &Value) -> Answer {
        let name = self.name(table);
        let set: Vec<String> =
            body.as_object().map(|row| row.keys().map(|key| format!("{0} = _.{0}", quoted(key))).collect()).unwrap_or_default();
        let columns: Vec<String> = body.as_object().map(|row| row.keys().map(|key| quoted(key)).collect()).unwrap_or_default();
        let main = format!(
            "WITH pgrst_source AS (WITH pgrst_payload AS (SELECT $1::json AS json_data)
                UPDATE {name} SET {} FROM (SELECT {} FROM pgrst_payload, LATERAL (SELECT * FROM json_populate_record(null::{name}, json_data)) AS pgrst_body) AS _
                {} RETURNING {name}.*)
             SELECT coalesce(json_agg(_postgrest_t), '[]')::text AS body FROM (SELECT * FROM pgrst_source) AS _postgrest_t",
            set.join(", "),
            columns.join(", "),
            conditions(&name, filters)
        );
        self.request("PATCH", &format!("/{table}"), &main, &[body])
    }

    /// `DELETE /table?column=eq.value`, `Prefer: return=representation`.
    pub fn delete(&mut self, table: &str, filters: &[(&str, &str)]) -> Answer {
        let name = self.name(table);
        let main = format!(
            "WITH pgrst_source AS (DELETE FROM {name} {} RETURNING {name}.*)
             SELECT coalesce(json_agg(_postgrest_t), '[]')::text AS body FROM (SELECT * FROM pgrst_source) AS _postgrest_t",
            conditions(&name, filters)
        );
        self.request("DELETE", &format!("/{table}"), &main, &[])
    }
}

/// `WHERE "s"."t"."c" = 'value'`: filters are literals of unknown type, as PostgREST writes them.
fn conditions(name: &str, filters: &[(&str, &str)]) -> String {
    let parts: Vec<String> =
        filters.iter().map(|(column, value)| format!("{name}.{} = '{}'", quoted(column), value.replace('\'', "''"))).collect();
    if parts.is_empty() { String::new() } else { format!("WHERE {}", parts.join(" AND ")) }
}

/// The statuses that PostgREST makes of SQLSTATEs.
fn refusal(error: &postgres::Error, role: &str) -> Answer {
    let Some(said) = error.as_db_error() else { panic!("not an answer of the server: {}", wait::describe(error)) };
    let code = said.code().code();
    if code == "PGRST" {
        // The error says the whole response: its body, and status and headers.
        let part = |text: Option<&str>| serde_json::from_str::<Value>(text.unwrap_or_default()).unwrap_or(Value::Null);
        let (mut body, response) = (part(Some(said.message())), part(said.detail()));
        body["headers"] = response["headers"].clone();
        return Answer { status: response["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(500), body };
    }
    let status = match code {
        "42501" if role == "anon" => 401,
        "42501" => 403,
        "42883" | "42P01" => 404,
        "23503" | "23505" => 409,
        "25006" => 405,
        _ if code.starts_with("PT") => code[2..].parse().unwrap_or(500),
        _ if code.starts_with("08") || code.starts_with("53") => 503,
        _ if code.starts_with("XX") => 500,
        _ => 400,
    };
    Answer { status, body: json!({"code": code, "message": said.message(), "details": said.detail(), "hint": said.hint()}) }
}
