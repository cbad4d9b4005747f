//! Sets of pictures with captions that somebody collects, and what the trainings that were begun from them are called.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::Result;
use crate::queue::Queue;
use crate::request::{canonical, storable};
use crate::sql::training as sql;

/// Pictures to train on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingSet {
    /// A UUID of version 7.
    pub id: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// As its owner calls it.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingPicture {
    /// A UUID of version 7.
    pub id: String,
    /// Its name in the store.
    pub file: String,
    /// What its sender called it.
    pub name: String,
    /// What it shows.
    pub caption: String,
    /// Pixels across.
    pub width: i64,
    /// Pixels down.
    pub height: i64,
    /// Size of the file.
    pub bytes: i64,
}

/// A training that was begun from a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainingRun {
    /// Its request in the queue.
    pub request: String,
    /// The set.
    pub set: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// As its owner calls it; what its adapter is called too.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

impl Queue {
    /// Keeps a new set.
    pub async fn insert_training_set(&self, set: &TrainingSet) -> Result<()> {
        let query = sqlx::query(sql::INSERT_SET).bind(&set.id).bind(&set.owner);
        query.bind(storable(&set.name)).bind(set.created_ms).execute(&self.pool).await?;
        Ok(())
    }

    /// The set called `id`.
    pub async fn training_set(&self, id: &str) -> Result<Option<TrainingSet>> {
        let Some(id) = canonical(id) else { return Ok(None) };
        let row = sqlx::query(sql::SET).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(set).transpose()
    }

    /// Sets of `owner` (empty: of all), newest first, with how many pictures each has; 200 at most.
    pub async fn training_sets(&self, owner: &str) -> Result<Vec<(TrainingSet, i64)>> {
        let rows = sqlx::query(sql::SETS).bind(owner).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((set(row)?, row.try_get("pictures")?))).collect()
    }

    /// Calls a set otherwise.
    pub async fn rename_training_set(&self, id: &str, name: &str) -> Result<()> {
        let query = sqlx::query(sql::RENAME_SET).bind(storable(name)).bind(id);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets a set, and lets its pictures be deleted.
    pub async fn delete_training_set(&self, id: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        let due = sqlx::query(sql::SET_FILES_ARE_DUE).bind(self.now_ms()).bind(id);
        due.execute(&mut *transaction).await?;
        for statement in sql::DELETE_SET {
            sqlx::query(statement).bind(id).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Adds a picture to the set called `set`.
    pub async fn insert_training_picture(
        &self,
        set: &str,
        picture: &TrainingPicture,
    ) -> Result<()> {
        let query = sqlx::query(sql::INSERT_PICTURE)
            .bind(set)
            .bind(&picture.id)
            .bind(&picture.file)
            .bind(storable(&picture.name))
            .bind(storable(&picture.caption))
            .bind(picture.width)
            .bind(picture.height)
            .bind(picture.bytes);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// The pictures of a set, in the order in which they came.
    pub async fn training_pictures(&self, set: &str) -> Result<Vec<TrainingPicture>> {
        let rows = sqlx::query(sql::PICTURES).bind(set).fetch_all(&self.pool).await?;
        let picture = |row: &AnyRow| {
            Ok(TrainingPicture {
                id: row.try_get("id")?,
                file: row.try_get("file")?,
                name: row.try_get("name")?,
                caption: row.try_get("caption")?,
                width: row.try_get("width")?,
                height: row.try_get("height")?,
                bytes: row.try_get("bytes")?,
            })
        };
        rows.iter().map(picture).collect()
    }

    /// Says what a picture shows; whether it is there.
    pub async fn caption_training_picture(
        &self,
        set: &str,
        id: &str,
        caption: &str,
    ) -> Result<bool> {
        let Some(id) = canonical(id) else { return Ok(false) };
        let query = sqlx::query(sql::CAPTION).bind(storable(caption)).bind(set).bind(id);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Takes a picture out of a set, and lets it be deleted; whether it was there.
    pub async fn delete_training_picture(&self, set: &str, id: &str) -> Result<bool> {
        let Some(id) = canonical(id) else { return Ok(false) };
        let mut transaction = self.pool.begin().await?;
        let due = sqlx::query(sql::PICTURE_FILE_IS_DUE).bind(self.now_ms()).bind(set).bind(&id);
        due.execute(&mut *transaction).await?;
        let query = sqlx::query(sql::DELETE_PICTURE).bind(set).bind(&id);
        let gone = query.execute(&mut *transaction).await?.rows_affected() > 0;
        transaction.commit().await?;
        Ok(gone)
    }

    /// Notes what a training is called.
    pub async fn insert_training_run(&self, run: &TrainingRun) -> Result<()> {
        let query = sqlx::query(sql::INSERT_RUN)
            .bind(&run.request)
            .bind(&run.set)
            .bind(&run.owner)
            .bind(storable(&run.name))
            .bind(run.created_ms);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// The training that is the request `id`.
    pub async fn training_run(&self, id: &str) -> Result<Option<TrainingRun>> {
        let Some(id) = canonical(id) else { return Ok(None) };
        let row = sqlx::query(sql::RUN).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(run).transpose()
    }

    /// Trainings of `owner` (empty: of all) whose requests are still known, newest first.
    pub async fn training_runs(&self, owner: &str, most: i64) -> Result<Vec<TrainingRun>> {
        let query = sqlx::query(sql::RUNS).bind(owner).bind(most);
        query.fetch_all(&self.pool).await?.iter().map(run).collect()
    }
}

fn set(row: &AnyRow) -> Result<TrainingSet> {
    Ok(TrainingSet {
        id: row.try_get("id")?,
        owner: row.try_get("owner")?,
        name: row.try_get("name")?,
        created_ms: row.try_get("created_ms")?,
    })
}

fn run(row: &AnyRow) -> Result<TrainingRun> {
    Ok(TrainingRun {
        request: row.try_get("request")?,
        set: row.try_get("training_set")?,
        owner: row.try_get("owner")?,
        name: row.try_get("name")?,
        created_ms: row.try_get("created_ms")?,
    })
}
