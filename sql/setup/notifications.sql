-- What people are told where they are signed in: a row for each person.
CREATE TABLE usher.notifications (
    organization_id uuid NOT NULL,
    id uuid NOT NULL,
    recipient text NOT NULL,
    kind text NOT NULL,
    severity text NOT NULL,
    title text NOT NULL,
    body jsonb NOT NULL DEFAULT '{}',
    key text,
    channel text NOT NULL DEFAULT 'in_app',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    read_at timestamptz,
    CONSTRAINT notifications_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT notifications_once_key UNIQUE (organization_id, recipient, key),
    CONSTRAINT notifications_severity_known CHECK (severity IN ('info', 'warning', 'critical')),
    CONSTRAINT notifications_channel_known CHECK (channel IN ('in_app')),
    CONSTRAINT notifications_body_form CHECK (pg_catalog.jsonb_typeof(body) = 'object')
);
CREATE INDEX notifications_recipient_idx ON usher.notifications (recipient, created_at);
CREATE INDEX notifications_unread_idx ON usher.notifications (recipient, id) WHERE read_at IS NULL;
CREATE INDEX notifications_read_idx ON usher.notifications (read_at) WHERE read_at IS NOT NULL;
COMMENT ON TABLE usher.notifications IS 'what people are told: everybody reads their own, and usher.read_notifications marks them as read';
COMMENT ON COLUMN usher.notifications.recipient IS 'the person, as usher.actor() names whoever is signed in';
COMMENT ON COLUMN usher.notifications.kind IS 'what it is about, in the words of whoever sends it';
COMMENT ON COLUMN usher.notifications.key IS 'the same key reaches a person once';
COMMENT ON COLUMN usher.notifications.channel IS 'in_app: it is read here';
