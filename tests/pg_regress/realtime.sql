-- What Supabase Realtime makes in a database, as far as a sender and a policy see it: the same names, columns, arguments and
-- behaviour. Its server is not here: it makes the partitions, one for each day, and passes on what is inserted.
CREATE SCHEMA realtime;
CREATE TABLE realtime.messages (
    topic text NOT NULL,
    extension text NOT NULL,
    payload jsonb,
    event text,
    private boolean DEFAULT false,
    updated_at timestamp NOT NULL DEFAULT now(),
    inserted_at timestamp NOT NULL DEFAULT now(),
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    PRIMARY KEY (id, inserted_at)
) PARTITION BY RANGE (inserted_at);
ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;

CREATE FUNCTION realtime.make_partitions() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    day date;
BEGIN
    FOR day IN SELECT d FROM generate_series(current_date - 1, current_date + 3, interval '1 day') AS d LOOP
        EXECUTE format('CREATE TABLE IF NOT EXISTS realtime.messages_%s PARTITION OF realtime.messages FOR VALUES FROM (%L) TO (%L)',
            to_char(day, 'YYYY_MM_DD'), day, day + 1);
    END LOOP;
END
$$;
SELECT realtime.make_partitions();

-- The topic that somebody joins, for policies.
CREATE FUNCTION realtime.topic() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('realtime.topic', true), '') $$;

-- With the caller's rights; whatever is in the way becomes a warning.
CREATE FUNCTION realtime.send(payload jsonb, event text, topic text, private boolean DEFAULT true) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    own_id uuid := gen_random_uuid();
BEGIN
    BEGIN
        IF NOT payload ? 'id' THEN
            payload := jsonb_set(payload, '{id}', to_jsonb(own_id));
        END IF;
        EXECUTE format('SET LOCAL realtime.topic TO %L', topic);
        INSERT INTO realtime.messages (id, payload, event, topic, private, extension)
        VALUES (own_id, payload, event, topic, private, 'broadcast');
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'WarnSendingBroadcastMessage: %', SQLERRM;
    END;
END
$$;
