-- Failures that somebody should know of. A notice belongs to an organization, or to the installation when it is NULL.
CREATE TABLE usher.notices (
    id uuid NOT NULL,
    organization_id uuid,
    kind text NOT NULL,
    severity text NOT NULL DEFAULT 'warning',
    flow_id integer,
    flow text,
    subject text NOT NULL,
    body jsonb NOT NULL DEFAULT '{}',
    failures integer NOT NULL DEFAULT 1,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    read_at timestamptz,
    read_by text,
    CONSTRAINT notices_key UNIQUE NULLS NOT DISTINCT (organization_id, id),
    CONSTRAINT notices_kind_known CHECK (kind IN ('flow failing', 'flow broken', 'broadcast unacknowledged', 'conflict open', 'violation open', 'inconsistent')),
    CONSTRAINT notices_severity_known CHECK (severity IN ('info', 'warning', 'critical')),
    CONSTRAINT notices_failures_some CHECK (failures > 0),
    CONSTRAINT notices_read_whole CHECK ((read_at IS NULL) = (read_by IS NULL))
);
CREATE INDEX notices_id_idx ON usher.notices (id);
CREATE INDEX notices_organization_idx ON usher.notices (organization_id, last_at);
-- A flow that is broken is said once until somebody has read it.
CREATE UNIQUE INDEX notices_broken_key ON usher.notices (organization_id, flow_id) NULLS NOT DISTINCT WHERE kind = 'flow broken' AND read_at IS NULL;
COMMENT ON TABLE usher.notices IS 'what a person should know: a flow that keeps failing, a flow that is broken, an emergency event that somebody has not received, conflicts and violations that stay open, data that is less consistent than it should be; usher.read_notice marks one as read';
COMMENT ON COLUMN usher.notices.organization_id IS 'whose admins read it; NULL: it is about the installation';
COMMENT ON COLUMN usher.notices.failures IS 'failed attempts since first_at; for a broken flow, how often it was found broken; how many conflicts or violations are open';

-- Failed attempts by flow and organization, to know when a notice is due: written only when jobs fail.
CREATE TABLE usher.failure_streaks (
    organization_id uuid NOT NULL,
    flow_id integer NOT NULL,
    recent timestamptz[] NOT NULL,
    failures integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    notice_id uuid,
    CONSTRAINT failure_streaks_pkey PRIMARY KEY (organization_id, flow_id)
);
CREATE INDEX failure_streaks_last_idx ON usher.failure_streaks (last_at);
COMMENT ON TABLE usher.failure_streaks IS 'failed attempts that follow each other closer than usher.notice_window; usher.notices is what people read';
COMMENT ON COLUMN usher.failure_streaks.recent IS 'times of the last failures, as many as usher.notice_failures';
COMMENT ON COLUMN usher.failure_streaks.notice_id IS 'the notice that this streak has made';
