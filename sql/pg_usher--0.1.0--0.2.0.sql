-- pg_usher 0.1.0 to 0.2.0; ALTER EXTENSION pg_usher UPDATE runs it. The tables follow by SELECT usher.setup().
\echo Use "ALTER EXTENSION pg_usher UPDATE" to load this file. \quit

-- By hand, because the catalog cannot tell it:
-- The rest is written by scripts/upgrade_script.sh.
CREATE TYPE usher.ticket_revenue_ingestion AS (
    id uuid,
    organization_id uuid,
    project_id uuid,
    event_code text,
    ticket_count integer,
    gross_amount numeric,
    currency text,
    ingestion_source text,
    payload jsonb,
    ingested_at timestamp with time zone,
    repeated boolean,
    possible_duplicate_of uuid,
    reverses uuid
);
DROP FUNCTION usher.install_pack(text,text);
DROP FUNCTION usher.enqueue_sync_jobs(text,text,text,jsonb[]);
DROP FUNCTION usher.enqueue_sync_job(text,text,text,jsonb,text,timestamp with time zone,text);
CREATE OR REPLACE FUNCTION usher.follow_ddl()
 RETURNS event_trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$usher_follow_ddl$function$;
CREATE OR REPLACE FUNCTION usher.follow_drop()
 RETURNS event_trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$usher_follow_drop$function$;
CREATE OR REPLACE FUNCTION usher.compare_tables(left_table regclass, right_table regclass, key text[] DEFAULT NULL::text[], columns jsonb DEFAULT NULL::jsonb, "where" text DEFAULT NULL::text, organization text DEFAULT NULL::text)
 RETURNS TABLE(key jsonb, finding text, columns text[], left_row jsonb, right_row jsonb)
 LANGUAGE c
 STABLE COST 10000 ROWS 100
AS 'MODULE_PATHNAME', $function$usher_compare_tables$function$;
CREATE OR REPLACE FUNCTION usher.compare_pair(flow text, organization text DEFAULT NULL::text)
 RETURNS TABLE(key jsonb, finding text, columns text[], left_row jsonb, right_row jsonb)
 LANGUAGE c
 STABLE COST 10000 ROWS 100
AS 'MODULE_PATHNAME', $function$usher_compare_pair$function$;
CREATE OR REPLACE FUNCTION usher.compare_step(state bytea, here boolean, secret uuid, bits integer, keys integer, VARIADIC "values" "any")
 RETURNS bytea
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', $function$usher_compare_step$function$;
CREATE OR REPLACE FUNCTION usher.compare_join(state bytea, other bytea)
 RETURNS bytea
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', $function$usher_compare_join$function$;
CREATE OR REPLACE FUNCTION usher.compare_open(state bytea)
 RETURNS bytea
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', $function$usher_compare_open$function$;
CREATE OR REPLACE FUNCTION usher.compare_leaf(secret uuid, bits integer, VARIADIC "values" "any")
 RETURNS integer
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', $function$usher_compare_leaf$function$;
CREATE OR REPLACE FUNCTION usher.compare_digest(secret uuid, VARIADIC "values" "any")
 RETURNS uuid
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', $function$usher_compare_digest$function$;
CREATE OR REPLACE FUNCTION usher.admit(lane smallint, flow integer, organization uuid)
 RETURNS integer
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$admit_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.adopt_memberships(relation regclass, organization_column text DEFAULT 'organization_id'::text, user_column text DEFAULT 'user_id'::text, role_column text DEFAULT 'role'::text, roles jsonb DEFAULT NULL::jsonb, condition jsonb DEFAULT NULL::jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$adopt_memberships_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.adopt_organizations(relation regclass, id_column text DEFAULT 'id'::text, slug_column text DEFAULT NULL::text, name_column text DEFAULT NULL::text, timezone_column text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$adopt_organizations_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.alter_overlap_rule(name text, definition jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$alter_overlap_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.alter_rule(name text, definition jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$alter_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.apply_flows(flows jsonb, dry_run boolean DEFAULT false, remove_missing boolean DEFAULT false)
 RETURNS TABLE(flow text, change text, difference text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$apply_flows_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.apply_migration(migration uuid, kinds text[] DEFAULT NULL::text[], actions text[] DEFAULT NULL::text[], slice integer DEFAULT 1000)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$apply_migration_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.apply_retention(dry_run boolean DEFAULT true, target regclass DEFAULT NULL::regclass)
 RETURNS TABLE(table_name text, action text, rows bigint, oldest text, held bigint, error text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$apply_retention_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.audit_anchor()
 RETURNS TABLE(block bigint, hash text, made_at timestamp with time zone)
 LANGUAGE c
 STABLE STRICT
AS 'MODULE_PATHNAME', $function$audit_anchor_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.audit_entry_hash("position" bigint, recorded_at timestamp with time zone, id uuid, correlation_id uuid, organization_id uuid, actor text, role text, action text, object text, old text, new text, flow text, salt uuid, erased_images bytea, masked bytea)
 RETURNS bytea
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', $function$audit_entry_hash_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.audit_images_hash(salt uuid, old text, new text)
 RETURNS bytea
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', $function$audit_images_hash_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.audit_table(target regclass, columns text[] DEFAULT NULL::text[])
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$audit_table_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.backfill(flow text, "where" text DEFAULT NULL::text, slice integer DEFAULT 1000)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$backfill_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.bind_ticket_revenue(resolve text, book text, run_as text DEFAULT NULL::text, book_batch text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$bind_ticket_revenue_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.broadcast_event(organization text, type text, data jsonb DEFAULT '{}'::jsonb, acknowledge_within interval DEFAULT '00:01:00'::interval)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$broadcast_event_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.cancel_migration(migration uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$cancel_migration_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.cancel_sync_jobs(organization text, filter jsonb)
 RETURNS bigint
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$cancel_sync_jobs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.cancel_work(id uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$cancel_work_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.cancel_workflow(run uuid, reason text DEFAULT NULL::text, undo boolean DEFAULT true)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$cancel_workflow_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.check_overlaps(rule text DEFAULT NULL::text)
 RETURNS TABLE(rule text, raised bigint, gone bigint, found bigint)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$check_overlaps_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.check_rate(function text, organization uuid DEFAULT NULL::uuid)
 RETURNS boolean
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$check_rate_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.check_rule(rule text, organization text DEFAULT NULL::text)
 RETURNS TABLE(rule text, new bigint, still bigint, gone bigint)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$check_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.check_rules(organization text DEFAULT NULL::text)
 RETURNS TABLE(rule text, new bigint, still bigint, gone bigint, error text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$check_rules_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.check_soon(rule text DEFAULT NULL::text, pack text DEFAULT NULL::text)
 RETURNS bigint
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$check_soon_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.claim_jobs(system text, n integer DEFAULT 1, lease interval DEFAULT '00:01:00'::interval)
 RETURNS TABLE(job uuid, organization_id uuid, flow text, source_system text, payload jsonb, priority text, attempt integer, lease uuid, lease_until timestamp with time zone)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$claim_jobs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.create_batch(organization text, name text, completion jsonb DEFAULT NULL::jsonb)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$create_batch_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.create_overlap_rule(name text, definition jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$create_overlap_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.create_rule(name text, definition jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$create_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.create_subscription(system text, definition jsonb, organization text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$create_subscription_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.declare_personal(target regclass, columns jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$declare_personal_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.define_subject(kind text, target regclass, follow text[] DEFAULT NULL::text[], leave text[] DEFAULT NULL::text[], links text[] DEFAULT NULL::text[], run_as text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$define_subject_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.delete_secret(organization text, name text)
 RETURNS void
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$delete_secret_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.disable_rule(name text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$disable_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.doctor(patience interval DEFAULT '00:10:00'::interval)
 RETURNS TABLE("check" text, state text, finding text, remedy text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$doctor_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.drop_overlap_rule(name text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$drop_overlap_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.drop_rule(name text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$drop_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.drop_subject(kind text)
 RETURNS void
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$drop_subject_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.drop_subscription(system text, organization text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$drop_subscription_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.emit_event(organization text, type text, data jsonb DEFAULT '{}'::jsonb, priority text DEFAULT 'normal'::text)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$emit_event_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.enable_rule(name text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$enable_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.enqueue_sync_job(organization text, source_system text, target_system text, payload jsonb DEFAULT '{}'::jsonb, priority text DEFAULT 'normal'::text, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, unique_key text DEFAULT NULL::text, options jsonb DEFAULT NULL::jsonb)
 RETURNS usher.sync_job
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$enqueue_sync_job_with_options_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.enqueue_sync_jobs(organization text, source_system text, target_system text, payloads jsonb[], priority text DEFAULT 'normal'::text, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, options jsonb DEFAULT NULL::jsonb)
 RETURNS uuid[]
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$enqueue_sync_jobs_with_options_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.erase_subject(organization text, kind text, key text, reason text)
 RETURNS jsonb
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$erase_subject_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.erasure_receipt(organization text, erasure uuid)
 RETURNS jsonb
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$erasure_receipt_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.event_receipts(event uuid)
 RETURNS TABLE(receiver text, outside boolean, state text, received_at timestamp with time zone, error text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$event_receipts_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.explain_merge(link uuid)
 RETURNS TABLE(field text, base_left text, base_right text, left_value text, right_value text, strategy text, holds text, why text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$explain_merge_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.explain_rule(name text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$explain_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.export_flows(packs boolean DEFAULT false)
 RETURNS jsonb
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$export_flows_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.export_subject(organization text, kind text, key text)
 RETURNS jsonb
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$export_subject_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.expose_api(schema text DEFAULT 'public'::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$expose_api_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.extend_lease(job uuid, lease uuid, by interval)
 RETURNS timestamp with time zone
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$extend_lease_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.fail_job(job uuid, lease uuid, error text, retry_after interval DEFAULT NULL::interval, permanent boolean DEFAULT false)
 RETURNS usher.sync_job
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$fail_job_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.finish_job(job uuid, lease uuid, result jsonb DEFAULT NULL::jsonb)
 RETURNS usher.sync_job
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$finish_job_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.flow_history(name text)
 RETURNS TABLE(version integer, created_at timestamp with time zone, created_by text, run_as text, difference text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$flow_history_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.forward_notifications(organization text, recipient text, becomes text)
 RETURNS bigint
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$forward_notifications_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.hide_api(schema text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$hide_api_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.hold_subject(organization text, kind text, key text, reason text)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$hold_subject_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.horizon()
 RETURNS TABLE(kind text, pid integer, name text, age_transactions bigint, age interval, query text)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$horizon_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.ingest_ticket_revenue(organization text, project_code text, event_code text, ticket_count integer, gross_amount numeric, currency text DEFAULT 'USD'::text, source text DEFAULT 'gvteway'::text, payload jsonb DEFAULT '{}'::jsonb, idempotency_key text DEFAULT NULL::text)
 RETURNS usher.ticket_revenue_ingestion
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$ingest_ticket_revenue_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.ingest_ticket_revenue_batch(organization text, sales jsonb)
 RETURNS TABLE(sale integer, id uuid, repeated boolean)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$ingest_ticket_revenue_batch_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.install_pack(name text, run_as text DEFAULT NULL::text, bind jsonb DEFAULT NULL::jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$install_pack_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.isolate_tables(schemas text[], declaration jsonb)
 RETURNS bigint
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$isolate_tables_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.job_result(job uuid)
 RETURNS jsonb
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$job_result_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.limit_queue(max_jobs bigint, lane text DEFAULT NULL::text, flow text DEFAULT NULL::text, system text DEFAULT NULL::text, organization text DEFAULT NULL::text, action text DEFAULT 'refuse'::text, shed_to text DEFAULT NULL::text, captured boolean DEFAULT false)
 RETURNS integer
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$limit_queue_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.limit_rpc(rate text, function text DEFAULT NULL::text, organization text DEFAULT NULL::text, role text DEFAULT NULL::text, burst bigint DEFAULT NULL::bigint)
 RETURNS integer
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$limit_rpc_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.limit_states()
 RETURNS TABLE(per text, flow text, system text, organization text, key text, allowed text, available bigint, in_flight bigint, waiting bigint, next_at timestamp with time zone)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$limit_states_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.limit_system(system text, limits jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$limit_system_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.limited_jobs(id integer)
 RETURNS bigint
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$limited_jobs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.lineage(of text DEFAULT NULL::text, direction text DEFAULT 'both'::text, depth integer DEFAULT NULL::integer, pack text DEFAULT NULL::text, system text DEFAULT NULL::text)
 RETURNS TABLE(kind text, source_kind text, source text, target_kind text, target text, fields jsonb, uses text[], flow text, mode text, state text, pack text, from_system text, to_system text, link text, distance integer)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$lineage_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.lineage_diagram(format text DEFAULT 'mermaid'::text, of text DEFAULT NULL::text, direction text DEFAULT 'both'::text, depth integer DEFAULT NULL::integer, pack text DEFAULT NULL::text, system text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$lineage_diagram_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.managed_organization(organization text)
 RETURNS uuid
 LANGUAGE c
 STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', $function$managed_organization_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.mask_person(value text, fields text[], identifiers text[], pseudonym text)
 RETURNS text
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE STRICT
AS 'MODULE_PATHNAME', $function$mask_person_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.mask_value(value text)
 RETURNS text
 LANGUAGE c
 IMMUTABLE PARALLEL SAFE STRICT
AS 'MODULE_PATHNAME', $function$mask_value_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.metrics()
 RETURNS text
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$metrics_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.next_runs(schedule text, timezone text DEFAULT 'UTC'::text, after timestamp with time zone DEFAULT NULL::timestamp with time zone, count integer DEFAULT 5)
 RETURNS SETOF timestamp with time zone
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$next_runs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.note_merges_failed(flow integer, organizations uuid[], jobs uuid[])
 RETURNS void
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$note_merges_failed_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.notify(organization text, recipients text[], title text, kind text DEFAULT 'notice'::text, severity text DEFAULT 'info'::text, body jsonb DEFAULT '{}'::jsonb, key text DEFAULT NULL::text)
 RETURNS integer
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$notify_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.pack_tables(name text)
 RETURNS TABLE(table_name text, column_name text, type text, words text[], workflows text[])
 LANGUAGE c
 STABLE
AS 'MODULE_PATHNAME', $function$pack_tables_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.pack_workflows(name text)
 RETURNS TABLE(workflow text, title text, kind text, part text, description text)
 LANGUAGE c
 STABLE
AS 'MODULE_PATHNAME', $function$pack_workflows_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.pause_jobs(flow text DEFAULT NULL::text, system text DEFAULT NULL::text, organization text DEFAULT NULL::text, until timestamp with time zone DEFAULT NULL::timestamp with time zone, reason text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$pause_jobs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.pause_migration(migration uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$pause_migration_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.pause_work(id uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$pause_work_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.paused_jobs(pause integer)
 RETURNS bigint
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$paused_jobs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.plan_erasure(organization text, kind text, key text)
 RETURNS TABLE(place text, action text, rows bigint, columns text[])
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$plan_erasure_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.plan_pack(name text, bind jsonb DEFAULT NULL::jsonb)
 RETURNS TABLE(workflow text, title text, runs boolean, lacks text[], remedies text[], notes text[])
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$plan_pack_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.plan_repair(rule text, organization text DEFAULT NULL::text, most integer DEFAULT 100)
 RETURNS TABLE(violation uuid, organization_id uuid, key jsonb, wrong text, bad jsonb, does text, expect text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$plan_repair_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.protect_column("table" regclass, "column" text, how text, readers text[], mask text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$protect_column_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.queue_depth()
 RETURNS TABLE(lane text, ready bigint)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$queue_depth_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.queue_depths()
 RETURNS TABLE(lane text, flow text, organization text, ready bigint, in_flight bigint, oldest interval, waiting bigint, waiting_for jsonb, dead bigint, rate_per_minute double precision)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$queue_depths_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.read_notice(notice uuid)
 RETURNS boolean
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$read_notice_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.read_notifications(notifications uuid[] DEFAULT NULL::uuid[])
 RETURNS bigint
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$read_notifications_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.reader_organizations(protection uuid)
 RETURNS uuid[]
 LANGUAGE c
 STABLE
AS 'MODULE_PATHNAME', $function$reader_organizations_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.reconcile(flow text, organization text DEFAULT NULL::text)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$reconcile_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.refer_secret(organization text, name text, vault_id uuid, readers text[] DEFAULT NULL::text[])
 RETURNS void
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$refer_secret_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.registry_pairs()
 RETURNS TABLE(from_system text, to_system text, flows bigint, enabled bigint, broken bigint, pending bigint, lag double precision, dead_letters bigint, last_synced_at timestamp with time zone, linked bigint, open_conflicts bigint, rules bigint, open_violations bigint, consistency double precision)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$registry_pairs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.release_hold(organization text, hold uuid)
 RETURNS void
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$release_hold_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.release_memberships()
 RETURNS text
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$release_memberships_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.release_organizations()
 RETURNS text
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$release_organizations_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.renew_api()
 RETURNS integer
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$renew_api_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.reopen_violation(violation uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$reopen_violation_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.repair_due()
 RETURNS TABLE(rule text, repaired bigint, failed bigint, asked bigint, error text)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$repair_due_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.repair_rule(rule text, dry_run boolean DEFAULT false, organization text DEFAULT NULL::text, expect jsonb DEFAULT NULL::jsonb)
 RETURNS TABLE(violation uuid, organization_id uuid, key jsonb, outcome text, error text, changes jsonb, repair uuid)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$repair_rule_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.repair_violation(violation uuid, dry_run boolean DEFAULT false, expect text DEFAULT NULL::text)
 RETURNS TABLE(violation uuid, organization_id uuid, key jsonb, outcome text, error text, changes jsonb, repair uuid)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$repair_violation_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.replay(flow text, "from" timestamp with time zone, "to" timestamp with time zone DEFAULT NULL::timestamp with time zone)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$replay_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.replay_events(flow text, "from" timestamp with time zone, "to" timestamp with time zone DEFAULT NULL::timestamp with time zone, types text DEFAULT NULL::text)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$replay_events_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.reprioritise(job uuid, priority text)
 RETURNS usher.sync_job
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$reprioritise_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.reseal_columns(most integer DEFAULT 10000)
 RETURNS TABLE("column" text, resealed bigint, remaining bigint)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$reseal_columns_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.reseal_secrets(most integer DEFAULT 1000)
 RETURNS TABLE(resealed bigint, remaining bigint)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$reseal_secrets_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.resolve_conflict(conflict uuid, decision text, decided_values jsonb DEFAULT NULL::jsonb, note text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$resolve_conflict_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.resume(this_is text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$resume_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.resume_jobs(flow text DEFAULT NULL::text, system text DEFAULT NULL::text, organization text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$resume_jobs_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.resume_migration(migration uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$resume_migration_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.resume_work(id uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$resume_work_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.retire_audit_log()
 RETURNS text
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$retire_audit_log_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.retry_dead_letters(organization text, filter jsonb, changes jsonb DEFAULT NULL::jsonb, "limit" integer DEFAULT 1000)
 RETURNS bigint
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$retry_dead_letters_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.retry_workflow(run uuid, from_step text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$retry_workflow_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.reverse_ticket_revenue(ingestion uuid, reason text)
 RETURNS usher.ticket_revenue_ingestion
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$reverse_ticket_revenue_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.rollback_flow(name text, version integer DEFAULT NULL::integer)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$rollback_flow_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.rpc_states()
 RETURNS TABLE(id integer, function text, organization text, role text, rate text, burst bigint, calls_left bigint)
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$rpc_states_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.seal_audit_log()
 RETURNS bigint
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$seal_audit_log_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.seal_batch(batch uuid)
 RETURNS boolean
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$seal_batch_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.secret(organization text, name text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$secret_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.set_retention(target regclass, time_column text, keep interval, action text DEFAULT 'delete'::text, run_as text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$set_retention_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.set_secret(organization text, name text, value text, readers text[] DEFAULT NULL::text[])
 RETURNS void
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$set_secret_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.shadow_report(flow text)
 RETURNS TABLE(version integer, outcome text, jobs bigint, last_at timestamp with time zone, message text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$shadow_report_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.show_plan(migration uuid, samples integer DEFAULT 3)
 RETURNS TABLE(kind text, action text, items bigint, done bigint, failed bigint, says text, samples text[])
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$show_plan_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.signal_workflow(run uuid, signal text, data jsonb DEFAULT '{}'::jsonb)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$signal_workflow_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.start_workflow(organization text, workflow text, input jsonb DEFAULT '{}'::jsonb, priority text DEFAULT 'normal'::text)
 RETURNS uuid
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$start_workflow_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.subject_graph(kind text)
 RETURNS TABLE(depth integer, table_name text, relation text, via text, personal text[])
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$subject_graph_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.sweep_erasures()
 RETURNS bigint
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$sweep_erasures_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.switch_flow(name text, organization text, enabled boolean)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$switch_flow_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.take_counted_seq(lane smallint, flow integer, organization uuid)
 RETURNS bigint
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$take_counted_seq_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.take_later_seq()
 RETURNS bigint
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$take_later_seq_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.take_off(lane smallint, flow integer, organization uuid)
 RETURNS boolean
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$take_off_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.try_settling(alone boolean)
 RETURNS boolean
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$try_settling_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.unaudit_table(target regclass)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$unaudit_table_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.unbind_ticket_revenue()
 RETURNS text
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$unbind_ticket_revenue_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.undo_repair(repair uuid)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$undo_repair_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.unlimit_queue(id integer)
 RETURNS boolean
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$unlimit_queue_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.unlimit_rpc(id integer)
 RETURNS void
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$unlimit_rpc_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.unprotect_column("table" regclass, "column" text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$unprotect_column_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.unseal_column(value text)
 RETURNS text
 LANGUAGE c
 STABLE
AS 'MODULE_PATHNAME', $function$unseal_column_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.unset_retention(target regclass, action text DEFAULT 'delete'::text)
 RETURNS void
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$unset_retention_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.verify_audit_log(block bigint DEFAULT NULL::bigint, hash text DEFAULT NULL::text)
 RETURNS TABLE(intact boolean, blocks bigint, entries bigint, unsealed bigint, broken_block bigint, broken_position bigint, message text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$verify_audit_log_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.verify_receipt(receipt jsonb, public_key text DEFAULT NULL::text)
 RETURNS boolean
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$verify_receipt_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.waive_violation(violation uuid, because text)
 RETURNS text
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$waive_violation_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.wake_waiting()
 RETURNS void
 LANGUAGE c
 STRICT
AS 'MODULE_PATHNAME', $function$wake_waiting_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.workflow_timeline(run uuid)
 RETURNS TABLE(at timestamp with time zone, step text, item integer, what text, took interval, detail text)
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$workflow_timeline_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.audit()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$audit_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.audit_log_stays()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$audit_log_stays_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.follow_organizations()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$follow_organizations_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.memberships_changed()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$memberships_changed_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.note_overlaps()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$note_overlaps_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.note_repair()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$note_repair_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.note_touched()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$note_touched_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.seal_row()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$seal_row_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.write_link()
 RETURNS trigger
 LANGUAGE c
AS 'MODULE_PATHNAME', $function$write_link_wrapper$function$;
CREATE OR REPLACE FUNCTION usher.note_broken_flow()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    INSERT INTO usher.notices AS n (id, kind, severity, flow_id, flow, subject, body, first_at, last_at)
    VALUES (usher.uuid_v7(), 'flow broken', 'critical', NEW.id, NEW.name, format('flow "%s" is broken, its jobs wait', NEW.name),
            jsonb_build_object('reason', NEW.reason), clock_timestamp(), clock_timestamp())
    ON CONFLICT (organization_id, flow_id) WHERE kind = 'flow broken' AND read_at IS NULL
    DO UPDATE SET failures = n.failures + 1, last_at = EXCLUDED.last_at, body = EXCLUDED.body;
    RETURN NULL;
END
$function$;
CREATE OR REPLACE FUNCTION usher.maintain_days(parent text, keep_days integer)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '200ms'
AS $function$
DECLARE
    day date;
    child text;
    old record;
    made integer := 0;
    dropped integer := 0;
BEGIN
    FOR day IN SELECT (now() AT TIME ZONE 'UTC')::date + n FROM generate_series(0, 3) AS n LOOP
        child := parent || '_' || to_char(day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass('usher.' || quote_ident(child)) IS NOT NULL;
        BEGIN
            -- Made apart and attached: a plain PARTITION OF would lock the parent against every writer.
            EXECUTE format('CREATE TABLE usher.%I (LIKE usher.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', child, parent);
            EXECUTE format('ALTER TABLE usher.%I ENABLE ROW LEVEL SECURITY', child);
            EXECUTE format('ALTER TABLE usher.%I ATTACH PARTITION usher.%I FOR VALUES FROM (%L) TO (%L)',
                           parent, child, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
            IF parent = 'audit_log' THEN
                PERFORM usher.protect_entries(child);
            END IF;
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            -- Busy, or the default partition already holds rows of that day: they stay there.
            NULL;
        END;
    END LOOP;
    FOR old IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = to_regclass('usher.' || quote_ident(parent)) AND c.relname ~ ('^' || parent || '_[0-9]{8}$')
           AND to_date(right(c.relname, 8), 'YYYYMMDD') < (now() AT TIME ZONE 'UTC')::date - keep_days
    LOOP
        BEGIN
            EXECUTE format('DROP TABLE usher.%I', old.relname);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN format('%s made, %s dropped', made, dropped);
END
$function$;
CREATE OR REPLACE FUNCTION usher.maintain_history(keep_days integer)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    DELETE FROM usher.job_history_default WHERE finished_at < now() - keep_days * interval '1 day';
    RETURN usher.maintain_days('job_history', keep_days);
END
$function$;
CREATE OR REPLACE FUNCTION usher.protect_entries(relation text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    EXECUTE format('CREATE OR REPLACE TRIGGER audit_log_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON usher.%I '
                   'FOR EACH STATEMENT EXECUTE FUNCTION usher.audit_log_stays()', relation);
END
$function$;
CREATE OR REPLACE FUNCTION usher.maintain_segments(keep_days integer)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET lock_timeout TO '200ms'
AS $function$
DECLARE
    -- Positions are plenty: a segment takes 16 million, and two are always ahead.
    width CONSTANT bigint := 16777216;
    drawn bigint;
    top bigint;
    begins text;
    parent text;
    child text;
    settled bigint;
    segment record;
    made integer := 0;
    dropped integer := 0;
BEGIN
    SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO drawn FROM usher.queue_seq AS s;
    SELECT max(substring(c.relname FROM '[0-9]+$')::bigint) INTO top
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'usher.jobs'::regclass AND c.relname ~ '^jobs_to_[0-9]+$';
    IF top IS NOT NULL THEN
        -- A new day, a new segment: the rest of the positions of the last one are left out.
        SELECT min(x.upper) INTO settled
          FROM (SELECT substring(c.relname FROM '[0-9]+$')::bigint AS upper
                  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'usher.jobs'::regclass AND c.relname ~ '^jobs_to_[0-9]+$') AS x
         WHERE x.upper > drawn;
        IF settled IS NOT NULL AND settled < top AND drawn < settled - 1000000 AND EXISTS (
            SELECT FROM generate_series(0, 4) AS l
             CROSS JOIN LATERAL (SELECT j.created_at FROM usher.jobs AS j
                                  WHERE j.lane = l AND j.seq >= settled - width AND j.seq < settled ORDER BY j.seq LIMIT 1) AS first
             WHERE first.created_at < now() - interval '1 day')
        THEN
            PERFORM setval('usher.queue_seq', GREATEST(settled, s.last_value)) FROM usher.queue_seq AS s;
            drawn := settled;
        END IF;
        -- More was drawn at once than was ahead: it is in the default segment, and what follows begins behind it.
        IF drawn >= top THEN
            top := (drawn / width + 2) * width;
            PERFORM setval('usher.queue_seq', GREATEST(top, s.last_value)) FROM usher.queue_seq AS s;
            drawn := top;
        END IF;
    END IF;
    WHILE top IS NULL OR top - drawn < 2 * width LOOP
        begins := CASE WHEN top IS NULL THEN 'MINVALUE' ELSE top::text END;
        top := CASE WHEN top IS NULL THEN (drawn / width + 1) * width ELSE top + width END;
        BEGIN
            FOREACH parent IN ARRAY ARRAY['jobs', 'job_batches'] LOOP
                child := parent || '_to_' || top;
                -- Made apart and attached: a plain PARTITION OF would lock the parent against every writer.
                EXECUTE format('CREATE TABLE usher.%I (LIKE usher.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES) '
                               'WITH (autovacuum_vacuum_insert_threshold = -1)', child, parent);
                EXECUTE format('ALTER TABLE usher.%I ENABLE ROW LEVEL SECURITY', child);
                EXECUTE format('ALTER TABLE usher.%I ATTACH PARTITION usher.%I FOR VALUES FROM (%s) TO (%s)', parent, child, begins, top);
            END LOOP;
            made := made + 1;
        EXCEPTION WHEN lock_not_available OR check_violation THEN
            -- Busy: next time.
            EXIT;
        END;
    END LOOP;
    SELECT min(f.floor) INTO settled FROM usher.job_floors AS f;
    FOR segment IN
        SELECT x.upper
          FROM (SELECT substring(c.relname FROM '[0-9]+$')::bigint AS upper
                  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                 WHERE i.inhparent = 'usher.jobs'::regclass AND c.relname ~ '^jobs_to_[0-9]+$') AS x
         WHERE x.upper <= settled AND x.upper <= drawn
         ORDER BY x.upper
    LOOP
        -- The newest in it, by the index of each lane.
        CONTINUE WHEN EXISTS (
            SELECT FROM generate_series(0, 4) AS l
             CROSS JOIN LATERAL (SELECT j.created_at AS at FROM usher.jobs AS j
                                  WHERE j.lane = l AND j.seq >= segment.upper - width AND j.seq < segment.upper ORDER BY j.seq DESC LIMIT 1) AS newest
             WHERE newest.at >= now() - keep_days * interval '1 day'
            UNION ALL
            -- Those of this segment, and the next one of each lane, which may reach back into it. A job that came late counts as well.
            SELECT FROM usher.job_batches AS b
             WHERE b.finished_at >= now() - keep_days * interval '1 day'
               AND b.done && int8multirange(int8range(segment.upper - width, segment.upper)));
        BEGIN
            EXECUTE format('DROP TABLE usher.%I, usher.%I', 'jobs_to_' || segment.upper, 'job_batches_to_' || segment.upper);
            dropped := dropped + 1;
        EXCEPTION WHEN lock_not_available THEN
            -- Busy: writers have waited long enough.
            EXIT;
        END;
    END LOOP;
    DELETE FROM usher.jobs_default WHERE seq <= settled AND created_at < now() - keep_days * interval '1 day';
    DELETE FROM usher.job_batches_default WHERE last_seq <= settled AND finished_at < now() - keep_days * interval '1 day';
    RETURN format('%s made, %s dropped', made, dropped);
END
$function$;
CREATE OR REPLACE FUNCTION usher.lane_floor(lane smallint)
 RETURNS bigint
 LANGUAGE plpgsql
 STABLE PARALLEL SAFE SECURITY DEFINER
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    RETURN (SELECT f.floor FROM usher.job_floors AS f WHERE f.lane = lane_floor.lane);
END
$function$;
CREATE OR REPLACE FUNCTION usher.drop_api(schema text DEFAULT NULL::text)
 RETURNS integer
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    statement text;
    dropped integer := 0;
BEGIN
    -- Tables of an older version know of nothing exposed.
    IF to_regclass('usher.exposed_objects') IS NULL THEN
        RETURN 0;
    END IF;
    FOR statement IN
        SELECT format('DROP FUNCTION %s', p.oid::regprocedure)
          FROM usher.exposed_objects e JOIN pg_namespace n ON n.nspname = e.schema_name
          JOIN pg_proc p ON p.pronamespace = n.oid AND p.proname = e.name
         WHERE e.kind = 'function' AND obj_description(p.oid, 'pg_proc') LIKE 'pg\_usher: %' AND e.schema_name = COALESCE(drop_api.schema, e.schema_name)
        UNION ALL
        SELECT format('DROP VIEW %I.%I', n.nspname, c.relname)
          FROM usher.exposed_objects e JOIN pg_namespace n ON n.nspname = e.schema_name
          JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = e.name AND c.relkind = 'v'
         WHERE e.kind = 'view' AND obj_description(c.oid, 'pg_class') LIKE 'pg\_usher: %' AND e.schema_name = COALESCE(drop_api.schema, e.schema_name)
         ORDER BY 1
    LOOP
        EXECUTE statement;
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$function$;
CREATE OR REPLACE FUNCTION usher.deal_to_project(organization text, deal uuid, OUT organization_id uuid, OUT project_id uuid, OUT status text, OUT error_message text)
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    found_deal record;
    job record;
    base regclass;
    image jsonb;
BEGIN
    organization_id := usher.managed_organization(organization);
    IF deal IS NULL THEN
        RAISE EXCEPTION 'the deal is missing' USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the id of a row in atlvs.deals.';
    END IF;
    IF to_regclass('atlvs.deals') IS NULL OR to_regclass('atlvs.projects') IS NULL THEN
        RAISE EXCEPTION 'the pack live_events is not installed'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Ask an operator for SELECT usher.install_pack(''live_events'');';
    END IF;
    SELECT d.status, to_jsonb(d) AS image INTO found_deal
      FROM atlvs.deals AS d WHERE d.organization_id = deal_to_project.organization_id AND d.id = deal;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deal % does not exist in organization "%"', deal, organization
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, title, status FROM atlvs.deals shows the deals you may see.';
    END IF;
    SELECT p.id INTO project_id
      FROM atlvs.projects AS p WHERE p.organization_id = deal_to_project.organization_id AND p.deal_id = deal;
    IF FOUND THEN
        status := 'synced';
        RETURN;
    END IF;
    IF found_deal.status <> 'won' THEN
        RAISE EXCEPTION 'deal % is not won', deal
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = format('Its status is %s.', found_deal.status),
                  HINT = 'Set its status to won: the project follows by itself, in the same transaction.';
    END IF;
    -- The flow has tried and could not. Its job holds the deal as it was then: it goes on with the deal as it is now.
    SELECT j.* INTO job
      FROM (SELECT d.id, d.new, d.error_message, true AS again, NULL::text AS waiting_for, d.seq, d.flow_id
              FROM usher.dead_letters AS d WHERE d.organization_id = deal_to_project.organization_id
             UNION ALL
            SELECT w.id, w.new, w.error_message, w.waiting_for = 'retry', w.waiting_for, w.seq, w.flow_id
              FROM usher.queue_waiting AS w WHERE w.organization_id = deal_to_project.organization_id
             UNION ALL
            SELECT q.id, q.new, NULL, false, NULL, q.seq, q.flow_id
              FROM usher.visible_ready_jobs AS q WHERE q.organization_id = deal_to_project.organization_id) AS j
     WHERE j.new ->> 'id' = deal::text
       AND j.flow_id IN (SELECT f.flow_id FROM usher.flow_versions AS f WHERE f.name = 'live_events.create_project_from_won_deal')
     ORDER BY j.seq DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'deal % is won, but no flow has been asked for its project', deal
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = 'It was won while the flow live_events.create_project_from_won_deal was not there or was disabled.',
                  HINT = 'Take the deal out of won and win it again; SELECT usher.install_pack(''live_events''); brings back a flow that is gone.';
    END IF;
    IF job.again THEN
        -- Of a bound deal the job has the application's row, with the application's names.
        SELECT d.refobjid INTO base
          FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
          JOIN pg_class AS c ON c.oid = d.refobjid AND c.relkind IN ('r', 'p')
         WHERE r.ev_class = 'atlvs.deals'::regclass AND d.refobjid <> r.ev_class LIMIT 1;
        image := found_deal.image;
        IF base IS NOT NULL THEN
            -- Where another organization has a deal of that id, or the caller may not read all of it, the job goes on with what it has.
            BEGIN
                EXECUTE format('SELECT CASE WHEN count(*) = 1 THEN jsonb_agg(to_jsonb(d)) -> 0 END FROM %s AS d WHERE d.id = $1', base) INTO image USING deal;
            EXCEPTION WHEN insufficient_privilege THEN
                image := NULL;
            END;
        END IF;
        SELECT COALESCE(jsonb_object_agg(e.key, e.value), '{}') INTO image FROM jsonb_each(image) AS e WHERE job.new ? e.key;
        PERFORM usher.retry_sync_job(job.id, image);
    END IF;
    status := 'pending';
    error_message := COALESCE(job.error_message, 'waits: ' || job.waiting_for);
END
$function$;
CREATE OR REPLACE FUNCTION usher.project_to_event(organization text, project uuid, event_data jsonb DEFAULT '{}'::jsonb)
 RETURNS usher.sync_job
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
DECLARE
    known CONSTANT text[] := '{title,venue_name,timezone,starts_at,ends_at,doors_at,curfew_at,capacity,lineup,metadata}';
    org CONSTANT uuid := usher.managed_organization(organization);
    production uuid;
    wrong text;
BEGIN
    IF project IS NULL THEN
        RAISE EXCEPTION 'the project is missing' USING ERRCODE = 'invalid_parameter_value', HINT = 'Give the id of a row in atlvs.projects.';
    END IF;
    IF to_regclass('compvss.productions') IS NULL OR to_regclass('gvteway.events') IS NULL
       OR NOT EXISTS (SELECT FROM usher.flow_versions AS f WHERE f.name = 'live_events.describe_event') THEN
        RAISE EXCEPTION 'the pack live_events is not installed'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Ask an operator for SELECT usher.install_pack(''live_events'');';
    END IF;
    event_data := COALESCE(event_data, '{}');
    IF jsonb_typeof(event_data) <> 'object' THEN
        RAISE EXCEPTION 'the event data are not a JSON object'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Give an object such as {"doors_at": "2026-08-01T18:00:00Z"}.';
    END IF;
    SELECT string_agg(format('"%s"', k), ', ' ORDER BY k) INTO wrong FROM jsonb_object_keys(event_data) AS k WHERE k <> ALL (known);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the event data have unknown fields: %', wrong
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = format('Known are %s. Put anything else into metadata.', array_to_string(known, ', '));
    END IF;
    IF jsonb_typeof(event_data -> 'lineup') NOT IN ('array', 'null') OR jsonb_typeof(event_data -> 'metadata') NOT IN ('object', 'null') THEN
        RAISE EXCEPTION 'lineup must be an array and metadata an object'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Such as {"lineup": ["A", "B"], "metadata": {"hall": 2}}.';
    END IF;
    -- A time or number that is none is refused here, not by the job.
    PERFORM jsonb_populate_record(NULL::gvteway.events, event_data);
    SELECT p.id INTO production
      FROM compvss.productions AS p WHERE p.organization_id = org AND p.project_ref = project;
    IF NOT FOUND THEN
        IF to_regclass('atlvs.projects') IS NOT NULL AND EXISTS (
            SELECT FROM atlvs.projects AS p WHERE p.organization_id = org AND p.id = project)
        THEN
            RAISE EXCEPTION 'project % has no production yet', project
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      DETAIL = 'The production of a new project follows by itself, in a worker.',
                      HINT = 'Try again in a moment. If it stays away, integration_sync_jobs says why.';
        END IF;
        RAISE EXCEPTION 'project % does not exist in organization "%"', project, organization
            USING ERRCODE = 'undefined_object', HINT = 'SELECT id, code, name FROM atlvs.projects shows the projects you may see.';
    END IF;
    -- Without data the request that every production makes for itself: it leaves an event that exists as it is.
    BEGIN
        RETURN usher.enqueue_sync_job(organization, 'compvss', 'gvteway', CASE
            WHEN jsonb_strip_nulls(event_data) = '{}' THEN jsonb_build_object('action', 'create_event', 'production_id', production)
            ELSE jsonb_build_object('action', 'describe_event', 'production_id', production, 'event', event_data) END);
    EXCEPTION WHEN invalid_parameter_value THEN
        -- The tables are there, the flow is not.
        RAISE EXCEPTION 'the flow that makes events is gone'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = SQLERRM,
                  HINT = 'Ask an operator for SELECT usher.install_pack(''live_events''); it brings back what is missing.';
    END;
END
$function$;
CREATE OR REPLACE FUNCTION usher.look_at_dependants(organizations uuid[], jobs uuid[], again boolean)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.mark_dependencies(organizations uuid[], jobs uuid[], fates text[], OUT dependant_organizations uuid[], OUT dependants uuid[])
 RETURNS record
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.jobs_ended(organizations uuid[], jobs uuid[], fate text, but integer[] DEFAULT NULL::integer[])
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.settle_dependants()
 RETURNS boolean
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.note_steps_ended(organizations uuid[], jobs uuid[], fate text)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.tally(organizations uuid[], jobs uuid[], fate text, many integer)
 RETURNS void
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.dead_letters_changed()
 RETURNS trigger
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.expire_jobs(since timestamp with time zone)
 RETURNS timestamp with time zone
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
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
$function$;
CREATE OR REPLACE FUNCTION usher.run_status(flow integer, at timestamp with time zone)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
BEGIN
    IF at IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN (SELECT CASE WHEN count(*) = 1 THEN min(c.status) ELSE string_agg(c.jobs || ' ' || c.status, ', ' ORDER BY c.jobs DESC, c.status) END
              FROM (SELECT COALESCE(j.status, 'gone') AS status, count(*) AS jobs
                      FROM usher.schedule_runs r
                      LEFT JOIN LATERAL (SELECT s.status FROM usher.sync_jobs s WHERE s.organization_id = r.organization_id AND s.id = r.job_id LIMIT 1) AS j ON true
                     WHERE r.flow_id = run_status.flow AND r.scheduled_at = run_status.at
                     GROUP BY 1) AS c);
END
$function$;
CREATE OR REPLACE FUNCTION usher.remove(confirm text DEFAULT NULL::text)
 RETURNS text
 LANGUAGE plpgsql
 SET search_path TO 'pg_catalog', 'pg_temp'
 SET client_min_messages TO 'warning'
AS $function$
DECLARE
    tables text;
    views text;
    dropped integer;
    sealed text;
BEGIN
    IF confirm IS DISTINCT FROM 'remove all data' THEN
        RAISE EXCEPTION 'nothing was removed: the confirmation is missing'
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = 'All organizations, flows, jobs, links and their history would be deleted.',
                  HINT = 'SELECT usher.remove(confirm => ''remove all data''); does it. Take a dump first.';
    END IF;
    -- What says who reads sealed columns would be gone, and with it their clear text.
    IF to_regclass('usher.column_protections') IS NOT NULL THEN
        EXECUTE 'SELECT string_agg(format(''%s.%s.%s'', schema_name, table_name, column_name), '', '' ORDER BY schema_name, table_name, column_name)
                   FROM usher.column_protections p WHERE how = ''sealed'' AND ended_at IS NULL
                    AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = to_regclass(format(''%I.%I'', p.schema_name, p.table_name)) AND a.attname = p.column_name)'
           INTO sealed;
        IF sealed IS NOT NULL THEN
            RAISE EXCEPTION 'nothing was removed: columns are sealed, and nobody could read them any more'
                USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = sealed,
                      HINT = 'SELECT usher.unprotect_column(table, column); for each of them first.';
        END IF;
    END IF;
    PERFORM usher.detach_all();
    -- In tables of an older version some of these names are no views.
    SELECT string_agg(format('usher.%I', c.relname), ', ') INTO views FROM pg_class c
     WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind = 'v'
       AND c.relname IN ('schedules', 'progress', 'queue', 'registry', 'limits', 'queue_limits', 'rpc_limits', 'protected_columns', 'pauses', 'sync_jobs', 'visible_ready_jobs', 'visible_done_jobs', 'ready_jobs');
    IF views IS NOT NULL THEN
        EXECUTE 'DROP VIEW ' || views;
    END IF;
    SELECT string_agg(format('usher.%I', c.relname), ', '), count(*) INTO tables, dropped
      FROM pg_class c
     WHERE c.relnamespace = 'usher'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition;
    -- At once: no event trigger may find half of them.
    IF dropped > 0 THEN
        EXECUTE 'DROP TABLE ' || tables || ' CASCADE';
    END IF;
    DROP SEQUENCE IF EXISTS usher.queue_seq, usher.audit_position_seq;
    RETURN format('%s tables removed; SELECT usher.setup() starts anew, DROP EXTENSION pg_usher ends it', dropped);
END
$function$;
CREATE OR REPLACE FUNCTION usher.reads_all()
 RETURNS boolean
 LANGUAGE sql
 STABLE PARALLEL SAFE
 SET search_path TO 'pg_catalog', 'pg_temp'
AS $function$
    SELECT pg_has_role(current_user, 'usher_reader', 'USAGE')
        OR EXISTS (SELECT FROM pg_class AS c WHERE c.oid = to_regclass('usher.jobs') AND pg_has_role(current_user, c.relowner, 'USAGE'))
        OR EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = current_user AND r.rolbypassrls)
$function$;
CREATE AGGREGATE usher.compare_tree(here boolean, secret uuid, bits integer, keys integer, VARIADIC "values" "any") (
    SFUNC = usher.compare_step, STYPE = bytea, SSPACE = 524288, COMBINEFUNC = usher.compare_join, FINALFUNC = usher.compare_open, PARALLEL = SAFE);
REVOKE ALL ON FUNCTION usher.follow_ddl() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.follow_drop() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_tables(regclass,regclass,text[],jsonb,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_pair(text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_step(bytea,boolean,uuid,integer,integer,"any") FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_join(bytea,bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_open(bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_leaf(uuid,integer,"any") FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_digest(uuid,"any") FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.admit(smallint,integer,uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.adopt_memberships(regclass,text,text,text,jsonb,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.adopt_organizations(regclass,text,text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.alter_overlap_rule(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.alter_rule(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.apply_flows(jsonb,boolean,boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.apply_migration(uuid,text[],text[],integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.apply_retention(boolean,regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.audit_anchor() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.audit_entry_hash(bigint,timestamp with time zone,uuid,uuid,uuid,text,text,text,text,text,text,text,uuid,bytea,bytea) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.audit_images_hash(uuid,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.audit_table(regclass,text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.backfill(text,text,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.bind_ticket_revenue(text,text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.broadcast_event(text,text,jsonb,interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.cancel_migration(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.cancel_sync_jobs(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.cancel_work(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.cancel_workflow(uuid,text,boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.check_overlaps(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.check_rate(text,uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.check_rule(text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.check_rules(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.check_soon(text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.claim_jobs(text,integer,interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.create_batch(text,text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.create_overlap_rule(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.create_rule(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.create_subscription(text,jsonb,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.declare_personal(regclass,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.define_subject(text,regclass,text[],text[],text[],text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.delete_secret(text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.disable_rule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.doctor(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.drop_overlap_rule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.drop_rule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.drop_subject(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.drop_subscription(text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.emit_event(text,text,jsonb,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.enable_rule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.enqueue_sync_job(text,text,text,jsonb,text,timestamp with time zone,text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.enqueue_sync_jobs(text,text,text,jsonb[],text,timestamp with time zone,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.erase_subject(text,text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.erasure_receipt(text,uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.event_receipts(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.explain_merge(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.explain_rule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.export_flows(boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.export_subject(text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.expose_api(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.extend_lease(uuid,uuid,interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.fail_job(uuid,uuid,text,interval,boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.finish_job(uuid,uuid,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.flow_history(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.forward_notifications(text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.hide_api(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.hold_subject(text,text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.horizon() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.ingest_ticket_revenue(text,text,text,integer,numeric,text,text,jsonb,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.ingest_ticket_revenue_batch(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.install_pack(text,text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.isolate_tables(text[],jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.job_result(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.limit_queue(bigint,text,text,text,text,text,text,boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.limit_rpc(text,text,text,text,bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.limit_states() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.limit_system(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.limited_jobs(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.lineage(text,text,integer,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.lineage_diagram(text,text,text,integer,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.managed_organization(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.mask_person(text,text[],text[],text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.mask_value(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.metrics() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.next_runs(text,text,timestamp with time zone,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.note_merges_failed(integer,uuid[],uuid[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.notify(text,text[],text,text,text,jsonb,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.pack_tables(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.pack_workflows(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.pause_jobs(text,text,text,timestamp with time zone,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.pause_migration(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.pause_work(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.paused_jobs(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.plan_erasure(text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.plan_pack(text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.plan_repair(text,text,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.protect_column(regclass,text,text,text[],text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.queue_depth() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.queue_depths() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.read_notice(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.read_notifications(uuid[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reader_organizations(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reconcile(text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.refer_secret(text,text,uuid,text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.registry_pairs() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.release_hold(text,uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.release_memberships() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.release_organizations() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.renew_api() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reopen_violation(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.repair_due() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.repair_rule(text,boolean,text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.repair_violation(uuid,boolean,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.replay(text,timestamp with time zone,timestamp with time zone) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.replay_events(text,timestamp with time zone,timestamp with time zone,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reprioritise(uuid,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reseal_columns(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reseal_secrets(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.resolve_conflict(uuid,text,jsonb,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.resume(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.resume_jobs(text,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.resume_migration(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.resume_work(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.retire_audit_log() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.retry_dead_letters(text,jsonb,jsonb,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.retry_workflow(uuid,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reverse_ticket_revenue(uuid,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.rollback_flow(text,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.rpc_states() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.seal_audit_log() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.seal_batch(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.secret(text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.set_retention(regclass,text,interval,text,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.set_secret(text,text,text,text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.shadow_report(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.show_plan(uuid,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.signal_workflow(uuid,text,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.start_workflow(text,text,jsonb,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.subject_graph(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.sweep_erasures() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.switch_flow(text,text,boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.take_counted_seq(smallint,integer,uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.take_later_seq() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.take_off(smallint,integer,uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.try_settling(boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.unaudit_table(regclass) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.unbind_ticket_revenue() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.undo_repair(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.unlimit_queue(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.unlimit_rpc(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.unprotect_column(regclass,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.unseal_column(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.unset_retention(regclass,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.verify_audit_log(bigint,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.verify_receipt(jsonb,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.waive_violation(uuid,text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.wake_waiting() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.workflow_timeline(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.audit() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.audit_log_stays() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.follow_organizations() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.memberships_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.note_overlaps() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.note_repair() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.note_touched() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.seal_row() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.write_link() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.note_broken_flow() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.maintain_days(text,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.protect_entries(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.maintain_segments(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.lane_floor(smallint) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.drop_api(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.deal_to_project(text,uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.project_to_event(text,uuid,jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.look_at_dependants(uuid[],uuid[],boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.mark_dependencies(uuid[],uuid[],text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.jobs_ended(uuid[],uuid[],text,integer[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.settle_dependants() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.note_steps_ended(uuid[],uuid[],text) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.tally(uuid[],uuid[],text,integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.dead_letters_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.expire_jobs(timestamp with time zone) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.run_status(integer,timestamp with time zone) FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.reads_all() FROM PUBLIC;
REVOKE ALL ON FUNCTION usher.compare_tree(boolean,uuid,integer,integer,"any") FROM PUBLIC;
GRANT EXECUTE ON FUNCTION usher.compare_tables(regclass,regclass,text[],jsonb,text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.compare_pair(text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.compare_step(bytea,boolean,uuid,integer,integer,"any") TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.compare_join(bytea,bytea) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.compare_open(bytea) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.compare_leaf(uuid,integer,"any") TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.compare_digest(uuid,"any") TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.admit(smallint,integer,uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.adopt_memberships(regclass,text,text,text,jsonb,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.adopt_organizations(regclass,text,text,text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.alter_overlap_rule(text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.alter_rule(text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.apply_flows(jsonb,boolean,boolean) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.apply_migration(uuid,text[],text[],integer) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.apply_migration(uuid,text[],text[],integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.apply_retention(boolean,regclass) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.audit_anchor() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.audit_anchor() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.audit_entry_hash(bigint,timestamp with time zone,uuid,uuid,uuid,text,text,text,text,text,text,text,uuid,bytea,bytea) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.audit_entry_hash(bigint,timestamp with time zone,uuid,uuid,uuid,text,text,text,text,text,text,text,uuid,bytea,bytea) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.audit_images_hash(uuid,text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.audit_images_hash(uuid,text,text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.audit_table(regclass,text[]) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.backfill(text,text,integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.bind_ticket_revenue(text,text,text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.broadcast_event(text,text,jsonb,interval) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.cancel_migration(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.cancel_migration(uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.cancel_sync_jobs(text,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.cancel_work(uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.cancel_workflow(uuid,text,boolean) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.check_overlaps(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.check_rate(text,uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.check_rate(text,uuid) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.check_rule(text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.check_rules(text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.check_soon(text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.claim_jobs(text,integer,interval) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.create_batch(text,text,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.create_overlap_rule(text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.create_rule(text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.create_subscription(text,jsonb,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.declare_personal(regclass,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.define_subject(text,regclass,text[],text[],text[],text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.delete_secret(text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.disable_rule(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.doctor(interval) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.drop_overlap_rule(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.drop_rule(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.drop_subject(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.drop_subscription(text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.emit_event(text,text,jsonb,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.enable_rule(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.enqueue_sync_job(text,text,text,jsonb,text,timestamp with time zone,text,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.enqueue_sync_jobs(text,text,text,jsonb[],text,timestamp with time zone,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.erase_subject(text,text,text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.erasure_receipt(text,uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.event_receipts(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.explain_merge(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.explain_rule(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.export_flows(boolean) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.export_subject(text,text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.expose_api(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.extend_lease(uuid,uuid,interval) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.fail_job(uuid,uuid,text,interval,boolean) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.finish_job(uuid,uuid,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.flow_history(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.forward_notifications(text,text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.hide_api(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.hold_subject(text,text,text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.horizon() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.horizon() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.ingest_ticket_revenue(text,text,text,integer,numeric,text,text,jsonb,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.ingest_ticket_revenue_batch(text,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.install_pack(text,text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.isolate_tables(text[],jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.job_result(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.limit_queue(bigint,text,text,text,text,text,text,boolean) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.limit_rpc(text,text,text,text,bigint) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.limit_states() TO usher_member;
GRANT EXECUTE ON FUNCTION usher.limit_states() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.limit_system(text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.limited_jobs(integer) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.lineage(text,text,integer,text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.lineage(text,text,integer,text,text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.lineage_diagram(text,text,text,integer,text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.lineage_diagram(text,text,text,integer,text,text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.managed_organization(text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.mask_person(text,text[],text[],text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.mask_value(text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.mask_value(text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.member_organizations() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.metrics() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.metrics() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.next_runs(text,text,timestamp with time zone,integer) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.note_merges_failed(integer,uuid[],uuid[]) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.notify(text,text[],text,text,text,jsonb,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.pack_tables(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.pack_workflows(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.pause_jobs(text,text,text,timestamp with time zone,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.pause_migration(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.pause_migration(uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.pause_work(uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.paused_jobs(integer) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.paused_jobs(integer) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.plan_erasure(text,text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.plan_pack(text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.plan_repair(text,text,integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.protect_column(regclass,text,text,text[],text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.queue_depth() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.queue_depths() TO usher_member;
GRANT EXECUTE ON FUNCTION usher.queue_depths() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.read_notice(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.read_notifications(uuid[]) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.reader_organizations(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.reader_organizations(uuid) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.reconcile(text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.reconcile(text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.refer_secret(text,text,uuid,text[]) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.registry_pairs() TO usher_member;
GRANT EXECUTE ON FUNCTION usher.registry_pairs() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.release_hold(text,uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.release_memberships() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.release_organizations() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.renew_api() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.reopen_violation(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.repair_due() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.repair_rule(text,boolean,text,jsonb) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.repair_violation(uuid,boolean,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.replay(text,timestamp with time zone,timestamp with time zone) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.replay_events(text,timestamp with time zone,timestamp with time zone,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.reprioritise(uuid,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.reseal_columns(integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.reseal_secrets(integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.resolve_conflict(uuid,text,jsonb,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.resume(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.resume_jobs(text,text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.resume_migration(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.resume_migration(uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.resume_work(uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.retire_audit_log() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.retry_dead_letters(text,jsonb,jsonb,integer) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.retry_workflow(uuid,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.reverse_ticket_revenue(uuid,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.rollback_flow(text,integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.rpc_states() TO usher_member;
GRANT EXECUTE ON FUNCTION usher.rpc_states() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.seal_audit_log() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.seal_batch(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.secret(text,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.set_retention(regclass,text,interval,text,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.set_secret(text,text,text,text[]) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.shadow_report(text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.show_plan(uuid,integer) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.show_plan(uuid,integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.signal_workflow(uuid,text,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.start_workflow(text,text,jsonb,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.subject_graph(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.subject_graph(text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.sweep_erasures() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.switch_flow(text,text,boolean) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.take_counted_seq(smallint,integer,uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.take_later_seq() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.take_off(smallint,integer,uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.try_settling(boolean) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.unaudit_table(regclass) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.unbind_ticket_revenue() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.undo_repair(uuid) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.unlimit_queue(integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.unlimit_rpc(integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.unprotect_column(regclass,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.unseal_column(text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.unseal_column(text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.unset_retention(regclass,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.verify_audit_log(bigint,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.verify_audit_log(bigint,text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.verify_receipt(jsonb,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.verify_receipt(jsonb,text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.verify_receipt(jsonb,text) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.waive_violation(uuid,text) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.wake_waiting() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.workflow_timeline(uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.audit() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.audit_log_stays() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.follow_organizations() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.memberships_changed() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.note_overlaps() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.note_repair() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.note_touched() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.seal_row() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.write_link() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.note_broken_flow() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.maintain_days(text,integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.protect_entries(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.maintain_segments(integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.lane_floor(smallint) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.lane_floor(smallint) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.drop_api(text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.deal_to_project(text,uuid) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.project_to_event(text,uuid,jsonb) TO usher_member;
GRANT EXECUTE ON FUNCTION usher.look_at_dependants(uuid[],uuid[],boolean) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.mark_dependencies(uuid[],uuid[],text[]) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.jobs_ended(uuid[],uuid[],text,integer[]) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.settle_dependants() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.note_steps_ended(uuid[],uuid[],text) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.tally(uuid[],uuid[],text,integer) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.dead_letters_changed() TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.expire_jobs(timestamp with time zone) TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.run_status(integer,timestamp with time zone) TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.reads_all() TO usher_member;
GRANT EXECUTE ON FUNCTION usher.reads_all() TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.compare_tree(boolean,uuid,integer,integer,"any") TO usher_operator;
CREATE EVENT TRIGGER usher_follow_ddl ON ddl_command_end EXECUTE FUNCTION usher.follow_ddl();
CREATE EVENT TRIGGER usher_follow_drop ON sql_drop EXECUTE FUNCTION usher.follow_drop();
COMMENT ON TYPE usher.ticket_revenue_ingestion IS 'ticket revenue as it was taken in; repeated: this call found what an earlier one has made';
COMMENT ON FUNCTION usher.follow_ddl() IS 'internal: looks again at the flows that a schema change touches';
COMMENT ON FUNCTION usher.follow_drop() IS 'internal: looks again at the flows whose objects were dropped, and puts capture triggers back';
COMMENT ON FUNCTION usher.compare_tables(regclass,regclass,text[],jsonb,text,text) IS 'rows of two tables that are missing on one side or different, found by digests without joining all of them; see docs/compare.md';
COMMENT ON FUNCTION usher.compare_pair(text,text) IS 'the same of what a flow''s source should give and what its target holds';
COMMENT ON FUNCTION usher.compare_step(bytea,boolean,uuid,integer,integer,"any") IS 'internal: adds a row of the left side to its leaf, takes one of the right side away';
COMMENT ON FUNCTION usher.compare_join(bytea,bytea) IS 'internal: the leaves of two processes together';
COMMENT ON FUNCTION usher.compare_open(bytea) IS 'internal: the leaves that are not the same on both sides';
COMMENT ON FUNCTION usher.compare_leaf(uuid,integer,"any") IS 'internal: the leaf of a row with this key';
COMMENT ON FUNCTION usher.compare_digest(uuid,"any") IS 'internal: the digest of some values, for rows of very many columns';
COMMENT ON FUNCTION usher.admit(smallint,integer,uuid) IS 'internal: which limit holds a captured change back';
COMMENT ON FUNCTION usher.adopt_memberships(regclass,text,text,text,jsonb,jsonb) IS 'has a table of the application say who belongs where; a membership that is removed ends at once';
COMMENT ON FUNCTION usher.adopt_organizations(regclass,text,text,text,text) IS 'has a table of the application say which organizations there are';
COMMENT ON FUNCTION usher.alter_overlap_rule(text,jsonb) IS 'gives an overlap rule a new definition';
COMMENT ON FUNCTION usher.alter_rule(text,jsonb) IS 'gives a rule a new definition';
COMMENT ON FUNCTION usher.apply_flows(jsonb,boolean,boolean) IS 'makes the flows as a document says, all or none; returns what changed';
COMMENT ON FUNCTION usher.apply_migration(uuid,text[],text[],integer) IS 'has a plan, or some kinds and actions of it, applied by its merge in slices; again: what has failed or was left';
COMMENT ON FUNCTION usher.apply_retention(boolean,regclass) IS 'goes through the rules of usher.set_retention(); by default only says what is due';
COMMENT ON FUNCTION usher.audit_anchor() IS 'the end of the audit''s chain, to be kept elsewhere and given to usher.verify_audit_log() later';
COMMENT ON FUNCTION usher.audit_entry_hash(bigint,timestamp with time zone,uuid,uuid,uuid,text,text,text,text,text,text,text,uuid,bytea,bytea) IS 'internal: SHA-256 of an entry, as docs/audit.md describes it';
COMMENT ON FUNCTION usher.audit_images_hash(uuid,text,text) IS 'internal: SHA-256 of old and new of an entry, with its salt';
COMMENT ON FUNCTION usher.audit_table(regclass,text[]) IS 'enters every change of a table into usher.audit_log from now on; all columns or those named';
COMMENT ON FUNCTION usher.backfill(text,text,integer) IS 'makes a flow act on the rows that are in its table already, in slices; returns the id in usher.progress';
COMMENT ON FUNCTION usher.bind_ticket_revenue(text,text,text,text) IS 'names the functions that resolve codes and book ticket revenue, one by one or in batches, and the role that they run as';
COMMENT ON FUNCTION usher.broadcast_event(text,text,jsonb,interval) IS 'emits an emergency event and tells, once the time is over, who has not received it';
COMMENT ON FUNCTION usher.cancel_migration(uuid) IS 'ends a migration, or a plan that nobody wants; what it has done stays';
COMMENT ON FUNCTION usher.cancel_sync_jobs(text,jsonb) IS 'cancels the jobs of an organization that a filter means; returns how many';
COMMENT ON FUNCTION usher.cancel_work(uuid) IS 'ends a backfill or replay; jobs that it has made stay';
COMMENT ON FUNCTION usher.cancel_workflow(uuid,text,boolean) IS 'gives a run up: what it has done is undone in reverse, or with undo => false left as it is; returns how the run stands';
COMMENT ON FUNCTION usher.check_overlaps(text) IS 'looks at all rows of a rule, or of all rules, for overlaps now';
COMMENT ON FUNCTION usher.check_rate(text,uuid) IS 'for functions of your own: counts a call, or refuses it with PT429';
COMMENT ON FUNCTION usher.check_rule(text,text) IS 'looks now at everything that a rule is about; how many bad rows are new, known, gone';
COMMENT ON FUNCTION usher.check_rules(text) IS 'looks now at everything that the rules are about, one after the other';
COMMENT ON FUNCTION usher.check_soon(text,text) IS 'has a worker look at everything that rules are about as soon as it can';
COMMENT ON FUNCTION usher.claim_jobs(text,integer,interval) IS 'takes jobs of an external system for the time of a lease; what is not answered within it can be taken again';
COMMENT ON FUNCTION usher.create_batch(text,text,jsonb) IS 'makes a batch that jobs join by the option "batch"; its completion job is made when all have ended';
COMMENT ON FUNCTION usher.create_overlap_rule(text,jsonb) IS 'has rows found that share a resource and overlap in time; see docs/conflicts.md';
COMMENT ON FUNCTION usher.create_rule(text,jsonb) IS 'says by a query of bad rows what must hold of the application''s rows; see docs/consistency.md';
COMMENT ON FUNCTION usher.create_subscription(text,jsonb,text) IS 'gives an external system the events that some patterns mean; usher.claim_jobs() hands them out';
COMMENT ON FUNCTION usher.declare_personal(regclass,jsonb) IS 'declares columns of a table as personal: why they are kept, and what they become when the person is erased';
COMMENT ON FUNCTION usher.define_subject(text,regclass,text[],text[],text[],text) IS 'defines a kind of person: each row of a table is one';
COMMENT ON FUNCTION usher.delete_secret(text,text) IS 'forgets a secret';
COMMENT ON FUNCTION usher.disable_rule(text) IS 'switches a rule off; its violations stay as they are';
COMMENT ON FUNCTION usher.doctor(interval) IS 'checks the installation: what is wrong, and its remedy';
COMMENT ON FUNCTION usher.drop_overlap_rule(text) IS 'removes an overlap rule; its conflicts are gone';
COMMENT ON FUNCTION usher.drop_rule(text) IS 'removes a rule; its violations are gone';
COMMENT ON FUNCTION usher.drop_subject(text) IS 'forgets a kind of person; its data stays';
COMMENT ON FUNCTION usher.drop_subscription(text,text) IS 'ends a subscription; what waits stays for the system''s workers';
COMMENT ON FUNCTION usher.emit_event(text,text,jsonb,text) IS 'says that something has happened: the event is kept, and flows that listen get their jobs';
COMMENT ON FUNCTION usher.enable_rule(text) IS 'switches a rule on; everything is looked at';
COMMENT ON FUNCTION usher.enqueue_sync_job(text,text,text,jsonb,text,timestamp with time zone,text,jsonb) IS 'asks for a job: the flow whose request names source, target and payload.action takes it; returns the job';
COMMENT ON FUNCTION usher.enqueue_sync_jobs(text,text,text,jsonb[],text,timestamp with time zone,jsonb) IS 'asks for up to 100000 jobs, all or none; returns their ids in the order of the payloads';
COMMENT ON FUNCTION usher.erase_subject(text,text,text,text) IS 'erases a person from rows, jobs and audit, asks linked systems to do so too, and returns a signed receipt';
COMMENT ON FUNCTION usher.erasure_receipt(text,uuid) IS 'the signed receipt of an erasure, with what linked systems have answered by now';
COMMENT ON FUNCTION usher.event_receipts(uuid) IS 'who is to receive a broadcast, and who has';
COMMENT ON FUNCTION usher.explain_merge(uuid) IS 'what holds of each field of a pair that a merge keeps equal, and why; for admins of its organization';
COMMENT ON FUNCTION usher.explain_rule(text) IS 'what a rule does, when it looks, and the SQL that it runs';
COMMENT ON FUNCTION usher.export_flows(boolean) IS 'all flows as one JSON document for version control';
COMMENT ON FUNCTION usher.export_subject(text,text,text) IS 'everything that is known of a person, as JSON';
COMMENT ON FUNCTION usher.expose_api(text) IS 'makes views and functions under the names of existing clients in a schema; replaces nothing that is there';
COMMENT ON FUNCTION usher.extend_lease(uuid,uuid,interval) IS 'gives a worker outside more time for a job; returns when the lease ends';
COMMENT ON FUNCTION usher.fail_job(uuid,uuid,text,interval,boolean) IS 'a worker outside could not do a job: it is tried again, or dead after the last try';
COMMENT ON FUNCTION usher.finish_job(uuid,uuid,jsonb) IS 'a worker outside has done a job; a result, if given, is kept';
COMMENT ON FUNCTION usher.flow_history(text) IS 'the versions of a flow and what differs between them';
COMMENT ON FUNCTION usher.forward_notifications(text,text,text) IS 'hands what was told to one name on to another, such as a guest who has signed in since; for flows and operators';
COMMENT ON FUNCTION usher.hide_api(text) IS 'takes back what usher.expose_api() made in a schema';
COMMENT ON FUNCTION usher.hold_subject(text,text,text,text) IS 'keeps a person, or everybody of a kind, from being erased';
COMMENT ON FUNCTION usher.horizon() IS 'who keeps the server from cleaning up what is deleted: sessions, prepared transactions, slots, standbys';
COMMENT ON FUNCTION usher.ingest_ticket_revenue(text,text,text,integer,numeric,text,text,jsonb,text) IS 'takes in ticket revenue, once per idempotency_key or payload.reference, and has it booked in the same transaction';
COMMENT ON FUNCTION usher.ingest_ticket_revenue_batch(text,jsonb) IS 'takes in many sales at once, all or none, each as usher.ingest_ticket_revenue does; each has a key or reference of its own';
COMMENT ON FUNCTION usher.install_pack(text,text,jsonb) IS 'installs a pack or brings it to this version: tables, role, flows; bind points them at an application''s own tables';
COMMENT ON FUNCTION usher.isolate_tables(text[],jsonb) IS 'internal: gives the tables of some schemas the policies that a declaration says';
COMMENT ON FUNCTION usher.job_result(uuid) IS 'what came back from a job, if it was kept';
COMMENT ON FUNCTION usher.limit_queue(bigint,text,text,text,text,text,text,boolean) IS 'limits the ready jobs of a lane, flow, system or organization; more are refused, delayed or shed to a lower lane';
COMMENT ON FUNCTION usher.limit_rpc(text,text,text,text,bigint) IS 'limits how often a function may be called for an organization';
COMMENT ON FUNCTION usher.limit_states() IS 'internal: what the view usher.limits shows';
COMMENT ON FUNCTION usher.limit_system(text,jsonb) IS 'limits the jobs of all flows for a system, in all or for each organization; NULL takes the limits away';
COMMENT ON FUNCTION usher.limited_jobs(integer) IS 'internal: the jobs that a limit counts, from shared memory';
COMMENT ON FUNCTION usher.lineage(text,text,integer,text,text) IS 'what feeds what: tables, functions, events and the rest, by which flow, column by column; all of it, or upstream and downstream of one thing; see docs/lineage.md';
COMMENT ON FUNCTION usher.lineage_diagram(text,text,text,integer,text,text) IS 'the same as a picture: mermaid, or dot for Graphviz';
COMMENT ON FUNCTION usher.managed_organization(text) IS 'the id of the organization (slug or id) in which the caller may make changes; 42501 for everybody else';
COMMENT ON FUNCTION usher.mask_person(text,text[],text[],text) IS 'internal: JSON without a person';
COMMENT ON FUNCTION usher.mask_value(text) IS 'what a masked value looks like';
COMMENT ON FUNCTION usher.metrics() IS 'figures for a monitor in the text format of Prometheus';
COMMENT ON FUNCTION usher.next_runs(text,text,timestamp with time zone,integer) IS 'the next times of a schedule in a time zone';
COMMENT ON FUNCTION usher.note_merges_failed(integer,uuid[],uuid[]) IS 'internal: dead letters of a merge become conflicts of its pairs';
COMMENT ON FUNCTION usher.notify(text,text[],text,text,text,jsonb,text) IS 'tells people something, in their inbox usher.notifications; for admins of the organization and its flows';
COMMENT ON FUNCTION usher.pack_tables(text) IS 'the columns of a pack''s tables, as bind may name them';
COMMENT ON FUNCTION usher.pack_workflows(text) IS 'the workflows that a pack is made of, each with its flows and overlap rules';
COMMENT ON FUNCTION usher.pause_jobs(text,text,text,timestamp with time zone,text) IS 'has the jobs of a flow, of a system or of an organization wait, until a time or until usher.resume_jobs()';
COMMENT ON FUNCTION usher.pause_migration(uuid) IS 'holds a migration where it is';
COMMENT ON FUNCTION usher.pause_work(uuid) IS 'holds a backfill or replay where it is';
COMMENT ON FUNCTION usher.paused_jobs(integer) IS 'internal: how many jobs wait for a pause, for the view usher.pauses';
COMMENT ON FUNCTION usher.plan_erasure(text,text,text) IS 'what usher.erase_subject() would do';
COMMENT ON FUNCTION usher.plan_pack(text,jsonb) IS 'what install_pack with this bind would install: which workflows can run, and what the others lack';
COMMENT ON FUNCTION usher.plan_repair(text,text,integer) IS 'what the repair of a rule would be about: the rows that are bad now, and what is done about each';
COMMENT ON FUNCTION usher.protect_column(regclass,text,text,text[],text) IS 'seals or masks a column; only the readers that are named get its clear text';
COMMENT ON FUNCTION usher.queue_depth() IS 'ready jobs of each lane, from shared memory; NULL before they were counted';
COMMENT ON FUNCTION usher.queue_depths() IS 'internal: what the view usher.queue shows';
COMMENT ON FUNCTION usher.read_notice(uuid) IS 'marks a notice as read; true when it was unread';
COMMENT ON FUNCTION usher.read_notifications(uuid[]) IS 'marks the caller''s notifications as read, all of them or those named; returns how many were unread';
COMMENT ON FUNCTION usher.reader_organizations(uuid) IS 'internal: the organizations whose masked values the caller reads';
COMMENT ON FUNCTION usher.reconcile(text,text) IS 'compares both tables of a merge, writes nothing there, and returns the id of a plan of what would be done; see docs/migration.md';
COMMENT ON FUNCTION usher.refer_secret(text,text,uuid,text[]) IS 'names a secret that Supabase Vault keeps';
COMMENT ON FUNCTION usher.registry_pairs() IS 'internal: what the view usher.registry shows';
COMMENT ON FUNCTION usher.release_hold(text,uuid) IS 'ends a legal hold';
COMMENT ON FUNCTION usher.release_memberships() IS 'ends usher.adopt_memberships()';
COMMENT ON FUNCTION usher.release_organizations() IS 'ends usher.adopt_organizations(); the organizations stay';
COMMENT ON FUNCTION usher.renew_api() IS 'internal: brings what was exposed to this version';
COMMENT ON FUNCTION usher.reopen_violation(uuid) IS 'ends that a violation is waived';
COMMENT ON FUNCTION usher.repair_due() IS 'carries out now what rules repair by themselves';
COMMENT ON FUNCTION usher.repair_rule(text,boolean,text,jsonb) IS 'repairs the open violations of a rule, or tries it out';
COMMENT ON FUNCTION usher.repair_violation(uuid,boolean,text) IS 'repairs one violation, or tries it out';
COMMENT ON FUNCTION usher.replay(text,timestamp with time zone,timestamp with time zone) IS 'runs the jobs of a flow that were finished in a time again, in slices; returns the id in usher.progress';
COMMENT ON FUNCTION usher.replay_events(text,timestamp with time zone,timestamp with time zone,text) IS 'has a flow hear the events of a time (again); returns the id that usher.progress shows';
COMMENT ON FUNCTION usher.reprioritise(uuid,text) IS 'puts a job that has not run into another lane; the order of its row''s changes stays';
COMMENT ON FUNCTION usher.reseal_columns(integer) IS 'seals values of columns anew that are not under the newest key; returns how many, and how many remain';
COMMENT ON FUNCTION usher.reseal_secrets(integer) IS 'seals secrets anew that are not under the newest key; returns how many, and how many remain';
COMMENT ON FUNCTION usher.resolve_conflict(uuid,text,jsonb,text) IS 'decides a conflict; of a pair: left, right or values, written to both sides; of an overlap: accept or ended; of a row that cannot be written: accept';
COMMENT ON FUNCTION usher.resume(text) IS 'says what a restored, cloned or upgraded database is: ''moved'' (it takes the original''s place) or ''copy''; its jobs go on';
COMMENT ON FUNCTION usher.resume_jobs(text,text,text) IS 'ends a pause: its jobs go on in their order';
COMMENT ON FUNCTION usher.resume_migration(uuid) IS 'lets a paused or failed migration go on where it was';
COMMENT ON FUNCTION usher.resume_work(uuid) IS 'lets a paused or failed backfill or replay go on where it was';
COMMENT ON FUNCTION usher.retire_audit_log() IS 'drops the oldest day of the audit log that is kept no longer; the chain says so';
COMMENT ON FUNCTION usher.retry_dead_letters(text,jsonb,jsonb,integer) IS 'runs the dead letters of an organization again that a filter means, with changes; returns how many';
COMMENT ON FUNCTION usher.retry_workflow(uuid,text) IS 'goes on with a run that is parked, from the step that failed or an earlier one, or begins one anew that was undone; returns how the run stands';
COMMENT ON FUNCTION usher.reverse_ticket_revenue(uuid,text) IS 'takes ticket revenue back by a row with the opposite signs and its booking, once';
COMMENT ON FUNCTION usher.rollback_flow(text,integer) IS 'gives a flow the definition of an earlier version';
COMMENT ON FUNCTION usher.rpc_states() IS 'internal: what the view usher.rpc_limits shows';
COMMENT ON FUNCTION usher.seal_audit_log() IS 'puts settled entries into the chain now; returns how many';
COMMENT ON FUNCTION usher.seal_batch(uuid) IS 'says that no more jobs join a batch; true when this call has sealed it';
COMMENT ON FUNCTION usher.secret(text,text) IS 'the plain value, for the database roles that are its readers';
COMMENT ON FUNCTION usher.set_retention(regclass,text,interval,text,text) IS 'says how long rows of a table are kept, or what is personal in them';
COMMENT ON FUNCTION usher.set_secret(text,text,text,text[]) IS 'keeps a secret, sealed; give the value as a parameter';
COMMENT ON FUNCTION usher.shadow_report(text) IS 'how many jobs of a flow in shadow would have written, changed nothing or failed, and the last failures';
COMMENT ON FUNCTION usher.show_plan(uuid,integer) IS 'what is in a plan and how far it is, in words, with samples; for admins of its organization';
COMMENT ON FUNCTION usher.signal_workflow(uuid,text,jsonb) IS 'tells a run what one of its steps waits for: a signal, or {"approved": true} or false to a question for approval; returns how the run stands';
COMMENT ON FUNCTION usher.start_workflow(text,text,jsonb,text) IS 'begins a run of a workflow with an input of yours: organization, name, input (object, the steps'' run.input), priority; returns the run';
COMMENT ON FUNCTION usher.subject_graph(text) IS 'where the data of a kind of person is: tables reached along foreign keys and links';
COMMENT ON FUNCTION usher.sweep_erasures() IS 'goes once more through the rows of recent erasures; a worker does it once a minute';
COMMENT ON FUNCTION usher.switch_flow(text,text,boolean) IS 'switches a flow off or on for one organization';
COMMENT ON FUNCTION usher.take_counted_seq(smallint,integer,uuid) IS 'internal: draws the position of a job that limits count';
COMMENT ON FUNCTION usher.take_later_seq() IS 'internal: draws the position of a job that a limit holds back';
COMMENT ON FUNCTION usher.take_off(smallint,integer,uuid) IS 'internal: counts a job that leaves the log';
COMMENT ON FUNCTION usher.try_settling(boolean) IS 'internal: tells those that end jobs from those that look afterwards';
COMMENT ON FUNCTION usher.unaudit_table(regclass) IS 'enters changes of a table no more; its entries stay';
COMMENT ON FUNCTION usher.unbind_ticket_revenue() IS 'ends what usher.bind_ticket_revenue began: no ticket revenue is taken in any more';
COMMENT ON FUNCTION usher.undo_repair(uuid) IS 'puts the rows that a repair has changed back as they were, if nobody has changed them since';
COMMENT ON FUNCTION usher.unlimit_queue(integer) IS 'removes a limit and lets go what it holds back; false when there is none';
COMMENT ON FUNCTION usher.unlimit_rpc(integer) IS 'ends a limit of calls';
COMMENT ON FUNCTION usher.unprotect_column(regclass,text) IS 'ends usher.protect_column(): clear text again';
COMMENT ON FUNCTION usher.unseal_column(text) IS 'the clear text of a sealed value, for its readers';
COMMENT ON FUNCTION usher.unset_retention(regclass,text) IS 'ends a rule of usher.set_retention()';
COMMENT ON FUNCTION usher.verify_audit_log(bigint,text) IS 'goes through the audit log and its chain of hashes; names the first thing that is not as it was';
COMMENT ON FUNCTION usher.verify_receipt(jsonb,text) IS 'whether a receipt is as it was signed';
COMMENT ON FUNCTION usher.waive_violation(uuid,text) IS 'accepts a violation for as long as its row is bad, with the reason; for admins of its organization';
COMMENT ON FUNCTION usher.wake_waiting() IS 'internal: has the workers look at waiting jobs after the commit';
COMMENT ON FUNCTION usher.workflow_timeline(uuid) IS 'what has happened to a run of a workflow, in order: steps, failures, undos, what people did';
COMMENT ON FUNCTION usher.audit() IS 'internal: enters a statement''s changed rows into usher.audit_log';
COMMENT ON FUNCTION usher.audit_log_stays() IS 'internal: refuses changes of usher.audit_log';
COMMENT ON FUNCTION usher.follow_organizations() IS 'internal: keeps usher.organizations in line with the adopted table';
COMMENT ON FUNCTION usher.memberships_changed() IS 'internal: has every session look at memberships again';
COMMENT ON FUNCTION usher.note_overlaps() IS 'internal: a statement has changed rows that an overlap rule is about';
COMMENT ON FUNCTION usher.note_repair() IS 'internal: a row that a repair may write was written';
COMMENT ON FUNCTION usher.note_touched() IS 'internal: a statement has changed rows that concern keys of rules';
COMMENT ON FUNCTION usher.seal_row() IS 'internal: seals what is written into a sealed column';
COMMENT ON FUNCTION usher.write_link() IS 'internal: checks and writes a link that somebody writes through a view of usher.expose_api()';
COMMENT ON FUNCTION usher.note_broken_flow() IS 'internal: makes a notice when a flow becomes broken';
COMMENT ON FUNCTION usher.maintain_days(text,integer) IS 'makes and drops the day partitions of a table of usher; the worker calls it';
COMMENT ON FUNCTION usher.protect_entries(text) IS 'internal: has entries of the audit neither changed nor deleted';
COMMENT ON FUNCTION usher.maintain_segments(integer) IS 'makes and drops the segments of usher.jobs and usher.job_batches; the worker calls it';
COMMENT ON FUNCTION usher.lane_floor(smallint) IS 'the position in the log up to which all jobs of a lane are done';
COMMENT ON FUNCTION usher.drop_api(text) IS 'internal: drops what was exposed; usher.setup() makes it again';
COMMENT ON FUNCTION usher.deal_to_project(text,uuid) IS 'internal: what rpc_deal_to_project does';
COMMENT ON FUNCTION usher.project_to_event(text,uuid,jsonb) IS 'internal: what rpc_project_to_event does';
COMMENT ON FUNCTION usher.look_at_dependants(uuid[],uuid[],boolean) IS 'internal: lets jobs run whose predecessors are synced, ends those whose predecessors failed';
COMMENT ON FUNCTION usher.mark_dependencies(uuid[],uuid[],text[]) IS 'internal: notes for those that wait what became of jobs';
COMMENT ON FUNCTION usher.jobs_ended(uuid[],uuid[],text,integer[]) IS 'internal: tells those that wait for jobs, and their batches, that they have ended';
COMMENT ON FUNCTION usher.settle_dependants() IS 'internal: looks at the jobs that wait for others after a commit';
COMMENT ON FUNCTION usher.note_steps_ended(uuid[],uuid[],text) IS 'internal: notes for the runs of workflows that jobs of their steps have ended';
COMMENT ON FUNCTION usher.tally(uuid[],uuid[],text,integer) IS 'internal: counts jobs that ended for their batches';
COMMENT ON FUNCTION usher.dead_letters_changed() IS 'internal: tells those that wait for a job, and its batch, that it is dead';
COMMENT ON FUNCTION usher.expire_jobs(timestamp with time zone) IS 'internal: ends waiting jobs whose time is over';
COMMENT ON FUNCTION usher.run_status(integer,timestamp with time zone) IS 'internal: what became of the jobs of a flow''s scheduled time';
COMMENT ON FUNCTION usher.reads_all() IS 'internal: true for those who read the rows of every organization';
COMMENT ON AGGREGATE usher.compare_tree(here boolean, secret uuid, bits integer, keys integer, VARIADIC "values" "any") IS 'internal: the leaves of rows of two sides that are not the same';
