-- How jobs that wait for others go on. Everything here runs with the rights of the tables' owner, in the transaction in
-- which jobs end or in one of a worker. Nothing here waits for anybody: what another transaction is at work on is noted in
-- usher.job_checks and looked at after the commit.

-- Jobs that wait for others, looked at by what usher.job_dependencies says now: those that wait for nobody any more may run,
-- those whose predecessor failed are dead. What cannot be decided yet is noted if `again`; what somebody has locked always is.
CREATE FUNCTION usher.look_at_dependants(organizations uuid[], jobs uuid[], again boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    ours uuid[];
    free uuid[];
BEGIN
    -- Locked or gone: passed over.
    SELECT array_agg(l.id) INTO ours
      FROM (SELECT w.id FROM usher.queue_waiting AS w
             WHERE (w.organization_id, w.id) IN (SELECT e.organization_id, e.id FROM unnest(organizations, jobs) AS e (organization_id, id))
               AND w.waiting_for = 'other jobs'
               FOR UPDATE SKIP LOCKED) AS l;
    INSERT INTO usher.job_checks (organization_id, job_id)
    SELECT w.organization_id, w.id FROM usher.queue_waiting AS w
     WHERE (w.organization_id, w.id) IN (SELECT e.organization_id, e.id FROM unnest(organizations, jobs) AS e (organization_id, id))
       AND w.waiting_for = 'other jobs'
       AND (w.id <> ALL (COALESCE(ours, '{}'))
            OR again AND EXISTS (SELECT FROM usher.job_dependencies AS d WHERE d.organization_id = w.organization_id AND d.job_id = w.id)
                     AND NOT EXISTS (SELECT FROM usher.job_dependencies AS d
                                      WHERE d.organization_id = w.organization_id AND d.job_id = w.id AND d.failed IS NOT NULL));
    IF FOUND THEN
        PERFORM usher.wake_waiting();
    END IF;
    IF ours IS NULL THEN
        RETURN;
    END IF;
    WITH f AS (
        SELECT DISTINCT ON (d.organization_id, d.job_id) d.organization_id, d.job_id, d.after_id, d.failed
          FROM unnest(organizations, jobs) AS e (organization_id, id)
          JOIN usher.job_dependencies AS d ON d.organization_id = e.organization_id AND d.job_id = e.id
         WHERE d.failed IS NOT NULL AND d.job_id = ANY (ours)
         ORDER BY d.organization_id, d.job_id, d.after_id),
    w AS (
        DELETE FROM usher.queue_waiting AS w USING f WHERE w.organization_id = f.organization_id AND w.id = f.job_id
        RETURNING w.*, f.after_id, f.failed),
    gone AS (
        DELETE FROM usher.job_dependencies AS d USING f WHERE d.organization_id = f.organization_id AND d.job_id = f.job_id)
    INSERT INTO usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                    attempts, last_attempted_at, error_message, sqlstate, source_system, target_system)
    SELECT w.organization_id, w.id, w.seq, w.row_key, w.created_at, w.cause, w.flow_id, w.flow_version, w.lane, w.hop, w.op, w.trail, w.new, w.old,
           w.attempts, w.last_attempted_at,
           format('job %s, which it waited for, %s', w.after_id, CASE w.failed WHEN 'dead' THEN 'is a dead letter' ELSE 'was cancelled' END),
           'US002', w.source_system, w.target_system
      FROM w;
    WITH r AS (
        UPDATE usher.queue_waiting AS w
           SET waiting_for = CASE WHEN w.flow_id IS NULL THEN 'external worker' ELSE 'run_at' END,
               due_at = CASE WHEN w.flow_id IS NULL THEN o.run_at ELSE COALESCE(GREATEST(o.run_at, clock_timestamp()), clock_timestamp()) END
          FROM unnest(organizations, jobs) AS e (organization_id, id)
          LEFT JOIN usher.job_options AS o ON o.organization_id = e.organization_id AND o.job_id = e.id
         WHERE w.organization_id = e.organization_id AND w.id = e.id AND w.waiting_for = 'other jobs' AND w.id = ANY (ours)
           AND NOT EXISTS (SELECT FROM usher.job_dependencies AS d WHERE d.organization_id = w.organization_id AND d.job_id = w.id)
        RETURNING w.id)
    SELECT array_agg(r.id) INTO free FROM r;
    IF free IS NOT NULL THEN
        PERFORM usher.wake_waiting();
    END IF;
END
$$;
COMMENT ON FUNCTION usher.look_at_dependants(uuid[], uuid[], boolean) IS 'internal: lets jobs run whose predecessors are synced, ends those whose predecessors failed';

-- Writes into the dependencies what became of jobs. Returns those that wait for them.
CREATE FUNCTION usher.mark_dependencies(organizations uuid[], jobs uuid[], fates text[], OUT dependant_organizations uuid[], OUT dependants uuid[])
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    WITH e AS (SELECT * FROM unnest(organizations, jobs, fates) AS e (organization_id, id, fate)),
    done AS (
        DELETE FROM usher.job_dependencies AS d USING e
         WHERE d.organization_id = e.organization_id AND d.after_id = e.id AND (e.fate = 'synced' OR d.run_anyway)
        RETURNING d.organization_id, d.job_id),
    failed AS (
        UPDATE usher.job_dependencies AS d SET failed = e.fate FROM e
         WHERE d.organization_id = e.organization_id AND d.after_id = e.id AND e.fate <> 'synced' AND NOT d.run_anyway
        RETURNING d.organization_id, d.job_id)
    SELECT array_agg(t.organization_id), array_agg(t.job_id) INTO dependant_organizations, dependants
      FROM (SELECT done.organization_id, done.job_id FROM done UNION SELECT failed.organization_id, failed.job_id FROM failed) AS t;
END
$$;
COMMENT ON FUNCTION usher.mark_dependencies(uuid[], uuid[], text[]) IS 'internal: notes for those that wait what became of jobs';

-- Jobs have ended (fate: synced, dead, cancelled) in this transaction: those that wait for them go on, and their batches count
-- them. `but` are the places in the arrays that are left out. Of synced jobs the batches are counted by the worker.
CREATE FUNCTION usher.jobs_ended(organizations uuid[], jobs uuid[], fate text, but integer[] DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    seen boolean;
    touched record;
BEGIN
    IF fate <> 'synced' THEN
        PERFORM usher.tally(organizations, jobs, fate, 1);
        PERFORM usher.note_steps_ended(organizations, jobs, fate);
    END IF;
    -- Whoever looks after a commit waits until all that could not see it have ended; that is what the lock tells. A
    -- transaction with one snapshot may not see who waits.
    -- A long chain of jobs that die one after another goes on afterwards, in slices.
    seen := usher.try_settling(false) AND current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') AND pg_trigger_depth() < 16;
    IF seen AND pg_relation_size('usher.job_dependencies') = 0 THEN
        RETURN;
    END IF;
    IF but IS NOT NULL THEN
        SELECT array_agg(e.o ORDER BY e.n), array_agg(e.j ORDER BY e.n) INTO organizations, jobs
          FROM unnest(organizations, jobs) WITH ORDINALITY AS e (o, j, n) WHERE e.n NOT IN (SELECT unnest(but));
    END IF;
    IF NOT seen THEN
        INSERT INTO usher.job_checks (organization_id, job_id, ended) SELECT e.o, e.j, true FROM unnest(organizations, jobs) AS e (o, j);
        PERFORM usher.wake_waiting();
        RETURN;
    END IF;
    touched := usher.mark_dependencies(organizations, jobs, array_fill(fate, ARRAY[COALESCE(cardinality(jobs), 0)]));
    IF touched.dependants IS NOT NULL THEN
        PERFORM usher.look_at_dependants(touched.dependant_organizations, touched.dependants, true);
    END IF;
END
$$;
COMMENT ON FUNCTION usher.jobs_ended(uuid[], uuid[], text, integer[]) IS 'internal: tells those that wait for jobs, and their batches, that they have ended';

-- Looks at what usher.job_checks says. Returns true when somebody is in the way and it must be tried again soon.
CREATE FUNCTION usher.settle_dependants() RETURNS boolean
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    organizations uuid[];
    jobs uuid[];
    fates record;
    touched record;
BEGIN
    IF pg_relation_size('usher.job_checks') = 0 OR NOT EXISTS (SELECT FROM usher.job_checks) THEN
        RETURN false;
    END IF;
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') OR NOT usher.try_settling(true) THEN
        RETURN true;
    END IF;
    -- From here on nobody is between looking and committing.
    WITH c AS (DELETE FROM usher.job_checks RETURNING *)
    SELECT array_agg(t.organization_id), array_agg(t.job_id) INTO organizations, jobs
      FROM (SELECT c.organization_id, c.job_id FROM c WHERE NOT c.ended
            UNION SELECT d.organization_id, d.job_id FROM c JOIN usher.job_dependencies AS d ON d.organization_id = c.organization_id AND d.after_id = c.job_id
             WHERE c.ended) AS t;
    IF jobs IS NULL THEN
        RETURN false;
    END IF;
    SELECT array_agg(j.organization_id) AS organizations, array_agg(j.id) AS jobs, array_agg(j.status) AS words INTO fates
      FROM (SELECT DISTINCT d.organization_id, d.after_id FROM unnest(organizations, jobs) AS e (organization_id, id)
              JOIN usher.job_dependencies AS d ON d.organization_id = e.organization_id AND d.job_id = e.id) AS p
      CROSS JOIN LATERAL (SELECT s.organization_id, s.id, s.status FROM usher.sync_jobs AS s
                           WHERE s.organization_id = p.organization_id AND s.id = p.after_id) AS j
     WHERE j.status IN ('synced', 'dead', 'cancelled');
    IF fates.jobs IS NOT NULL THEN
        -- Those of a job that ended after the notes were read, too: its own note will find nobody any more.
        touched := usher.mark_dependencies(fates.organizations, fates.jobs, fates.words);
        SELECT array_agg(t.o), array_agg(t.j) INTO organizations, jobs
          FROM (SELECT e.o, e.j FROM unnest(organizations, jobs) AS e (o, j)
                UNION SELECT e.o, e.j FROM unnest(touched.dependant_organizations, touched.dependants) AS e (o, j)) AS t;
    END IF;
    PERFORM usher.look_at_dependants(organizations, jobs, false);
    RETURN false;
END
$$;
COMMENT ON FUNCTION usher.settle_dependants() IS 'internal: looks at the jobs that wait for others after a commit';

-- Notes that jobs of workflows' steps have ended, for their runs to be told.
CREATE FUNCTION usher.note_steps_ended(organizations uuid[], jobs uuid[], fate text) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF pg_relation_size('usher.workflow_runs') = 0 THEN
        RETURN;
    END IF;
    INSERT INTO usher.workflow_checks (organization_id, job_id, fate, payload, error_message, sqlstate)
    SELECT e.o, e.j, fate, w.new, w.error_message, w.sqlstate
      FROM unnest(organizations, jobs) AS e (o, j)
     CROSS JOIN LATERAL (
           SELECT d.flow_id, d.new, d.error_message, d.sqlstate FROM usher.dead_letters AS d
            WHERE fate = 'dead' AND d.organization_id = e.o AND d.id = e.j
           UNION ALL
           SELECT h.flow_id, h.new, CASE WHEN h.cancelled THEN COALESCE(h.error_message, 'its job was cancelled') END, NULL FROM usher.job_history AS h
            WHERE fate <> 'dead' AND h.organization_id = e.o AND h.id = e.j) AS w
      JOIN usher.flows AS f ON f.id = w.flow_id
     WHERE jsonb_exists(f.definition -> 'when', 'step') AND jsonb_exists(w.new, 'run');
    IF FOUND THEN
        PERFORM usher.wake_waiting();
    END IF;
END
$$;
COMMENT ON FUNCTION usher.note_steps_ended(uuid[], uuid[], text) IS 'internal: notes for the runs of workflows that jobs of their steps have ended';

-- Adds jobs that ended to the counts of their batches, or takes them away again (many < 0).
CREATE FUNCTION usher.tally(organizations uuid[], jobs uuid[], fate text, many integer) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
BEGIN
    IF pg_relation_size('usher.batch_definitions') = 0 THEN
        RETURN;
    END IF;
    INSERT INTO usher.batch_tallies (organization_id, batch_id, done, failed, cancelled)
    SELECT o.organization_id, o.batch_id, many * count(*) FILTER (WHERE fate = 'synced'), many * count(*) FILTER (WHERE fate = 'dead'),
           many * count(*) FILTER (WHERE fate = 'cancelled')
      FROM unnest(organizations, jobs) AS e (organization_id, id)
      JOIN usher.job_options AS o ON o.organization_id = e.organization_id AND o.job_id = e.id
     WHERE o.batch_id IS NOT NULL GROUP BY o.organization_id, o.batch_id;
    IF FOUND THEN
        PERFORM usher.wake_waiting();
    END IF;
END
$$;
COMMENT ON FUNCTION usher.tally(uuid[], uuid[], text, integer) IS 'internal: counts jobs that ended for their batches';

-- However a job dies, or comes back from the dead.
CREATE FUNCTION usher.dead_letters_changed() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    organizations uuid[];
    jobs uuid[];
BEGIN
    SELECT array_agg(e.organization_id), array_agg(e.id) INTO organizations, jobs FROM ended AS e;
    IF jobs IS NULL THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        PERFORM usher.jobs_ended(organizations, jobs, 'dead');
        PERFORM usher.note_merges_failed(m.flow_id, m.organizations, m.jobs)
           FROM (SELECT f.id AS flow_id, array_agg(e.organization_id) AS organizations, array_agg(e.id) AS jobs
                   FROM ended AS e JOIN usher.flows AS f ON f.id = e.flow_id AND jsonb_exists(f.definition -> 'then', 'merge') GROUP BY f.id) AS m;
    ELSE
        PERFORM usher.tally(organizations, jobs, 'dead', -1);
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION usher.dead_letters_changed() IS 'internal: tells those that wait for a job, and its batch, that it is dead';

-- Jobs whose time is over and that have not started are dead. Those that are ready are found when their turn comes. Only
-- expiries after `since` are looked at; returns the last one, or NULL when there was none.
CREATE FUNCTION usher.expire_jobs(since timestamptz) RETURNS timestamptz
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    last timestamptz;
BEGIN
    WITH e AS (
        SELECT x.organization_id, x.job_id, x.expires_at FROM usher.job_expiries AS x
         WHERE x.expires_at > since AND x.expires_at <= clock_timestamp()
         ORDER BY x.expires_at LIMIT 10000 FOR UPDATE SKIP LOCKED),
    w AS (
        SELECT q.organization_id, q.id FROM usher.queue_waiting AS q
         WHERE (q.organization_id, q.id) IN (SELECT e.organization_id, e.job_id FROM e)
           -- What somebody outside is at work on has started in time; given back, it is too late.
           AND (q.leased_by IS NULL OR q.due_at <= clock_timestamp())
           FOR UPDATE SKIP LOCKED),
    gone AS (
        DELETE FROM usher.job_expiries AS x USING e
         WHERE x.organization_id = e.organization_id AND x.job_id = e.job_id
           AND (EXISTS (SELECT FROM w WHERE w.organization_id = e.organization_id AND w.id = e.job_id)
                -- Locked by a batch that is at work on it: looked at again within a minute.
                OR NOT EXISTS (SELECT FROM usher.queue_waiting AS q WHERE q.organization_id = e.organization_id AND q.id = e.job_id))),
    d AS (
        DELETE FROM usher.queue_waiting AS q USING w WHERE q.organization_id = w.organization_id AND q.id = w.id RETURNING q.*),
    dead AS (
        INSERT INTO usher.dead_letters (organization_id, id, seq, row_key, created_at, cause, flow_id, flow_version, lane, hop, op, trail, new, old,
                                        attempts, last_attempted_at, error_message, sqlstate, source_system, target_system)
        SELECT d.organization_id, d.id, d.seq, d.row_key, d.created_at, d.cause, d.flow_id, d.flow_version, d.lane, d.hop, d.op, d.trail, d.new, d.old,
               d.attempts, d.last_attempted_at, 'it expired before it could run', 'US001', d.source_system, d.target_system
          FROM d)
    SELECT max(e.expires_at) INTO last FROM e;
    RETURN last;
END
$$;
COMMENT ON FUNCTION usher.expire_jobs(timestamptz) IS 'internal: ends waiting jobs whose time is over';
