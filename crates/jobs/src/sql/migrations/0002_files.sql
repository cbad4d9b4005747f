-- Where results are reached by whoever submitted the request, without a slash at the end.
ALTER TABLE requests ADD COLUMN base TEXT NOT NULL DEFAULT '';

CREATE TABLE files (
    name TEXT PRIMARY KEY,            -- in the store
    owner TEXT NOT NULL,
    request TEXT,                     -- that made it; none for an upload
    size BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT                 -- none: stays as long as its request, or for good
);
CREATE INDEX files_by_request ON files (request);
CREATE INDEX files_by_end ON files (expires_ms);

CREATE TABLE previews (
    request TEXT NOT NULL,
    number BIGINT NOT NULL,           -- the step, from 1
    steps BIGINT NOT NULL,
    picture TEXT NOT NULL,            -- a data URI
    PRIMARY KEY (request, number)
);

-- What all nodes share and nobody else may know.
CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
