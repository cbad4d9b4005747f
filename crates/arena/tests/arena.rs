//! From a challenge to its board, with the real queue, store and gateway; the test plays the worker.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zoetrope_api::task::Generate;
use zoetrope_arena::pairs::{Next, Shown};
use zoetrope_arena::rating::board::Board;
use zoetrope_arena::rating::{Battle, Verdict};
use zoetrope_arena::{Arena, Contender, Draft, Error, drawing};
use zoetrope_files::fetch::{Fetcher, Rules};
use zoetrope_files::{Limits, Name, Picture, Store};
use zoetrope_gateway::caller::Caller;
use zoetrope_gateway::catalogue::Catalogue;
use zoetrope_gateway::{Gateway, House};
use zoetrope_jobs::{Attempt, Challenge, End, KeyLimits, Lease, Of, Outcome, Queue};

const TURBO: &str = "fal-ai/z-image/turbo";

struct Room {
    queue: Queue,
    store: Store,
    gateway: Gateway,
    clock: Arc<AtomicI64>,
    arena: Arena,
    _folder: TempDir,
}

impl Room {
    async fn new() -> Self {
        Self::of(Catalogue::standard()).await
    }

    async fn of(catalogue: Catalogue) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(1_800_000_000_000));
        let known = clock.clone();
        let now_ms: zoetrope_jobs::Clock = Arc::new(move || known.load(Ordering::Relaxed));
        let url = format!("sqlite://{}?mode=rwc", folder.path().join("queue.db").display());
        let limits = zoetrope_jobs::Limits::default();
        let settings = zoetrope_jobs::Settings { url, limits, now_ms: now_ms.clone() };
        let queue = Queue::open(settings).await.unwrap();
        let store = Store::open(folder.path().join("files").to_str().unwrap(), &[]).unwrap();
        let chance = AtomicU64::new(1);
        let house = House {
            queue: queue.clone(),
            store: store.clone(),
            fetcher: Fetcher::new(Rules::default()).unwrap(),
            now_ms: now_ms.clone(),
            chance: Arc::new(move || chance.fetch_add(1, Ordering::Relaxed)),
            keep_ms: 3_600_000,
            roots: Vec::new(),
        };
        let gateway = Gateway::new(house, catalogue).unwrap();
        let arena = Arena::new(queue.clone(), store.clone(), gateway.clone(), now_ms);
        Self { queue, store, gateway, clock, arena, _folder: folder }
    }

    async fn challenge(&self, prompts: &str) -> Challenge {
        let draft = Draft {
            name: "Houses".into(),
            use_case: "Landscapes".into(),
            prompts: prompts.into(),
            width: 64,
            height: 96,
            seed: 7,
        };
        self.arena.create(&draft, &caller()).await.unwrap()
    }

    async fn enter(
        &self,
        challenge: &Challenge,
        name: &str,
        model: &str,
        settings: Value,
    ) -> String {
        let contender = self.contender(name, model, settings).await.unwrap();
        assert!(self.arena.enter(challenge, &contender).await.unwrap());
        contender.id()
    }

    async fn contender(
        &self,
        name: &str,
        model: &str,
        settings: Value,
    ) -> Result<Contender, Error> {
        let Value::Object(settings) = settings else { panic!("settings are an object") };
        Contender::check(name, model, settings, (&self.gateway, &caller())).await
    }

    /// Draws until everything is there.
    async fn drawn(&self, challenge: &Challenge) {
        let (stop, stopped) = watch::channel(false);
        let drawing = tokio::spawn(drawing::draw(self.arena.clone(), stopped));
        for _ in 0..600 {
            let progress = self.queue.arena_progress().await.unwrap()[&challenge.id];
            if progress.waiting == 0 {
                stop.send(true).unwrap();
                return drawing.await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.clock.fetch_add(50, Ordering::Relaxed);
        }
        panic!("{:?}", self.queue.arena_pictures(&challenge.id).await.unwrap());
    }

    async fn pair(&self, challenge: &Challenge, voter: &str) -> Shown {
        match self.arena.next(challenge, voter).await.unwrap() {
            Next::Pair(shown) => shown,
            other => panic!("{other:?}"),
        }
    }

    /// The first byte of the picture called `file`, which says who drew it.
    async fn colour(&self, file: &str) -> u8 {
        let bytes = self.store.read(&Name::parse(file).unwrap(), 1 << 20).await.unwrap().unwrap();
        let decoded = zoetrope_files::decode(&bytes, &Limits::default()).unwrap();
        assert_eq!((decoded.picture.width, decoded.picture.height), (64, 96));
        assert!(zoetrope_files::read_parameters(&bytes).is_none(), "nothing but pixels");
        decoded.picture.rgb[0]
    }
}

fn caller() -> Caller {
    Caller {
        owner: "local".into(),
        concurrency_max: 8,
        base: "http://127.0.0.1:7860".into(),
        trace: None,
        limits: KeyLimits::default(),
    }
}

/// A worker whose pictures are as grey as their steps are many.
struct Painter {
    count: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Painter {
    fn of(room: &Room) -> Self {
        let (queue, count) = (room.queue.clone(), Arc::<AtomicU64>::default());
        let counted = count.clone();
        let task = tokio::spawn(async move {
            loop {
                match queue.claim().await.unwrap() {
                    Some(lease) => {
                        counted.fetch_add(1, Ordering::Relaxed);
                        paint(lease).await;
                    }
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        });
        Self { count, task }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Painter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A picture of one shade in base64, with parameters that nobody may see.
fn grey((width, height): (u32, u32), shade: u8) -> String {
    let picture = Picture { width, height, rgb: vec![shade; (3 * width * height) as usize] };
    let format = zoetrope_files::Format::Png;
    STANDARD.encode(zoetrope_files::encode(&picture, format, Some("secret")).unwrap())
}

/// A server of OpenAI's Images API whose pictures are of shade 200; where it is.
async fn hosted() -> String {
    let make = async |Json(body): Json<Value>| {
        let (width, height) = body["size"].as_str().unwrap().split_once('x').unwrap();
        let size = (width.parse().unwrap(), height.parse().unwrap());
        Json(json!({"created": 1, "data": [{"b64_json": grey(size, 200)}]}))
    };
    let router = axum::Router::new().route("/v1/images/generations", axum::routing::post(make));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/v1")
}

async fn paint(lease: Lease) {
    let task: Generate = serde_json::from_str(&lease.request.task).unwrap();
    let zoetrope_api::task::Size::Pixels { width, height } = task.size else { panic!("{task:?}") };
    let end = if task.prompt.contains("forbidden") {
        let detail = json!({"detail": [{"loc": ["body", "prompt"], "msg": "not this", "type": "content_policy_violation"}]});
        End {
            outcome: Outcome::Failed,
            status_code: 422,
            response: detail.to_string(),
            error: Some("not this".into()),
            error_type: None,
            inference_ms: None,
            billable_units: None,
            flagged: None,
        }
    } else {
        // An adapter's scale shows as well.
        let shade =
            task.steps as u8 + task.loras.iter().map(|lora| (100.0 * lora.scale) as u8).sum::<u8>();
        let url = format!("data:image/png;base64,{}", grey((width, height), shade));
        let response = json!({
            "images": [{"url": url, "width": width, "height": height}], "seed": task.seed, "prompt": task.prompt,
        });
        End {
            outcome: Outcome::Completed,
            status_code: 200,
            response: response.to_string(),
            error: None,
            error_type: None,
            inference_ms: Some(10),
            billable_units: Some(0.1),
            flagged: None,
        }
    };
    lease.finish(Attempt::End(end)).await.unwrap();
}

#[tokio::test]
async fn a_challenge_goes_from_prompts_to_a_board() {
    let room = Room::new().await;
    let challenge = room.challenge("a house\n\n  a boat  \n").await;
    assert_eq!(challenge.use_case, "landscapes");
    let many = room.enter(&challenge, "8 steps", TURBO, json!({"num_inference_steps": 8})).await;
    let few =
        room.enter(&challenge, "", "local/z-image-turbo", json!({"num_inference_steps": 4})).await;
    let painter = Painter::of(&room);
    assert_eq!(room.arena.next(&challenge, "me").await.unwrap(), Next::NotReady);
    room.drawn(&challenge).await;
    assert_eq!(painter.count(), 4);
    let (mut left_is_many, mut battles) = (Vec::new(), Vec::new());
    for voter in ["me", "you"] {
        for prompt in ["a house", "a boat"] {
            let pair = room.pair(&challenge, voter).await;
            assert_eq!(
                room.pair(&challenge, voter).await,
                pair,
                "loading it again changes no side"
            );
            assert!(["a house", "a boat"].contains(&pair.prompt.as_str()), "{prompt}");
            for name in [&many, &few] {
                assert!(!format!("{pair:?}").contains(name.as_str()), "names are hidden");
            }
            let left = room.colour(&pair.left).await;
            assert_eq!(left + room.colour(&pair.right).await, 12, "8 steps and 4");
            left_is_many.push(left == 8);
            assert!(room.arena.said(&pair.pair, voter).await.unwrap().is_none());
            let verdict = if left == 8 { Verdict::Left } else { Verdict::Right };
            assert!(matches!(
                room.arena.cast(&pair.pair, "nobody", verdict).await,
                Err(Error::NotFound(_))
            ));
            let (_, counted) = room.arena.cast(&pair.pair, voter, verdict).await.unwrap();
            assert!(counted);
            let (_, counted) = room.arena.cast(&pair.pair, voter, Verdict::Tie).await.unwrap();
            assert!(!counted, "a second time");
            let said = room.arena.said(&pair.pair, voter).await.unwrap().unwrap();
            assert_eq!(said.verdict, verdict);
            let (left, right) = if left == 8 { (0, 1) } else { (1, 0) };
            battles.push(Battle { left, right, verdict });
        }
        assert_eq!(room.arena.next(&challenge, voter).await.unwrap(), Next::Done);
    }
    let standings = room.arena.standings(Of::Challenge(&challenge.id)).await.unwrap();
    let best = &standings.board.rows[0];
    assert_eq!(standings.players[best.player].contender, many);
    assert_eq!((best.record.wins, best.record.losses, best.rank), (4, 0, 1));
    // In whichever order the contenders stand, the board is that of the same battles.
    let own = Board::of(2, &battles);
    assert_eq!(own.rows[0].rating, best.rating);
    assert_eq!(own.rows[0].interval, best.interval);
    let by_use_case = room.arena.standings(Of::UseCase("landscapes")).await.unwrap();
    assert_eq!(by_use_case.board, standings.board);
    // Both are one model, and a vote between them says nothing of it.
    let models = room.arena.models(Of::Challenge(&challenge.id)).await.unwrap();
    assert_eq!((models.players.len(), models.board.battles), (1, 0));
    assert_eq!(room.arena.figures("z-image-turbo").await.unwrap(), []);
}

#[tokio::test]
async fn an_adapter_and_a_hosted_provider_are_contenders_too() {
    let text = format!(
        r#"
        [providers]
        hosted = {{ protocol = "openai", url = "{}", key = "k" }}
        [models.m]
        deployments = [{{ provider = "hosted" }}]
        "#,
        hosted().await
    );
    let room = Room::of(Catalogue::read(&text.parse().unwrap(), &|_| None).unwrap()).await;
    let challenge = room.challenge("a house").await;
    let loras = json!([{"path": "https://example.com/ink.safetensors", "scale": 0.5}]);
    let settings = json!({"num_inference_steps": 8, "loras": loras});
    let adapted = room.enter(&challenge, "ink", "fal-ai/z-image/turbo/lora", settings).await;
    let elsewhere = room.enter(&challenge, "elsewhere", "hosted/m", json!({})).await;
    let painter = Painter::of(&room);
    room.drawn(&challenge).await;
    assert_eq!(painter.count(), 1, "the other is drawn by the provider");
    let pair = room.pair(&challenge, "me").await;
    let left_is_adapted = match (room.colour(&pair.left).await, room.colour(&pair.right).await) {
        (58, 200) => true,
        (200, 58) => false,
        shades => panic!("{shades:?}"),
    };
    let verdict = if left_is_adapted { Verdict::Left } else { Verdict::Right };
    room.arena.cast(&pair.pair, "me", verdict).await.unwrap();
    let standings = room.arena.standings(Of::Challenge(&challenge.id)).await.unwrap();
    let order =
        standings.board.rows.iter().map(|row| standings.players[row.player].contender.as_str());
    assert_eq!(order.collect::<Vec<_>>(), [&adapted, &elsewhere]);
}

#[tokio::test]
async fn two_models_have_figures_on_the_challenge_and_its_use_case() {
    let room = Room::new().await;
    let challenge = room.challenge("a house\na boat\na tree\nthe sea").await;
    room.enter(&challenge, "turbo", "z-image-turbo", json!({})).await;
    room.enter(&challenge, "base", "fal-ai/z-image/base", json!({"num_inference_steps": 28})).await;
    let _painter = Painter::of(&room);
    room.drawn(&challenge).await;
    while let Next::Pair(pair) = room.arena.next(&challenge, "me").await.unwrap() {
        let left_is_base = room.colour(&pair.left).await == 28;
        let verdict = if left_is_base { Verdict::Right } else { Verdict::Left };
        room.arena.cast(&pair.pair, "me", verdict).await.unwrap();
    }
    let figures = room.arena.figures("z-image-turbo").await.unwrap();
    let said: Vec<_> = figures
        .iter()
        .map(|f| (f.title.as_str(), f.figure.wins, f.figure.losses, f.figure.rank, f.of))
        .collect();
    assert_eq!(said, [("Houses", 4, 0, 1, 2), ("landscapes", 4, 0, 1, 2)]);
    assert_eq!(room.arena.figures("z-image").await.unwrap()[0].figure.rank, 2);
    assert!(figures[0].figure.rating > 1100.0, "{figures:?}");
}

#[tokio::test]
async fn what_was_in_the_queue_when_a_server_died_is_not_drawn_twice() {
    let room = Room::new().await;
    let challenge = room.challenge("a house\na boat").await;
    room.enter(&challenge, "8 steps", TURBO, json!({})).await;
    let (_stop, stopped) = watch::channel(false);
    let first = tokio::spawn(drawing::draw(room.arena.clone(), stopped));
    while room.queue.queued().await.unwrap() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // As `kill -9` ends it: nothing is handed back. What it had begun goes with its runtime's tasks.
    first.abort();
    let _ = first.await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    room.clock.fetch_add(61_000, Ordering::Relaxed);
    let painter = Painter::of(&room);
    room.drawn(&challenge).await;
    assert_eq!(painter.count(), 2);
    let all = room.queue.arena_pictures(&challenge.id).await.unwrap();
    assert!(all.iter().all(|picture| picture.file.is_some() && picture.tries == 0), "{all:?}");
}

#[tokio::test]
async fn a_refusal_is_final_and_told_and_the_others_are_drawn() {
    let room = Room::new().await;
    let challenge = room.challenge("a house\nsomething forbidden").await;
    room.enter(&challenge, "one", TURBO, json!({})).await;
    room.enter(&challenge, "other", "local/z-image-turbo", json!({})).await;
    let painter = Painter::of(&room);
    room.drawn(&challenge).await;
    assert_eq!(painter.count(), 4, "nobody asks twice for what was refused");
    let progress = room.queue.arena_progress().await.unwrap()[&challenge.id];
    assert_eq!((progress.made, progress.failed), (2, 2));
    let all = room.queue.arena_pictures(&challenge.id).await.unwrap();
    let errors: Vec<_> = all.iter().filter_map(|picture| picture.error.as_deref()).collect();
    assert!(
        errors.len() == 2 && errors.iter().all(|error| error.contains("not this")),
        "{errors:?}"
    );
    // The prompt that both drew can be voted on.
    assert_eq!(room.pair(&challenge, "me").await.prompt, "a house");
}

#[tokio::test]
async fn settings_that_nobody_could_draw_with_are_told_by_their_names() {
    let room = Room::new().await;
    let cases = [
        ("nothing", json!({}), "model"),
        ("fal-ai/z-image/turbo/image-to-image", json!({}), "model"),
        ("fal-ai/z-image-trainer", json!({}), "model"),
        (TURBO, json!({"num_inference_steps": 0}), "settings.num_inference_steps"),
        (TURBO, json!({"acceleration": "warp"}), "settings.acceleration"),
        (TURBO, json!({"seed": 1}), "settings.seed"),
        (TURBO, json!({"num_images": 4}), "settings.num_images"),
        ("z-image-turbo", json!({"cfg_scale": "much"}), "settings.cfg_scale"),
        ("z-image-turbo", json!({"loras": []}), "settings.loras"),
        ("z-image-turbo", json!({"negative_prompt": "fog"}), "settings.negative_prompt"),
    ];
    for (model, settings, field) in cases {
        match room.contender("x", model, settings.clone()).await {
            Err(Error::Wrong(wrong)) => {
                assert!(
                    wrong.iter().any(|each| each.field == field),
                    "{model} {settings}: {wrong:?}"
                )
            }
            other => panic!("{model} {settings}: {other:?}"),
        }
    }
    let challenge = room.challenge("a house").await;
    let contender = room.contender("same", TURBO, json!({"acceleration": "high"})).await.unwrap();
    assert!(room.arena.enter(&challenge, &contender).await.unwrap());
    assert!(!room.arena.enter(&challenge, &contender).await.unwrap(), "the same takes part once");
    let named = room.contender("same", TURBO, json!({"acceleration": "none"})).await.unwrap();
    assert!(
        matches!(room.arena.enter(&challenge, &named).await, Err(Error::Wrong(_))),
        "its name is taken"
    );
    let unnamed = room.contender(" ", TURBO, json!({"acceleration": "none"})).await.unwrap();
    assert_eq!(unnamed.name, "fal-ai/z-image/turbo, acceleration none");
}

#[tokio::test]
async fn a_draft_that_cannot_be_used_names_every_field() {
    let room = Room::new().await;
    let draft = Draft { prompts: " \n ".into(), width: 63, height: 100, ..Draft::default() };
    let Err(Error::Wrong(wrong)) = room.arena.create(&draft, &caller()).await else { panic!() };
    let fields: Vec<_> = wrong.iter().map(|each| each.field.as_str()).collect();
    assert_eq!(fields, ["name", "use_case", "prompts", "width", "height"]);
    let good = Draft { name: "n".into(), use_case: "u".into(), width: 64, height: 64, ..draft };
    let many = Draft { prompts: "a house\n".repeat(201), ..good.clone() };
    assert!(matches!(room.arena.create(&many, &caller()).await, Err(Error::Wrong(_))));
    let long = Draft { prompts: "x".repeat(4001), ..good };
    assert!(matches!(room.arena.create(&long, &caller()).await, Err(Error::Wrong(_))));
}

#[tokio::test]
async fn sides_are_chosen_by_chance_and_a_closed_challenge_takes_no_votes() {
    let room = Room::new().await;
    let prompts: Vec<String> = (0..100).map(|n| format!("house {n}")).collect();
    let challenge = room.challenge(&prompts.join("\n")).await;
    for steps in [4, 8] {
        room.enter(
            &challenge,
            &format!("{steps} steps"),
            TURBO,
            json!({"num_inference_steps": steps}),
        )
        .await;
    }
    let _painter = Painter::of(&room);
    room.drawn(&challenge).await;
    let mut left = 0;
    while let Next::Pair(pair) = room.arena.next(&challenge, "me").await.unwrap() {
        left += u32::from(room.colour(&pair.left).await == 8);
        room.arena.cast(&pair.pair, "me", Verdict::Left).await.unwrap();
    }
    // Five standard deviations of a fair coin's hundred throws.
    assert!((25..=75).contains(&left), "{left} of 100 on the left");
    let standings = room.arena.standings(Of::Challenge(&challenge.id)).await.unwrap();
    assert_eq!((standings.board.bias.left, standings.board.bias.right), (100, 0));
    assert!(standings.board.bias.is_told(), "somebody who always says left");
    let pair = {
        room.queue.close_challenge(&challenge.id, true).await.unwrap();
        room.queue.votes(Of::Challenge(&challenge.id)).await.unwrap().remove(0).pair
    };
    assert!(matches!(room.arena.cast(&pair.id, "me", Verdict::Tie).await, Err(Error::Refused(_))));
}

#[tokio::test]
async fn ratings_can_be_computed_again_from_the_exported_votes() {
    let room = Room::new().await;
    let challenge = room.challenge("a house\na boat\na tree").await;
    let names: Vec<String> = vec![
        room.enter(&challenge, "=HYPERLINK(1)", TURBO, json!({"num_inference_steps": 2})).await,
        room.enter(&challenge, "eight, \"quoted\"", TURBO, json!({"num_inference_steps": 8})).await,
    ];
    let _painter = Painter::of(&room);
    room.drawn(&challenge).await;
    for voter in ["me", "you"] {
        let mut verdicts = Verdict::ALL.into_iter().cycle();
        while let Next::Pair(pair) = room.arena.next(&challenge, voter).await.unwrap() {
            room.arena.cast(&pair.pair, voter, verdicts.next().unwrap()).await.unwrap();
        }
    }
    let standings = room.arena.standings(Of::Challenge(&challenge.id)).await.unwrap();
    let export = room.arena.export(Of::Challenge(&challenge.id)).await.unwrap();
    let all = export.json();
    let order: Map<String, Value> = standings
        .players
        .iter()
        .enumerate()
        .map(|(n, player)| (player.contender.clone(), json!(n)))
        .collect();
    let player = |value: &Value| order[value.as_str().unwrap()].as_u64().unwrap() as usize;
    let votes = all["votes"].as_array().unwrap();
    let battles: Vec<Battle> = votes
        .iter()
        .map(|vote| Battle {
            left: player(&vote["left"]),
            right: player(&vote["right"]),
            verdict: Verdict::named(vote["verdict"].as_str().unwrap()).unwrap(),
        })
        .collect();
    assert_eq!(Board::of(2, &battles), standings.board);
    let mut voters: Vec<&str> = votes.iter().map(|vote| vote["voter"].as_str().unwrap()).collect();
    voters.sort_unstable();
    voters.dedup();
    assert_eq!(voters.len(), 2);
    assert!(!voters.contains(&"me"));
    let again = room.arena.export(Of::Challenge(&challenge.id)).await.unwrap().json();
    assert_ne!(again["votes"][0]["voter"], all["votes"][0]["voter"], "names are new in every file");
    let csv = export.csv();
    let mut table = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(table.headers().unwrap().len(), 12);
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| names.contains(&row[4].to_string())));
    assert!(csv.contains("'=HYPERLINK(1)"), "{csv}");
}
