-- Jobs that gather (flows in mode "batch"): by lane, flow and organization, in their order.
CREATE INDEX queue_waiting_gather_idx ON usher.queue_waiting (lane, flow_id, organization_id, seq) WHERE waiting_for = 'batch window';
