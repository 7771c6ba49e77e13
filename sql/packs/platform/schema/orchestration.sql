-- Pack platform: orchestration.

CREATE TABLE IF NOT EXISTS platform.orchestration_workflows (
    organization_id  uuid        NOT NULL,
    id               uuid        NOT NULL DEFAULT gen_random_uuid(),
    name             text        NOT NULL,
    kind             text        NOT NULL DEFAULT 'standard',
    definition       jsonb       NOT NULL DEFAULT '{}',
    required_modules text[]      NOT NULL DEFAULT '{}',
    auto_activate    boolean     NOT NULL DEFAULT true,
    status           text        NOT NULL DEFAULT 'active',
    version          bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT orchestration_workflows_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT orchestration_workflows_name_given CHECK (btrim(name) <> ''),
    CONSTRAINT orchestration_workflows_definition_object CHECK (jsonb_typeof(definition) = 'object'),
    CONSTRAINT orchestration_workflows_modules_named CHECK (array_position(required_modules, NULL) IS NULL AND array_position(required_modules, '') IS NULL),
    CONSTRAINT orchestration_workflows_status_known CHECK (status IN ('draft', 'active', 'paused', 'archived'))
);
CREATE INDEX IF NOT EXISTS orchestration_workflows_status_idx ON platform.orchestration_workflows (organization_id, status);
COMMENT ON TABLE platform.orchestration_workflows IS 'Pack platform: What can be run. Drafts, and what is paused or archived, asks for no modules.';
COMMENT ON COLUMN platform.orchestration_workflows.required_modules IS 'Codes of the modules that it needs, as in module_registry';
COMMENT ON COLUMN platform.orchestration_workflows.auto_activate IS 'Its modules are activated without anybody being asked; false: they are asked for, and an admin decides';

CREATE TABLE IF NOT EXISTS platform.workflow_executions (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    workflow_id     uuid        NOT NULL,
    status          text        NOT NULL DEFAULT 'pending',
    input           jsonb       NOT NULL DEFAULT '{}',
    outputs         jsonb       NOT NULL DEFAULT '{}',
    error           text,
    trigger_event   uuid,
    started_at      timestamptz,
    completed_at    timestamptz,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workflow_executions_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT workflow_executions_event_key UNIQUE (organization_id, workflow_id, trigger_event),
    CONSTRAINT workflow_executions_workflow_fkey FOREIGN KEY (organization_id, workflow_id)
        REFERENCES platform.orchestration_workflows (organization_id, id),
    CONSTRAINT workflow_executions_status_known CHECK (status IN ('pending', 'running', 'completed', 'failed', 'skipped')),
    CONSTRAINT workflow_executions_input_object CHECK (jsonb_typeof(input) = 'object'),
    CONSTRAINT workflow_executions_outputs_object CHECK (jsonb_typeof(outputs) = 'object'),
    CONSTRAINT workflow_executions_failed_says_why CHECK (status <> 'failed' OR error IS NOT NULL),
    CONSTRAINT workflow_executions_completed_without_error CHECK (status <> 'completed' OR error IS NULL),
    CONSTRAINT workflow_executions_open_not_completed CHECK (completed_at IS NULL OR status IN ('completed', 'failed', 'skipped')),
    CONSTRAINT workflow_executions_completed_after_start CHECK (completed_at >= started_at)
);
CREATE INDEX IF NOT EXISTS workflow_executions_status_idx ON platform.workflow_executions (organization_id, status);
COMMENT ON TABLE platform.workflow_executions IS 'Pack platform: A run of a workflow. What has ended stays as it ended.';
COMMENT ON COLUMN platform.workflow_executions.input IS 'What it was given; "client_ref", "includes_modules" and "notify_client" go to its handover package';
COMMENT ON COLUMN platform.workflow_executions.outputs IS 'What came of it; "artifacts" is a list of objects, each with a "name" of its own';
COMMENT ON COLUMN platform.workflow_executions.trigger_event IS 'The event that began it, once for each workflow';
CREATE OR REPLACE TRIGGER refuse_step BEFORE UPDATE ON platform.workflow_executions
    FOR EACH ROW WHEN (OLD.status <> NEW.status AND (OLD.status || '>' || NEW.status) NOT IN (
        'pending>running', 'pending>skipped', 'pending>failed', 'running>completed', 'running>failed', 'running>skipped'))
    EXECUTE FUNCTION platform.refuse_step();

CREATE TABLE IF NOT EXISTS platform.workflow_triggers (
    organization_id uuid        NOT NULL,
    id              uuid        NOT NULL DEFAULT gen_random_uuid(),
    workflow_id     uuid        NOT NULL,
    event_type      text        NOT NULL,
    version         bigint      NOT NULL DEFAULT 1,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT workflow_triggers_pkey PRIMARY KEY (organization_id, id),
    CONSTRAINT workflow_triggers_event_key UNIQUE (organization_id, event_type, workflow_id),
    CONSTRAINT workflow_triggers_workflow_fkey FOREIGN KEY (organization_id, workflow_id)
        REFERENCES platform.orchestration_workflows (organization_id, id) ON DELETE CASCADE,
    CONSTRAINT workflow_triggers_event_type CHECK (event_type ~ '^[a-z0-9_-]+(\.[a-z0-9_-]+)*$' AND length(event_type) <= 200)
);
CREATE INDEX IF NOT EXISTS workflow_triggers_workflow_idx ON platform.workflow_triggers (organization_id, workflow_id);
COMMENT ON TABLE platform.workflow_triggers IS 'Pack platform: Which events of the bus begin which workflows';
COMMENT ON COLUMN platform.workflow_triggers.event_type IS 'As the event says it, such as handover.package.delivered; no pattern';
