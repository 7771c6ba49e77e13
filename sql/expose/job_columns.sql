j.id, j.organization_id, j.source_system, j.target_system, j.flow, j.payload,
       CASE WHEN j.status IN ('pending', 'in_progress', 'synced') THEN j.status ELSE 'failed' END AS status,
       j.attempts, j.priority,
       CASE WHEN j.status = 'cancelled' THEN pg_catalog.concat_ws(': ', 'cancelled', j.error_message) ELSE j.error_message END AS error_message,
       j.waiting_for, j.run_at, j.created_at, j.last_attempted_at, j.finished_at,
       COALESCE(j.finished_at, j.last_attempted_at, j.created_at) AS updated_at
