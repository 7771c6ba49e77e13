-- The log of jobs. A ready job is written once, by the transaction that makes it, and stays where it is: what is done is
-- told by usher.job_batches, a row for each batch of a worker. So a job that simply goes through leaves nothing behind
-- that VACUUM would have to clear, and is its own history. What ends otherwise is taken out of the log: to
-- usher.queue_waiting, usher.dead_letters or usher.job_history.
CREATE TABLE usher.jobs (
    seq bigint NOT NULL,
    row_key bigint,
    id uuid NOT NULL,
    organization_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    cause uuid,
    flow_id integer NOT NULL,
    flow_version integer NOT NULL,
    lane smallint NOT NULL,
    hop smallint NOT NULL,
    op "char" NOT NULL,
    fallback boolean NOT NULL DEFAULT false,
    trail text,
    new jsonb,
    old jsonb,
    -- Not led by the organization: workers read a lane, and positions are drawn for all organizations alike.
    CONSTRAINT jobs_pkey PRIMARY KEY (lane, seq)
) PARTITION BY RANGE (seq);
CREATE INDEX jobs_organization_idx ON usher.jobs (organization_id, id);
CREATE INDEX jobs_fallback_idx ON usher.jobs (flow_id, row_key) WHERE fallback;
COMMENT ON TABLE usher.jobs IS 'the log of jobs: ready ones, and those that went through at once; usher.sync_jobs is the view to read';

COMMENT ON SEQUENCE usher.queue_seq IS 'positions of jobs, in the order in which they were made';
COMMENT ON SEQUENCE usher.flows_id_seq IS 'numbers of flows';

CREATE TABLE usher.job_batches (
    lane smallint NOT NULL,
    last_seq bigint NOT NULL,
    finished_at timestamptz NOT NULL,
    jobs integer NOT NULL,
    done int8multirange NOT NULL,
    -- Every position is done once, so that no two batches of a lane end with the same one.
    CONSTRAINT job_batches_pkey PRIMARY KEY (lane, last_seq)
) PARTITION BY RANGE (last_seq);
CREATE INDEX job_batches_finished_idx ON usher.job_batches USING brin (finished_at);
COMMENT ON TABLE usher.job_batches IS 'which positions of the log a worker has done in one transaction';
COMMENT ON COLUMN usher.job_batches.done IS 'exactly the positions that the batch has taken, no others in between';

CREATE TABLE usher.job_floors (
    lane smallint NOT NULL,
    floor bigint NOT NULL DEFAULT 0,
    CONSTRAINT job_floors_pkey PRIMARY KEY (lane)
) WITH (fillfactor = 50);
COMMENT ON TABLE usher.job_floors IS 'up to this position everything in the lane is done, and nothing will be added';
INSERT INTO usher.job_floors (lane) SELECT generate_series(0, 4);

-- Segments by position, see usher.maintain_segments(). What no segment takes is in the default ones.
CREATE TABLE usher.jobs_default PARTITION OF usher.jobs DEFAULT;
CREATE TABLE usher.job_batches_default PARTITION OF usher.job_batches DEFAULT;
SELECT usher.maintain_segments(30);

INSERT INTO usher.jobs (seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, fallback, trail, new, old)
SELECT seq, row_key, id, organization_id, created_at, cause, flow_id, flow_version, lane, hop, op, fallback, trail, new, old FROM usher.queue;
-- The view stays for those that people have made of it; access.sql says below what it shows from now on.
DO $$ BEGIN
    IF to_regclass('usher.sync_jobs') IS NOT NULL THEN
        EXECUTE (SELECT 'CREATE OR REPLACE VIEW usher.sync_jobs AS SELECT '
                        || string_agg(format('NULL::%s AS %I', format_type(atttypid, atttypmod), attname), ', ' ORDER BY attnum)
                   FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('usher.sync_jobs') AND attnum > 0);
    END IF;
END $$;
DROP TABLE usher.queue;

CREATE VIEW usher.done_jobs WITH (security_invoker = true) AS
SELECT j.*,
       COALESCE((SELECT b.finished_at FROM usher.job_batches AS b
                  WHERE b.lane = j.lane AND b.last_seq >= j.seq AND j.seq <@ b.done ORDER BY b.last_seq LIMIT 1), j.created_at) AS finished_at
  FROM usher.job_floors AS f JOIN usher.jobs AS j ON j.lane = f.lane AND j.seq <= f.floor
UNION ALL
SELECT j.*, d.finished_at
  FROM usher.job_floors AS f JOIN usher.jobs AS j ON j.lane = f.lane AND j.seq > f.floor
 CROSS JOIN LATERAL (SELECT b.finished_at FROM usher.job_batches AS b
                      WHERE b.lane = j.lane AND b.last_seq >= j.seq AND j.seq <@ b.done ORDER BY b.last_seq LIMIT 1) AS d;
COMMENT ON VIEW usher.done_jobs IS 'jobs of the log that went through at once, and when';
