//! What upkeep does with persons' data, in one backend: the worker calls the same once a minute.

#[pgrx::pg_schema]
mod tests {
    use crate::pg::spi;
    use crate::privacy::{Patience, retention};
    use crate::setup;
    use pgrx::prelude::*;
    use std::time::Duration;

    fn number(sql: &str) -> i64 {
        spi::one::<i64>(sql, &[]).unwrap().unwrap_or(-1)
    }

    #[pg_test]
    fn a_slow_rule_keeps_nobody_else_from_being_forgotten() {
        spi::script(
            "SELECT usher.setup();
             CREATE TABLE public.fast (id int PRIMARY KEY, at date);
             CREATE TABLE public.late (id int PRIMARY KEY, at date);
             CREATE TABLE public.slow (id int PRIMARY KEY, at date);
             INSERT INTO public.fast VALUES (1, '2000-01-01');
             INSERT INTO public.late VALUES (1, '2000-01-01');
             INSERT INTO public.slow VALUES (1, '2000-01-01');
             CREATE FUNCTION public.linger() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN OLD; END';
             CREATE TRIGGER linger BEFORE DELETE ON public.slow FOR EACH ROW EXECUTE FUNCTION public.linger();
             SELECT usher.set_retention(t::regclass, 'at', '1 year') FROM unnest('{fast,late,slow}'::text[]) AS t",
        )
        .unwrap();
        let patience = Patience { each: Duration::from_secs(2), all: Duration::from_secs(60) };
        retention::run(setup::current().unwrap(), patience).unwrap();
        assert_eq!(number("SELECT (SELECT count(*) FROM public.fast) + (SELECT count(*) FROM public.late)"), 0);
        assert_eq!(number("SELECT count(*) FROM public.slow"), 1);
        let said = spi::one::<String>("SELECT last_error FROM usher.retention_rules WHERE table_name = 'slow'", &[]).unwrap();
        assert!(said.as_deref().is_some_and(|said| said.contains("longer than the 2 s")), "{said:?}");
        // No time at all: what is left waits for the next minute.
        spi::script(
            "DELETE FROM usher.retention_rules WHERE table_name = 'slow'; INSERT INTO public.fast VALUES (2, '2000-01-01')",
        )
        .unwrap();
        retention::run(setup::current().unwrap(), Patience { all: Duration::ZERO, ..patience }).unwrap();
        assert_eq!(number("SELECT count(*) FROM public.fast"), 1);
        retention::run(setup::current().unwrap(), patience).unwrap();
        assert_eq!(number("SELECT count(*) FROM public.fast"), 0);
    }
}
