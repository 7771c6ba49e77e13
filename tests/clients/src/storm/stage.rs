//! What a storm begins with.

use super::{ORGANIZATIONS, RULES, login};
use crate::{Database, flow, json, role, run, settled, wait};

/// Owners of each organization, and accounts of each owner.
pub(super) const OWNERS: u64 = 4;
pub(super) const ACCOUNTS: u64 = OWNERS * 3;
/// All that is in the bank, of both organizations.
pub(super) const MONEY: i64 = 2 * ACCOUNTS as i64 * 20;
pub(super) const MODULES: u64 = 6;
pub(super) const PACKAGES: u64 = 4;

/// Installs the pack in a new database, with two organizations, and the bank.
#[track_caller]
pub fn open(database: &Database) {
    let mut client = database.connect();
    let here = &mut client;
    role(here, "clients_storm", "NOLOGIN");
    run(here, "SELECT usher.install_pack('platform')");
    for slug in ORGANIZATIONS {
        let login = login(slug);
        role(here, &login, "LOGIN");
        run(
            here,
            &format!(
                "SELECT usher.create_organization('{slug}'); GRANT usher_member TO {login};
                 SELECT usher.grant_membership('{slug}', 'role:{login}', 'admin')"
            ),
        );
    }
    run(here, TABLES);
    // So many tries, so soon, that what fails only because somebody was in the way never makes a dead letter.
    run(
        here,
        "SELECT usher.alter_flow(name, definition || '{\"retry\": {\"delays\": [0.2, 0.2, 0.3, 0.3, 0.4, 0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]}}') FROM usher.flows WHERE pack = 'platform'",
    );
    // What is broken counts almost at once, so that repairs meet the flows and each other.
    for rule in RULES {
        run(
            here,
            &format!(
                "SELECT usher.alter_rule(name, jsonb_set(definition || '{{\"grace\": \"500ms\", \"every\": \"2s\"}}', '{{repair,most}}', '20')) FROM usher.rules WHERE name = 'platform.{rule}'"
            ),
        );
    }
    run(here, BANK);
    flow(
        here,
        "storm_enter",
        // Without a key: what happens twice is there twice.
        &json!({
            "mode": "realtime", "run_as": "clients_storm", "when": {"change": "public.storm_transfers", "on": ["insert"]},
            "then": {"insert": "public.storm_entries"}, "set": {"transfer_id": "new.id", "amount": "new.amount"}
        }),
    );
    run(here, &rows());
    settled(here, wait::LONG);
}

const TABLES: &str = "
CREATE TABLE public.storm_accounts (organization_id uuid NOT NULL, id integer NOT NULL, owner integer NOT NULL, balance integer NOT NULL, PRIMARY KEY (organization_id, id));
CREATE INDEX ON public.storm_accounts (organization_id, owner);
CREATE TABLE public.storm_transfers (organization_id uuid NOT NULL, id bigint NOT NULL, amount integer NOT NULL, PRIMARY KEY (organization_id, id));
CREATE TABLE public.storm_entries (organization_id uuid NOT NULL, transfer_id bigint NOT NULL, amount integer NOT NULL);
-- What a transaction did, written with it.
CREATE TABLE public.storm_ledger (organization_id uuid NOT NULL, id bigint NOT NULL PRIMARY KEY, kind text NOT NULL, subject uuid, number integer);
-- What has really become installed, and which packages were really made, by whomsoever: as often the bus must hear of it.
CREATE TABLE public.storm_facts (organization_id uuid NOT NULL, fact text NOT NULL, subject uuid NOT NULL);
CREATE FUNCTION public.storm_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.storm_facts VALUES (NEW.organization_id, TG_ARGV[0], NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER storm_installed AFTER UPDATE ON platform.marketplace_installations FOR EACH ROW
    WHEN (NEW.status = 'installed' AND OLD.status <> 'installed') EXECUTE FUNCTION public.storm_note('installed');
CREATE TRIGGER storm_installed_new AFTER INSERT ON platform.marketplace_installations FOR EACH ROW
    WHEN (NEW.status = 'installed') EXECUTE FUNCTION public.storm_note('installed');
CREATE TRIGGER storm_made AFTER INSERT ON platform.handover_packages FOR EACH ROW EXECUTE FUNCTION public.storm_note('made');
CREATE TRIGGER storm_delivered AFTER UPDATE ON platform.handover_packages FOR EACH ROW
    WHEN (NEW.status = 'delivered' AND OLD.status <> 'delivered') EXECUTE FUNCTION public.storm_note('delivered');
GRANT SELECT, INSERT, UPDATE ON public.storm_accounts, public.storm_transfers, public.storm_entries, public.storm_ledger TO clients_storm, usher_member;
";

const BANK: &str = r#"
SELECT usher.create_rule('storm_bank', '{
    "query": "SELECT organization_id, owner, sum(balance) AS sum FROM public.storm_accounts GROUP BY organization_id, owner HAVING sum(balance) < 0",
    "key": ["owner"], "wrong": "''the sum is '' || sum", "severity": "critical", "run": ["transaction"], "run_as": "clients_storm",
    "touches": {"public.storm_accounts": {"owner": "row.owner"}}}');
"#;

/// Modules, packages that bring two of them each, and a workflow that an event begins.
fn rows() -> String {
    format!(
        "INSERT INTO public.storm_accounts SELECT o.id, n, n % {OWNERS}, 20 FROM usher.organizations AS o, generate_series(0, {ACCOUNTS} - 1) AS n WHERE o.slug IN ('north', 'south');
         INSERT INTO platform.module_registry (organization_id, code, config_schema)
         SELECT o.id, 'm' || n, CASE n % 2 WHEN 0 THEN '{{\"properties\": {{\"seats\": {{\"type\": \"integer\"}}}}}}'::jsonb ELSE '{{}}' END
           FROM usher.organizations AS o, generate_series(0, {MODULES} - 1) AS n WHERE o.slug IN ('north', 'south');
         INSERT INTO platform.marketplace_packages (organization_id, code, module_codes)
         SELECT o.id, 'p' || n, ARRAY['m' || n, 'm' || (n + 1)] FROM usher.organizations AS o, generate_series(0, {PACKAGES} - 1) AS n WHERE o.slug IN ('north', 'south');
         WITH w AS (INSERT INTO platform.orchestration_workflows (organization_id, name, required_modules)
                    SELECT o.id, 'listens', '{{m0}}' FROM usher.organizations AS o WHERE o.slug IN ('north', 'south') RETURNING *)
         INSERT INTO platform.workflow_triggers (organization_id, workflow_id, event_type) SELECT organization_id, id, 'storm.ordered' FROM w;"
    )
}
