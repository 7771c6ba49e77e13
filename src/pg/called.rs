//! What a query asks besides its tables: the functions and operators that it calls, and whether its rows depend on each other.

use crate::error::{Result, UsherError};
use pgrx::pg_sys;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Called {
    pub functions: Vec<Oid>,
    pub operators: Vec<Oid>,
    /// Types that a text is read as.
    pub read_as: Vec<Oid>,
    /// What is another with each call, whatever it is given: the time by a word of SQL, a sequence, some rows of a table.
    pub fickle: Option<&'static str>,
    /// Which of its rows there are, or what is in them, depends on the others, at whatever depth: LIMIT or OFFSET, DISTINCT ON, a window.
    pub among_others: bool,
}

/// What the query calls, analysed with the rights of the current role and not run. Errors are raised as PostgreSQL's own.
pub fn by_query(sql: &str) -> Result<Called> {
    Spi::connect_mut(|_client| {
        let source = CString::new(sql).map_err(|_| UsherError::definition("a query contains a NUL character"))?;
        // SAFETY: inside an SPI connection; the text lives through the call. An error is raised as one of PostgreSQL.
        let plan = unsafe { pg_sys::SPI_prepare(source.as_ptr(), 0, std::ptr::null_mut()) };
        if plan.is_null() {
            return Err(UsherError::internal("a query could not be analysed"));
        }
        let mut called = Called::default();
        // SAFETY: the plan was just made and lives as long as the SPI connection; its sources hold lists of analysed queries. nodeToString walks them
        // and returns a palloc'd string, which is copied.
        unsafe {
            for source in pgrx::PgList::<pg_sys::CachedPlanSource>::from_pg(pg_sys::SPI_plan_get_plan_sources(plan)).iter_ptr() {
                for query in pgrx::PgList::<pg_sys::Query>::from_pg((*source).query_list).iter_ptr() {
                    let nodes = pg_sys::nodeToString(query.cast());
                    read(&CStr::from_ptr(nodes).to_string_lossy(), &mut called);
                }
            }
        }
        Ok(called)
    })
}

/// Reads PostgreSQL's node text. Blanks and braces inside names are escaped there, so that words are words.
fn read(nodes: &str, called: &mut Called) {
    let number = |word: &str| word.trim_end_matches(['}', ')']).parse::<u32>().ok().filter(|n| *n != 0).map(Oid::from);
    let mut words = nodes.split_ascii_whitespace().peekable();
    // What is read follows behind the nodes inside it: where a text is read at all, every type that something is taken as may be meant.
    let reads = nodes.contains("{COERCEVIAIO ");
    while let Some(word) = words.next() {
        if let Some(tag) = word.trim_start_matches('(').strip_prefix('{') {
            let fickle = match tag {
                "SQLVALUEFUNCTION" => Some("asks for the time or the user"),
                "NEXTVALUEEXPR" => Some("draws from a sequence"),
                "TABLESAMPLECLAUSE" | "RANGETBLSAMPLE" => Some("reads a sample of a table"),
                _ => None,
            };
            called.fickle = called.fickle.or(fickle);
            continue;
        }
        let next = |words: &mut std::iter::Peekable<std::str::SplitAsciiWhitespace<'_>>, said: &str| {
            words.peek().is_some_and(|word| word.trim_end_matches(['}', ')']) == said)
        };
        match word {
            ":hasWindowFuncs" | ":hasDistinctOn" => called.among_others |= next(&mut words, "true"),
            ":limitOffset" | ":limitCount" => called.among_others |= !next(&mut words, "<>"),
            _ => {}
        }
        let to = match word {
            ":funcid" | ":opfuncid" | ":aggfnoid" | ":winfnoid" => &mut called.functions,
            ":opno" => &mut called.operators,
            ":resulttype" if reads => &mut called.read_as,
            ":opnos" => {
                while let Some(operator) = words.next_if(|word| !word.starts_with([':', '{'])) {
                    called.operators.extend(number(operator));
                }
                continue;
            }
            _ => continue,
        };
        to.extend(words.peek().and_then(|word| number(word)));
    }
}

#[cfg(test)]
mod unit {
    use super::{Called, Oid, read};

    fn numbers(oids: &[Oid]) -> Vec<u32> {
        oids.iter().map(|oid| oid.to_u32()).collect()
    }

    #[test]
    fn words_of_nodes_are_read_and_names_are_none() {
        let mut called = Called::default();
        read(
            r"{QUERY :commandType 1 :rtable ({RANGETBLENTRY :alias {ALIAS :aliasname x\ :funcid\ 7 :colnames <>}}) :jointree {OPEXPR :opno 97 :opfuncid 66 :args ({FUNCEXPR
              :funcid 1299 :args <>} {COERCEVIAIO :arg {VAR :varno 1} :resulttype 1184 :resultcollid 0} {ROWCOMPAREEXPR :cmptype 1 :opnos (o 97 98) :opfamilies (o 1976)}
              {AGGREF :aggfnoid 2108}) :resulttype 25}",
            &mut called,
        );
        assert_eq!(numbers(&called.functions), [66, 1299, 2108]);
        assert_eq!(numbers(&called.operators), [97, 97, 98]);
        assert_eq!(called.fickle, None);
        read("({SQLVALUEFUNCTION :op 0 :type 1082})", &mut called);
        assert!(called.fickle.is_some());
    }

    #[test]
    fn rows_that_depend_on_others_are_found_at_any_depth() {
        let among = |nodes: &str| {
            let mut called = Called::default();
            read(nodes, &mut called);
            called.among_others
        };
        let plain = "{QUERY :hasWindowFuncs false :hasDistinctOn false :limitOffset <> :limitCount <> :limitOption 0}";
        assert!(!among(plain));
        for (a, b) in [
            (":hasWindowFuncs false", ":hasWindowFuncs true"),
            (":hasDistinctOn false", ":hasDistinctOn true"),
            (":limitOffset <>", ":limitOffset {CONST :consttype 20}"),
            (":limitCount <>", ":limitCount {FUNCEXPR :funcid 481}"),
        ] {
            assert!(
                among(&format!("{{QUERY :rtable ({{RANGETBLENTRY :subquery {}}}) :limitCount <>}}", plain.replace(a, b))),
                "{b}"
            );
        }
    }

    #[test]
    fn what_a_text_is_read_as_is_found_behind_what_is_read() {
        let mut called = Called::default();
        read("{RELABELTYPE :resulttype 25}", &mut called);
        assert!(called.read_as.is_empty());
        read("{COERCEVIAIO :arg {RELABELTYPE :resulttype 25} :resulttype 1184}", &mut called);
        assert_eq!(numbers(&called.read_as), [25, 1184]);
    }
}
