-- What a handover package says of the modules, as long as it is not delivered.

-- All of one organization: [{"organization": …, "module_id": … or "package_id": … of the marketplace}, …]; with neither all modules. With "handover_id"
-- into these handover packages alone.
CREATE OR REPLACE FUNCTION platform.snapshot_modules(wanted jsonb) RETURNS void
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org      CONSTANT uuid := wanted -> 0 ->> 'organization';
    everyone CONSTANT boolean := EXISTS (SELECT FROM jsonb_array_elements(wanted) AS j WHERE j ->> 'module_id' IS NULL AND j ->> 'package_id' IS NULL);
    -- NULL: into all that are open.
    chosen   CONSTANT uuid[] := (SELECT array_agg((j ->> 'handover_id')::uuid) FROM jsonb_array_elements(wanted) AS j WHERE j ->> 'handover_id' IS NOT NULL);
    modules  CONSTANT uuid[] := ARRAY(
        SELECT (j ->> 'module_id')::uuid FROM jsonb_array_elements(wanted) AS j
         UNION
        SELECT m.id FROM jsonb_array_elements(wanted) AS j
          JOIN platform.marketplace_packages p ON p.organization_id = org AND p.id = (j ->> 'package_id')::uuid
          JOIN platform.module_registry m ON m.organization_id = org AND m.code = ANY (p.module_codes));
BEGIN
    -- One at a time for each package, which cannot be delivered meanwhile: whoever writes last has seen what both were about.
    PERFORM FROM platform.handover_packages h
      WHERE h.organization_id = org AND h.includes_modules AND h.status IN ('preparing', 'ready') AND (chosen IS NULL OR h.id = ANY (chosen))
      ORDER BY h.id FOR NO KEY UPDATE;
    INSERT INTO platform.handover_documentation AS d (organization_id, package_id, kind, source_ref, body)
    SELECT org, h.id, 'module_snapshot', s.module_id::text, s.body
      FROM platform.handover_packages h
     CROSS JOIN platform.module_data s
     WHERE h.organization_id = org AND h.includes_modules AND h.status IN ('preparing', 'ready') AND (chosen IS NULL OR h.id = ANY (chosen))
       AND s.organization_id = org AND (everyone OR s.module_id = ANY (modules))
       -- One that is out of use is said to be so where it was handed over before.
       AND (s.in_use OR EXISTS (SELECT FROM platform.handover_documentation o
                                 WHERE o.organization_id = org AND o.package_id = h.id AND o.kind = 'module_snapshot' AND o.source_ref = s.module_id::text))
        ON CONFLICT ON CONSTRAINT handover_documentation_source_key DO UPDATE SET body = excluded.body
     WHERE d.body IS DISTINCT FROM excluded.body;
END
$$;
REVOKE ALL ON FUNCTION platform.snapshot_modules(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION platform.snapshot_modules(jsonb) IS 'Brings modules into the handover packages that are not delivered: [{"organization": …, "module_id": …}, …], all of one organization';
