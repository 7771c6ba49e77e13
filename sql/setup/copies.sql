-- What writers that are under way have made must not be left behind. Before anything else: they take this lock first as well, so
-- that none of them holds what is changed below while it waits for us.
LOCK TABLE usher.queue IN ACCESS EXCLUSIVE MODE;

-- Which server and database the tables belong to. A restored, cloned or upgraded database has other marks: its jobs wait
-- until usher.resume() says what it is.
ALTER TABLE usher.installation ADD COLUMN system_identifier bigint;
ALTER TABLE usher.installation ADD COLUMN resumed_at timestamptz;
ALTER TABLE usher.installation ADD COLUMN resumed_as text
    CONSTRAINT installation_resumed_as_known CHECK (resumed_as IN ('moved', 'copy'));
COMMENT ON COLUMN usher.installation.system_identifier IS 'the server in which these tables are at home, as pg_control_system() tells it';
COMMENT ON COLUMN usher.installation.resumed_as IS 'what usher.resume() said last: moved (this is the installation now) or copy';
