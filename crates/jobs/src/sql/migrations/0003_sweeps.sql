-- What is looked for again and again is found at once, however much waits or was done.
DROP INDEX requests_by_state;
CREATE INDEX requests_waiting ON requests (state, priority, id, owner, available_ms, start_by_ms, cancel) WHERE state = 'queued';
CREATE INDEX requests_to_start ON requests (state, start_by_ms) WHERE state = 'queued' AND start_by_ms IS NOT NULL;
CREATE INDEX requests_to_cancel ON requests (state, cancel, id) WHERE state = 'queued' AND cancel = 1;
CREATE INDEX requests_unfinished ON requests (owner) WHERE state <> 'done';
DROP INDEX requests_by_end;
CREATE INDEX requests_by_end ON requests (keep_io, finished_ms) WHERE state = 'done';

-- From here on the files of a forgotten request are due from the moment it is forgotten.
UPDATE files SET expires_ms = 0 WHERE expires_ms IS NULL AND request IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM requests WHERE requests.id = files.request);
