//! The expressions of a definition, parsed one by one.

use super::definition::Definition;
use super::shape::{self, ColumnUse, Shape};
use crate::error::{Result, UsherError};
use crate::pg;
use std::collections::BTreeMap;

/// Every expression of a definition by its field, such as `set.amount`: its text and what it is made of.
pub struct Expressions(BTreeMap<String, (String, Shape)>);

impl Expressions {
    pub fn of(definition: &Definition) -> Result<Self> {
        let mut all = Self(BTreeMap::new());
        if let Some(text) = &definition.condition {
            all.add("if", text)?;
        }
        for (group, map) in [("set", &definition.set), ("set_once", &definition.set_once), ("check", &definition.check)] {
            for (name, text) in map {
                all.add(&format!("{group}.{name}"), text)?;
            }
        }
        for (name, join) in &definition.joins {
            all.add(&format!("join.{name}"), &join.on)?;
        }
        if let Some(link) = &definition.link {
            all.add("link.left", &link.left)?;
        }
        for (number, text) in definition.limit_keys() {
            all.add(&format!("limits.{}.key", number + 1), text)?;
        }
        if let Some(text) = &definition.organization {
            all.add("organization", text)?;
        }
        Ok(all)
    }

    /// Parses one field's text, or says which field is wrong.
    fn add(&mut self, field: &str, text: &str) -> Result<()> {
        let parsed = pg::subxact::rehearse(|| pg::expr::parse(text)).map_err(|failure| {
            UsherError::new(failure.code, format!("{field}: {}", failure.message))
                .detail(format!("The expression is: {text}"))
                .hint(failure.hint.unwrap_or_else(|| "Write one SQL expression, such as new.total * 2.".to_owned()))
        })?;
        let shape = shape::read(&parsed)
            .ok_or_else(|| UsherError::definition(format!("{field}: this form of expression is not understood")))?;
        if shape.has_subquery {
            return Err(UsherError::definition(format!("{field}: a query inside an expression is not allowed"))
                .detail("It could read rows of another organization.")
                .hint("Use \"join\" for a row of another table, or a function that takes the organization."));
        }
        self.0.insert(field.to_owned(), (text.to_owned(), shape));
        Ok(())
    }

    pub fn shape(&self, field: &str) -> Option<&Shape> {
        self.0.get(field).map(|(_, shape)| shape)
    }

    /// Each field and what its expression is made of.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &Shape)> {
        self.0.iter().map(|(field, (_, shape))| (field.as_str(), shape))
    }

    pub fn uses(&self) -> impl Iterator<Item = &ColumnUse> {
        self.0.values().flat_map(|(_, shape)| shape.columns.iter())
    }

    /// True when some expression's text contains the word.
    pub fn mention(&self, word: &str) -> bool {
        self.0.values().any(|(text, _)| text.contains(word))
    }
}
