//! Whose ratings: boards of contenders and of models, per challenge and per use case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use zoetrope_jobs::{ArenaEntry, ArenaVote, Of};

use crate::rating::Battle;
use crate::rating::board::{BATTLES_MIN, Board};
use crate::{Arena, Result};

/// A board and who its players are.
#[derive(Clone, Debug, PartialEq)]
pub struct Standings {
    /// By the numbers of [`Board`].
    pub players: Vec<ArenaEntry>,
    /// Ratings.
    pub board: Board,
}

/// A model's place on a board, as documents tell it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArenaFigure {
    /// The catalogue's figure, `1000 + 10(μ − 3σ)`.
    pub rating: f64,
    /// Votes for it.
    pub wins: u64,
    /// Votes for the other.
    pub losses: u64,
    /// Votes for neither.
    pub ties: u64,
    /// Its place by rating, from 1.
    pub rank: usize,
}

/// A model's place on one board.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The challenge's id; empty for a use case.
    pub challenge: String,
    /// The challenge's name, or the use case.
    pub title: String,
    /// The place.
    pub figure: ArenaFigure,
    /// How many models are on the board.
    pub of: usize,
}

/// Boards that were computed, by the votes they were computed from.
#[derive(Default)]
pub(crate) struct Kept(Mutex<HashMap<String, (usize, Arc<Standings>)>>);

/// Boards that are kept at once; beyond it all are computed anew.
const KEPT_MAX: usize = 200;

impl Arena {
    /// The board of contenders.
    pub async fn standings(&self, of: Of<'_>) -> Result<Arc<Standings>> {
        self.computed(of, "contender", |entry| &entry.contender).await
    }

    /// The board of models: contenders of one model are one player, and votes between two of them say nothing.
    pub async fn models(&self, of: Of<'_>) -> Result<Arc<Standings>> {
        self.computed(of, "family", |entry| &entry.family).await
    }

    async fn computed(
        &self,
        of: Of<'_>,
        kind: &str,
        player: fn(&ArenaEntry) -> &String,
    ) -> Result<Arc<Standings>> {
        let (entries, votes) = (self.queue.entries(of).await?, self.queue.votes(of).await?);
        let last = votes.last().map_or("", |vote| &vote.id);
        let key = format!("{kind} {of:?} {last}");
        let size = entries.len() + votes.len();
        let kept = || self.boards.0.lock().expect("nothing panics while it is held");
        if let Some((_, board)) = kept().get(&key).filter(|(known, _)| *known == size) {
            return Ok(board.clone());
        }
        let board =
            tokio::task::spawn_blocking(move || Arc::new(standings(entries, &votes, player)));
        let board = board.await.expect("ratings are finite arithmetic");
        let mut all = kept();
        if all.len() >= KEPT_MAX {
            all.clear();
        }
        all.insert(key, (size, board.clone()));
        Ok(board)
    }

    /// Where the catalogue's model `family` stands: its challenges, highest rating first, then their use cases. Boards on which it has
    /// fewer than four votes are left out.
    pub async fn figures(&self, family: &str) -> Result<Vec<Figure>> {
        let (mut figures, mut use_cases) = (Vec::new(), Vec::new());
        for id in self.queue.challenges_of_family(family).await? {
            let Some(challenge) = self.queue.challenge(&id).await? else { continue };
            let board = self.models(Of::Challenge(&id)).await?;
            figures.extend(figure(&board, family, (&id, &challenge.name)));
            if !use_cases.contains(&challenge.use_case) {
                use_cases.push(challenge.use_case);
            }
        }
        figures.sort_by(|one, other| other.figure.rating.total_cmp(&one.figure.rating));
        let mut by_use_case = Vec::new();
        for name in use_cases {
            let board = self.models(Of::UseCase(&name)).await?;
            by_use_case.extend(figure(&board, family, ("", &name)));
        }
        by_use_case.sort_by_key(|figure| figure.figure.rank);
        figures.extend(by_use_case);
        Ok(figures)
    }
}

fn figure(standings: &Standings, family: &str, (challenge, title): (&str, &str)) -> Option<Figure> {
    let Standings { players, board } = standings;
    let row = board.rows.iter().find(|row| players[row.player].family == family)?;
    let enough = |row: &&crate::rating::board::Row| row.record.battles() >= BATTLES_MIN;
    Some(row).filter(enough)?;
    let others = board.rows.iter().filter(enough);
    let rating = row.skill.shown();
    let above = others.clone().filter(|other| other.skill.shown() > rating).count();
    Some(Figure {
        challenge: challenge.into(),
        title: title.into(),
        of: others.count(),
        figure: ArenaFigure {
            rating,
            wins: row.record.wins,
            losses: row.record.losses,
            ties: row.record.ties,
            rank: 1 + above,
        },
    })
}

/// Ratings of `votes`, in their order. The last entry of a player says what it is called.
fn standings(
    entries: Vec<ArenaEntry>,
    votes: &[ArenaVote],
    player: fn(&ArenaEntry) -> &String,
) -> Standings {
    let (mut players, mut numbers) = (Vec::<ArenaEntry>::new(), HashMap::new());
    let mut by_contender = HashMap::new();
    for entry in entries {
        let number = *numbers.entry(player(&entry).clone()).or_insert(players.len());
        by_contender.insert(entry.contender.clone(), number);
        match players.get_mut(number) {
            Some(known) => *known = entry,
            None => players.push(entry),
        }
    }
    let battle = |vote: &ArenaVote| {
        let left = *by_contender.get(&vote.pair.left)?;
        let right = *by_contender.get(&vote.pair.right)?;
        (left != right).then_some(Battle { left, right, verdict: vote.verdict })
    };
    let battles: Vec<Battle> = votes.iter().filter_map(battle).collect();
    let board = Board::of(players.len(), &battles);
    Standings { players, board }
}
