//! Where a person's data is: from the person's own row along foreign keys and links to everything that hangs on it.
//!
//! Worked out from the catalog each time, so that a table that was made yesterday is not forgotten. A row that refers to the
//! person's is the person's own when it could not be without it (ON DELETE CASCADE), when its table has personal columns, or when
//! the definition says `follow`; other rows only mention the person: a project is not its manager's. Links that flows make
//! join the two sides as one thing.

use super::store::{self, Personal, Subject};
use crate::error::{Result, UsherError};
use crate::pg::spi;
use crate::registry::tables::{self, Table};
use pgrx::pg_sys::Oid;
use pgrx::spi::{quote_identifier, quote_literal};
use std::collections::HashMap;
use std::rc::Rc;

/// More steps than this are no data model, but a circle that was not seen.
const MOST_NODES: usize = 200;
const DEEPEST: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Person,
    Owned,
    Mentions,
    LeftOut,
}

impl Standing {
    pub fn word(self) -> &'static str {
        match self {
            Self::Person => "the person",
            Self::Owned => "owned",
            Self::Mentions => "mentions",
            Self::LeftOut => "left out",
        }
    }
}

/// How a table's rows are reached.
#[derive(Debug, Clone)]
enum Way {
    Root,
    /// By a foreign key: pairs of columns (here, of the one before).
    Reference(Vec<(String, String)>),
    /// By links of a kind: the column before, the column here, and whether the one before is left.
    Link {
        kind: String,
        before: String,
        here: String,
        before_is_left: bool,
    },
}

/// A table on one way from the person.
pub struct Node {
    pub table: Rc<Table>,
    pub standing: Standing,
    /// How it is reached, for people: `schema.table.constraint`, or the link.
    pub via: String,
    pub depth: usize,
    pub personal: Rc<Vec<Personal>>,
    before: Option<usize>,
    way: Way,
    /// What `$2` of its predicate is: keys of the person's table, or ids at the far end of links.
    values: Rc<Vec<String>>,
}

struct Reference {
    name: String,
    table: Oid,
    of: Oid,
    cascades: bool,
    /// Its table belongs to whoever owns the person's, or to a role whose rights the definition's has.
    trusted: bool,
    columns: Vec<(String, String)>,
}

struct Bridge {
    flow: String,
    kind: String,
    left: (String, String),
    right: (String, String),
}

pub struct Graph {
    pub subject: Subject,
    pub nodes: Vec<Node>,
}

/// Every foreign key between tables of the application, from the side of what is referred to.
fn references(subject: &Subject) -> Result<HashMap<u32, Vec<Reference>>> {
    let all = spi::read_all(
        "SELECT n.nspname || '.' || c.relname || '.' || k.conname, k.conrelid, k.confrelid, k.confdeltype = 'c',
                pg_catalog.array_agg(a.attname::text ORDER BY u.n), pg_catalog.array_agg(b.attname::text ORDER BY u.n),
                c.relowner = r.relowner OR pg_catalog.pg_has_role($2, c.relowner, 'USAGE') AND NOT s.rolsuper
           FROM pg_catalog.pg_constraint AS k
           JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
           JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname <> 'usher'
          CROSS JOIN LATERAL unnest(k.conkey, k.confkey) WITH ORDINALITY AS u (here, there, n)
           JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.here
           JOIN pg_catalog.pg_attribute AS b ON b.attrelid = k.confrelid AND b.attnum = u.there
           JOIN pg_catalog.pg_class AS r ON r.oid = $1 JOIN pg_catalog.pg_roles AS s ON s.oid = $2
          WHERE k.contype = 'f' AND k.conparentid = 0 GROUP BY 1, 2, 3, 4, c.relowner, r.relowner, s.rolsuper ORDER BY 1",
        &[spi::arg(subject.table.oid), spi::arg(subject.run_as)],
        |row| {
            let names = |at| row.get::<Vec<String>>(at).map(Option::unwrap_or_default);
            Ok(Reference {
                name: row.get::<String>(1)?.unwrap_or_default(),
                table: row.get::<Oid>(2)?.unwrap_or(Oid::INVALID),
                of: row.get::<Oid>(3)?.unwrap_or(Oid::INVALID),
                cascades: row.get::<bool>(4)?.unwrap_or(false),
                trusted: row.get::<bool>(7)?.unwrap_or(false),
                columns: names(5)?.into_iter().zip(names(6)?).collect(),
            })
        },
    )?;
    let mut by_table: HashMap<u32, Vec<Reference>> = HashMap::new();
    for reference in all {
        by_table.entry(reference.of.to_u32()).or_default().push(reference);
    }
    Ok(by_table)
}

/// The links that flows make between a plain column of their source and one of their target. A merge's are told by its left half: the
/// other one names the same links from the other side.
fn bridges() -> Result<Vec<Bridge>> {
    let all = spi::read_all(
        "SELECT f.name, f.definition -> 'link' ->> 'kind', v.compiled ->> 'source', (pg_catalog.regexp_match(f.definition -> 'link' ->> 'left', '^new\\.([a-z_][a-z0-9_]*)$'))[1],
                v.compiled ->> 'target', f.definition -> 'link' ->> 'right'
           FROM usher.flows AS f JOIN usher.flow_versions AS v ON v.flow_id = f.id AND v.version = f.version
          WHERE f.definition ? 'link' AND pg_catalog.strpos(f.name, ':') = 0 ORDER BY f.name",
        &[],
        |row| {
            let mut texts = Vec::with_capacity(6);
            for at in 1..=6 {
                texts.push(row.get::<String>(at)?);
            }
            Ok(texts)
        },
    )?;
    let whole = all.into_iter().filter_map(|texts| <[Option<String>; 6]>::try_from(texts).ok());
    Ok(whole
        .filter_map(|[flow, kind, source, left, target, right]| {
            Some(Bridge { flow: flow?, kind: kind?, left: (source?, left?), right: (target?, right?) })
        })
        .collect())
}

/// The tables with data of a kind of person. Runs with the owner's rights.
pub fn of(kind: &str) -> Result<Graph> {
    let subject = store::subject(kind)?;
    let (references, bridges) = (references(&subject)?, bridges()?);
    let mut known = Tables::default();
    let root = known.by_oid(subject.table.oid)?;
    store::of_one_organization(&root)?;
    let mut nodes = vec![Node {
        personal: known.personal(&root)?,
        table: root,
        standing: Standing::Person,
        via: String::new(),
        depth: 0,
        before: None,
        way: Way::Root,
        values: Rc::default(),
    }];
    let mut at = 0;
    while at < nodes.len() {
        if matches!(nodes[at].standing, Standing::Person | Standing::Owned) && nodes[at].depth < DEEPEST {
            let more = further(&subject, &nodes, at, &references, &bridges, &mut known)?;
            nodes.extend(more);
        }
        if nodes.len() > MOST_NODES {
            return Err(UsherError::state(format!("the data of a {kind} reaches over more than {MOST_NODES} ways through the tables"))
                .hint("Leave references out: usher.define_subject(…, leave => '{schema.table.constraint}'); usher.subject_graph() shows them."));
        }
        at += 1;
    }
    Ok(Graph { subject, nodes })
}

fn further(
    subject: &Subject,
    nodes: &[Node],
    at: usize,
    references: &HashMap<u32, Vec<Reference>>,
    bridges: &[Bridge],
    known: &mut Tables,
) -> Result<Vec<Node>> {
    let here = &nodes[at];
    let mut more = Vec::new();
    for reference in references.get(&here.table.oid.to_u32()).map(Vec::as_slice).unwrap_or_default() {
        let again = was_there(nodes, at, reference.table);
        if again && reference.table != here.table.oid {
            continue;
        }
        let table = known.by_oid(reference.table)?;
        let personal = known.personal(&table)?;
        // Persons who refer to persons are looked at one by one. And whoever may refer to the person's table must not have code of theirs run by it, nor keep anybody from being erased.
        let standing = if subject.leave.contains(&reference.name)
            || again
            || !(reference.trusted || subject.follow.contains(&reference.name))
        {
            Standing::LeftOut
        } else if subject.follow.contains(&reference.name) || reference.cascades || !personal.is_empty() {
            Standing::Owned
        } else {
            Standing::Mentions
        };
        more.push(Node {
            table,
            standing,
            via: reference.name.clone(),
            depth: here.depth + 1,
            personal,
            before: Some(at),
            way: Way::Reference(reference.columns.clone()),
            values: Rc::default(),
        });
    }
    for bridge in bridges {
        for (before, there, before_is_left) in [(&bridge.left, &bridge.right, true), (&bridge.right, &bridge.left, false)] {
            if before.0 != here.table.name || here.table.column(&before.1).is_none() {
                continue;
            }
            let Some(table) = known.by_name(&there.0)? else { continue };
            // Ids of links are nobody's alone: without the organization they could be another's.
            let apart = table.has_organization() || !here.table.has_organization();
            if was_there(nodes, at, table.oid) || table.column(&there.1).is_none() || !apart {
                continue;
            }
            let via = format!("link {} ({})", bridge.kind, bridge.flow);
            more.push(Node {
                personal: known.personal(&table)?,
                table,
                standing: if subject.leave.contains(&bridge.flow) { Standing::LeftOut } else { Standing::Owned },
                via,
                depth: here.depth + 1,
                before: Some(at),
                way: Way::Link { kind: bridge.kind.clone(), before: before.1.clone(), here: there.1.clone(), before_is_left },
                values: Rc::default(),
            });
        }
    }
    Ok(more)
}

/// On the way from the person to this node the table was passed already.
fn was_there(nodes: &[Node], at: usize, table: Oid) -> bool {
    let mut next = Some(at);
    while let Some(node) = next.map(|at| &nodes[at]) {
        if node.table.oid == table {
            return true;
        }
        next = node.before;
    }
    false
}

#[derive(Default)]
struct Tables {
    read: HashMap<u32, Rc<Table>>,
    declared: Option<HashMap<String, Rc<Vec<Personal>>>>,
}

impl Tables {
    fn by_oid(&mut self, oid: Oid) -> Result<Rc<Table>> {
        if let Some(table) = self.read.get(&oid.to_u32()) {
            return Ok(table.clone());
        }
        let table = tables::by_oid(oid)?.ok_or_else(|| UsherError::internal("a table is not in the catalog"))?;
        let table = Rc::new(table);
        self.read.insert(oid.to_u32(), table.clone());
        Ok(table)
    }

    fn by_name(&mut self, name: &str) -> Result<Option<Rc<Table>>> {
        let oid = spi::read::<Oid>(
            "SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
              WHERE n.nspname || '.' || c.relname = $1 AND c.relkind IN ('r', 'p') LIMIT 1",
            &[spi::arg(name)],
        )?;
        oid.map(|oid| self.by_oid(oid)).transpose()
    }

    fn personal(&mut self, table: &Table) -> Result<Rc<Vec<Personal>>> {
        if self.declared.is_none() {
            let mut declared: HashMap<String, Vec<Personal>> = HashMap::new();
            for (name, personal) in store::personal()? {
                declared.entry(name).or_default().push(personal);
            }
            self.declared = Some(declared.into_iter().map(|(name, list)| (name, Rc::new(list))).collect());
        }
        Ok(self.declared.as_ref().and_then(|declared| declared.get(&table.name).cloned()).unwrap_or_default())
    }
}

impl Graph {
    /// The condition that a row of the node is the person's, about the alias `t` and the node's depth. `$1` is the
    /// organization, `$2` the node's [`Graph::values`].
    pub fn predicate(&self, at: usize) -> String {
        let node = &self.nodes[at];
        let alias = format!("t{}", node.depth);
        let within = if node.table.has_organization() { format!("{alias}.organization_id = $1 AND ") } else { String::new() };
        match &node.way {
            Way::Root => format!("{within}{}", one_of(&node.table, &self.subject.key, &alias)),
            Way::Link { here, .. } => format!("{within}{}", one_of(&node.table, here, &alias)),
            Way::Reference(columns) => {
                let before = node.before.unwrap_or(0);
                let other = format!("t{}", self.nodes[before].depth);
                let joined: Vec<String> = columns
                    .iter()
                    .map(|(here, there)| format!("{alias}.{} = {other}.{}", quote_identifier(here), quote_identifier(there)))
                    .collect();
                format!(
                    "{within}EXISTS (SELECT FROM {} AS {other} WHERE {} AND {})",
                    self.nodes[before].table.sql,
                    joined.join(" AND "),
                    self.predicate(before)
                )
            }
        }
    }

    /// The rows of a node, as `FROM … WHERE …`.
    pub fn rows(&self, at: usize) -> String {
        let node = &self.nodes[at];
        format!("{} AS t{} WHERE {}", node.table.sql, node.depth, self.predicate(at))
    }

    pub fn alias(&self, at: usize) -> String {
        format!("t{}", self.nodes[at].depth)
    }

    pub fn values(&self, at: usize) -> Vec<String> {
        self.nodes[at].values.to_vec()
    }

    /// The node's rows are the person's own.
    pub fn owned(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|at| matches!(self.nodes[*at].standing, Standing::Person | Standing::Owned))
    }

    /// Looks up what lies at the far end of links, from the person's row on. `read` gives the values of a column of a node's
    /// rows, with the rights of the definition; `linked` the other ends.
    pub fn resolve(
        &mut self,
        keys: Vec<String>,
        read: impl Fn(&Self, usize, &str) -> Result<Vec<String>>,
        linked: impl Fn(&str, bool, &[String]) -> Result<Vec<String>>,
    ) -> Result<()> {
        self.nodes[0].values = Rc::new(keys);
        for at in 1..self.nodes.len() {
            let before = self.nodes[at].before.unwrap_or(0);
            self.nodes[at].values = match self.nodes[at].way.clone() {
                Way::Link { kind, before: column, before_is_left, .. } if self.nodes[at].standing == Standing::Owned => {
                    let ids = read(self, before, &column)?;
                    Rc::new(linked(&kind, before_is_left, &ids)?)
                }
                _ => self.nodes[before].values.clone(),
            };
        }
        Ok(())
    }
}

/// The column is one of `$2`, compared in its own type, so that an index serves.
fn one_of(table: &Table, column: &str, alias: &str) -> String {
    let base = table.column(column).map_or("text", |column| column.base_sql.as_str());
    format!("{alias}.{} = ANY ($2::text[]::{base}[])", quote_identifier(column))
}

/// SQL for what a personal column becomes when the person is erased; `$3` is the pseudonym. None: it stays.
pub fn erased(table: &Table, personal: &Personal) -> Option<String> {
    let column = table.column(&personal.column)?;
    Some(match &personal.erase {
        store::Erase::Keep => return None,
        store::Erase::Null => format!("NULL::{}", column.type_sql),
        store::Erase::Pseudonym => format!("$3::text::{}", column.type_sql),
        store::Erase::Value(text) => format!("{}::{}", quote_literal(text), column.type_sql),
    })
}
