-- Nothing for PUBLIC: what a role may call is named here, once. Every function checks the caller again by itself.
REVOKE ALL ON SCHEMA usher FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA usher FROM PUBLIC;

-- Clients: what they may do in an organization is decided by their membership.
GRANT EXECUTE ON FUNCTION
    usher.enqueue_sync_job, usher.enqueue_sync_jobs, usher.cancel_sync_job, usher.retry_sync_job, usher.wait_for,
    usher.grant_membership, usher.revoke_membership,
    usher.status, usher.actor, usher.member_organizations, usher.managed_organizations, usher.version, usher.uuid_v7
    TO usher_member;
-- What the view usher.sync_jobs is made of runs with the rights of its reader.
GRANT EXECUTE ON FUNCTION usher.lane_name, usher.change_payload, usher.job_in_progress TO usher_member, usher_reader;
GRANT EXECUTE ON FUNCTION usher.status, usher.actor, usher.version TO usher_reader;
-- Those who run the installation.
GRANT EXECUTE ON FUNCTION
    usher.setup, usher.create_organization, usher.create_system,
    usher.create_flow, usher.alter_flow, usher.enable_flow, usher.disable_flow, usher.drop_flow, usher.explain_flow, usher.preview_flow,
    usher.process_jobs, usher.hold_lane, usher.install_pack, usher.remove_pack, usher.attach_all, usher.detach_all, usher.remove
    TO usher_operator;
-- An operator may own the tables: the owner's triggers and statements call these.
GRANT EXECUTE ON FUNCTION
    usher.capture, usher.capture_statement, usher.flows_changed, usher.update_integration_sync_timestamp,
    usher.take_seq, usher.maintain_history
    TO usher_operator;

-- Failures and what to do about them; shadow, versions and the transfer of flows.
GRANT EXECUTE ON FUNCTION usher.read_notice TO usher_member;
GRANT EXECUTE ON FUNCTION usher.doctor, usher.shadow_report TO usher_reader;
GRANT EXECUTE ON FUNCTION
    usher.export_flows, usher.apply_flows, usher.flow_history, usher.rollback_flow,
    usher.note_broken_flow
    TO usher_operator;
COMMENT ON FUNCTION usher.doctor IS 'checks the installation: what is wrong, and its remedy';
COMMENT ON FUNCTION usher.export_flows IS 'all flows as one JSON document for version control';
COMMENT ON FUNCTION usher.apply_flows IS 'makes the flows as a document says, all or none; returns what changed';
COMMENT ON FUNCTION usher.flow_history IS 'the versions of a flow and what differs between them';
COMMENT ON FUNCTION usher.rollback_flow IS 'gives a flow the definition of an earlier version';
COMMENT ON FUNCTION usher.shadow_report IS 'how many jobs of a flow in shadow would have written, changed nothing or failed, and the last failures';
COMMENT ON FUNCTION usher.read_notice IS 'marks a notice as read; true when it was unread';

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
COMMENT ON FUNCTION usher.status IS 'one screen: workers, lanes, flows, last errors, as far as the caller may see';
COMMENT ON FUNCTION usher.install_pack IS 'installs a pack or brings it to this version: tables, role, flows';
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
