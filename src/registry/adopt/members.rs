//! Who belongs where, as the application's table says.

use super::binding::Adoption;
use crate::error::{Result, UsherError};
use crate::pg::guc::Nest;
use crate::pg::spi;
use crate::registry::identity::Right;
use crate::registry::tables::{Column, Table};
use pgrx::datum::DatumWithOid;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::{Map, Value};

/// What the application's roles are here, if nobody says otherwise.
pub const ROLES: [(&str, &str); 3] = [("owner", "admin"), ("admin", "admin"), ("member", "member")];

/// How the table names a person.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum User {
    Uuid,
    Text,
    Number,
}

impl User {
    fn of(column: &Column) -> Option<Self> {
        match column.base_sql.as_str() {
            "uuid" => Some(Self::Uuid),
            "text" | "character varying" => Some(Self::Text),
            "bigint" | "integer" => Some(Self::Number),
            _ => None,
        }
    }

    /// The person as a value of the column; None: the table cannot mean that one.
    fn named(self, user: &str) -> Option<Person<'_>> {
        // A database role belongs where usher.memberships says, whatever names the application lets people choose.
        if user.starts_with("role:") {
            return None;
        }
        match self {
            Self::Uuid => uuid::Uuid::try_parse(user).ok().map(|id| Person::Uuid(*id.as_bytes())),
            Self::Text => Some(Person::Text(user)),
            // "+7" and "07" are other people than 7.
            Self::Number => user.parse::<i64>().ok().filter(|number| number.to_string() == user).map(Person::Number),
        }
    }
}

/// A value of a column that names people.
#[derive(Debug, PartialEq, Eq)]
enum Person<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
    Number(i64),
}

impl<'a> Person<'a> {
    fn arg(self) -> DatumWithOid<'a> {
        match self {
            Self::Uuid(id) => spi::arg(pgrx::Uuid::from_bytes(id)),
            Self::Text(text) => spi::arg(text),
            Self::Number(number) => spi::arg(number),
        }
    }
}

pub struct Members {
    pub table: Table,
    user: User,
    /// SQL for the organizations of `$1`, as `id`.
    sql: String,
    /// SQL for the people of organization `$1`, as `person`.
    people: String,
    /// The roles that manage; those that may read.
    manage: Vec<String>,
    read: Vec<String>,
    /// There is a column that says the role.
    roles: bool,
}

/// `"role"` and NULL conditions as SQL, with every value as its type's output text.
fn text_of(column: &Column) -> String {
    format!("pg_catalog.concat(x.{})", quote_identifier(&column.name))
}

pub fn bind(adoption: &Adoption, table: &Table) -> Result<Members> {
    let organization = adoption.organization(table, "organization")?;
    let person = adoption.needed(table, "user")?;
    let user = User::of(person).ok_or_else(|| {
        UsherError::invalid(format!("{}.{} is of type {}, which names nobody", table.name, person.name, person.type_sql))
            .hint("Name the column that holds the user's id: uuid, text, integer or bigint, as in a token's \"sub\".")
    })?;
    let mut conditions = condition(&adoption.condition, table)?;
    let role = adoption.column("role").map(|_| adoption.needed(table, "role")).transpose()?;
    if let Some(role) = role {
        conditions.push(format!("{} OPERATOR(pg_catalog.=) ANY ($2)", text_of(role)));
    }
    let mut sql = format!(
        "SELECT x.{} AS id FROM {} AS x WHERE x.{} OPERATOR(pg_catalog.=) $1",
        quote_identifier(&organization.name),
        table.sql,
        quote_identifier(&person.name)
    );
    let mut people = format!(
        "SELECT {} AS person FROM {} AS x WHERE x.{} OPERATOR(pg_catalog.=) $1",
        text_of(person),
        table.sql,
        quote_identifier(&organization.name)
    );
    conditions.iter().for_each(|condition| sql.push_str(&format!(" AND {condition}")));
    conditions.iter().for_each(|condition| people.push_str(&format!(" AND {condition}")));
    let (manage, read) = mapped(adoption.roles.as_ref())?;
    Ok(Members { table: table.clone(), user, sql, people, manage, read, roles: role.is_some() })
}

/// Names of roles that manage, and of those that may read.
fn mapped(roles: Option<&Map<String, Value>>) -> Result<(Vec<String>, Vec<String>)> {
    let pairs: Vec<(String, String)> = match roles {
        None => ROLES.iter().map(|(theirs, ours)| ((*theirs).to_owned(), (*ours).to_owned())).collect(),
        Some(map) => map.iter().map(|(theirs, ours)| (theirs.clone(), ours.as_str().unwrap_or_default().to_owned())).collect(),
    };
    let hint =
        "For example: roles => '{\"owner\": \"admin\", \"editor\": \"member\"}'. A role that is not named there gives no rights.";
    if pairs.is_empty() {
        return Err(UsherError::invalid("\"roles\" names no role").hint(hint));
    }
    if let Some((theirs, ours)) = pairs.iter().find(|(_, ours)| !matches!(ours.as_str(), "admin" | "member")) {
        let why = if ours == "legend" {
            "nobody becomes a legend by a table of the application".to_owned()
        } else {
            format!("role \"{theirs}\" is given neither as admin nor as member")
        };
        let hint = if ours == "legend" { "Grant it with usher.grant_membership(organization, user, 'legend')." } else { hint };
        return Err(UsherError::invalid(why).hint(hint));
    }
    let manage = pairs.iter().filter(|(_, ours)| ours == "admin").map(|(theirs, _)| theirs.clone()).collect();
    Ok((manage, pairs.into_iter().map(|(theirs, _)| theirs).collect()))
}

/// Columns and the values that they must have, as SQL.
fn condition(wanted: &Map<String, Value>, table: &Table) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (name, value) in wanted {
        let column = table.expect(name, "\"condition\"")?;
        let text = match value {
            Value::Null => {
                all.push(format!("pg_catalog.num_nulls(x.{}) OPERATOR(pg_catalog.=) 1", quote_identifier(&column.name)));
                continue;
            }
            Value::Bool(true) if column.base_sql == "boolean" => "t".to_owned(),
            Value::Bool(false) if column.base_sql == "boolean" => "f".to_owned(),
            Value::String(text) => text.clone(),
            Value::Number(number) if number.is_i64() => number.to_string(),
            _ => {
                return Err(UsherError::invalid(format!("the condition on \"{name}\" is none"))
                    .hint("Conditions are a column and its value, a text, an integer, true, false or null: '{\"status\": \"active\", \"left_at\": null}'."));
            }
        };
        // concat() of NULL is an empty text, which is a value of its own.
        all.push(format!(
            "pg_catalog.num_nulls(x.{}) OPERATOR(pg_catalog.=) 0 AND {} OPERATOR(pg_catalog.=) {}",
            quote_identifier(&column.name),
            text_of(column),
            quote_literal(&text)
        ));
    }
    Ok(all)
}

/// Where the application says which organizations there are, its members belong to those and to no other: whoever may choose an
/// id there must not come by one of ours.
const MEANT: &str = "(o.adopted OR NOT EXISTS (SELECT FROM usher.adoptions AS a WHERE a.kind = 'organizations'))";

impl Members {
    fn args<'a>(&self, user: &'a str, right: Right) -> Option<Vec<DatumWithOid<'a>>> {
        let mut args = vec![self.user.named(user)?.arg()];
        if self.roles {
            args.push(spi::arg(if right == Right::Manage { self.manage.clone() } else { self.read.clone() }));
        } else if right == Right::Manage {
            return None;
        }
        Some(args)
    }

    /// The organizations in which a person has the right. Runs with the owner's rights.
    pub fn organizations(&self, user: &str, right: Right) -> Result<Vec<pgrx::Uuid>> {
        let Some(args) = self.args(user, right) else { return Ok(Vec::new()) };
        let sql = format!(
            "SELECT pg_catalog.array_agg(o.id) FROM usher.organizations AS o WHERE o.id IN (SELECT m.id FROM ({}) AS m) AND {MEANT}",
            self.sql
        );
        let _guarded = Nest::open().data_only();
        Ok(spi::read::<Vec<pgrx::Uuid>>(&sql, &args)?.unwrap_or_default())
    }

    /// The people who have the right in an organization. Runs with the owner's rights.
    pub fn people(&self, organization: pgrx::Uuid, right: Right) -> Result<Vec<String>> {
        let mut args = vec![spi::arg(organization)];
        if self.roles {
            args.push(spi::arg(if right == Right::Manage { self.manage.clone() } else { self.read.clone() }));
        } else if right == Right::Manage {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT pg_catalog.array_agg(m.person) FROM ({}) AS m WHERE m.person <> '' AND EXISTS (SELECT FROM usher.organizations AS o WHERE o.id = $1 AND {MEANT})",
            self.people
        );
        let _guarded = Nest::open().data_only();
        Ok(spi::read::<Vec<String>>(&sql, &args)?.unwrap_or_default())
    }

    /// True when a person has the right in this organization. Runs with the owner's rights.
    pub fn has(&self, user: &str, organization: pgrx::Uuid, right: Right) -> Result<bool> {
        let Some(mut args) = self.args(user, right) else { return Ok(false) };
        args.push(spi::arg(organization));
        let sql = format!(
            "SELECT EXISTS (SELECT FROM ({}) AS m JOIN usher.organizations AS o ON o.id = m.id WHERE o.id = ${} AND {MEANT})",
            self.sql,
            args.len()
        );
        let _guarded = Nest::open().data_only();
        Ok(spi::read::<bool>(&sql, &args)?.unwrap_or(false))
    }
}

#[cfg(test)]
mod unit {
    use super::{User, mapped};
    use serde_json::json;

    #[test]
    fn roles_are_admins_members_or_nothing() {
        let (manage, read) = mapped(None).unwrap();
        assert_eq!((manage.len(), read.len()), (2, 3));
        let map = json!({"chief": "admin", "guest": "member"});
        let (manage, read) = mapped(map.as_object()).unwrap();
        assert_eq!((manage, read), (vec!["chief".to_owned()], vec!["chief".to_owned(), "guest".to_owned()]));
        for wrong in [json!({}), json!({"chief": "legend"}), json!({"chief": 1}), json!({"chief": "Admin"})] {
            assert!(mapped(wrong.as_object()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_person_is_meant_exactly_or_not_at_all() {
        for (kind, user, meant) in [
            (User::Text, "anna", true),
            (User::Text, "role:anna", false),
            (User::Number, "17", true),
            (User::Number, "017", false),
            (User::Number, "+17", false),
            (User::Number, " 17", false),
            (User::Uuid, "6f1c0a2e-5f0d-4c7a-9a57-0d3c8a1b2e4f", true),
            (User::Uuid, "6f1c0a2e", false),
        ] {
            assert_eq!(kind.named(user).is_some(), meant, "{kind:?} {user}");
        }
    }
}
