-- Pictures that were made and kept, for those who look through them. What each database needs to search their words is made beside
-- this, as each does it in words of its own: see sql/pictures.rs.
CREATE TABLE pictures (
    number BIGINT PRIMARY KEY,        -- milliseconds since 1970 and 15 bits of chance, so that order of numbers is order of making
    request TEXT NOT NULL,            -- that made it
    owner TEXT NOT NULL,              -- the key's id, or `local`
    model TEXT NOT NULL,              -- the endpoint, or the gateway's model
    file TEXT NOT NULL,               -- in the store
    thumbnail TEXT,                   -- in the store; none before it was looked at
    prompt TEXT NOT NULL,
    words TEXT NOT NULL,              -- of the prompt, as they are searched
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    seed TEXT,
    created_ms BIGINT NOT NULL,
    favourite BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX pictures_by_owner ON pictures (owner, number);
CREATE INDEX pictures_by_model ON pictures (model, number);
CREATE INDEX pictures_by_request ON pictures (request, number);
CREATE INDEX pictures_by_file ON pictures (file);
CREATE INDEX pictures_favourite ON pictures (favourite, number) WHERE favourite = 1;
