//! The SQL of sets of pictures to train on, and of the trainings that were begun from them.

pub(crate) const INSERT_SET: &str =
    "INSERT INTO training_sets (id, owner, name, created_ms) VALUES ($1, $2, $3, $4)";
pub(crate) const SET: &str = "SELECT id, owner, name, created_ms FROM training_sets WHERE id = $1";
pub(crate) const SETS: &str = "
    SELECT s.id, s.owner, s.name, s.created_ms, (SELECT count(*) FROM training_pictures p WHERE p.training_set = s.id) AS pictures
    FROM training_sets s WHERE $1 = '' OR s.owner = $1 ORDER BY s.id DESC LIMIT 200";
pub(crate) const RENAME_SET: &str = "UPDATE training_sets SET name = $1 WHERE id = $2";
pub(crate) const DELETE_SET: [&str; 2] = [
    "DELETE FROM training_pictures WHERE training_set = $1",
    "DELETE FROM training_sets WHERE id = $1",
];
pub(crate) const SET_FILES_ARE_DUE: &str = "
    UPDATE files SET expires_ms = $1 WHERE name IN (SELECT file FROM training_pictures WHERE training_set = $2)";

pub(crate) const INSERT_PICTURE: &str = "
    INSERT INTO training_pictures (training_set, id, file, name, caption, width, height, bytes)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
pub(crate) const PICTURES: &str = "
    SELECT id, file, name, caption, width, height, bytes FROM training_pictures WHERE training_set = $1 ORDER BY id";
pub(crate) const CAPTION: &str =
    "UPDATE training_pictures SET caption = $1 WHERE training_set = $2 AND id = $3";
pub(crate) const PICTURE_FILE_IS_DUE: &str = "
    UPDATE files SET expires_ms = $1 WHERE name IN
        (SELECT file FROM training_pictures WHERE training_set = $2 AND id = $3)";
pub(crate) const DELETE_PICTURE: &str =
    "DELETE FROM training_pictures WHERE training_set = $1 AND id = $2";

pub(crate) const INSERT_RUN: &str = "
    INSERT INTO training_runs (request, training_set, owner, name, created_ms) VALUES ($1, $2, $3, $4, $5)";
pub(crate) const RUN: &str =
    "SELECT request, training_set, owner, name, created_ms FROM training_runs WHERE request = $1";
/// Newest first; those whose request was forgotten are of no use.
pub(crate) const RUNS: &str = "
    SELECT request, training_set, owner, name, created_ms FROM training_runs
    WHERE ($1 = '' OR owner = $1) AND EXISTS (SELECT 1 FROM requests WHERE id = training_runs.request)
    ORDER BY request DESC LIMIT $2";
