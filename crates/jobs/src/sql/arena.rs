//! The SQL of the arena: challenges, contenders, pictures, pairs and votes.

macro_rules! challenge {
    () => {
        "SELECT id, owner, base, name, use_case, width, height, closed, created_ms FROM arena_challenges"
    };
}

pub(crate) const INSERT_CHALLENGE: &str = "
    INSERT INTO arena_challenges (id, owner, base, name, use_case, width, height, created_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
pub(crate) const INSERT_PROMPT: &str =
    "INSERT INTO arena_prompts (challenge, number, prompt, seed) VALUES ($1, $2, $3, $4)";
pub(crate) const CHALLENGE: &str = concat!(challenge!(), " WHERE id = $1");
/// Newest first, of a use case or ($1 empty) of all, after $2.
pub(crate) const CHALLENGES: &str = concat!(
    challenge!(),
    " WHERE ($1 = '' OR use_case = $1) AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3"
);
pub(crate) const USE_CASES: &str =
    "SELECT use_case, count(*) FROM arena_challenges GROUP BY use_case ORDER BY use_case";
pub(crate) const PROMPTS: &str =
    "SELECT number, prompt, seed FROM arena_prompts WHERE challenge = $1 ORDER BY number";
pub(crate) const CLOSE_CHALLENGE: &str = "UPDATE arena_challenges SET closed = $1 WHERE id = $2";
/// With all that belongs to it.
pub(crate) const DELETE_CHALLENGE: [&str; 6] = [
    "DELETE FROM arena_votes WHERE challenge = $1",
    "DELETE FROM arena_pairs WHERE challenge = $1",
    "DELETE FROM arena_pictures WHERE challenge = $1",
    "DELETE FROM arena_entries WHERE challenge = $1",
    "DELETE FROM arena_prompts WHERE challenge = $1",
    "DELETE FROM arena_challenges WHERE id = $1",
];
pub(crate) const CHALLENGE_FILES_ARE_DUE: &str = "
    UPDATE files SET expires_ms = $1 WHERE name IN
        (SELECT file FROM arena_pictures WHERE challenge = $2 AND file IS NOT NULL)";

pub(crate) const INSERT_CONTENDER: &str = "
    INSERT INTO arena_contenders (id, model, family, settings, created_ms) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (id) DO NOTHING";
pub(crate) const INSERT_ENTRY: &str = "
    INSERT INTO arena_entries (challenge, contender, name) VALUES ($1, $2, $3)
    ON CONFLICT (challenge, contender) DO NOTHING";
/// A picture of every prompt, to be made.
pub(crate) const INSERT_PICTURES: &str = "
    INSERT INTO arena_pictures (challenge, prompt, contender, state, due_ms)
    SELECT challenge, number, $2, 'waiting', $3 FROM arena_prompts WHERE challenge = $1";
pub(crate) const ENTRIES: &str = "
    SELECT e.challenge, e.contender, e.name, c.model, c.family, c.settings
    FROM arena_entries e JOIN arena_contenders c ON c.id = e.contender WHERE e.challenge = $1 ORDER BY e.name, e.contender";
/// Of all challenges of a use case; the newest challenge's name comes last.
pub(crate) const ENTRIES_OF_USE_CASE: &str = "
    SELECT e.challenge, e.contender, e.name, c.model, c.family, c.settings
    FROM arena_entries e JOIN arena_contenders c ON c.id = e.contender JOIN arena_challenges h ON h.id = e.challenge
    WHERE h.use_case = $1 ORDER BY e.challenge, e.name, e.contender";
/// Challenges in which a model of the catalogue takes part.
pub(crate) const CHALLENGES_OF_FAMILY: &str = "
    SELECT DISTINCT e.challenge FROM arena_entries e JOIN arena_contenders c ON c.id = e.contender
    WHERE c.family = $1 ORDER BY e.challenge";

macro_rules! picture {
    () => {
        "challenge, prompt, contender, state, due_ms, tries, request, file, took_ms, cost_micros, made_by, error"
    };
}

pub(crate) const PICTURES: &str = concat!(
    "SELECT ",
    picture!(),
    " FROM arena_pictures WHERE challenge = $1 ORDER BY prompt, contender"
);
/// How many pictures of each challenge are in which state.
pub(crate) const PICTURES_BY_STATE: &str =
    "SELECT challenge, state, count(*) FROM arena_pictures GROUP BY challenge, state";

macro_rules! claim_picture {
    ($lock:literal) => {
        concat!(
            "UPDATE arena_pictures SET due_ms = $1 WHERE state = 'waiting' AND due_ms <= $2
                AND (challenge, prompt, contender) = (
                    SELECT challenge, prompt, contender FROM arena_pictures WHERE state = 'waiting' AND due_ms <= $2
                    ORDER BY due_ms, challenge, prompt, contender LIMIT 1 ",
            $lock,
            ") RETURNING ",
            picture!()
        )
    };
}

/// Whether there may be one: looking takes no writer's turn.
pub(crate) const ANY_PICTURE_DUE: &str =
    "SELECT 1 FROM arena_pictures WHERE state = 'waiting' AND due_ms <= $1 LIMIT 1";
/// Takes a picture that is due, until $1.
pub(crate) const CLAIM_PICTURE_SQLITE: &str = claim_picture!("");
/// The same, stepping over what another node is taking.
pub(crate) const CLAIM_PICTURE_POSTGRES: &str = claim_picture!("FOR UPDATE SKIP LOCKED");
/// It was put into the queue, or is not ready there.
pub(crate) const PICTURE_WAITS: &str = "
    UPDATE arena_pictures SET request = $1, due_ms = $2, tries = $3, error = $4
    WHERE challenge = $5 AND prompt = $6 AND contender = $7 AND state = 'waiting'";
pub(crate) const PICTURE_MADE: &str = "
    UPDATE arena_pictures SET state = 'made', file = $1, took_ms = $2, cost_micros = $3, made_by = $4, error = NULL
    WHERE challenge = $5 AND prompt = $6 AND contender = $7 AND state = 'waiting'";
pub(crate) const PICTURE_FAILED: &str = "
    UPDATE arena_pictures SET state = 'failed', error = $1
    WHERE challenge = $2 AND prompt = $3 AND contender = $4 AND state = 'waiting'";
pub(crate) const TRY_PICTURES_AGAIN: &str = "
    UPDATE arena_pictures SET state = 'waiting', due_ms = $1, tries = 0, request = NULL
    WHERE challenge = $2 AND state = 'failed'";

macro_rules! pair {
    () => {
        "id, challenge, prompt, left_contender, right_contender, voter, shown_ms"
    };
}

pub(crate) const INSERT_PAIR: &str =
    concat!("INSERT INTO arena_pairs (", pair!(), ") VALUES ($1, $2, $3, $4, $5, $6, $7)");
pub(crate) const PAIR: &str = concat!("SELECT ", pair!(), " FROM arena_pairs WHERE id = $1");
/// What a voter was shown of a challenge and has said nothing of, shown at $3 or later.
pub(crate) const OPEN_PAIR: &str = concat!(
    "SELECT ",
    pair!(),
    " FROM arena_pairs WHERE voter = $1 AND challenge = $2 AND shown_ms >= $3
        AND NOT EXISTS (SELECT 1 FROM arena_votes WHERE pair = arena_pairs.id) ORDER BY shown_ms DESC LIMIT 1"
);

/// One per pair, and one per person and pair, whichever side was which.
pub(crate) const INSERT_VOTE: &str = "
    INSERT INTO arena_votes (id, pair, challenge, prompt, first, second, voter, verdict, at_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";

macro_rules! votes {
    ($where:literal) => {
        concat!(
            "SELECT v.id AS vote, v.verdict, v.at_ms, p.id, p.challenge, p.prompt, p.left_contender, p.right_contender,
                p.voter, p.shown_ms FROM arena_votes v JOIN arena_pairs p ON p.id = v.pair ",
            $where
        )
    };
}

pub(crate) const VOTE: &str = votes!("WHERE v.pair = $1");
pub(crate) const VOTES: &str = votes!("WHERE v.challenge = $1 ORDER BY v.id");
pub(crate) const VOTES_OF_USE_CASE: &str =
    votes!("JOIN arena_challenges h ON h.id = v.challenge WHERE h.use_case = $1 ORDER BY v.id");
/// How many votes each challenge has.
pub(crate) const COUNT_VOTES: &str =
    "SELECT challenge, count(*) FROM arena_votes GROUP BY challenge";
