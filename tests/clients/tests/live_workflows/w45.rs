//! W45: figures over all three systems, of an organization and of each of its projects.

use super::show::{on_sale, set};
use super::six::{Bad, Place, Workflow};
use usher_clients::{Client, text};

pub const WORKFLOW: Workflow = Workflow {
    number: "W45",
    targets: &["live_events.kpi_snapshots", "live_events.project_figures"],
    // Something of each system: what it may cost, what it has cost, what was sold.
    prepare: |place| {
        format!(
            "{on_sale}
             INSERT INTO atlvs.budget_lines (organization_id, project_id, category, planned) VALUES ('{0}', '{1}', 'stage', 1000);
             INSERT INTO compvss.cost_lines (organization_id, production_id, category, actual) VALUES ('{0}', '{2}', 'stage', 250);
             INSERT INTO gvteway.orders (organization_id, id, event_id, number, subtotal, fees, total) VALUES ('{0}', '{3}', '{4}', '{5}', 100, 10, 110);
             INSERT INTO gvteway.order_items (organization_id, order_id, kind, qty, unit_price) VALUES ('{0}', '{3}', 'ticket', 4, 25);
             UPDATE gvteway.orders SET status = 'paid', paid_at = now() WHERE organization_id = '{0}' AND id = '{3}'",
            place.organization,
            place.id("project"),
            place.id("production"),
            place.id("order"),
            place.id("event"),
            place.unique("O"),
            on_sale = on_sale(place),
        )
    },
    act: request,
    check,
    // What changes is not counted before it is time, or somebody asks.
    not_met: |place| set(place, "gvteway.events", "event", "capacity = 600") + &set(place, "compvss.productions", "idle", "capacity = 7"),
    repeat: request,
    bad: Bad {
        before: |place| {
            format!("ALTER TABLE live_events.project_figures ADD CONSTRAINT refused CHECK (project_id <> '{}')", place.id("project"))
        },
        act: request,
        flow: "live_events.refresh_kpis_on_demand",
        error: "refused",
        repair: |_| "ALTER TABLE live_events.project_figures DROP CONSTRAINT refused".to_owned(),
        changes: Some(|_| "{}".to_owned()),
    },
};

fn request(place: &Place) -> String {
    format!("SELECT FROM usher.enqueue_sync_job('{}', 'atlvs', 'live_events', '{{\"action\": \"refresh_kpis\"}}')", place.slug)
}

fn check(here: &mut Client, place: &Place) {
    let of_project = text(
        here,
        &format!(
            "SELECT concat_ws('|', production_status, event_status, currency, planned, spent, revenue, refunds, margin, sales, tickets, capacity, sell_through, admitted)
               FROM live_events.project_kpis WHERE organization_id = '{}' AND project_id = '{}'",
            place.organization,
            place.id("project")
        ),
    );
    assert_eq!(of_project, "planning|on_sale|USD|1000.00|250.00|110.00|0|-140.00|1|4|500|0.0080|0");
    // All that the cases so far have left in the organization.
    let of_organization = text(
        here,
        &format!(
            "SELECT COALESCE(string_agg(concat_ws(' ', k.system, k.kpi, k.value, 'not', w.value), ', ') FILTER (WHERE k.value IS DISTINCT FROM w.value), '') || count(*)
               FROM (VALUES ('gvteway', 'revenue', (SELECT sum(gross_amount) FROM usher.ticket_revenue_ingestions WHERE organization_id = '{0}' AND currency = 'USD')),
                            ('gvteway', 'tickets', (SELECT sum(ticket_count) FROM usher.ticket_revenue_ingestions WHERE organization_id = '{0}')),
                            ('compvss', 'productions_running', (SELECT count(*) FROM compvss.productions WHERE organization_id = '{0}' AND status NOT IN ('wrapped', 'cancelled'))),
                            ('atlvs', 'spent', (SELECT sum(b.actual) FROM atlvs.budget_lines AS b JOIN atlvs.projects AS p ON p.organization_id = b.organization_id AND p.id = b.project_id
                                                 WHERE b.organization_id = '{0}' AND p.phase NOT IN ('closed', 'cancelled') AND p.currency = 'USD'))) AS w (system, kpi, value)
               JOIN live_events.kpis AS k ON k.organization_id = '{0}' AND (k.system, k.kpi) = (w.system, w.kpi) AND COALESCE(k.currency, 'USD') = 'USD'",
            place.organization
        ),
    );
    assert_eq!(of_organization, "4", "nothing differs, and none of the four is missing");
}
