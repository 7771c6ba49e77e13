//! Who reads and writes which rows of a table: one declaration, from which the policies are made.
//!
//! ```text
//! {"read": "member", "write": "admin", "tables": {"shop.orders": {}, "shop.prices": {"read": "everybody", "write": "nobody"}}}
//! ```
//!
//! The engine's is in `sql/setup/access.sql`, a pack's in its manifest ("tenancy"). With "every_table" it rules all tables of the
//! schemas, also those that nobody has thought of: if their rows have no organization, members read none of them. Which
//! organizations somebody's are is asked once for each statement. Partitions are read through their table only.

use crate::error::{Result, UsherError, did_you_mean};
use crate::pg::guc::Nest;
use crate::pg::spi;
use pgrx::JsonB;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whose rows somebody reads: those of organizations that one is a member of, or manages; `Shared` are those and the rows
/// without an organization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Read {
    Nobody,
    Admin,
    #[default]
    Member,
    Shared,
    Everybody,
    /// Whoever a row is for, by its column `recipient`, member or not.
    Recipient,
}

/// Who writes rows of an organization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Write {
    #[default]
    Nobody,
    Member,
    Admin,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    read: Option<Read>,
    write: Option<Write>,
    /// What names a row's organization; `organization_id` unless said otherwise. A name that needs no quotes.
    column: Option<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    #[serde(default)]
    read: Read,
    #[serde(default)]
    write: Write,
    /// Tables of the schemas that are not named, too.
    #[serde(default)]
    every_table: bool,
    #[serde(default)]
    tables: BTreeMap<String, Exception>,
}

impl Declaration {
    /// The tables that it names, `schema.table`.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// Without tables that are somebody else's after all.
    pub fn without(mut self, others: &dyn Fn(&str) -> bool) -> Self {
        self.tables.retain(|name, _| !others(name));
        self
    }

    pub fn parse(declared: &Value) -> Result<Self> {
        match declared {
            Value::Null => Ok(Self::default()),
            declared => Self::deserialize(declared).map_err(|e| {
                UsherError::definition(format!("a declaration of tenancy is malformed: {e}"))
                    .hint("It is like {\"read\": \"member\", \"write\": \"admin\", \"tables\": {\"shop.orders\": {}}}.")
            }),
        }
    }
}

/// A policy as it is, or as it should be. Conditions are as PostgreSQL prints them, so that the two can be compared.
#[derive(Debug, PartialEq, Deserialize)]
struct Policy {
    name: String,
    /// As `pg_policy.polcmd` has it.
    command: char,
    permissive: bool,
    roles: Vec<String>,
    using: Option<String>,
    check: Option<String>,
}

impl Policy {
    fn new(name: &str, command: char, role: &str, condition: &str) -> Self {
        let condition = Some(condition.to_owned());
        let (using, check) = match command {
            'r' | 'd' => (condition, None),
            'a' => (None, condition),
            _ => (condition.clone(), condition),
        };
        Self { name: name.to_owned(), command, permissive: true, roles: vec![role.to_owned()], using, check }
    }

    fn create(&self, table: &str) -> String {
        let command = match self.command {
            'r' => "SELECT",
            'a' => "INSERT",
            'w' => "UPDATE",
            'd' => "DELETE",
            _ => "ALL",
        };
        let roles: Vec<String> = self.roles.iter().map(|role| quoted(role)).collect();
        let using = self.using.as_ref().map(|condition| format!(" USING ({condition})")).unwrap_or_default();
        let check = self.check.as_ref().map(|condition| format!(" WITH CHECK ({condition})")).unwrap_or_default();
        format!("CREATE POLICY {} ON {table} FOR {command} TO {}{using}{check};\n", quoted(&self.name), roles.join(", "))
    }

    /// Made here at some time, under this declaration or another.
    fn is_ours(&self, place: Place<'_>) -> bool {
        let Some(name) = self.name.strip_prefix(place.prefix()) else { return false };
        matches!(
            name.split('_').collect::<Vec<_>>()[..],
            ["member" | "admin" | "shared" | "everybody" | "recipient" | "reader", "reads"]
                | ["member" | "admin", "inserts" | "updates" | "deletes"]
        ) || name == "flows" && matches!(place, Place::Pack { .. })
    }
}

/// Whose tables they are.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// Nobody else's policies are in this schema.
    Engine,
    /// Names of policies begin in a way that an application's do not. Flows of this role work in all organizations, each job in
    /// its own.
    Pack { flows: &'a str },
}

impl Place<'_> {
    fn prefix(self) -> &'static str {
        match self {
            Self::Engine => "",
            Self::Pack { .. } => "usher_",
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn belongs(column: &str, organizations: &str) -> String {
    format!("({column} = ANY (( SELECT usher.{organizations}() AS {organizations})::uuid[]))")
}

/// The policies of a table.
fn wanted(read: Read, write: Write, column: &str, place: Place<'_>) -> Vec<Policy> {
    let policy = |name: &str, command, role: &str, condition: &str| {
        Policy::new(&format!("{}{name}", place.prefix()), command, role, condition)
    };
    let of_members = belongs(column, "member_organizations");
    let of_admins = belongs(column, "managed_organizations");
    let mut policies = vec![policy("reader_reads", 'r', "usher_reader", "true")];
    let reads = match read {
        Read::Nobody => None,
        Read::Admin => Some(("admin_reads", of_admins.clone())),
        Read::Member => Some(("member_reads", of_members.clone())),
        Read::Shared => Some(("shared_reads", format!("(({column} IS NULL) OR {of_members})"))),
        Read::Everybody => Some(("everybody_reads", "true".to_owned())),
        Read::Recipient => Some(("recipient_reads", "(recipient = ( SELECT usher.actor() AS actor))".to_owned())),
    };
    policies.extend(reads.map(|(name, condition)| policy(name, 'r', "usher_member", &condition)));
    let writes = match write {
        Write::Nobody => None,
        Write::Member => Some(("member", of_members)),
        Write::Admin => Some(("admin", of_admins)),
    };
    if let Some((who, condition)) = writes {
        for (what, command) in [("inserts", 'a'), ("updates", 'w'), ("deletes", 'd')] {
            policies.push(policy(&format!("{who}_{what}"), command, "usher_member", &condition));
        }
    }
    if let Place::Pack { flows } = place {
        policies.push(policy("flows", '*', flows, "true"));
    }
    policies
}

struct Relation {
    name: String,
    sql: String,
    partition: bool,
    secured: bool,
    uuids: Vec<String>,
    policies: Vec<Policy>,
    /// Of a partition: roles of ours that somebody has granted something.
    granted: Vec<String>,
}

fn relations(schemas: &[&str]) -> Result<Vec<Relation>> {
    spi::all(
        "SELECT n.nspname || '.' || c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relispartition, c.relrowsecurity,
                ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype),
                (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                            'name', p.polname, 'command', p.polcmd, 'permissive', p.polpermissive,
                            'roles', ARRAY(SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid = ANY (p.polroles) ORDER BY r.rolname),
                            'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid), 'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)))
                   FROM pg_catalog.pg_policy p WHERE p.polrelid = c.oid),
                ARRAY(SELECT DISTINCT g.grantee::pg_catalog.regrole::text FROM pg_catalog.aclexplode(c.relacl) g
                       WHERE c.relispartition AND g.grantee <> c.relowner
                         AND g.grantee IN (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname IN ('usher_member', 'usher_reader', 'usher_operator')))
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = ANY ($1) AND c.relkind IN ('r', 'p') ORDER BY 1",
        &[spi::arg(schemas.to_vec())],
        |row| {
            let policies = row.get::<JsonB>(6)?.map(|found| Vec::<Policy>::deserialize(&found.0));
            let policies = policies.transpose().map_err(|e| UsherError::internal(format!("policies of a table cannot be read: {e}")))?;
            Ok(Relation {
                name: row.get(1)?.unwrap_or_default(),
                sql: row.get(2)?.unwrap_or_default(),
                partition: row.get(3)?.unwrap_or(false),
                secured: row.get(4)?.unwrap_or(false),
                uuids: row.get(5)?.unwrap_or_default(),
                policies: policies.unwrap_or_default(),
                granted: row.get(7)?.unwrap_or_default(),
            })
        },
    )
}

/// What must be done so that `relation` is as it is declared, and how many statements that is. A policy that is there as it
/// should be is left alone: making it anew would lock the table against everybody.
fn differences(relation: &Relation, declaration: &Declaration, place: Place<'_>) -> Result<Vec<String>> {
    let Relation { name, sql, .. } = relation;
    let exception = declaration.tables.get(name);
    let column = exception.and_then(|e| e.column.as_deref()).unwrap_or("organization_id");
    let mut read = exception.and_then(|e| e.read).unwrap_or(declaration.read);
    let mut write = exception.and_then(|e| e.write).unwrap_or(declaration.write);
    if !relation.uuids.iter().any(|found| found == column) {
        let said = |means: bool| exception.is_some() && means;
        if said(!matches!(read, Read::Nobody | Read::Everybody)) || said(write != Write::Nobody) {
            return Err(UsherError::definition(format!(
                "{name} is declared to belong to organizations, and has no uuid column {column}"
            ))
            .hint("Name the column that has a row's organization: \"column\": …."));
        }
        (read, write) = (if read == Read::Everybody { read } else { Read::Nobody }, Write::Nobody);
    }
    // It is compared with what PostgreSQL prints, which quotes what is not plain.
    if !column.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        return Err(UsherError::definition(format!("\"{column}\" cannot name the organization of {name}"))
            .hint("Use a name of lower-case letters and _."));
    }
    let wanted = if relation.partition { Vec::new() } else { wanted(read, write, column, place) };
    let mut script = Vec::new();
    if !relation.secured {
        script.push(format!("ALTER TABLE {sql} ENABLE ROW LEVEL SECURITY;\n"));
    }
    let stale = relation.policies.iter().filter(|there| {
        let same_name = wanted.iter().find(|policy| policy.name == there.name);
        same_name.map_or_else(|| there.is_ours(place), |policy| policy != *there)
    });
    script.extend(stale.map(|policy| format!("DROP POLICY {} ON {sql};\n", quoted(&policy.name))));
    script.extend(wanted.iter().filter(|policy| !relation.policies.contains(policy)).map(|policy| policy.create(sql)));
    script.extend(relation.granted.iter().map(|role| format!("REVOKE ALL ON {sql} FROM {role};\n")));
    Ok(script)
}

/// Gives the tables of these schemas the policies that the declaration says; returns how many statements that took. Runs as the
/// caller, who owns the tables.
pub fn bring_in_line(schemas: &[&str], declaration: &Declaration, place: Place<'_>) -> Result<i64> {
    let _nest = Nest::pinned_path();
    let relations = relations(schemas)?;
    let names: Vec<&str> = relations.iter().map(|relation| relation.name.as_str()).collect();
    if let Some(unknown) = declaration.tables.keys().find(|name| !names.contains(&name.as_str())) {
        let near = did_you_mean(unknown, &names);
        return Err(UsherError::definition(format!("tenancy of {unknown} is declared, which does not exist"))
            .hint(if near.is_empty() { format!("There are: {}.", names.join(", ")) } else { near.trim_end().to_owned() }));
    }
    let mut script = Vec::new();
    let ruled = |name: &String| declaration.every_table || declaration.tables.contains_key(name);
    for relation in relations.iter().filter(|relation| ruled(&relation.name)) {
        script.extend(differences(relation, declaration, place)?);
    }
    if !script.is_empty() {
        spi::script(&script.concat())?;
    }
    Ok(script.len() as i64)
}

#[cfg(test)]
mod unit {
    use super::{Declaration, Place, Policy, Read, Relation, Write, differences};
    use serde_json::json;

    fn table(name: &str, uuids: &[&str], policies: Vec<Policy>) -> Relation {
        Relation {
            name: name.to_owned(),
            sql: name.to_owned(),
            partition: false,
            secured: true,
            uuids: uuids.iter().map(|name| (*name).to_owned()).collect(),
            policies,
            granted: Vec::new(),
        }
    }

    const PACK: Place<'_> = Place::Pack { flows: "worker" };

    fn declared(value: serde_json::Value) -> Declaration {
        Declaration::parse(&value).expect("a declaration")
    }

    #[test]
    fn what_nobody_has_thought_of_is_closed() {
        let declaration = Declaration::default();
        assert_eq!((declaration.read, declaration.write), (Read::Member, Write::Nobody));
        let script = differences(&table("shop.settings", &["id"], Vec::new()), &declaration, Place::Engine).unwrap();
        assert_eq!(script, ["CREATE POLICY \"reader_reads\" ON shop.settings FOR SELECT TO \"usher_reader\" USING (true);\n"]);
    }

    #[test]
    fn only_what_differs_is_made() {
        let declaration = declared(json!({"write": "admin"}));
        let wanted = || super::wanted(Read::Member, Write::Admin, "organization_id", PACK);
        let orders = table("shop.orders", &["organization_id"], wanted());
        assert!(differences(&orders, &declaration, PACK).unwrap().is_empty());

        // Somebody has opened one, and added two of their own and one of ours that is not declared.
        let mut policies = wanted();
        policies[1].using = Some("true".to_owned());
        policies.push(Policy::new("auditors", 'r', "usher_member", "true"));
        policies.push(Policy::new("usher_everybody_reads", 'r', "usher_member", "true"));
        policies.push(Policy::new("everybody_reads", 'r', "usher_member", "true"));
        let script = differences(&table("shop.orders", &["organization_id"], policies), &declaration, PACK).unwrap();
        assert_eq!(script.len(), 3, "{script:?}");
        assert!(script[0].starts_with("DROP POLICY \"usher_member_reads\""));
        assert!(script[1].starts_with("DROP POLICY \"usher_everybody_reads\""));
        assert!(script[2].starts_with("CREATE POLICY \"usher_member_reads\""));
    }

    #[test]
    fn a_declaration_that_cannot_be_kept_is_refused() {
        let declaration = declared(json!({"tables": {"shop.rates": {"read": "member"}}}));
        assert!(differences(&table("shop.rates", &["id"], Vec::new()), &declaration, Place::Engine).is_err());
        for wrong in
            [json!({"reads": "member"}), json!({"read": "members"}), json!({"tables": {"a.b": {"writes": "admin"}}}), json!([1])]
        {
            assert!(Declaration::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_partition_has_no_policy_and_no_grant() {
        let mut partition = table(
            "shop.orders_1",
            &["organization_id"],
            super::wanted(Read::Member, Write::Nobody, "organization_id", Place::Engine),
        );
        partition.partition = true;
        partition.granted = vec!["usher_reader".to_owned()];
        let script = differences(&partition, &Declaration::default(), Place::Engine).unwrap();
        assert_eq!(script.len(), 3, "{script:?}");
        assert!(script[2].starts_with("REVOKE ALL ON shop.orders_1"));
    }
}
