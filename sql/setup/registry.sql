-- When two systems were last in step is asked of the newest rows of the history, which stand in the order of their time.
CREATE INDEX job_history_finished_idx ON usher.job_history USING brin (finished_at);
