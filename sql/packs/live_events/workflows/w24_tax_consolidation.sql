-- W24: tax of a month.

-- Sales: what guests have paid and were given back in the month, as the orders say it; nothing is computed. Purchases and payroll carry
-- no tax of their own: the organization's rates are taken of the sum of each line, rounded once, half away from zero.
CREATE OR REPLACE FUNCTION atlvs.consolidate_tax(organization uuid, period date) RETURNS integer
    LANGUAGE plpgsql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    org     CONSTANT uuid := organization;
    month   CONSTANT date := date_trunc('month', period::timestamp)::date;
    zone    CONSTANT text := COALESCE((SELECT o.timezone FROM usher.organizations o WHERE o.id = consolidate_tax.organization), 'UTC');
    since   CONSTANT timestamptz := month::timestamp AT TIME ZONE zone;
    until   CONSTANT timestamptz := (month + interval '1 month') AT TIME ZONE zone;
    changed integer;
BEGIN
    IF month IS NULL OR NOT isfinite(month) THEN
        RAISE EXCEPTION 'there is no month to consolidate'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name a month in payload.period, such as 2026-08.';
    END IF;
    WITH rates AS (
        SELECT COALESCE(NULLIF(btrim(s.home_jurisdiction), ''), 'unassigned') AS jurisdiction, COALESCE(s.input_tax_rate, 0) AS input, COALESCE(s.payroll_tax_rate, 0) AS payroll
          FROM (SELECT) AS one LEFT JOIN atlvs.settings s ON s.organization_id = org
    ), sums AS (
        SELECT COALESCE(NULLIF(btrim(t.jurisdiction), ''), 'unassigned') AS jurisdiction, 'sales' AS kind, t.currency, sum(t.amount - t.tax) AS taxable, sum(t.tax) AS tax
          FROM (SELECT o.jurisdiction, o.currency, o.total, o.tax FROM gvteway.orders o
                 WHERE o.organization_id = org AND o.status IN ('paid', 'refunded') AND o.paid_at >= since AND o.paid_at < until
                UNION ALL
                SELECT o.jurisdiction, o.currency, -o.total, -o.tax FROM gvteway.orders o
                 WHERE o.organization_id = org AND o.status = 'refunded' AND o.refunded_at >= since AND o.refunded_at < until) AS t (jurisdiction, currency, amount, tax)
         GROUP BY 1, 3
        UNION ALL
        SELECT r.jurisdiction, 'purchases', a.currency,
               sum(a.amount) - round(sum(a.amount) * r.input / (1 + r.input), atlvs.minor_digits(a.currency::text)),
               round(sum(a.amount) * r.input / (1 + r.input), atlvs.minor_digits(a.currency::text))
          FROM rates r, atlvs.ap_items a
          LEFT JOIN atlvs.journals j ON j.organization_id = a.organization_id AND j.id = a.journal_id
         WHERE a.organization_id = org AND a.status IN ('approved', 'paid')
           AND date_trunc('month', COALESCE(j.entry_on, (a.created_at AT TIME ZONE zone)::date)::timestamp)::date = month
         GROUP BY r.jurisdiction, r.input, a.currency
        UNION ALL
        SELECT r.jurisdiction, 'payroll', p.currency, sum(p.gross), round(sum(p.gross) * r.payroll, atlvs.minor_digits(p.currency::text))
          FROM rates r, atlvs.payroll_items p
         WHERE p.organization_id = org AND p.status IN ('approved', 'paid') AND p.work_on >= month AND p.work_on < (month + interval '1 month')::date
         GROUP BY r.jurisdiction, r.payroll, p.currency
    ), gone AS (
        DELETE FROM atlvs.tax_lines l
         WHERE l.organization_id = org AND l.period = month
           AND NOT EXISTS (SELECT FROM sums s WHERE s.jurisdiction = l.jurisdiction AND s.kind = l.kind AND s.currency = l.currency)
    )
    INSERT INTO atlvs.tax_lines AS l (organization_id, period, jurisdiction, kind, currency, taxable, tax)
    SELECT org, month, s.jurisdiction, s.kind, s.currency, s.taxable, s.tax FROM sums s
    ON CONFLICT ON CONSTRAINT tax_lines_period_key DO UPDATE SET taxable = excluded.taxable, tax = excluded.tax
     WHERE (l.taxable, l.tax) IS DISTINCT FROM (excluded.taxable, excluded.tax);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
REVOKE ALL ON FUNCTION atlvs.consolidate_tax(uuid, date) FROM PUBLIC;
COMMENT ON FUNCTION atlvs.consolidate_tax(uuid, date) IS
    'Makes the tax lines of a month anew, by jurisdiction, kind and currency; returns how many have changed';
