-- W26: which day a change is made on, and how it is told; who is to be told. W29 uses them too.

-- A day of a show does not end at midnight: what happens before six in the morning belongs to the night before as well.
CREATE OR REPLACE FUNCTION compvss.on_the_day(zone text, moment timestamptz, VARIADIC starts timestamptz[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    here timestamp;
BEGIN
    here := moment AT TIME ZONE zone;
    RETURN COALESCE(bool_or(here::date = (s AT TIME ZONE zone)::date
                            OR (here - interval '6 hours')::date = ((s AT TIME ZONE zone) - interval '6 hours')::date), false)
      FROM unnest(starts) AS s;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN NULL;
END
$$;
REVOKE ALL ON FUNCTION compvss.on_the_day(text, timestamptz, timestamptz[]) FROM PUBLIC;
COMMENT ON FUNCTION compvss.on_the_day(text, timestamptz, timestamptz[]) IS
    'Whether one of the times is on the same day as the moment, in the zone; NULL when nobody knows the zone';

CREATE OR REPLACE FUNCTION compvss.local_time(zone text, moment timestamptz) RETURNS text
    LANGUAGE sql STABLE
    RETURN to_char(moment AT TIME ZONE zone, 'FMDD FMMonth, HH24:MI');
REVOKE ALL ON FUNCTION compvss.local_time(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION compvss.local_time(text, timestamptz) IS 'A time as guests read it';

CREATE OR REPLACE FUNCTION compvss.schedule_message(
    zone text, title text, starts_at timestamptz, ends_at timestamptz, delay_min integer, status text,
    was_at timestamptz, was_delay integer, was_status text
) RETURNS text
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN NOT compvss.zone_known(zone) OR NOT isfinite(starts_at) OR NOT isfinite(ends_at) THEN NULL
        WHEN status = 'cancelled' THEN format('%s, %s, is cancelled.', btrim(title), compvss.local_time(zone, was_at))
        WHEN was_status = 'cancelled' THEN format('%s takes place after all: %s.', btrim(title), compvss.local_time(zone, t.now_at))
        WHEN NOT isfinite(t.then_at) THEN format('%s starts %s.', btrim(title), compvss.local_time(zone, t.now_at))
        WHEN t.now_at <> t.then_at THEN
            format('%s starts %s instead of %s.', btrim(title), compvss.local_time(zone, t.now_at), compvss.local_time(zone, t.then_at))
        WHEN status = 'delayed' THEN format('%s, %s, is delayed.', btrim(title), compvss.local_time(zone, starts_at))
        WHEN was_status = 'delayed' THEN format('%s starts as planned: %s.', btrim(title), compvss.local_time(zone, t.now_at))
        WHEN ends_at IS NOT NULL THEN format('%s, %s, ends %s.', btrim(title), compvss.local_time(zone, t.now_at),
                                             compvss.local_time(zone, ends_at + make_interval(mins => delay_min)))
        ELSE format('%s starts %s; its end is open.', btrim(title), compvss.local_time(zone, t.now_at))
    END
      FROM (SELECT starts_at + make_interval(mins => delay_min) AS now_at, was_at + make_interval(mins => was_delay) AS then_at) AS t
$$;
REVOKE ALL ON FUNCTION compvss.schedule_message(text, text, timestamptz, timestamptz, integer, text, timestamptz, integer, text) FROM PUBLIC;
COMMENT ON FUNCTION compvss.schedule_message(text, text, timestamptz, timestamptz, integer, text, timestamptz, integer, text) IS
    'What guests are told of a change of the schedule; NULL where it names no time that can be told';

CREATE OR REPLACE FUNCTION gvteway.ticket_holders(organization uuid, event_id uuid)
    RETURNS TABLE (guest_id uuid, email text, name text, phone text)
    LANGUAGE sql STABLE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT g.id, g.email, g.name, g.phone
      FROM gvteway.guests g
     WHERE g.organization_id = ticket_holders.organization AND g.erased_at IS NULL
       AND g.id IN (SELECT COALESCE(h.holder_id, o.guest_ref)
                      FROM gvteway.orders o
                      -- Order by order, and not (OFFSET 0) by reading what the organization has sold for all of its events.
                     CROSS JOIN LATERAL (SELECT t.holder_id
                                           FROM gvteway.order_items i
                                           LEFT JOIN gvteway.tickets t ON t.organization_id = i.organization_id AND t.item_id = i.id
                                          WHERE i.organization_id = o.organization_id AND i.order_id = o.id AND i.kind = 'ticket'
                                            AND t.status IS DISTINCT FROM 'void'
                                         OFFSET 0) AS h
                     WHERE o.organization_id = ticket_holders.organization AND o.event_id = ticket_holders.event_id AND o.status = 'paid')
$$;
REVOKE ALL ON FUNCTION gvteway.ticket_holders(uuid, uuid) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.ticket_holders(uuid, uuid) IS
    'Who is to be told of an event: guests who hold a ticket that is paid and not void, and buyers of tickets that have no holder';

-- A thousand at a time, which is what the inbox takes; whoever has it is not told again. Each where the person signs in, or under the
-- guest's id as long as nobody knows where that is (W46).
CREATE OR REPLACE FUNCTION gvteway.tell_ticket_holders(
    organization uuid, event_id uuid, announcement_id uuid, kind text, severity text, message text
) RETURNS bigint
    LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT COALESCE(sum(usher.notify(
               organization => tell_ticket_holders.organization::text,
               recipients   => c.guests,
               title        => left(tell_ticket_holders.message, 120),
               kind         => tell_ticket_holders.kind,
               severity     => CASE tell_ticket_holders.severity WHEN 'emergency' THEN 'critical' ELSE tell_ticket_holders.severity END,
               body         => jsonb_build_object('event_id', tell_ticket_holders.event_id, 'announcement_id', announcement_id,
                                                  'message', left(tell_ticket_holders.message, 10000)),
               key          => 'announcement:' || announcement_id)), 0)
      FROM (SELECT array_agg(h.person) AS guests
              FROM (SELECT p.person, (row_number() OVER (ORDER BY p.person) - 1) / 1000 AS part
                      FROM (SELECT DISTINCT COALESCE(i.user_id, g.guest_id::text) AS person
                              FROM gvteway.ticket_holders(tell_ticket_holders.organization, tell_ticket_holders.event_id) AS g
                              LEFT JOIN live_events.platform_accounts a ON a.organization_id = tell_ticket_holders.organization
                                        AND a.platform = 'gvteway' AND a.kind = 'guest' AND a.ref = g.guest_id
                              LEFT JOIN live_events.identities i ON i.organization_id = a.organization_id AND i.id = a.identity_id) AS p) AS h
             GROUP BY h.part) AS c
$$;
REVOKE ALL ON FUNCTION gvteway.tell_ticket_holders(uuid, uuid, uuid, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION gvteway.tell_ticket_holders(uuid, uuid, uuid, text, text, text) IS
    'Puts an announcement into the inboxes of the guests who hold tickets, once, wherever they sign in; returns how many were told';
