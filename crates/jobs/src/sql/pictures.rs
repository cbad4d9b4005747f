//! Statements about pictures, and what each database needs to search their words.

/// Columns of a picture, in the order in which it is read.
macro_rules! picture {
    () => {
        "p.number, p.request, p.owner, p.model, p.file, p.thumbnail, p.prompt, p.width, p.height, p.seed, p.created_ms, p.favourite"
    };
}

/// A page of pictures, newest first, from the number $5 to before $1. `$from` is where they come from, `$and` what else must hold.
macro_rules! page {
    ($from:literal, $and:literal) => {
        concat!(
            "SELECT ",
            picture!(),
            " FROM ",
            $from,
            " WHERE p.number < $1 AND ($2 = '' OR p.owner = $2) AND ($3 = '' OR p.model = $3) AND ($4 = 0 OR p.favourite = 1)
                AND p.number >= $5 ",
            $and,
            " ORDER BY p.number DESC LIMIT $6"
        )
    };
}

pub(crate) const PAGE: &str = page!("pictures p", "");
/// The same, where an owner was named: found by the index.
pub(crate) const PAGE_OF_OWNER: &str = page!("pictures p", "AND p.owner = $2");
/// The same, of favourites.
pub(crate) const PAGE_OF_FAVOURITES: &str = page!("pictures p", "AND p.favourite = 1");
/// The same, of one endpoint or model.
pub(crate) const PAGE_OF_MODEL: &str = page!("pictures p", "AND p.model = $3");
/// The same, of those whose words fit $7. The words come first: their numbers are in order already.
pub(crate) const FOUND_SQLITE: &str = concat!(
    "SELECT ",
    picture!(),
    " FROM picture_words w CROSS JOIN pictures p ON p.number = w.rowid
        WHERE w.picture_words MATCH $7 AND w.rowid < $1 AND w.rowid >= $5 AND ($2 = '' OR p.owner = $2) AND ($3 = '' OR p.model = $3)
            AND ($4 = 0 OR p.favourite = 1)
        ORDER BY w.rowid DESC LIMIT $6"
);
pub(crate) const FOUND_POSTGRES: &str =
    page!("pictures p", "AND to_tsvector('simple', p.words) @@ to_tsquery('simple', $7)");

pub(crate) const PICTURE: &str = concat!(
    "SELECT ",
    picture!(),
    " FROM pictures p WHERE p.number = $1 AND ($2 = '' OR p.owner = $2)"
);
pub(crate) const PICTURES_OF: &str =
    concat!("SELECT ", picture!(), " FROM pictures p WHERE p.request = $1 ORDER BY p.number DESC");

pub(crate) const INSERT: &str = "
    INSERT INTO pictures (number, request, owner, model, file, prompt, words, width, height, seed, created_ms)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
pub(crate) const MARK: &str =
    "UPDATE pictures SET favourite = $1 WHERE number = $2 AND ($3 = '' OR owner = $3)";
pub(crate) const SET_THUMBNAIL: &str =
    "UPDATE pictures SET thumbnail = $1 WHERE number = $2 AND thumbnail IS NULL";
pub(crate) const DELETE: &str = "DELETE FROM pictures WHERE number = $1";
pub(crate) const DELETE_OF: &str = "DELETE FROM pictures WHERE request = $1";
pub(crate) const DELETE_BY_FILE: &str = "DELETE FROM pictures WHERE file = $1";
pub(crate) const FILE_IS_DUE: &str = "UPDATE files SET expires_ms = $1 WHERE name = $2";
pub(crate) const LEFT_OF: &str = "SELECT count(*) FROM pictures WHERE request = $1";

/// An index of words that holds nothing else, kept with the table by the database itself.
pub(crate) const WORDS_SQLITE: &[&str] = &[
    "CREATE VIRTUAL TABLE IF NOT EXISTS picture_words
        USING fts5(words, content = '', contentless_delete = 1, tokenize = 'unicode61 remove_diacritics 0')",
    "CREATE TRIGGER IF NOT EXISTS picture_words_in AFTER INSERT ON pictures
        BEGIN INSERT INTO picture_words (rowid, words) VALUES (new.number, new.words); END",
    "CREATE TRIGGER IF NOT EXISTS picture_words_out AFTER DELETE ON pictures
        BEGIN DELETE FROM picture_words WHERE rowid = old.number; END",
];
/// One node makes it; the lock ends with the transaction.
pub(crate) const WORDS_POSTGRES: &[&str] = &[
    "SELECT pg_advisory_xact_lock(7862)",
    "CREATE INDEX IF NOT EXISTS picture_words ON pictures USING gin (to_tsvector('simple', words))",
];
