-- Nothing for PUBLIC: what a role may call is named here, once. Every function checks the caller again by itself.
REVOKE ALL ON SCHEMA usher FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usher FROM PUBLIC;

-- Clients: what they may do in an organization is decided by their membership.
GRANT EXECUTE ON FUNCTION
    usher.enqueue_sync_job, usher.enqueue_sync_jobs, usher.cancel_sync_job, usher.retry_sync_job, usher.wait_for,
    usher.grant_membership, usher.revoke_membership,
    usher.status, usher.actor, usher.member_organizations, usher.managed_organizations, usher.version, usher.uuid_v7
    TO usher_member;
GRANT EXECUTE ON FUNCTION usher.ingest_ticket_revenue, usher.ingest_ticket_revenue_batch, usher.reverse_ticket_revenue TO usher_member;
GRANT EXECUTE ON FUNCTION usher.bind_ticket_revenue, usher.unbind_ticket_revenue TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.managed_organization, usher.deal_to_project, usher.project_to_event TO usher_member;
-- What the view usher.sync_jobs is made of runs with the rights of its reader.
GRANT EXECUTE ON FUNCTION usher.lane_name, usher.lane_floor, usher.change_payload, usher.job_in_progress TO usher_member, usher_reader;
GRANT EXECUTE ON FUNCTION usher.status, usher.actor, usher.version TO usher_reader;
-- Those who run the installation.
GRANT EXECUTE ON FUNCTION
    usher.setup, usher.create_organization, usher.create_system,
    usher.create_flow, usher.alter_flow, usher.enable_flow, usher.disable_flow, usher.drop_flow, usher.explain_flow, usher.preview_flow,
    usher.process_jobs, usher.hold_lane, usher.resume, usher.install_pack, usher.remove_pack, usher.pack_workflows, usher.plan_pack, usher.pack_tables, usher.attach_all, usher.detach_all, usher.remove
    TO usher_operator;
GRANT EXECUTE ON FUNCTION
    usher.audit_table, usher.unaudit_table, usher.expose_api, usher.hide_api, usher.renew_api, usher.drop_api
    TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.audit, usher.audit_log_stays, usher.write_link TO usher_operator;
-- An operator may own the tables: the owner's triggers and statements call these.
GRANT EXECUTE ON FUNCTION
    usher.capture, usher.capture_statement, usher.flows_changed, usher.update_integration_sync_timestamp,
    usher.take_seq, usher.maintain_history, usher.maintain_segments
    TO usher_operator;

-- Conflicts.
GRANT EXECUTE ON FUNCTION usher.resolve_conflict, usher.explain_merge TO usher_member;
GRANT EXECUTE ON FUNCTION
    usher.create_overlap_rule, usher.alter_overlap_rule, usher.drop_overlap_rule, usher.check_overlaps, usher.note_overlaps, usher.note_merges_failed
    TO usher_operator;
COMMENT ON FUNCTION usher.create_overlap_rule IS 'has rows found that share a resource and overlap in time; see docs/conflicts.md';
COMMENT ON FUNCTION usher.alter_overlap_rule IS 'gives an overlap rule a new definition';
COMMENT ON FUNCTION usher.drop_overlap_rule IS 'removes an overlap rule; its conflicts are gone';
COMMENT ON FUNCTION usher.explain_merge IS 'what holds of each field of a pair that a merge keeps equal, and why; for admins of its organization';
COMMENT ON FUNCTION usher.check_overlaps IS 'looks at all rows of a rule, or of all rules, for overlaps now';
COMMENT ON FUNCTION usher.resolve_conflict IS 'decides a conflict; of a pair: left, right or values, written to both sides; of an overlap: accept or ended; of a row that cannot be written: accept';
COMMENT ON FUNCTION usher.note_merges_failed IS 'internal: dead letters of a merge become conflicts of its pairs';
COMMENT ON FUNCTION usher.note_overlaps IS 'internal: a statement has changed rows that an overlap rule is about';

-- Rules.
GRANT EXECUTE ON FUNCTION usher.check_rule, usher.check_rules, usher.check_soon, usher.waive_violation, usher.reopen_violation TO usher_member;
GRANT EXECUTE ON FUNCTION
    usher.create_rule, usher.alter_rule, usher.drop_rule, usher.enable_rule, usher.disable_rule, usher.explain_rule, usher.note_touched
    TO usher_operator;
COMMENT ON FUNCTION usher.create_rule IS 'says by a query of bad rows what must hold of the application''s rows; see docs/consistency.md';
COMMENT ON FUNCTION usher.alter_rule IS 'gives a rule a new definition';
COMMENT ON FUNCTION usher.drop_rule IS 'removes a rule; its violations are gone';
COMMENT ON FUNCTION usher.enable_rule IS 'switches a rule on; everything is looked at';
COMMENT ON FUNCTION usher.disable_rule IS 'switches a rule off; its violations stay as they are';
COMMENT ON FUNCTION usher.explain_rule IS 'what a rule does, when it looks, and the SQL that it runs';
COMMENT ON FUNCTION usher.waive_violation IS 'accepts a violation for as long as its row is bad, with the reason; for admins of its organization';
COMMENT ON FUNCTION usher.reopen_violation IS 'ends that a violation is waived';
COMMENT ON FUNCTION usher.check_rule IS 'looks now at everything that a rule is about; how many bad rows are new, known, gone';
COMMENT ON FUNCTION usher.check_rules IS 'looks now at everything that the rules are about, one after the other';
COMMENT ON FUNCTION usher.check_soon IS 'has a worker look at everything that rules are about as soon as it can';
COMMENT ON FUNCTION usher.note_touched IS 'internal: a statement has changed rows that concern keys of rules';

-- Repairs.
GRANT EXECUTE ON FUNCTION
    usher.plan_repair, usher.repair_rule, usher.repair_violation, usher.undo_repair, usher.repair_due, usher.note_repair
    TO usher_operator;
COMMENT ON FUNCTION usher.plan_repair IS 'what the repair of a rule would be about: the rows that are bad now, and what is done about each';
COMMENT ON FUNCTION usher.repair_rule IS 'repairs the open violations of a rule, or tries it out';
COMMENT ON FUNCTION usher.repair_violation IS 'repairs one violation, or tries it out';
COMMENT ON FUNCTION usher.undo_repair IS 'puts the rows that a repair has changed back as they were, if nobody has changed them since';
COMMENT ON FUNCTION usher.repair_due IS 'carries out now what rules repair by themselves';
COMMENT ON FUNCTION usher.note_repair IS 'internal: a row that a repair may write was written';

-- Migrations.
GRANT EXECUTE ON FUNCTION
    usher.reconcile, usher.show_plan, usher.apply_migration, usher.pause_migration, usher.resume_migration, usher.cancel_migration
    TO usher_member, usher_operator;
COMMENT ON FUNCTION usher.reconcile IS 'compares both tables of a merge, writes nothing there, and returns the id of a plan of what would be done; see docs/migration.md';
COMMENT ON FUNCTION usher.show_plan IS 'what is in a plan and how far it is, in words, with samples; for admins of its organization';
COMMENT ON FUNCTION usher.apply_migration IS 'has a plan, or some kinds and actions of it, applied by its merge in slices; again: what has failed or was left';
COMMENT ON FUNCTION usher.pause_migration IS 'holds a migration where it is';
COMMENT ON FUNCTION usher.resume_migration IS 'lets a paused or failed migration go on where it was';
COMMENT ON FUNCTION usher.cancel_migration IS 'ends a migration, or a plan that nobody wants; what it has done stays';

-- Comparisons; what their statements call, too, runs with the operator's own rights.
GRANT EXECUTE ON FUNCTION
    usher.compare_tables, usher.compare_pair, usher.compare_tree, usher.compare_step, usher.compare_join, usher.compare_open, usher.compare_leaf, usher.compare_digest
    TO usher_operator;
COMMENT ON FUNCTION usher.compare_tables IS 'rows of two tables that are missing on one side or different, found by digests without joining all of them; see docs/compare.md';
COMMENT ON FUNCTION usher.compare_pair IS 'the same of what a flow''s source should give and what its target holds';
COMMENT ON AGGREGATE usher.compare_tree(boolean, uuid, integer, integer, VARIADIC "any") IS 'internal: the leaves of rows of two sides that are not the same';
COMMENT ON FUNCTION usher.compare_step IS 'internal: adds a row of the left side to its leaf, takes one of the right side away';
COMMENT ON FUNCTION usher.compare_join IS 'internal: the leaves of two processes together';
COMMENT ON FUNCTION usher.compare_open IS 'internal: the leaves that are not the same on both sides';
COMMENT ON FUNCTION usher.compare_leaf IS 'internal: the leaf of a row with this key';
COMMENT ON FUNCTION usher.compare_digest IS 'internal: the digest of some values, for rows of very many columns';

-- The life of jobs as their callers and admins steer it.
GRANT EXECUTE ON FUNCTION
    usher.create_batch, usher.seal_batch, usher.reprioritise, usher.cancel_sync_jobs, usher.retry_dead_letters
    TO usher_member;
GRANT EXECUTE ON FUNCTION
    usher.jobs_ended, usher.note_steps_ended, usher.look_at_dependants, usher.mark_dependencies, usher.settle_dependants, usher.tally, usher.dead_letters_changed,
    usher.expire_jobs, usher.wake_waiting, usher.try_settling
    TO usher_operator;
COMMENT ON FUNCTION usher.create_batch IS 'makes a batch that jobs join by the option "batch"; its completion job is made when all have ended';
COMMENT ON FUNCTION usher.seal_batch IS 'says that no more jobs join a batch; true when this call has sealed it';
COMMENT ON FUNCTION usher.reprioritise IS 'puts a job that has not run into another lane; the order of its row''s changes stays';
COMMENT ON FUNCTION usher.cancel_sync_jobs IS 'cancels the jobs of an organization that a filter means; returns how many';
COMMENT ON FUNCTION usher.retry_dead_letters IS 'runs the dead letters of an organization again that a filter means, with changes; returns how many';
COMMENT ON FUNCTION usher.wake_waiting IS 'internal: has the workers look at waiting jobs after the commit';
COMMENT ON FUNCTION usher.try_settling IS 'internal: tells those that end jobs from those that look afterwards';

-- Failures and what to do about them; shadow, versions and the transfer of flows.
GRANT EXECUTE ON FUNCTION usher.read_notice, usher.notify, usher.forward_notifications, usher.read_notifications TO usher_member;
COMMENT ON FUNCTION usher.notify IS 'tells people something, in their inbox usher.notifications; for admins of the organization and its flows';
COMMENT ON FUNCTION usher.forward_notifications IS 'hands what was told to one name on to another, such as a guest who has signed in since; for flows and operators';
COMMENT ON FUNCTION usher.read_notifications IS 'marks the caller''s notifications as read, all of them or those named; returns how many were unread';
GRANT EXECUTE ON FUNCTION usher.doctor, usher.shadow_report TO usher_reader;
GRANT EXECUTE ON FUNCTION
    usher.export_flows, usher.apply_flows, usher.flow_history, usher.rollback_flow,
    usher.note_broken_flow
    TO usher_operator;
-- Back-pressure.
GRANT EXECUTE ON FUNCTION
    usher.limit_queue, usher.unlimit_queue, usher.admit, usher.take_later_seq, usher.take_counted_seq, usher.take_off
    TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.queue_depth, usher.limited_jobs TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.reads_all TO usher_member, usher_reader;
GRANT EXECUTE ON FUNCTION usher.member_organizations TO usher_reader;
COMMENT ON FUNCTION usher.reads_all IS 'internal: true for those who read the rows of every organization';
COMMENT ON FUNCTION usher.limit_queue IS 'limits the ready jobs of a lane, flow, system or organization; more are refused, delayed or shed to a lower lane';
COMMENT ON FUNCTION usher.unlimit_queue IS 'removes a limit and lets go what it holds back; false when there is none';
COMMENT ON FUNCTION usher.queue_depth IS 'ready jobs of each lane, from shared memory; NULL before they were counted';
COMMENT ON FUNCTION usher.limited_jobs IS 'internal: the jobs that a limit counts, from shared memory';
COMMENT ON FUNCTION usher.admit IS 'internal: which limit holds a captured change back';
COMMENT ON FUNCTION usher.take_later_seq IS 'internal: draws the position of a job that a limit holds back';
COMMENT ON FUNCTION usher.take_counted_seq IS 'internal: draws the position of a job that limits count';
COMMENT ON FUNCTION usher.take_off IS 'internal: counts a job that leaves the log';
-- Watching.
GRANT EXECUTE ON FUNCTION usher.queue_depths TO usher_member, usher_reader;
GRANT EXECUTE ON FUNCTION usher.horizon, usher.metrics TO usher_reader, usher_operator;
COMMENT ON FUNCTION usher.queue_depths IS 'internal: what the view usher.queue shows';
GRANT EXECUTE ON FUNCTION usher.registry_pairs TO usher_member, usher_reader;
COMMENT ON FUNCTION usher.registry_pairs IS 'internal: what the view usher.registry shows';
GRANT EXECUTE ON FUNCTION usher.lineage, usher.lineage_diagram TO usher_reader, usher_operator;
COMMENT ON FUNCTION usher.lineage IS 'what feeds what: tables, functions, events and the rest, by which flow, column by column; all of it, or upstream and downstream of one thing; see docs/lineage.md';
COMMENT ON FUNCTION usher.lineage_diagram IS 'the same as a picture: mermaid, or dot for Graphviz';
COMMENT ON FUNCTION usher.horizon IS 'who keeps the server from cleaning up what is deleted: sessions, prepared transactions, slots, standbys';
COMMENT ON FUNCTION usher.metrics IS 'figures for a monitor in the text format of Prometheus';
COMMENT ON FUNCTION usher.doctor IS 'checks the installation: what is wrong, and its remedy';
COMMENT ON FUNCTION usher.export_flows IS 'all flows as one JSON document for version control';
COMMENT ON FUNCTION usher.apply_flows IS 'makes the flows as a document says, all or none; returns what changed';
COMMENT ON FUNCTION usher.flow_history IS 'the versions of a flow and what differs between them';
COMMENT ON FUNCTION usher.rollback_flow IS 'gives a flow the definition of an earlier version';
COMMENT ON FUNCTION usher.shadow_report IS 'how many jobs of a flow in shadow would have written, changed nothing or failed, and the last failures';
COMMENT ON FUNCTION usher.read_notice IS 'marks a notice as read; true when it was unread';

-- Schedules; backfills and replays.
GRANT EXECUTE ON FUNCTION usher.run_status, usher.next_runs TO usher_reader;
GRANT EXECUTE ON FUNCTION usher.backfill, usher.replay, usher.replay_events, usher.pause_work, usher.resume_work, usher.cancel_work TO usher_operator;
COMMENT ON FUNCTION usher.run_status IS 'internal: what became of the jobs of a flow''s scheduled time';
COMMENT ON FUNCTION usher.next_runs IS 'the next times of a schedule in a time zone';
COMMENT ON FUNCTION usher.backfill IS 'makes a flow act on the rows that are in its table already, in slices; returns the id in usher.progress';
COMMENT ON FUNCTION usher.replay IS 'runs the jobs of a flow that were finished in a time again, in slices; returns the id in usher.progress';
COMMENT ON FUNCTION usher.replay_events IS 'has a flow hear the events of a time (again); returns the id that usher.progress shows';
COMMENT ON FUNCTION usher.pause_work IS 'holds a backfill or replay where it is';
COMMENT ON FUNCTION usher.resume_work IS 'lets a paused or failed backfill or replay go on where it was';
COMMENT ON FUNCTION usher.cancel_work IS 'ends a backfill or replay; jobs that it has made stay';

COMMENT ON FUNCTION usher.setup IS 'creates the data tables, policies and the organization "default", or brings them to the installed version; safe to repeat';
COMMENT ON FUNCTION usher.remove IS 'deletes all tables and rows of pg_usher in this database; confirm => ''remove all data''';
COMMENT ON FUNCTION usher.version IS 'the version of the loaded library';
COMMENT ON FUNCTION usher.uuid_v7 IS 'a version 7 uuid (RFC 9562), ordered by time';
COMMENT ON FUNCTION usher.actor IS 'for whom this session acts: a JWT''s sub, the user that a trusted pooler set, or role:NAME';
COMMENT ON FUNCTION usher.member_organizations IS 'the organizations whose rows the caller may read; policies use it';
COMMENT ON FUNCTION usher.managed_organizations IS 'the organizations whose rows the caller may change, as admin, legend or operator';
COMMENT ON FUNCTION usher.create_organization IS 'makes a tenant: slug, name, IANA time zone; returns its id';
COMMENT ON FUNCTION usher.grant_membership IS 'makes a user (JWT sub, or role:NAME) a member, admin or legend of an organization';
COMMENT ON FUNCTION usher.revoke_membership IS 'ends a membership';
COMMENT ON FUNCTION usher.create_system IS 'names a party: local, remote or external';
COMMENT ON FUNCTION usher.create_flow IS 'checks a definition against the catalog, compiles it and switches it on';
COMMENT ON FUNCTION usher.alter_flow IS 'gives a flow a new definition as its next version';
COMMENT ON FUNCTION usher.enable_flow IS 'switches a flow on; jobs that waited for it run';
COMMENT ON FUNCTION usher.disable_flow IS 'switches a flow off; its jobs wait';
COMMENT ON FUNCTION usher.drop_flow IS 'removes a flow; its waiting jobs are cancelled, its history stays';
COMMENT ON FUNCTION usher.explain_flow IS 'what a flow does, and the SQL it runs';
COMMENT ON FUNCTION usher.preview_flow IS 'what a flow would write for one row, undone at once';
COMMENT ON FUNCTION usher.enqueue_sync_job IS 'asks for a job: the flow whose request names source, target and payload.action takes it; returns the job';
COMMENT ON FUNCTION usher.enqueue_sync_jobs IS 'asks for up to 100000 jobs, all or none; returns their ids in the order of the payloads';
COMMENT ON FUNCTION usher.cancel_sync_job IS 'cancels a job that has not run';
COMMENT ON FUNCTION usher.retry_sync_job IS 'runs a dead, failed or cancelled job again, with changes merged over what it carries';
COMMENT ON FUNCTION usher.wait_for IS 'waits until a job has ended or the timeout is over; returns the job as it then stands';
COMMENT ON FUNCTION usher.process_jobs IS 'runs one batch of jobs in the caller''s transaction; returns how many';
COMMENT ON FUNCTION usher.hold_lane IS 'keeps the workers away from a lane until the end of the transaction';
COMMENT ON FUNCTION usher.resume IS 'says what a restored, cloned or upgraded database is: ''moved'' (it takes the original''s place) or ''copy''; its jobs go on';
COMMENT ON FUNCTION usher.status IS 'one screen: workers, lanes, flows, last errors, as far as the caller may see';
COMMENT ON FUNCTION usher.pack_workflows IS 'the workflows that a pack is made of, each with its flows and overlap rules';
COMMENT ON FUNCTION usher.install_pack IS 'installs a pack or brings it to this version: tables, role, flows; bind points them at an application''s own tables';
COMMENT ON FUNCTION usher.plan_pack IS 'what install_pack with this bind would install: which workflows can run, and what the others lack';
COMMENT ON FUNCTION usher.pack_tables IS 'the columns of a pack''s tables, as bind may name them';
COMMENT ON FUNCTION usher.remove_pack IS 'removes a pack''s flows; its tables and rows stay';
COMMENT ON FUNCTION usher.attach_all IS 'creates missing capture triggers and drops those no flow needs; returns how many changed';
COMMENT ON FUNCTION usher.detach_all IS 'drops every capture trigger; usher.setup() attaches them again';
COMMENT ON FUNCTION usher.take_seq IS 'internal: draws the next position of a job and notes it for the wake-up';
COMMENT ON FUNCTION usher.job_in_progress IS 'internal: true while a worker has the job in an unfinished batch';
COMMENT ON FUNCTION usher.lane_name IS 'the name of a lane: 0 emergency to 4 low';
COMMENT ON FUNCTION usher.change_payload IS 'internal: a change job''s payload as people read it';
COMMENT ON FUNCTION usher.capture IS 'internal: turns a statement''s changed rows into jobs';
COMMENT ON FUNCTION usher.capture_statement IS 'internal: numbers statements, so that nested triggers keep their order';
COMMENT ON FUNCTION usher.flows_changed IS 'internal: keeps capture triggers in line with usher.flows';
COMMENT ON FUNCTION usher.update_integration_sync_timestamp IS 'internal: keeps updated_at of a link';
COMMENT ON FUNCTION usher.follow_ddl IS 'internal: looks again at the flows that a schema change touches';
COMMENT ON FUNCTION usher.follow_drop IS 'internal: looks again at the flows whose objects were dropped, and puts capture triggers back';
COMMENT ON FUNCTION usher.ingest_ticket_revenue IS 'takes in ticket revenue, once per idempotency_key or payload.reference, and has it booked in the same transaction';
COMMENT ON FUNCTION usher.ingest_ticket_revenue_batch IS 'takes in many sales at once, all or none, each as usher.ingest_ticket_revenue does; each has a key or reference of its own';
COMMENT ON FUNCTION usher.reverse_ticket_revenue IS 'takes ticket revenue back by a row with the opposite signs and its booking, once';
COMMENT ON FUNCTION usher.bind_ticket_revenue IS 'names the functions that resolve codes and book ticket revenue, one by one or in batches, and the role that they run as';
COMMENT ON FUNCTION usher.unbind_ticket_revenue IS 'ends what usher.bind_ticket_revenue began: no ticket revenue is taken in any more';
COMMENT ON FUNCTION usher.audit_table IS 'enters every change of a table into usher.audit_log from now on; all columns or those named';
COMMENT ON FUNCTION usher.unaudit_table IS 'enters changes of a table no more; its entries stay';
COMMENT ON FUNCTION usher.audit IS 'internal: enters a statement''s changed rows into usher.audit_log';
COMMENT ON FUNCTION usher.audit_log_stays IS 'internal: refuses changes of usher.audit_log';
COMMENT ON FUNCTION usher.expose_api IS 'makes views and functions under the names of existing clients in a schema; replaces nothing that is there';
COMMENT ON FUNCTION usher.hide_api IS 'takes back what usher.expose_api() made in a schema';
COMMENT ON FUNCTION usher.renew_api IS 'internal: brings what was exposed to this version';
COMMENT ON FUNCTION usher.drop_api IS 'internal: drops what was exposed; usher.setup() makes it again';
COMMENT ON FUNCTION usher.write_link IS 'internal: checks and writes a link that somebody writes through a view of usher.expose_api()';
COMMENT ON FUNCTION usher.managed_organization IS 'the id of the organization (slug or id) in which the caller may make changes; 42501 for everybody else';
COMMENT ON FUNCTION usher.deal_to_project IS 'internal: what rpc_deal_to_project does';
COMMENT ON FUNCTION usher.project_to_event IS 'internal: what rpc_project_to_event does';

-- Limits.
GRANT EXECUTE ON FUNCTION usher.limit_system TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.limit_states TO usher_member, usher_reader;
COMMENT ON FUNCTION usher.limit_system IS 'limits the jobs of all flows for a system, in all or for each organization; NULL takes the limits away';
COMMENT ON FUNCTION usher.limit_states IS 'internal: what the view usher.limits shows';

-- Work outside of the database: workers that take jobs of external systems, and what came back.
GRANT EXECUTE ON FUNCTION usher.claim_jobs, usher.finish_job, usher.fail_job, usher.extend_lease, usher.job_result TO usher_member;
COMMENT ON FUNCTION usher.claim_jobs IS 'takes jobs of an external system for the time of a lease; what is not answered within it can be taken again';
COMMENT ON FUNCTION usher.finish_job IS 'a worker outside has done a job; a result, if given, is kept';
COMMENT ON FUNCTION usher.fail_job IS 'a worker outside could not do a job: it is tried again, or dead after the last try';
COMMENT ON FUNCTION usher.extend_lease IS 'gives a worker outside more time for a job; returns when the lease ends';
COMMENT ON FUNCTION usher.job_result IS 'what came back from a job, if it was kept';

-- Pauses.
GRANT EXECUTE ON FUNCTION usher.pause_jobs, usher.resume_jobs TO usher_member;
GRANT EXECUTE ON FUNCTION usher.paused_jobs TO usher_member, usher_reader;
COMMENT ON FUNCTION usher.pause_jobs IS 'has the jobs of a flow, of a system or of an organization wait, until a time or until usher.resume_jobs()';
COMMENT ON FUNCTION usher.resume_jobs IS 'ends a pause: its jobs go on in their order';
COMMENT ON FUNCTION usher.paused_jobs IS 'internal: how many jobs wait for a pause, for the view usher.pauses';

-- The audit's chain.
GRANT EXECUTE ON FUNCTION usher.verify_audit_log, usher.audit_anchor, usher.audit_entry_hash, usher.audit_images_hash TO usher_reader, usher_operator;
GRANT EXECUTE ON FUNCTION usher.seal_audit_log, usher.retire_audit_log, usher.maintain_days, usher.protect_entries TO usher_operator;
COMMENT ON FUNCTION usher.verify_audit_log IS 'goes through the audit log and its chain of hashes; names the first thing that is not as it was';
COMMENT ON FUNCTION usher.audit_anchor IS 'the end of the audit''s chain, to be kept elsewhere and given to usher.verify_audit_log() later';
COMMENT ON FUNCTION usher.audit_entry_hash IS 'internal: SHA-256 of an entry, as docs/audit.md describes it';
COMMENT ON FUNCTION usher.audit_images_hash IS 'internal: SHA-256 of old and new of an entry, with its salt';
COMMENT ON FUNCTION usher.retire_audit_log IS 'drops the oldest day of the audit log that is kept no longer; the chain says so';
COMMENT ON FUNCTION usher.seal_audit_log IS 'puts settled entries into the chain now; returns how many';

-- The application's own organizations and members.
GRANT EXECUTE ON FUNCTION usher.adopt_organizations, usher.adopt_memberships, usher.release_organizations, usher.release_memberships TO usher_operator;
COMMENT ON FUNCTION usher.adopt_organizations IS 'has a table of the application say which organizations there are';
COMMENT ON FUNCTION usher.adopt_memberships IS 'has a table of the application say who belongs where; a membership that is removed ends at once';
COMMENT ON FUNCTION usher.release_organizations IS 'ends usher.adopt_organizations(); the organizations stay';
GRANT EXECUTE ON FUNCTION usher.follow_organizations TO usher_operator;
COMMENT ON FUNCTION usher.follow_organizations IS 'internal: keeps usher.organizations in line with the adopted table';
COMMENT ON FUNCTION usher.release_memberships IS 'ends usher.adopt_memberships()';

-- Secrets.
GRANT EXECUTE ON FUNCTION usher.set_secret, usher.delete_secret, usher.secret TO usher_member;
GRANT EXECUTE ON FUNCTION usher.refer_secret, usher.reseal_secrets TO usher_operator;
COMMENT ON FUNCTION usher.set_secret IS 'keeps a secret, sealed; give the value as a parameter';
COMMENT ON FUNCTION usher.refer_secret IS 'names a secret that Supabase Vault keeps';
COMMENT ON FUNCTION usher.delete_secret IS 'forgets a secret';
COMMENT ON FUNCTION usher.secret IS 'the plain value, for the database roles that are its readers';
COMMENT ON FUNCTION usher.reseal_secrets IS 'seals secrets anew that are not under the newest key; returns how many, and how many remain';

-- Rates of calls.
GRANT EXECUTE ON FUNCTION usher.limit_rpc, usher.unlimit_rpc TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.check_rate, usher.rpc_states TO usher_member, usher_reader;
COMMENT ON FUNCTION usher.limit_rpc IS 'limits how often a function may be called for an organization';
COMMENT ON FUNCTION usher.unlimit_rpc IS 'ends a limit of calls';
COMMENT ON FUNCTION usher.check_rate IS 'for functions of your own: counts a call, or refuses it with PT429';
COMMENT ON FUNCTION usher.rpc_states IS 'internal: what the view usher.rpc_limits shows';
GRANT EXECUTE ON FUNCTION usher.memberships_changed TO usher_operator;
COMMENT ON FUNCTION usher.memberships_changed IS 'internal: has every session look at memberships again';

-- Privacy.
GRANT EXECUTE ON FUNCTION usher.define_subject, usher.drop_subject, usher.declare_personal, usher.set_retention, usher.unset_retention,
    usher.apply_retention, usher.sweep_erasures TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.subject_graph TO usher_reader, usher_operator;
GRANT EXECUTE ON FUNCTION usher.export_subject, usher.plan_erasure, usher.erase_subject, usher.erasure_receipt, usher.hold_subject, usher.release_hold
    TO usher_member;
GRANT EXECUTE ON FUNCTION usher.verify_receipt TO usher_member, usher_reader, usher_operator;
COMMENT ON FUNCTION usher.define_subject IS 'defines a kind of person: each row of a table is one';
COMMENT ON FUNCTION usher.drop_subject IS 'forgets a kind of person; its data stays';
COMMENT ON FUNCTION usher.declare_personal IS 'declares columns of a table as personal: why they are kept, and what they become when the person is erased';
COMMENT ON FUNCTION usher.subject_graph IS 'where the data of a kind of person is: tables reached along foreign keys and links';
COMMENT ON FUNCTION usher.export_subject IS 'everything that is known of a person, as JSON';
COMMENT ON FUNCTION usher.plan_erasure IS 'what usher.erase_subject() would do';
COMMENT ON FUNCTION usher.erase_subject IS 'erases a person from rows, jobs and audit, asks linked systems to do so too, and returns a signed receipt';
COMMENT ON FUNCTION usher.erasure_receipt IS 'the signed receipt of an erasure, with what linked systems have answered by now';
COMMENT ON FUNCTION usher.verify_receipt IS 'whether a receipt is as it was signed';
COMMENT ON FUNCTION usher.hold_subject IS 'keeps a person, or everybody of a kind, from being erased';
COMMENT ON FUNCTION usher.release_hold IS 'ends a legal hold';
COMMENT ON FUNCTION usher.set_retention IS 'says how long rows of a table are kept, or what is personal in them';
COMMENT ON FUNCTION usher.unset_retention IS 'ends a rule of usher.set_retention()';
COMMENT ON FUNCTION usher.apply_retention IS 'goes through the rules of usher.set_retention(); by default only says what is due';
COMMENT ON FUNCTION usher.sweep_erasures IS 'goes once more through the rows of recent erasures; a worker does it once a minute';
GRANT EXECUTE ON FUNCTION usher.mask_person TO usher_operator;
COMMENT ON FUNCTION usher.mask_person IS 'internal: JSON without a person';
-- Protected columns.
GRANT EXECUTE ON FUNCTION usher.protect_column, usher.unprotect_column, usher.reseal_columns, usher.seal_row TO usher_operator;
GRANT EXECUTE ON FUNCTION usher.unseal_column, usher.mask_value, usher.reader_organizations TO usher_member, usher_reader;
COMMENT ON FUNCTION usher.protect_column IS 'seals or masks a column; only the readers that are named get its clear text';
COMMENT ON FUNCTION usher.unprotect_column IS 'ends usher.protect_column(): clear text again';
COMMENT ON FUNCTION usher.unseal_column IS 'the clear text of a sealed value, for its readers';
COMMENT ON FUNCTION usher.mask_value IS 'what a masked value looks like';
COMMENT ON FUNCTION usher.reseal_columns IS 'seals values of columns anew that are not under the newest key; returns how many, and how many remain';
COMMENT ON FUNCTION usher.reader_organizations IS 'internal: the organizations whose masked values the caller reads';
COMMENT ON FUNCTION usher.seal_row IS 'internal: seals what is written into a sealed column';

-- Flows that an organization does without.
GRANT EXECUTE ON FUNCTION usher.switch_flow TO usher_member;
COMMENT ON FUNCTION usher.switch_flow IS 'switches a flow off or on for one organization';

-- The owner of the tables, who may be an operator, makes their policies.
GRANT EXECUTE ON FUNCTION usher.isolate_tables TO usher_operator;
COMMENT ON FUNCTION usher.isolate_tables IS 'internal: gives the tables of some schemas the policies that a declaration says';

-- The event bus.
GRANT EXECUTE ON FUNCTION usher.start_workflow, usher.signal_workflow, usher.cancel_workflow, usher.retry_workflow, usher.workflow_timeline TO usher_member;
COMMENT ON FUNCTION usher.start_workflow IS 'begins a run of a workflow with an input of yours: organization, name, input (object, the steps'' run.input), priority; returns the run';
COMMENT ON FUNCTION usher.signal_workflow IS 'tells a run what one of its steps waits for: a signal, or {"approved": true} or false to a question for approval; returns how the run stands';
COMMENT ON FUNCTION usher.cancel_workflow IS 'gives a run up: what it has done is undone in reverse, or with undo => false left as it is; returns how the run stands';
COMMENT ON FUNCTION usher.retry_workflow IS 'goes on with a run that is parked, from the step that failed or an earlier one, or begins one anew that was undone; returns how the run stands';
COMMENT ON FUNCTION usher.workflow_timeline IS 'what has happened to a run of a workflow, in order: steps, failures, undos, what people did';
GRANT EXECUTE ON FUNCTION usher.emit_event, usher.broadcast_event, usher.event_receipts, usher.create_subscription, usher.drop_subscription TO usher_member;
COMMENT ON FUNCTION usher.broadcast_event IS 'emits an emergency event and tells, once the time is over, who has not received it';
COMMENT ON FUNCTION usher.event_receipts IS 'who is to receive a broadcast, and who has';
COMMENT ON FUNCTION usher.create_subscription IS 'gives an external system the events that some patterns mean; usher.claim_jobs() hands them out';
COMMENT ON FUNCTION usher.drop_subscription IS 'ends a subscription; what waits stays for the system''s workers';
COMMENT ON FUNCTION usher.emit_event IS 'says that something has happened: the event is kept, and flows that listen get their jobs';
