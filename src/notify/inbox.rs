//! The inbox: what people are told where they are signed in.

use crate::error::{Result, UsherError, did_you_mean};
use crate::pg::spi;
use crate::registry::identity::{self, Right};
use crate::setup::Installed;
use pgrx::{JsonB, Uuid};

/// Who of an organization is meant; anything else is a person's own id.
const GROUPS: [&str; 2] = ["admins", "members"];
const SEVERITIES: [&str; 3] = ["info", "warning", "critical"];
/// Of one call, beside the groups.
const MOST_PEOPLE: usize = 1_000;
const LONGEST_TITLE: usize = 500;
const LONGEST_BODY: usize = 100_000;

/// A message, checked.
pub struct Message {
    pub title: String,
    pub kind: String,
    pub severity: String,
    pub body: JsonB,
    pub key: Option<String>,
}

impl Message {
    pub fn checked(self) -> Result<Self> {
        if self.title.trim().is_empty() || self.title.len() > LONGEST_TITLE {
            return Err(UsherError::invalid("the title is empty or too long").hint(format!(
                "Say in a line what has happened, in at most {LONGEST_TITLE} bytes; the rest belongs into body."
            )));
        }
        if self.kind.trim().is_empty() {
            return Err(UsherError::invalid("the kind is empty").hint("Name what it is about, such as low_stock."));
        }
        if !SEVERITIES.contains(&self.severity.as_str()) {
            let near = did_you_mean(&self.severity, &SEVERITIES);
            return Err(UsherError::invalid(format!("severity \"{}\" is unknown", self.severity))
                .hint(format!("{near}Use one of: {}.", SEVERITIES.join(", "))));
        }
        if !self.body.0.is_object() || self.body.0.to_string().len() > LONGEST_BODY {
            return Err(UsherError::invalid("the body is no JSON object, or too long")
                .hint(format!("Give an object of at most {LONGEST_BODY} bytes, such as {{\"sku\": \"T-1\"}}.")));
        }
        Ok(self)
    }
}

/// The people who are meant, each once.
pub fn people(installed: Installed, organization: Uuid, recipients: &[Option<String>]) -> Result<Vec<String>> {
    let hint = "Name people by their ids, as usher.actor() tells them, or groups: admins, members.";
    let named: Option<Vec<&str>> = recipients.iter().map(Option::as_deref).collect();
    let named =
        named.filter(|named| !named.is_empty() && named.len() <= MOST_PEOPLE && named.iter().all(|name| !name.trim().is_empty()));
    let Some(named) = named else {
        return Err(UsherError::invalid(format!("recipients are not a list of 1 to {MOST_PEOPLE} names")).hint(hint));
    };
    let mut all: Vec<String> = named.iter().filter(|name| !GROUPS.contains(name)).map(|name| (*name).to_owned()).collect();
    // Flows are the operators' word; an admin does not reach into other people's inboxes.
    if !identity::in_flow() && !identity::is_operator() && !all.is_empty() {
        let members = identity::people(installed, organization, Right::Read)?;
        if let Some(stranger) = all.iter().find(|person| !members.contains(person)) {
            return Err(UsherError::forbidden(format!("\"{stranger}\" is no member of the organization"))
                .hint("Admins tell members; guests and others are told by flows."));
        }
    }
    for (group, right) in [("admins", Right::Manage), ("members", Right::Read)] {
        if named.contains(&group) {
            all.extend(identity::people(installed, organization, right)?);
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// Tells people something; who has a message of the same key is not told again. Returns how many were told. Runs with the owner's rights.
pub fn tell(organization: Uuid, people: Vec<String>, message: Message) -> Result<i32> {
    let told = spi::run(
        "INSERT INTO usher.notifications (organization_id, id, recipient, kind, severity, title, body, key)
         SELECT $1, usher.uuid_v7(), p.person, $3, $4, $5, $6, $7 FROM unnest($2::text[]) AS p (person) ORDER BY p.person
         ON CONFLICT ON CONSTRAINT notifications_once_key DO NOTHING",
        &[
            spi::arg(organization),
            spi::arg(people),
            spi::arg(message.kind),
            spi::arg(message.severity),
            spi::arg(message.title),
            spi::arg(message.body),
            spi::arg(message.key),
        ],
    )?;
    Ok(i32::try_from(told).unwrap_or(i32::MAX))
}

/// Hands a person's messages on to another; what that one has by the same key is dropped. Returns how many have moved. Runs with the owner's rights.
pub fn forward(organization: Uuid, recipient: &str, becomes: &str) -> Result<i64> {
    if recipient == becomes {
        return Ok(0);
    }
    let arguments = || [spi::arg(organization), spi::arg(recipient), spi::arg(becomes)];
    spi::run(
        "DELETE FROM usher.notifications AS n WHERE n.organization_id = $1 AND n.recipient = $2
            AND EXISTS (SELECT FROM usher.notifications AS o WHERE o.organization_id = $1 AND o.recipient = $3 AND o.key = n.key)",
        &arguments(),
    )?;
    let moved = spi::run(
        "UPDATE usher.notifications AS n SET recipient = $3 WHERE n.organization_id = $1 AND n.recipient = $2",
        &arguments(),
    )?;
    Ok(i64::try_from(moved).unwrap_or(i64::MAX))
}

/// Marks a person's messages as read; None: all of them. Returns how many were unread. Runs with the owner's rights.
pub fn read(person: &str, notifications: Option<Vec<Uuid>>) -> Result<i64> {
    let read = spi::run(
        "UPDATE usher.notifications AS n SET read_at = pg_catalog.clock_timestamp()
          WHERE n.recipient = $1 AND n.read_at IS NULL AND ($2::uuid[] IS NULL OR n.id = ANY ($2))",
        &[spi::arg(person), spi::arg(notifications)],
    )?;
    Ok(i64::try_from(read).unwrap_or(i64::MAX))
}

/// Forgets what was read so many days ago.
pub fn prune(keep_days: i32) -> Result<()> {
    spi::run("DELETE FROM usher.notifications WHERE read_at < pg_catalog.now() - $1 * interval '1 day'", &[spi::arg(keep_days)])?;
    Ok(())
}
