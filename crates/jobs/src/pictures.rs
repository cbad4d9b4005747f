//! Pictures that were made and kept: shown page by page, searched by words, marked and forgotten.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};
use uuid::Uuid;

use crate::Result;
use crate::database::Dialect;
use crate::queue::Queue;
use crate::request::storable;
use crate::sql::pictures as sql;
use crate::words::{searchable, sought};

/// A picture to be shown from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPicture {
    /// Its name in the store.
    pub file: String,
    /// The endpoint, or the gateway's model.
    pub model: String,
    /// What it was asked to show.
    pub prompt: String,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Where its random numbers began, if that is known.
    pub seed: Option<u64>,
}

/// A picture that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Greater than that of every picture made before.
    pub number: i64,
    /// The request that made it.
    pub request: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// The endpoint, or the gateway's model.
    pub model: String,
    /// Its name in the store.
    pub file: String,
    /// The name of a small one, once it was made.
    pub thumbnail: Option<String>,
    /// What it was asked to show.
    pub prompt: String,
    /// Pixels across.
    pub width: i64,
    /// Pixels down.
    pub height: i64,
    /// Where its random numbers began.
    pub seed: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Whether somebody marked it.
    pub favourite: bool,
}

/// Which pictures are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// Only this owner's; empty: everybody's.
    pub owner: String,
    /// Words of the prompt; empty: any.
    pub words: String,
    /// Only those of this endpoint or model; empty: of all.
    pub model: String,
    /// Only those that somebody marked.
    pub favourites: bool,
    /// Only those made then or later, milliseconds since 1970.
    pub from_ms: i64,
    /// Only those made before.
    pub until_ms: i64,
    /// Only those with a smaller number: what follows a page.
    pub before: i64,
    /// At most so many; 200 at most.
    pub most: i64,
}

impl Default for Search {
    fn default() -> Self {
        Self {
            owner: String::new(),
            words: String::new(),
            model: String::new(),
            favourites: false,
            from_ms: 0,
            until_ms: i64::MAX,
            before: i64::MAX,
            most: 60,
        }
    }
}

/// Pictures of one page.
const PAGE_MAX: i64 = 200;
/// Bits of a number below its milliseconds, and those of them that tell pictures of one request apart.
const CHANCE_BITS: u32 = 15;
const PLACES: i64 = 16;

/// Where the numbers of a request's pictures begin. Two requests that end in the same millisecond hardly ever begin alike, and if
/// they do, the database refuses the second, whose end is tried again.
fn first_number(now_ms: i64) -> i64 {
    let chance = (Uuid::now_v7().as_u128() as i64) & ((1 << CHANCE_BITS) - 1);
    (now_ms << CHANCE_BITS) | (chance & !(PLACES - 1))
}

/// Writes down what a request of `owner` made.
pub(crate) async fn insert(
    connection: &mut AnyConnection,
    (request, owner): (&str, &str),
    pictures: &[NewPicture],
    now_ms: i64,
) -> Result<()> {
    let first = first_number(now_ms);
    for (at, picture) in pictures.iter().enumerate() {
        // Newest first is the first of a request before its others.
        let number = first + (PLACES - 1 - at as i64).max(0);
        sqlx::query(sql::INSERT)
            .bind(number)
            .bind(request)
            .bind(owner)
            .bind(&picture.model)
            .bind(&picture.file)
            .bind(storable(&picture.prompt))
            .bind(searchable(&picture.prompt))
            .bind(i64::from(picture.width))
            .bind(i64::from(picture.height))
            .bind(picture.seed.map(|seed| seed.to_string()))
            .bind(now_ms)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Makes what the database needs to search words.
pub(crate) async fn prepare(pool: &sqlx::AnyPool, dialect: Dialect) -> Result<()> {
    let statements = match dialect {
        Dialect::Sqlite => sql::WORDS_SQLITE,
        Dialect::Postgres => sql::WORDS_POSTGRES,
    };
    let mut transaction = pool.begin().await?;
    for statement in statements {
        sqlx::query(*statement).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

impl Picture {
    fn of(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            number: row.try_get(0)?,
            request: row.try_get(1)?,
            owner: row.try_get(2)?,
            model: row.try_get(3)?,
            file: row.try_get(4)?,
            thumbnail: row.try_get(5)?,
            prompt: row.try_get(6)?,
            width: row.try_get(7)?,
            height: row.try_get(8)?,
            seed: row.try_get(9)?,
            created_ms: row.try_get(10)?,
            favourite: row.try_get::<i64, _>(11)? == 1,
        })
    }
}

impl Queue {
    /// Shows pictures that were not made by a request of this queue.
    pub async fn show_pictures(
        &self,
        (request, owner): (&str, &str),
        pictures: &[NewPicture],
    ) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        insert(&mut transaction, (request, owner), pictures, self.now_ms()).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// A page of pictures, newest first.
    pub async fn pictures(&self, search: &Search) -> Result<Vec<Picture>> {
        if [&search.owner, &search.model].iter().any(|name| name.contains('\0')) {
            return Ok(Vec::new()); // nothing has such a name, and PostgreSQL takes none
        }
        let words = sought(&search.words, self.dialect);
        let text = match (&words, self.dialect) {
            (Some(_), Dialect::Sqlite) => sql::FOUND_SQLITE,
            (Some(_), Dialect::Postgres) => sql::FOUND_POSTGRES,
            (None, _) if search.favourites => sql::PAGE_OF_FAVOURITES,
            (None, _) if !search.model.is_empty() => sql::PAGE_OF_MODEL,
            (None, _) if !search.owner.is_empty() => sql::PAGE_OF_OWNER,
            (None, _) => sql::PAGE,
        };
        // Numbers begin with the time, so that days are ranges of them.
        let from = |ms: i64| ms.saturating_mul(1 << CHANCE_BITS);
        let mut query = sqlx::query(text)
            .bind(search.before.min(from(search.until_ms)))
            .bind(&search.owner)
            .bind(&search.model)
            .bind(i64::from(search.favourites))
            .bind(from(search.from_ms))
            .bind(search.most.clamp(1, PAGE_MAX));
        if let Some(words) = words {
            query = query.bind(words);
        }
        query.fetch_all(&self.pool).await?.iter().map(Picture::of).collect()
    }

    /// The picture `number`, if `owner` (empty: anybody) has it.
    pub async fn picture(&self, number: i64, owner: &str) -> Result<Option<Picture>> {
        let query = sqlx::query(sql::PICTURE).bind(number).bind(owner);
        query.fetch_optional(&self.pool).await?.as_ref().map(Picture::of).transpose()
    }

    /// The pictures that `request` made, in its order.
    pub async fn pictures_of(&self, request: &str) -> Result<Vec<Picture>> {
        let rows = sqlx::query(sql::PICTURES_OF).bind(request).fetch_all(&self.pool).await?;
        rows.iter().map(Picture::of).collect()
    }

    /// Marks pictures of `owner` (empty: anybody), or takes their marks away; of how many.
    pub async fn mark_pictures(
        &self,
        numbers: &[i64],
        owner: &str,
        favourite: bool,
    ) -> Result<u64> {
        let (mut transaction, mut count) = (self.pool.begin().await?, 0);
        for number in numbers {
            let query = sqlx::query(sql::MARK).bind(i64::from(favourite)).bind(*number).bind(owner);
            count += query.execute(&mut *transaction).await?.rows_affected();
        }
        transaction.commit().await?;
        Ok(count)
    }

    /// Remembers the small one of a picture; whether it had none.
    pub async fn set_thumbnail(&self, number: i64, file: &str) -> Result<bool> {
        let query = sqlx::query(sql::SET_THUMBNAIL).bind(file).bind(number);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// Forgets pictures of `owner` (empty: anybody) and lets their files be deleted. A request is forgotten with the last of its
    /// pictures. How many there were.
    pub async fn delete_pictures(&self, numbers: &[i64], owner: &str) -> Result<usize> {
        let mut gone = Vec::new();
        for number in numbers {
            gone.extend(self.picture(*number, owner).await?);
        }
        let mut transaction = self.pool.begin().await?;
        for picture in &gone {
            sqlx::query(sql::DELETE).bind(picture.number).execute(&mut *transaction).await?;
            for file in std::iter::once(&picture.file).chain(&picture.thumbnail) {
                let due = sqlx::query(sql::FILE_IS_DUE).bind(self.now_ms()).bind(file);
                due.execute(&mut *transaction).await?;
            }
        }
        transaction.commit().await?;
        for picture in &gone {
            let left = sqlx::query(sql::LEFT_OF).bind(&picture.request);
            if left.fetch_one(&self.pool).await?.try_get::<i64, _>(0)? == 0 {
                self.delete(&picture.request).await?;
            }
        }
        Ok(gone.len())
    }
}
