//! The primitives of `src/pg`, inside a backend.

#[pgrx::pg_schema]
mod tests {
    use crate::error::UsherError;
    use crate::pg::definitions::Definitions;
    use crate::pg::relcache::Asker;
    use crate::pg::{catalog, expr, guc, ids, role, spi, subxact};
    use pgrx::prelude::*;

    fn count(table: &str) -> i64 {
        spi::one::<i64>(&format!("SELECT count(*) FROM {table}"), &[]).unwrap().unwrap_or(-1)
    }

    #[pg_test]
    fn what_an_attempt_did_stays_when_it_succeeds() {
        spi::script("CREATE TEMP TABLE kept (n int)").unwrap();
        subxact::attempt(|| spi::run("INSERT INTO kept VALUES (1)", &[])).unwrap();
        assert_eq!(count("kept"), 1);
    }

    #[pg_test]
    fn what_an_attempt_did_is_undone_on_a_postgres_error() {
        spi::script("CREATE TEMP TABLE undone (n int)").unwrap();
        let failure = subxact::attempt(|| {
            spi::run("INSERT INTO undone VALUES (1)", &[])?;
            spi::one::<i32>("SELECT 1 / (SELECT count(*)::int - 1 FROM undone)", &[])
        })
        .unwrap_err();
        assert_eq!(failure.sqlstate, "22012");
        assert_eq!(count("undone"), 0);
    }

    #[pg_test]
    fn what_an_attempt_did_is_undone_on_an_error_of_ours() {
        spi::script("CREATE TEMP TABLE ours (n int)").unwrap();
        let failure = subxact::attempt(|| {
            spi::run("INSERT INTO ours VALUES (1)", &[])?;
            Err::<(), _>(UsherError::invalid("no").hint("yes"))
        })
        .unwrap_err();
        assert_eq!((failure.sqlstate.as_str(), failure.hint.as_deref()), ("22023", Some("yes")));
        assert_eq!(count("ours"), 0);
    }

    #[pg_test]
    fn many_attempts_in_one_transaction_are_fine() {
        spi::script("CREATE TEMP TABLE many (n int PRIMARY KEY)").unwrap();
        for n in 0..200 {
            let _ = subxact::attempt(|| spi::run("INSERT INTO many VALUES ($1)", &[spi::arg(n / 2)]));
        }
        assert_eq!(count("many"), 100);
    }

    #[pg_test]
    fn a_rehearsal_leaves_nothing_behind() {
        spi::script("CREATE TEMP TABLE rehearsed (n int)").unwrap();
        let seen = subxact::rehearse(|| {
            spi::run("INSERT INTO rehearsed VALUES (1), (2)", &[])?;
            spi::one::<i64>("SELECT count(*) FROM rehearsed", &[])
        })
        .unwrap();
        assert_eq!(seen, Some(2));
        assert_eq!(count("rehearsed"), 0);
    }

    #[pg_test]
    fn settings_go_back_when_the_guard_is_dropped() {
        let path = || spi::one::<String>("SELECT pg_catalog.current_setting('search_path')", &[]).unwrap().unwrap();
        let before = path();
        {
            let _nest = guc::Nest::pinned_path();
            assert_eq!(path(), "pg_catalog, pg_temp");
        }
        assert_eq!(path(), before);
        let _ = subxact::attempt(|| {
            let _nest = guc::Nest::pinned_path();
            spi::script("SELECT 1/0")
        });
        assert_eq!(path(), before);
    }

    #[pg_test]
    fn acting_as_a_role_uses_its_rights_and_ends() {
        spi::script("CREATE ROLE test_nobody; CREATE TABLE public.test_secret (n int)").unwrap();
        let me = role::current();
        let nobody = role::by_name("test_nobody").unwrap();
        let failure = subxact::attempt(|| {
            let _acting = role::act_as(nobody);
            spi::run("SELECT * FROM public.test_secret", &[])
        })
        .unwrap_err();
        assert_eq!(failure.sqlstate, "42501");
        assert_eq!(role::current(), me);
        let failure = subxact::attempt(|| {
            let _acting = role::act_as(nobody);
            spi::script("SET ROLE NONE")
        });
        assert!(failure.is_err(), "the role could be left from inside");
        assert_eq!(role::current(), me);
    }

    fn refused(text: &str) -> bool {
        subxact::rehearse(|| expr::parse(text)).is_err()
    }

    #[pg_test]
    fn only_single_expressions_are_parsed() {
        for good in
            ["1", "new.a = 'x'", "CASE WHEN new.a THEN 1 ELSE 2 END", "a + b -- why\n", "(true) OR (false)", "lower(new.x)"]
        {
            assert!(!refused(good), "{good}");
        }
        for bad in [
            "",
            "1, 2",
            "1; DROP TABLE x",
            "true) OR (true",
            "SELECT 1",
            "1 FROM pg_class",
            "1 AS one",
            "1 WHERE true",
            "x y",
            "1 UNION SELECT 2",
            "(1",
            "'open",
            "/* open",
        ] {
            assert!(refused(bad), "{bad}");
        }
    }

    #[pg_test]
    fn ids_sort_by_time() {
        let ids: Vec<_> = (0..1000).map(|_| *ids::uuid_v7().as_bytes()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(|id| id[6] >> 4 == 7));
    }

    /// Tables that a process watches, as changed since it last asked: names, in order.
    fn changed(definitions: &mut Definitions) -> String {
        let changed = definitions.changed(None).unwrap().expect("few relations have changed");
        let names =
            "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class WHERE oid = ANY ($1) AND relkind = 'r'";
        spi::one::<String>(names, &[spi::arg(changed)]).unwrap().unwrap_or_default()
    }

    #[pg_test]
    fn statistics_are_no_change_of_a_definition() {
        spi::script(
            "CREATE TABLE watched (n int PRIMARY KEY, note text); CREATE TABLE other (n int REFERENCES watched);
             INSERT INTO watched SELECT n, 'x' FROM generate_series(1, 1000) AS n",
        )
        .unwrap();
        let mut definitions = Definitions::new(Asker::Flows);
        definitions.learn().unwrap();
        for (what, then) in [
            ("ANALYZE watched", ""),
            ("ALTER TABLE watched ADD COLUMN more int", "watched"),
            ("INSERT INTO watched SELECT n, 'y' FROM generate_series(1001, 9000) AS n; ANALYZE watched", ""),
            (
                "INSERT INTO watched SELECT n, 'y' FROM generate_series(9001, 20000) AS n; ANALYZE watched; GRANT SELECT ON watched TO PUBLIC",
                "watched",
            ),
            ("CREATE INDEX ON watched (note)", "watched"),
            ("DROP TABLE other", "watched"),
            ("ALTER TABLE watched ENABLE ROW LEVEL SECURITY", "watched"),
            ("CREATE POLICY p ON watched USING (true)", "watched"),
            ("CREATE TABLE fresh (n int)", "fresh"),
        ] {
            spi::script(what).unwrap();
            assert_eq!(changed(&mut definitions), then, "{what}");
        }
        // Somebody says so on purpose: nothing that can be seen is otherwise.
        let watched = spi::one::<pgrx::pg_sys::Oid>("SELECT 'watched'::regclass::oid", &[]).unwrap().unwrap();
        catalog::invalidate(watched);
        spi::script("CREATE TEMP TABLE any_command (n int)").unwrap();
        assert!(changed(&mut definitions).contains("watched"));
    }
}
