-- Workflows: steps that come after each other, what is undone when one fails for good, and what people do to runs.
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_usher;
SELECT usher.setup() AS done \gset
DROP SCHEMA IF EXISTS wf CASCADE;
DROP ROLE IF EXISTS regress_usher_wf, regress_usher_admin, regress_usher_member, regress_usher_stranger;
CREATE SCHEMA wf;
CREATE TABLE wf.deals (organization_id uuid NOT NULL, id bigint NOT NULL, value numeric, status text, PRIMARY KEY (organization_id, id));
-- What the steps did, in the order in which they did it.
CREATE TABLE wf.diary (organization_id uuid NOT NULL, n bigint GENERATED ALWAYS AS IDENTITY, deal bigint, what text, PRIMARY KEY (organization_id, n));
CREATE TABLE wf.projects (organization_id uuid NOT NULL, deal bigint NOT NULL, value numeric CHECK (value < 1000), PRIMARY KEY (organization_id, deal));
CREATE FUNCTION wf.write(organization uuid, deal bigint, what text) RETURNS jsonb LANGUAGE sql AS
    $$ INSERT INTO wf.diary (organization_id, deal, what) VALUES (organization, deal, what) RETURNING jsonb_build_object('wrote', what) $$;
CREATE FUNCTION wf.fail(organization uuid, deal bigint, what text, unless text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM wf.diary AS d WHERE d.deal = fail.deal AND d.what = unless) THEN RAISE EXCEPTION '% is not possible', what USING ERRCODE = 'P0001'; END IF;
    RETURN wf.write(organization, deal, what);
END $$;
CREATE ROLE regress_usher_wf NOLOGIN;
CREATE ROLE regress_usher_admin NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_member NOLOGIN IN ROLE usher_member;
CREATE ROLE regress_usher_stranger NOLOGIN IN ROLE usher_member;
GRANT USAGE ON SCHEMA wf TO regress_usher_wf, regress_usher_member, regress_usher_stranger;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wf TO regress_usher_wf;
RESET client_min_messages;
SELECT usher.create_organization('wf-north') AS north \gset
SELECT usher.create_organization('wf-south') AS south \gset
SELECT usher.grant_membership('wf-north', 'role:regress_usher_admin', 'admin'), usher.grant_membership('wf-north', 'role:regress_usher_member');
-- A step that calls wf.write, one that calls wf.fail, and their undos.
CREATE FUNCTION wf.what(name text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('organization', 'run.organization_id', 'deal', '(run.input ->> ''deal'')::bigint', 'what', quote_literal(name)) $$;
CREATE FUNCTION wf.step(name text, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('step', name, 'call', 'wf.write', 'set', wf.what(name)) || more $$;
CREATE FUNCTION wf.undo(name text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('undo', jsonb_build_object('call', 'wf.write', 'set', wf.what('undo ' || name))) $$;
CREATE FUNCTION wf.failing(name text, unless text DEFAULT 'nothing') RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('step', name, 'call', 'wf.fail', 'retry', '{"delays": []}'::jsonb, 'set', wf.what(name) || jsonb_build_object('unless', quote_literal(unless))) $$;
CREATE FUNCTION wf.workflow(VARIADIC steps jsonb[]) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('run_as', 'regress_usher_wf', 'from', 'wf', 'to', 'wf', 'when', jsonb_build_object('request', md5(steps::text)), 'then', jsonb_build_object('steps', to_jsonb(steps))) $$;
CREATE FUNCTION wf.try(statement text) RETURNS SETOF text LANGUAGE sql AS $$ SELECT regexp_replace(t, '[0-9a-f-]{36}', 'ID', 'g') FROM public.try(statement) AS t $$;
CREATE FUNCTION wf.timeline(run uuid) RETURNS SETOF text LANGUAGE sql AS $$
    SELECT concat_ws(' ', t.step, '#' || t.item, t.what, '(' || regexp_replace(t.detail, '[0-9a-f-]{36}', 'ID', 'g') || ')') FROM usher.workflow_timeline(run) AS t $$;
CREATE FUNCTION wf.diary(of bigint) RETURNS text LANGUAGE sql AS $$ SELECT string_agg(d.what, ', ' ORDER BY d.n) FROM wf.diary AS d WHERE d.deal = of $$;

-- A row begins a run; its input is what "set" says.
SELECT usher.create_flow('wf_lifecycle', '{"run_as": "regress_usher_wf", "when": {"change": "wf.deals", "on": ["update"]}, "if": "new.status = ''won''", "set": {"deal": "new.id", "value": "new.value"},
    "then": {"steps": [
        {"step": "project", "insert": "wf.projects", "key": ["deal"], "on_conflict": "keep", "set": {"deal": "(run.input ->> ''deal'')::bigint", "value": "0"},
         "undo": {"delete": "wf.projects", "key": ["deal"], "set": {"deal": "(run.input ->> ''deal'')::bigint"}}},
        {"step": "note", "call": "wf.write", "keep_result": true, "set": {"organization": "run.organization_id", "deal": "(run.input ->> ''deal'')::bigint", "what": "''noted''"},
         "undo": {"call": "wf.write", "set": {"organization": "run.organization_id", "deal": "(run.input ->> ''deal'')::bigint", "what": "''took back '' || (run.result ->> ''wrote'')"}}},
        {"step": "value", "update": "wf.projects", "key": ["deal"], "retry": {"delays": []}, "set": {"deal": "(run.input ->> ''deal'')::bigint", "value": "(run.input ->> ''value'')::numeric * CASE WHEN run.results #>> ''{note,wrote}'' = ''noted'' THEN 1 ELSE -1 END"}}]}}');
SELECT name, version, definition -> 'when' AS when, definition ->> 'run_as' AS run_as FROM usher.flows WHERE name LIKE 'wf\_%' ORDER BY name;
INSERT INTO wf.deals VALUES (:'north', 1, 500, 'new'), (:'north', 2, 5000, 'new'), (:'south', 3, 7, 'new');
UPDATE wf.deals SET status = 'won';
CALL public.drain() \gset
SELECT o.slug, r.workflow, r.version, r.state, r.input, r.started_by, r.error_message FROM usher.workflow_runs r JOIN usher.organizations o ON o.id = r.organization_id ORDER BY r.input;
SELECT deal, value FROM wf.projects ORDER BY deal;
SELECT wf.diary(1), wf.diary(2), wf.diary(3);
SELECT wf.timeline(id) FROM usher.workflow_runs WHERE input ->> 'deal' = '1';
SELECT wf.timeline(id) FROM usher.workflow_runs WHERE input ->> 'deal' = '2';
-- Whose step has failed is its run's business.
SELECT wf.try(format('SELECT usher.retry_sync_job(%L)', d.id)) FROM usher.dead_letters d JOIN usher.flows f ON f.id = d.flow_id WHERE f.name = 'wf_lifecycle:value';
SELECT usher.retry_dead_letters('wf-north', '{"flow": "wf_lifecycle:value"}') AS none;

-- Side by side, and together again: undone in reverse, what does not come after each other in any order.
SELECT usher.create_flow('wf_diamond', wf.workflow(wf.step('top', wf.undo('top')), wf.step('left', wf.undo('left') || '{"after": ["top"]}'), wf.step('right', '{"after": ["top"]}'),
    wf.step('low', wf.undo('low') || '{"after": ["left"]}'), wf.failing('bottom') || '{"after": ["low", "right"]}'));
SELECT usher.start_workflow('wf-north', 'wf_diamond', '{"deal": 10}') AS run \gset
CALL public.drain() \gset
SELECT wf.diary(10), state, error_message FROM usher.workflow_runs WHERE id = :'run';

-- A condition, a list, and what each of its elements is.
SELECT usher.create_flow('wf_list', wf.workflow(wf.step('if', '{"if": "run.input ? ''wanted''"}' || wf.undo('if')),
    jsonb_build_object('step', 'each', 'for_each', 'run.input -> ''list''', 'call', 'wf.write', 'keep_result', true, 'set', wf.what('x') || '{"what": "''did '' || (run.item ->> ''name'')"}',
        'undo', jsonb_build_object('call', 'wf.write', 'set', wf.what('x') || '{"what": "''undid '' || (run.item ->> ''name'')"}')),
    jsonb_build_object('step', 'sum', 'call', 'wf.write', 'set', wf.what('x') || '{"what": "''together '' || jsonb_array_length(run.results -> ''each'')"}', 'if', 'NOT run.input ? ''fail'''),
    wf.failing('end', 'together 3')));
SELECT usher.start_workflow('wf-north', 'wf_list', '{"deal": 11, "wanted": true, "list": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}') AS run \gset
CALL public.drain() \gset
SELECT (SELECT string_agg(what, ', ' ORDER BY what) FROM wf.diary WHERE deal = 11), state FROM usher.workflow_runs WHERE id = :'run';
SELECT step, item, state, data, result FROM usher.workflow_steps WHERE run_id = :'run' ORDER BY started_at, step, item;
SELECT usher.start_workflow('wf-north', 'wf_list', '{"deal": 12, "fail": true, "list": [{"name": "a"}, {"name": "b"}]}') AS run \gset
CALL public.drain() \gset
SELECT (SELECT string_agg(what, ', ' ORDER BY what) FROM wf.diary WHERE deal = 12), state, error_message FROM usher.workflow_runs WHERE id = :'run';
SELECT usher.start_workflow('wf-north', 'wf_list', '{"deal": 13, "fail": true, "list": []}') AS run \gset
SELECT usher.start_workflow('wf-north', 'wf_list', '{"deal": 14, "list": 7}') AS run \gset
CALL public.drain() \gset
SELECT input, state, error_message FROM usher.workflow_runs WHERE input ->> 'deal' IN ('13', '14') ORDER BY input;

-- Waiting: for a signal, for somebody's yes, for an event of this run's own, until a time.
SELECT usher.create_flow('wf_wait', wf.workflow(wf.step('first', wf.undo('first')), '{"step": "paid", "wait": {"signal": "money"}, "deadline": "30 days"}', '{"step": "boss", "approval": {}}',
    '{"step": "settled", "wait": {"event": "wf.deals.*", "match": {"deal": "run.input ->> ''deal''"}}, "deadline": "2 h"}', '{"step": "nap", "sleep_until": "''2020-01-01''"}', wf.step('last')));
SELECT usher.start_workflow('wf-north', 'wf_wait', '{"deal": 20}') AS run \gset
CALL public.drain() \gset
SELECT regexp_replace(line, 'until .*', 'until then)') FROM wf.timeline(:'run') AS line;
SELECT wf.try(format('SELECT usher.signal_workflow(%L, ''mony'')', :'run'));
SELECT wf.try(format('SELECT usher.signal_workflow(%L, ''money'', ''[]'')', :'run'));
SELECT wf.try(format('SELECT usher.signal_workflow(%L, ''boss'')', :'run'));
-- Before the step begins: it is kept for it.
SELECT usher.signal_workflow(:'run', 'boss', '{"approved": true, "note": "fine"}');
SELECT wf.try(format('SELECT usher.signal_workflow(%L, ''boss'', ''{"approved": true}'')', :'run'));
SELECT usher.signal_workflow(:'run', 'money', '{"amount": 12.50}');
SELECT wf.try(format('SELECT usher.signal_workflow(%L, ''money'')', :'run'));
CALL public.drain() \gset
SELECT step, state, result FROM usher.workflow_steps WHERE run_id = :'run' ORDER BY started_at;
SELECT count(*) AS clocks FROM usher.sync_jobs WHERE flow = 'wf_wait::clock' AND status = 'pending';
SELECT usher.emit_event('wf-north', 'wf.deals.settled', '{"deal": 21}') IS NOT NULL AS of_another_deal, usher.emit_event('wf-south', 'wf.deals.settled', '{"deal": 20}') IS NOT NULL AS of_another_organization,
       usher.emit_event('wf-north', 'wf.deals', '{"deal": 20}') IS NOT NULL AS of_another_type;
CALL public.drain() \gset
SELECT state FROM usher.workflow_steps WHERE run_id = :'run' AND step = 'settled';
SELECT usher.emit_event('wf-north', 'wf.deals.settled', '{"deal": 20, "how": "cash"}') IS NOT NULL AS emitted;
CALL public.drain() \gset
SELECT state, (SELECT result FROM usher.workflow_steps WHERE run_id = :'run' AND step = 'settled') AS came FROM usher.workflow_runs WHERE id = :'run';
SELECT count(*) AS clocks FROM usher.sync_jobs WHERE flow = 'wf_wait::clock' AND status = 'pending';
SELECT wf.try(format('SELECT usher.signal_workflow(%L, ''money'')', :'run'));
-- The event was there before it was waited for, in whatever form its pattern is; somebody says no.
SELECT usher.start_workflow('wf-north', 'wf_wait', '{"deal": 22}') AS run \gset
SELECT usher.emit_event('wf-north', 'wf.deals.early', '{"deal": 22}') IS NOT NULL AS emitted;
SELECT usher.signal_workflow(:'run', 'money'), usher.signal_workflow(:'run', 'boss', '{"approved": true}');
SELECT usher.start_workflow('wf-north', 'wf_wait', '{"deal": 23}') AS refused \gset
SELECT usher.signal_workflow(:'refused', 'money'), usher.signal_workflow(:'refused', 'boss', '{"approved": false, "note": "too dear"}');
CALL public.drain() \gset
SELECT input ->> 'deal' AS deal, state, error_message, wf.diary((input ->> 'deal')::bigint) FROM usher.workflow_runs WHERE id IN (:'run', :'refused') ORDER BY 1;
-- The deadline is over: it fails, or goes on.
SELECT usher.create_flow('wf_late', wf.workflow(wf.step('first', wf.undo('first')), '{"step": "maybe", "wait": {"signal": "maybe"}, "deadline": "1ms", "on_deadline": "continue"}', '{"step": "must", "wait": {"signal": "must"}, "deadline": 0.001}'));
SELECT usher.start_workflow('wf-north', 'wf_late', '{"deal": 24}') AS run \gset
CALL public.drain() \gset
SELECT pg_sleep(0.01) \gset
CALL public.drain() \gset
SELECT pg_sleep(0.01) \gset
CALL public.drain() \gset
SELECT state, error_message, (SELECT result FROM usher.workflow_steps WHERE run_id = :'run' AND step = 'maybe') FROM usher.workflow_runs WHERE id = :'run';

-- Cancelled: undone. Past the pivot there is no way back, what fails there parks the run until somebody mends it.
SELECT usher.start_workflow('wf-north', 'wf_wait', '{"deal": 30}') AS run \gset
CALL public.drain() \gset
SELECT usher.cancel_workflow(:'run', 'changed their mind');
CALL public.drain() \gset
SELECT wf.timeline(:'run');
SELECT wf.try(format('SELECT usher.cancel_workflow(%L)', :'run'));
SELECT count(*) AS clocks FROM usher.sync_jobs WHERE flow = 'wf_wait::clock' AND status = 'pending';
SELECT usher.retry_workflow(:'run') AS begins_anew;
CALL public.drain() \gset
SELECT wf.diary(30);
SELECT usher.cancel_workflow(:'run', undo => false) AS as_it_is;
SELECT usher.create_flow('wf_pivot', wf.workflow(wf.step('first', wf.undo('first')), wf.step('publish', '{"pivot": true}'), wf.failing('after', 'mended'), wf.step('last')));
SELECT usher.start_workflow('wf-north', 'wf_pivot', '{"deal": 31}') AS run \gset
CALL public.drain() \gset
SELECT state, error_message, replace(remedy, id::text, 'ID') AS remedy, ended_at IS NULL AS open FROM usher.workflow_runs WHERE id = :'run';
SELECT state, regexp_replace(finding, 'at 2.*:', 'at TIME:') AS finding, remedy FROM usher.doctor() WHERE "check" = 'workflows';
SELECT wf.try(format('SELECT usher.cancel_workflow(%L)', :'run'));
SELECT wf.try(format('SELECT usher.retry_workflow(%L, ''lost'')', :'run'));
SELECT wf.try(format('SELECT usher.retry_workflow(%L, ''last'')', :'run'));
SELECT wf.write(:'north', 31, 'mended') \gset
SELECT usher.retry_workflow(:'run');
CALL public.drain() \gset
SELECT wf.diary(31), state, error_message, remedy FROM usher.workflow_runs WHERE id = :'run';
SELECT wf.try(format('SELECT usher.retry_workflow(%L)', :'run'));

-- An undo that fails parks the run, too. A run goes on with the version it began with; whoever retries means the present one.
SELECT usher.create_flow('wf_stuck', wf.workflow(wf.step('first', wf.undo('first')),
    wf.step('second') || jsonb_build_object('undo', jsonb_build_object('call', 'wf.fail', 'retry', '{"delays": []}'::jsonb, 'set', wf.what('undo second') || '{"unless": "''never''"}')), wf.failing('third')));
SELECT usher.start_workflow('wf-north', 'wf_stuck', '{"deal": 32}') AS run \gset
CALL public.drain() \gset
SELECT state, error_message FROM usher.workflow_runs WHERE id = :'run';
SELECT usher.alter_flow('wf_stuck', wf.workflow(wf.step('first', wf.undo('first')), wf.step('second', wf.undo('second')), wf.failing('third')));
SELECT usher.retry_workflow(:'run');
CALL public.drain() \gset
SELECT wf.diary(32), version, state FROM usher.workflow_runs WHERE id = :'run';
SELECT usher.create_flow('wf_versions', wf.workflow(wf.step('one'), '{"step": "go", "wait": {"signal": "go"}}', wf.step('old')));
SELECT usher.start_workflow('wf-north', 'wf_versions', '{"deal": 33}') AS before \gset
CALL public.drain() \gset
SELECT usher.alter_flow('wf_versions', wf.workflow(wf.step('one'), '{"step": "go", "wait": {"signal": "go"}}', wf.step('new')));
SELECT usher.start_workflow('wf-north', 'wf_versions', '{"deal": 34}') AS after \gset
CALL public.drain() \gset
SELECT usher.signal_workflow(:'before', 'go'), usher.signal_workflow(:'after', 'go');
CALL public.drain() \gset
SELECT wf.diary(33), wf.diary(34);

-- Who may do what.
SELECT usher.start_workflow('wf-north', 'wf_wait', '{"deal": 40}') AS run \gset
CALL public.drain() \gset
SET ROLE regress_usher_stranger;
SELECT count(*) FROM usher.workflow_runs;
SELECT wf.try('SELECT usher.start_workflow(''wf-north'', ''wf_wait'')');
SELECT wf.try(format('SELECT usher.cancel_workflow(%L)', :'run'));
SELECT wf.try(format('SELECT * FROM usher.workflow_timeline(%L)', :'run'));
SET ROLE regress_usher_member;
SELECT count(*) > 0 AS sees, count(*) FILTER (WHERE organization_id <> :'north') AS of_others FROM usher.workflow_runs;
SELECT count(*) > 0 AS sees FROM usher.workflow_timeline(:'run');
SELECT wf.try('SELECT usher.start_workflow(''wf-north'', ''wf_wait'')');
SELECT wf.try(format('SELECT usher.signal_workflow(%L, ''money'')', :'run'));
SELECT wf.try(format('SELECT usher.cancel_workflow(%L)', :'run'));
SELECT wf.try(format('SELECT usher.retry_workflow(%L)', :'run'));
SET ROLE regress_usher_admin;
SELECT usher.cancel_workflow(:'run');
RESET ROLE;
SELECT action, actor, new FROM usher.audit_log WHERE object = :'run' ORDER BY position;

-- What cannot work is said when the workflow is made, and with its step.
SELECT wf.try(format('SELECT usher.create_flow(''wf_wrong'', %L)', definition)) FROM (VALUES
    (wf.workflow(wf.step('a') || '{"set": {"organisation": "run.organization_id"}}')),
    (wf.workflow(wf.step('a') || '{"set": {"organization": "run.organization"}}')),
    (wf.workflow(wf.step('a') || '{"set": {"organization": "new.id"}}')),
    (wf.workflow(wf.step('a', '{"if": "run.input"}'))),
    (wf.workflow(wf.step('a', '{"if": "run.inputs ? ''x''"}'))),
    (wf.workflow(wf.step('a') || '{"undo": {"delete": "wf.project", "key": ["deal"], "set": {"deal": "1"}}}')),
    (wf.workflow(wf.step('a') || '{"after": ["b"]}', wf.step('b'))),
    ('{"when": {"step": "x"}, "then": {"call": "wf.write"}}'),
    ('{"when": {"event": "x"}, "then": {"collect": "hear"}}')) AS d (definition);
SELECT wf.try('SELECT usher.start_workflow(''wf-north'', ''wf_diamnd'')');
SELECT wf.try('SELECT usher.start_workflow(''wf-north'', ''wf_diamond'', ''[1]'')');
SELECT wf.try('SELECT usher.alter_flow(''wf_diamond:top'', ''{}'')');
SELECT wf.try('SELECT usher.drop_flow(''wf_diamond:top'')');
SELECT wf.try(format('SELECT usher.cancel_workflow(%L)', gen_random_uuid()));
-- A workflow is exported as one flow, switched on and off as one, and dropped when nobody is under way.
SELECT string_agg(name, ', ' ORDER BY name) FROM jsonb_object_keys(usher.export_flows() -> 'flows') AS name WHERE name LIKE 'wf\_%';
SELECT usher.start_workflow('wf-north', 'wf_versions', '{"deal": 50}') AS run \gset
CALL public.drain() \gset
SELECT usher.disable_flow('wf_versions');
SELECT usher.signal_workflow(:'run', 'go');
CALL public.drain() \gset
SELECT wf.diary(50);
SELECT wf.try('SELECT usher.start_workflow(''wf-north'', ''wf_versions'')');
SELECT wf.try('SELECT usher.drop_flow(''wf_versions'')');
SELECT usher.enable_flow('wf_versions');
CALL public.drain() \gset
SELECT wf.diary(50);
SELECT usher.drop_flow('wf_versions');
SELECT count(*) FROM usher.flows WHERE name LIKE 'wf\_versions%';
SELECT state, count(*) FROM usher.workflow_runs WHERE workflow = 'wf_versions' GROUP BY state;
SELECT usher.explain_flow('wf_pivot') ~ 'step:    publish, after first, the pivot' AS explained;

-- What a step's job carries is nobody's to change, and a sleep may be cut short.
SELECT usher.create_flow('wf_nap', wf.workflow('{"step": "nap", "sleep": "1 day"}', wf.step('done')));
SELECT usher.start_workflow('wf-north', 'wf_nap', '{"deal": 60}') AS run \gset
SELECT wf.try(format('SELECT usher.retry_sync_job(%L, ''{"run": "x"}'')', id)) FROM usher.sync_jobs WHERE flow = 'wf_nap::clock' AND status = 'pending';
SELECT r.status FROM usher.sync_jobs AS j, usher.retry_sync_job(j.id) AS r WHERE j.flow = 'wf_nap::clock' AND j.status = 'pending';
CALL public.drain() \gset
SELECT wf.diary(60);
-- Undone, mended, begun anew: with nothing of the first attempt.
SELECT usher.create_flow('wf_again', wf.workflow('{"step": "go", "wait": {"signal": "go"}}', wf.step('one', wf.undo('one')), wf.failing('two')));
SELECT usher.start_workflow('wf-north', 'wf_again', '{"deal": 61}') AS run \gset
SELECT usher.signal_workflow(:'run', 'go');
CALL public.drain() \gset
SELECT usher.alter_flow('wf_again', wf.workflow('{"step": "go", "wait": {"signal": "go"}}', wf.step('one', wf.undo('one')), wf.step('two')));
SELECT usher.retry_workflow(:'run');
CALL public.drain() \gset
SELECT string_agg(step || ' ' || state, ', ' ORDER BY step) FROM usher.workflow_steps WHERE run_id = :'run';
SELECT usher.signal_workflow(:'run', 'go');
CALL public.drain() \gset
SELECT wf.diary(61), state, version FROM usher.workflow_runs WHERE id = :'run';
-- What runs of an older version wait for is heard, and what happens while a workflow is off, when it is on again.
SELECT usher.create_flow('wf_hear', wf.workflow('{"step": "it", "wait": {"event": "wf.old.*", "match": {"deal": "run.input ->> ''deal''"}}}', wf.step('heard')));
SELECT usher.start_workflow('wf-north', 'wf_hear', '{"deal": 62}') AS older \gset
SELECT usher.start_workflow('wf-north', 'wf_hear', '{"other": 1}') AS unsaid \gset
CALL public.drain() \gset
SELECT usher.alter_flow('wf_hear', wf.workflow('{"step": "it", "wait": {"event": "wf.new.*", "match": {"deal": "run.input ->> ''deal''", "kind": "''x''"}}}', wf.step('heard')));
SELECT usher.start_workflow('wf-north', 'wf_hear', '{"deal": 63}') AS newer \gset
CALL public.drain() \gset
SELECT usher.disable_flow('wf_hear');
SELECT usher.emit_event('wf-north', 'wf.old.x', '{"deal": 62}') IS NOT NULL AS emitted, usher.emit_event('wf-north', 'wf.old.y', '{}') IS NOT NULL AS stray;
CALL public.drain() \gset
SELECT usher.enable_flow('wf_hear');
SELECT usher.emit_event('wf-north', 'wf.new.x', '{"deal": 63, "kind": "x"}') IS NOT NULL AS emitted;
CALL public.drain() \gset
SELECT input, state, error_message FROM usher.workflow_runs WHERE id IN (:'older', :'newer', :'unsaid') ORDER BY input;
-- Two fail behind the pivot: the first is the reason.
SELECT usher.create_flow('wf_two', wf.workflow(wf.step('pivot', '{"pivot": true}'), wf.failing('left') || '{"after": ["pivot"]}', wf.failing('right') || '{"after": ["pivot"], "retry": {"delays": [0.01]}}'));
SELECT usher.start_workflow('wf-north', 'wf_two', '{"deal": 64}') AS run \gset
CALL public.drain() \gset
SELECT pg_sleep(0.05) \gset
CALL public.drain() \gset
SELECT state, error_message FROM usher.workflow_runs WHERE id = :'run';
-- A workflow that somebody deletes takes its runs along.
SELECT usher.start_workflow('wf-north', 'wf_nap', '{"deal": 65}') AS run \gset
DELETE FROM usher.flows WHERE name = 'wf_nap';
SELECT wf.try(format('SELECT usher.cancel_workflow(%L)', :'run'));
SELECT usher.cancel_workflow(:'run', undo => false);
SELECT state, error_message FROM usher.workflow_runs WHERE id = :'run';
DELETE FROM usher.flows WHERE name LIKE 'wf\_nap:%';

-- Nothing is left behind.
SELECT usher.cancel_workflow(id, undo => false) FROM usher.workflow_runs WHERE ended_at IS NULL;
SELECT usher.drop_flow(f.name) FROM usher.flows AS f WHERE f.name LIKE 'wf\_%' AND strpos(f.name, ':') = 0 ORDER BY f.name;
SELECT count(*) FROM usher.flows WHERE name LIKE 'wf\_%';
SELECT count(*) AS waits FROM usher.workflow_waits;
SELECT count(*) AS notes FROM usher.workflow_checks;
SELECT count(*) AS signals FROM usher.workflow_signals;
SELECT count(*) AS open FROM usher.workflow_runs WHERE ended_at IS NULL;
DROP OWNED BY regress_usher_member, regress_usher_stranger;
