-- The arena: what is compared, the pictures that were made for it, the pairs that were shown, and what was said of them.
CREATE TABLE arena_challenges (
    id TEXT PRIMARY KEY,              -- a UUID of version 7
    owner TEXT NOT NULL,              -- the key's id, or `local`; who made it, and for whom its pictures are drawn
    base TEXT NOT NULL,               -- where its owner reaches this server
    name TEXT NOT NULL,
    use_case TEXT NOT NULL,
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    closed BIGINT NOT NULL DEFAULT 0, -- whether votes are taken no more
    created_ms BIGINT NOT NULL
);
CREATE INDEX arena_challenges_by_use_case ON arena_challenges (use_case, id);

CREATE TABLE arena_prompts (
    challenge TEXT NOT NULL,
    number BIGINT NOT NULL,
    prompt TEXT NOT NULL,
    seed BIGINT NOT NULL,             -- the same for all
    PRIMARY KEY (challenge, number)
);

-- Named by content: the same model with the same settings is the same contender in every challenge.
CREATE TABLE arena_contenders (
    id TEXT PRIMARY KEY,              -- digest of model and settings
    model TEXT NOT NULL,              -- an endpoint of this server's, or a model of the gateway's
    family TEXT NOT NULL,             -- the catalogue's model that it is
    settings TEXT NOT NULL,           -- JSON
    created_ms BIGINT NOT NULL
);
CREATE INDEX arena_contenders_by_family ON arena_contenders (family, id);

CREATE TABLE arena_entries (
    challenge TEXT NOT NULL,
    contender TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (challenge, contender)
);
CREATE INDEX arena_entries_by_contender ON arena_entries (contender, challenge);

CREATE TABLE arena_pictures (
    challenge TEXT NOT NULL,
    prompt BIGINT NOT NULL,
    contender TEXT NOT NULL,
    state TEXT NOT NULL,              -- waiting, made, failed
    due_ms BIGINT NOT NULL,           -- while it waits: when somebody looks at it next
    tries BIGINT NOT NULL DEFAULT 0,
    request TEXT,                     -- in the queue, where its contender is this server's engine
    file TEXT,                        -- name in the store
    took_ms BIGINT,
    cost_micros BIGINT,
    made_by TEXT,
    error TEXT,
    PRIMARY KEY (challenge, prompt, contender)
);
CREATE INDEX arena_pictures_waiting ON arena_pictures (state, due_ms) WHERE state = 'waiting';

-- Every pair as it was shown, voted on or not.
CREATE TABLE arena_pairs (
    id TEXT PRIMARY KEY,              -- random: order says nothing
    challenge TEXT NOT NULL,
    prompt BIGINT NOT NULL,
    left_contender TEXT NOT NULL,
    right_contender TEXT NOT NULL,
    voter TEXT NOT NULL,
    shown_ms BIGINT NOT NULL
);
CREATE INDEX arena_pairs_by_voter ON arena_pairs (voter, challenge, shown_ms);
CREATE INDEX arena_pairs_by_challenge ON arena_pairs (challenge);

-- What was said, as it was said; nothing is ever changed. `first` and `second` are the pair in order of names.
CREATE TABLE arena_votes (
    id TEXT PRIMARY KEY,              -- a UUID of version 7: order of ids is order of votes
    pair TEXT NOT NULL UNIQUE,
    challenge TEXT NOT NULL,
    prompt BIGINT NOT NULL,
    first TEXT NOT NULL,
    second TEXT NOT NULL,
    voter TEXT NOT NULL,
    verdict TEXT NOT NULL,            -- left, right, tie, both_bad
    at_ms BIGINT NOT NULL,
    UNIQUE (voter, challenge, prompt, first, second)
);
CREATE INDEX arena_votes_by_challenge ON arena_votes (challenge, id);

-- Pictures that somebody collects to train on, with their captions.
CREATE TABLE training_sets (
    id TEXT PRIMARY KEY,              -- a UUID of version 7
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);
CREATE INDEX training_sets_by_owner ON training_sets (owner, id);

CREATE TABLE training_pictures (
    training_set TEXT NOT NULL,
    id TEXT NOT NULL,                 -- a UUID of version 7: order of ids is order of arrival
    file TEXT NOT NULL,               -- name in the store
    name TEXT NOT NULL,               -- what its sender called it
    caption TEXT NOT NULL,
    width BIGINT NOT NULL,
    height BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (training_set, id)
);

-- Trainings that were begun from a set: what its owner calls them.
CREATE TABLE training_runs (
    request TEXT PRIMARY KEY,
    training_set TEXT NOT NULL,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);
CREATE INDEX training_runs_by_owner ON training_runs (owner, request);

-- Processes that take requests, as they last said.
CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    seen_ms BIGINT NOT NULL,
    request TEXT,                     -- what it works on
    memory_bytes BIGINT NOT NULL,
    memory_bytes_all BIGINT NOT NULL  -- of its machine
);

-- How busy it was, a row a minute.
CREATE TABLE loads (
    minute_ms BIGINT PRIMARY KEY,
    queued BIGINT NOT NULL,
    running BIGINT NOT NULL,
    workers BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL      -- of all workers together
);
