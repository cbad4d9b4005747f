//! The arena's rows, sets to train on, workers and loads.

#![allow(clippy::unwrap_used)]

mod place;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use place::{Place, done, new};
use zoetrope_jobs::{
    ArenaEntry, ArenaMade, ArenaProgress, ArenaState, Attempt, Challenge, ChallengePrompt, FileRow,
    Limits, Of, Pair, Queue, TrainingPicture, TrainingRun, TrainingSet, Verdict, WorkerRow,
};

const START: i64 = 1_800_000_000_000;

struct Room {
    queue: Queue,
    clock: Arc<AtomicI64>,
    place: Place,
}

impl Room {
    async fn new() -> Self {
        let (place, clock) = (Place::new().await, Arc::new(AtomicI64::new(START)));
        let queue = place.open(&clock, Limits::default()).await;
        Self { queue, clock, place }
    }

    fn wait(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    /// A challenge of two prompts with two contenders.
    async fn challenge(&self, id: &str) -> Challenge {
        let challenge = Challenge {
            id: id.into(),
            owner: "local".into(),
            base: "http://127.0.0.1:7860".into(),
            name: "Houses \0".into(),
            use_case: "landscapes".into(),
            width: 192,
            height: 128,
            closed: false,
            created_ms: START,
        };
        let prompts = ["a house", "a '; DROP TABLE votes; -- <b>"].iter().enumerate();
        let prompts: Vec<ChallengePrompt> = prompts
            .map(|(n, prompt)| ChallengePrompt {
                number: n as i64,
                prompt: prompt.to_string(),
                seed: n as i64,
            })
            .collect();
        self.queue.insert_challenge(&challenge, &prompts).await.unwrap();
        let kept = self.queue.challenge(id).await.unwrap().unwrap();
        assert_eq!(kept, Challenge { name: "Houses \u{fffd}".into(), ..challenge });
        assert_eq!(self.queue.challenge_prompts(id).await.unwrap(), prompts);
        for contender in ["aa", "bb"] {
            assert!(self.queue.insert_entry(&entry(id, contender)).await.unwrap());
            assert!(
                !self.queue.insert_entry(&entry(id, contender)).await.unwrap(),
                "it takes part"
            );
        }
        kept
    }

    async fn pair(
        &self,
        id: &str,
        challenge: &str,
        (left, right): (&str, &str),
        voter: &str,
    ) -> Pair {
        let pair = Pair {
            id: id.into(),
            challenge: challenge.into(),
            prompt: 0,
            left: left.into(),
            right: right.into(),
            voter: voter.into(),
            shown_ms: START,
        };
        self.queue.insert_pair(&pair).await.unwrap();
        pair
    }
}

fn entry(challenge: &str, contender: &str) -> ArenaEntry {
    ArenaEntry {
        challenge: challenge.into(),
        contender: contender.into(),
        name: format!("name of {contender}"),
        model: "fal-ai/z-image/turbo".into(),
        family: "z-image-turbo".into(),
        settings: r#"{"acceleration":"high"}"#.into(),
    }
}

#[tokio::test]
async fn every_contender_draws_every_prompt_once() {
    let room = Room::new().await;
    room.challenge("c1").await;
    let queue = &room.queue;
    let mut claimed = Vec::new();
    while let Some(picture) = queue.claim_picture(60_000).await.unwrap() {
        assert_eq!(picture.state, ArenaState::Waiting);
        claimed.push(picture);
    }
    let mut names: Vec<_> = claimed.iter().map(|p| (p.prompt, p.contender.as_str())).collect();
    names.sort_unstable();
    assert_eq!(names, [(0, "aa"), (0, "bb"), (1, "aa"), (1, "bb")]);
    // Whoever had them is silent for longer than a lease: all are looked at again.
    room.wait(60_001);
    let again = queue.claim_picture(60_000).await.unwrap().unwrap();
    let made = ArenaMade {
        file: "f/a.png".into(),
        took_ms: 7,
        cost_micros: 5000,
        made_by: "fal/x".into(),
    };
    assert!(queue.picture_made(&again, &made).await.unwrap());
    assert!(!queue.picture_made(&again, &made).await.unwrap(), "it is made once");
    let mut second = queue.claim_picture(60_000).await.unwrap().unwrap();
    second.request = Some("in the queue".into());
    second.tries = 1;
    queue.picture_waits(&second, 5000).await.unwrap();
    let third = queue.claim_picture(60_000).await.unwrap().unwrap();
    queue.picture_failed(&third, "no <model> \0").await.unwrap();
    let progress = queue.arena_progress().await.unwrap()["c1"];
    assert_eq!(progress, ArenaProgress { waiting: 2, made: 1, failed: 1, votes: 0 });
    let all = queue.arena_pictures("c1").await.unwrap();
    let failed = all.iter().find(|p| p.state == ArenaState::Failed).unwrap();
    assert_eq!(failed.error.as_deref(), Some("no <model> \u{fffd}"));
    assert_eq!(queue.try_pictures_again("c1").await.unwrap(), 1);
    room.wait(5001);
    let mut seen = Vec::new();
    while let Some(picture) = queue.claim_picture(60_000).await.unwrap() {
        seen.push(picture.request);
    }
    seen.sort();
    assert_eq!(seen, [None, None, Some("in the queue".into())]);
}

#[tokio::test]
async fn a_person_has_one_vote_on_a_pair_whichever_side_was_which() {
    let room = Room::new().await;
    room.challenge("c1").await;
    let queue = &room.queue;
    let pair = room.pair("p1", "c1", ("bb", "aa"), "k1").await;
    assert_eq!(queue.pair("p1").await.unwrap().as_ref(), Some(&pair));
    assert_eq!(queue.open_pair("k1", "c1", START).await.unwrap().as_ref(), Some(&pair));
    assert_eq!(queue.open_pair("k1", "c1", START + 1).await.unwrap(), None, "it was shown before");
    assert_eq!(queue.open_pair("k2", "c1", START).await.unwrap(), None);
    assert!(queue.insert_vote(&pair, Verdict::Right).await.unwrap());
    assert!(!queue.insert_vote(&pair, Verdict::Left).await.unwrap(), "a second time");
    let turned = room.pair("p2", "c1", ("aa", "bb"), "k1").await;
    assert!(!queue.insert_vote(&turned, Verdict::Right).await.unwrap(), "the same two pictures");
    let other = room.pair("p3", "c1", ("aa", "bb"), "k2").await;
    assert!(queue.insert_vote(&other, Verdict::BothBad).await.unwrap(), "another person");
    let votes = queue.votes(Of::Challenge("c1")).await.unwrap();
    let said: Vec<_> = votes.iter().map(|v| (v.pair.id.as_str(), v.verdict)).collect();
    assert_eq!(said, [("p1", Verdict::Right), ("p3", Verdict::BothBad)]);
    assert_eq!(queue.votes(Of::UseCase("landscapes")).await.unwrap(), votes);
    assert_eq!(queue.vote("p1").await.unwrap().as_ref(), Some(&votes[0]));
    assert_eq!(queue.vote("p2").await.unwrap(), None);
    assert_eq!(queue.open_pair("k1", "c1", START).await.unwrap().unwrap().id, "p2");
}

#[tokio::test]
async fn a_thousand_votes_at_once_of_one_person_count_once() {
    let room = Room::new().await;
    room.challenge("c1").await;
    let pair = room.pair("p1", "c1", ("aa", "bb"), "k1").await;
    let cast = |n: usize| {
        let (queue, pair) = (room.queue.clone(), pair.clone());
        async move { queue.insert_vote(&pair, Verdict::ALL[n % 4]).await.unwrap() }
    };
    let mut all = tokio::task::JoinSet::new();
    (0..50).for_each(|n| drop(all.spawn(cast(n))));
    assert_eq!(all.join_all().await.into_iter().filter(|counted| *counted).count(), 1);
    assert_eq!(room.queue.votes(Of::Challenge("c1")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_challenge_goes_with_its_votes_and_pictures_and_no_other() {
    let room = Room::new().await;
    let queue = &room.queue;
    for (id, file) in [("c1", "f1"), ("c2", "f2")] {
        room.challenge(id).await;
        let row = FileRow {
            name: file.into(),
            owner: "local".into(),
            request: None,
            size: 1,
            created_ms: START,
            expires_ms: None,
        };
        queue.insert_file(&row).await.unwrap();
        let pair = room.pair(id, id, ("aa", "bb"), "k1").await;
        queue.insert_vote(&pair, Verdict::Left).await.unwrap();
    }
    for picture in queue.arena_pictures("c1").await.unwrap() {
        let made = ArenaMade { file: "f1".into(), took_ms: 1, cost_micros: 0, made_by: "x".into() };
        queue.picture_made(&picture, &made).await.unwrap();
    }
    assert_eq!(queue.challenges_of_family("z-image-turbo").await.unwrap(), ["c1", "c2"]);
    queue.close_challenge("c2", true).await.unwrap();
    queue.delete_challenge("c1").await.unwrap();
    assert_eq!(queue.challenge("c1").await.unwrap(), None);
    assert_eq!(queue.entries(Of::Challenge("c1")).await.unwrap(), []);
    assert_eq!(queue.votes(Of::Challenge("c1")).await.unwrap(), []);
    assert_eq!(queue.files_to_delete(10).await.unwrap(), ["f1"]);
    let left: Vec<_> =
        queue.challenges("", "", 10).await.unwrap().into_iter().map(|c| (c.id, c.closed)).collect();
    assert_eq!(left, [("c2".to_string(), true)]);
    assert_eq!(queue.votes(Of::UseCase("landscapes")).await.unwrap().len(), 1);
    assert_eq!(queue.use_cases().await.unwrap(), [("landscapes".to_string(), 1)]);
}

#[tokio::test]
async fn a_set_is_its_owner_s_and_goes_with_its_files() {
    let room = Room::new().await;
    let queue = &room.queue;
    let id = "01890000-0000-7000-8000-000000000001";
    let set =
        TrainingSet { id: id.into(), owner: "k1".into(), name: "Ink".into(), created_ms: START };
    queue.insert_training_set(&set).await.unwrap();
    let mut pictures = Vec::new();
    for n in 0..3 {
        let picture = TrainingPicture {
            id: format!("01890000-0000-7000-8000-00000000001{n}"),
            file: format!("file{n}"),
            name: format!("{n}.png"),
            caption: String::new(),
            width: 64,
            height: 48,
            bytes: 100,
        };
        let row = FileRow {
            name: picture.file.clone(),
            owner: "k1".into(),
            request: None,
            size: 100,
            created_ms: START,
            expires_ms: None,
        };
        queue.insert_file(&row).await.unwrap();
        queue.insert_training_picture(id, &picture).await.unwrap();
        pictures.push(picture);
    }
    assert!(queue.caption_training_picture(id, &pictures[1].id, "墨 'ink'").await.unwrap());
    assert!(!queue.caption_training_picture(id, "nonsense", "x").await.unwrap());
    pictures[1].caption = "墨 'ink'".into();
    assert_eq!(queue.training_pictures(id).await.unwrap(), pictures);
    assert!(queue.delete_training_picture(id, &pictures[0].id).await.unwrap());
    assert_eq!(queue.files_to_delete(9).await.unwrap(), ["file0"]);
    queue.rename_training_set(id, "Tusche").await.unwrap();
    let named = TrainingSet { name: "Tusche".into(), ..set };
    assert_eq!(queue.training_sets("k1").await.unwrap(), [(named.clone(), 2)]);
    assert_eq!(queue.training_sets("").await.unwrap(), [(named, 2)]);
    assert_eq!(queue.training_sets("k2").await.unwrap(), []);
    let request = queue.submit(new()).await.unwrap();
    let run = TrainingRun {
        request: request.clone(),
        set: id.into(),
        owner: "k1".into(),
        name: "ink".into(),
        created_ms: START,
    };
    queue.insert_training_run(&run).await.unwrap();
    assert_eq!(queue.training_run(&request).await.unwrap().as_ref(), Some(&run));
    assert_eq!(queue.training_runs("k1", 10).await.unwrap(), [run]);
    queue.claim().await.unwrap().unwrap().finish(Attempt::End(done())).await.unwrap();
    queue.delete(&request).await.unwrap();
    assert_eq!(queue.training_runs("", 10).await.unwrap(), [], "its request is forgotten");
    queue.delete_training_set(id).await.unwrap();
    assert_eq!(queue.training_set(id).await.unwrap(), None);
    assert_eq!(queue.files_to_delete(9).await.unwrap().len(), 3);
}

#[tokio::test]
async fn workers_are_there_while_they_speak_and_loads_are_kept_by_the_minute() {
    let room = Room::new().await;
    let queue = &room.queue;
    let mut worker = WorkerRow {
        id: "w1".into(),
        host: "here".into(),
        since_ms: START,
        seen_ms: START,
        request: None,
        memory_bytes: 1000,
        memory_bytes_all: 4000,
    };
    queue.worker_seen(&worker).await.unwrap();
    queue
        .worker_seen(&WorkerRow { id: "w2".into(), memory_bytes: 500, ..worker.clone() })
        .await
        .unwrap();
    queue.submit(new()).await.unwrap();
    queue.sample_load().await.unwrap();
    queue.sample_load().await.unwrap(); // another node, in the same minute
    room.wait(30_000);
    worker.request = Some("r".into());
    queue.worker_seen(&worker).await.unwrap();
    room.wait(30_000);
    let there = queue.workers().await.unwrap();
    assert_eq!(there, [WorkerRow { seen_ms: START + 30_000, ..worker }], "the other is silent");
    queue.claim().await.unwrap().unwrap();
    queue.sample_load().await.unwrap();
    let minutes = queue.loads(START, START + 120_000, 60_000).await.unwrap();
    let said: Vec<_> = minutes
        .iter()
        .map(|l| (l.at_ms - START, l.queued, l.running, l.workers, l.memory_bytes))
        .collect();
    assert_eq!(said, [(0, 1, 0, 2, 1500), (60_000, 0, 1, 1, 1000)]);
    let hour = queue.loads(START, START + 120_000, 3_600_000).await.unwrap();
    assert_eq!(hour.len(), 1);
    assert_eq!((hour[0].queued, hour[0].running, hour[0].workers), (1, 1, 2));
    queue.worker_gone("w1").await.unwrap();
    assert_eq!(queue.workers().await.unwrap(), []);
    let _ = &room.place;
}
