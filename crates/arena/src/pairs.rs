//! Blind pairs: which one is shown next, on which sides, and what becomes of a vote.

use std::collections::{HashMap, HashSet};

use zoetrope_jobs::{ArenaState, ArenaVote, Challenge, Of, Pair, Verdict};

use crate::rating::Battle;
use crate::rating::chance::Chance;
use crate::rating::strength::{Points, VIRTUAL_TIES, sigmoid};
use crate::{Arena, Error, Result, random};

/// A pair as it is looked at: nothing in it says who drew what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// By which a vote is told.
    pub pair: String,
    /// What was to be drawn.
    pub prompt: String,
    /// The left picture's name in the store.
    pub left: String,
    /// The right one's.
    pub right: String,
    /// Pairs of this challenge that this person has not voted on, this one among them.
    pub left_over: usize,
}

/// What there is to be voted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This.
    Pair(Shown),
    /// This person has voted on everything that is there.
    Done,
    /// No prompt has two pictures yet.
    NotReady,
}

/// How long a pair stays the one that is shown when the page is loaded again: so nobody draws the sides anew until they please.
const SHOWN_MS: i64 = 3_600_000;

/// A pair that could be shown.
struct Candidate {
    prompt: i64,
    one: String,
    other: String,
}

impl Arena {
    /// What `voter` may vote on next in `challenge`.
    pub async fn next(&self, challenge: &Challenge, voter: &str) -> Result<Next> {
        let mut files = HashMap::new();
        let mut by_prompt: HashMap<i64, Vec<String>> = HashMap::new();
        for picture in self.queue.arena_pictures(&challenge.id).await? {
            if let (ArenaState::Made, Some(file)) = (picture.state, picture.file) {
                by_prompt.entry(picture.prompt).or_default().push(picture.contender.clone());
                files.insert((picture.prompt, picture.contender), file);
            }
        }
        let votes = self.queue.votes(Of::Challenge(&challenge.id)).await?;
        let voted: HashSet<(i64, &str, &str)> = votes
            .iter()
            .filter(|vote| vote.pair.voter == voter)
            .map(|vote| named(&vote.pair))
            .collect();
        let (mut candidates, mut any) = (Vec::new(), false);
        let mut numbers: Vec<&i64> = by_prompt.keys().collect();
        numbers.sort();
        for number in numbers {
            let contenders = &by_prompt[number];
            for (at, one) in contenders.iter().enumerate() {
                for other in &contenders[at + 1..] {
                    any = true;
                    let (first, second) = in_order(one, other);
                    if !voted.contains(&(*number, first, second)) {
                        candidates.push(Candidate {
                            prompt: *number,
                            one: one.clone(),
                            other: other.clone(),
                        });
                    }
                }
            }
        }
        if candidates.is_empty() {
            return Ok(if any { Next::Done } else { Next::NotReady });
        }
        let open = self.queue.open_pair(voter, &challenge.id, self.now_ms() - SHOWN_MS).await?;
        let open = open.filter(|pair| {
            let (number, first, second) = named(pair);
            let same = |one: &Candidate| {
                one.prompt == number && in_order(&one.one, &one.other) == (first, second)
            };
            candidates.iter().any(same)
        });
        let pair = match open {
            Some(pair) => pair,
            None => {
                let mut chance = Chance::new(random());
                let Candidate { prompt, one, other } = chosen(&candidates, &votes, &mut chance);
                let turned = chance.below(2) == 1;
                let (left, right) = if turned { (other, one) } else { (one, other) };
                let pair = Pair {
                    id: format!("{:016x}{:016x}", random(), random()),
                    challenge: challenge.id.clone(),
                    prompt: *prompt,
                    left: left.clone(),
                    right: right.clone(),
                    voter: voter.into(),
                    shown_ms: self.now_ms(),
                };
                self.queue.insert_pair(&pair).await?;
                pair
            }
        };
        let prompts = self.queue.challenge_prompts(&challenge.id).await?;
        let prompt = prompts.into_iter().find(|prompt| prompt.number == pair.prompt);
        let file = |contender: &String| files[&(pair.prompt, contender.clone())].clone();
        Ok(Next::Pair(Shown {
            prompt: prompt.map(|prompt| prompt.prompt).unwrap_or_default(),
            left: file(&pair.left),
            right: file(&pair.right),
            left_over: candidates.len(),
            pair: pair.id,
        }))
    }

    /// Writes down what `voter` says of the pair called `id`. A second time changes nothing, and neither does another pair of the same
    /// two pictures: then it is `false`.
    pub async fn cast(&self, id: &str, voter: &str, verdict: Verdict) -> Result<(Pair, bool)> {
        let pair = self.queue.pair(id).await?.filter(|pair| pair.voter == voter);
        let pair = pair
            .ok_or(Error::NotFound("There is no such pair, or it was shown to somebody else."))?;
        let challenge = self.challenge(&pair.challenge).await?;
        if challenge.closed {
            return Err(Error::Refused("This challenge is closed; votes are taken no more."));
        }
        let counted = self.queue.insert_vote(&pair, verdict).await?;
        Ok((pair, counted))
    }

    /// What `voter` said of the pair called `id`, once it was said; only then names may be told.
    pub async fn said(&self, id: &str, voter: &str) -> Result<Option<ArenaVote>> {
        Ok(self.queue.vote(id).await?.filter(|vote| vote.pair.voter == voter))
    }
}

/// Two contenders in the order of their ids.
fn in_order<'a>(one: &'a str, other: &'a str) -> (&'a str, &'a str) {
    if one <= other { (one, other) } else { (other, one) }
}

/// Which two pictures a pair is, whichever side was which.
fn named(pair: &Pair) -> (i64, &str, &str) {
    let (first, second) = in_order(&pair.left, &pair.right);
    (pair.prompt, first, second)
}

/// One of `candidates` by chance. The weight of each is what a vote on it is expected to tell: p(1 − p) is Fisher's information of one
/// vote between two whose odds are p, and each vote that is there already leaves less to learn.
fn chosen<'a>(
    candidates: &'a [Candidate],
    votes: &[ArenaVote],
    chance: &mut Chance,
) -> &'a Candidate {
    let mut players: HashMap<&str, usize> = HashMap::new();
    for Candidate { one, other, .. } in candidates {
        for name in [one, other] {
            let next = players.len();
            players.entry(name).or_insert(next);
        }
    }
    let (mut met, mut battles) = (HashMap::<(usize, usize), u64>::new(), Vec::new());
    for vote in votes {
        let place = |name: &String| players.get(name.as_str()).copied();
        if let (Some(left), Some(right)) = (place(&vote.pair.left), place(&vote.pair.right)) {
            *met.entry((left.min(right), left.max(right))).or_default() += 1;
            battles.push(Battle { left, right, verdict: vote.verdict });
        }
    }
    let fit = Points::of(players.len(), &battles).fit(VIRTUAL_TIES);
    let strengths = fit.unwrap_or_else(|| vec![0.0; players.len()]);
    let weight = |candidate: &Candidate| {
        let (one, other) = (players[candidate.one.as_str()], players[candidate.other.as_str()]);
        let p = sigmoid(strengths[one] - strengths[other]);
        let before = met.get(&(one.min(other), one.max(other))).copied().unwrap_or(0);
        p * (1.0 - p) / (1.0 + before as f64)
    };
    let weights: Vec<f64> = candidates.iter().map(weight).collect();
    let mut place = chance.share() * weights.iter().sum::<f64>();
    for (candidate, weight) in candidates.iter().zip(weights) {
        if place < weight {
            return candidate;
        }
        place -= weight;
    }
    &candidates[candidates.len() - 1] // rounding left a last bit
}
