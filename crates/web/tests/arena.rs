//! The arena's pages without a browser: plain forms, as they work without scripts.

#![allow(clippy::unwrap_used)]

#[path = "../../server/tests/painter/mod.rs"]
mod painter;
#[path = "../../server/tests/room/mod.rs"]
mod room;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use painter::Painter;
use room::{Room, Setup};
use tokio::sync::watch;
use visit::Visit;
use zoetrope_arena::{Arena, drawing};
use zoetrope_jobs::Scope;

const FORM: &str =
    "name=Houses&use_case=landscapes&prompts=a+house%0Aa+boat&width=64&height=64&seed=1";

/// Draws until the challenge `id` has all its pictures.
async fn drawn(room: &Room, id: &str) {
    let clock = room.now.clone();
    let now_ms = Arc::new(move || clock.load(std::sync::atomic::Ordering::Relaxed));
    let arena = Arena::new(room.queue.clone(), room.store.clone(), room.gateway.clone(), now_ms);
    let _painter = Painter::of(room);
    let (stop, stopped) = watch::channel(false);
    let drawing = tokio::spawn(drawing::draw(arena, stopped));
    for _ in 0..600 {
        let progress = room.queue.arena_progress().await.unwrap()[id];
        if progress.waiting == 0 {
            stop.send(true).unwrap();
            return drawing.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        room.later(20);
    }
    panic!("the pictures do not come");
}

/// A challenge made by the form; its path.
async fn made(visit: &Visit<'_>, form: &str) -> String {
    let answer = visit.post("/arena/new", form).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").to_string()
}

#[tokio::test]
async fn a_challenge_is_made_voted_on_and_deleted_by_plain_forms() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let page = visit.get("/arena/new").await;
    assert!(page.contains("Full precision against 8 bits"), "{page}");
    let path = made(&visit, &format!("{FORM}&begin=bits")).await;
    let page = visit.get(&path).await;
    for text in ["full precision", "acceleration high", "Drawing: 0 of 4 pictures", "No vote yet"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    drawn(&room, path.strip_prefix("/arena/").unwrap()).await;
    let refreshed = visit.send("GET", &format!("{path}/progress"), "").await;
    assert_eq!(refreshed.header("hx-refresh"), "true");
    let vote = format!("{path}/vote");
    for left in (1..=2).rev() {
        let page = visit.get(&vote).await;
        assert!(page.contains(&format!("{left} pairs left")), "{page}");
        for name in ["full precision", "8 bits", "acceleration", "z-image"] {
            assert!(!page.contains(name), "the names are hidden: {name}");
        }
        let pair = visit::value(&page, "pair");
        let told = visit.send("GET", &format!("{path}/pairs/{pair}"), "").await;
        assert_eq!(told.status, 404, "nothing is told before the vote");
        let answer = visit.post(&vote, &format!("pair={pair}&verdict=left")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("location")),
            (303, format!("{path}/pairs/{pair}").as_str())
        );
        let page = visit.get(answer.header("location")).await;
        for text in ["full precision", "8 bits", "Left is better"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        let again = visit.post(&vote, &format!("pair={pair}&verdict=right")).await;
        let page = visit.get(again.header("location")).await;
        assert!(
            page.contains("You have voted on these two pictures before")
                && page.contains("Left is better")
        );
    }
    assert!(visit.get(&vote).await.contains("You have voted on every pair"));
    let page = visit.get(&path).await;
    assert!(page.contains("Left was chosen 2 times of 2"), "{page}");
    let csv = visit.send("GET", &format!("{path}/votes.csv"), "").await;
    assert_eq!(csv.text().lines().count(), 3);
    assert!(csv.header("content-disposition").starts_with("attachment"));
    let json = visit.send("GET", &format!("{path}/votes.json"), "").await.json();
    assert_eq!(json["votes"].as_array().unwrap().len(), 2);
    assert_eq!(visit.send("GET", &format!("{path}/votes.xml"), "").await.status, 404);
    let page = visit.get("/arena/use-cases/landscapes").await;
    assert!(page.contains("full precision") && page.contains("Houses"), "{page}");
    visit.post(&format!("{path}/close"), "closed=true").await;
    assert_eq!(visit.send("GET", &vote, "").await.status, 409);
    visit.post(&format!("{path}/delete"), "").await;
    assert_eq!(visit.send("GET", &path, "").await.status, 404);
    assert!(visit.get("/arena").await.contains("No challenge yet"));
}

#[tokio::test]
async fn what_is_wrong_stands_at_its_field_and_what_was_typed_stays() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let answer = visit
        .post("/arena/new", "name=&use_case=u&prompts=a+house&width=65&height=x&seed=1&begin=steps")
        .await;
    assert_eq!(answer.status, 422);
    let page = answer.text();
    for text in
        ["`x` is no whole number", "a house</textarea>", "value=\"65\"", "value=\"steps\" checked"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    let answer = visit
        .post("/arena/new", "name=&use_case=u&prompts=a+house&width=65&height=64&seed=1")
        .await;
    let page = answer.text();
    for text in ["The name is empty", "The width is 65, which is no multiple of 16"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let path = made(&visit, &format!("{FORM}&begin=none")).await;
    let to = format!("{path}/contenders");
    for (form, text) in [
        ("model=fal-ai/z-image/turbo&steps=1000", "settings.num_inference_steps-wrong"),
        ("model=fal-ai/z-image/turbo&steps=many", "`many` is no number"),
        ("model=z-image-turbo&lora=a.safetensors", "settings.loras-wrong"),
        ("model=nothing", "model-wrong"),
        (
            "model=fal-ai/z-image/turbo&other=%7B%22seed%22%3A1%7D",
            "`seed` is decided by the challenge",
        ),
        ("model=fal-ai/z-image/turbo&other=%5B", "This is no JSON object"),
    ] {
        let answer = visit.post(&to, form).await;
        assert_eq!(answer.status, 422, "{form}");
        assert!(answer.text().contains(text), "{form}: {}", answer.text());
    }
    let answer =
        visit.post(&to, "model=fal-ai/z-image/turbo&lora=a.safetensors&scale=0.5&name=mine").await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let page = visit.get(&path).await;
    assert!(page.contains("fal-ai/z-image/turbo/lora") && page.contains("a.safetensors"), "{page}");
}

#[tokio::test]
async fn names_and_prompts_are_text_whatever_they_hold() {
    let room = Room::new().await;
    let visit = Visit::of(&room);
    let evil = "%3Cscript%3Ealert(1)%3C/script%3E%22%27%3E";
    let form =
        format!("name={evil}&use_case={evil}&prompts={evil}&width=64&height=64&seed=1&begin=bits");
    let path = made(&visit, &form).await;
    drawn(&room, path.strip_prefix("/arena/").unwrap()).await;
    let case = "/arena/use-cases/%3Cscript%3Ealert%281%29%3C%2Fscript%3E%22%27%3E";
    for page in ["/arena", &path, &format!("{path}/vote"), "/arena/new", case] {
        let page = visit.get(page).await;
        assert!(!page.contains("<script>alert"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    }
}

#[tokio::test]
async fn everybody_votes_and_only_the_owner_changes() {
    let room = Room::with(Setup { keys_required: true, ..Setup::default() }).await;
    let (owner, other) =
        (Visit::signed_in(&room, Scope::Api).await, Visit::signed_in(&room, Scope::Api).await);
    let admin = Visit::signed_in(&room, Scope::Admin).await;
    assert_eq!(
        Visit::of(&room).send("GET", "/arena", "").await.status,
        303,
        "strangers sign in first"
    );
    let path = made(&owner, &format!("{FORM}&begin=bits")).await;
    drawn(&room, path.strip_prefix("/arena/").unwrap()).await;
    for (visit, what, expected) in [
        (&other, "close", 403),
        (&other, "delete", 403),
        (&other, "again", 403),
        (&owner, "again", 303),
        (&admin, "again", 303),
    ] {
        let answer = visit.post(&format!("{path}/{what}"), "closed=true").await;
        assert_eq!(answer.status, expected, "{what}");
    }
    let answer = other.post(&format!("{path}/contenders"), "model=fal-ai/z-image/turbo").await;
    assert_eq!(answer.status, 403);
    assert_eq!(other.send("GET", &format!("{path}/votes.csv"), "").await.status, 403);
    assert_eq!(other.send("GET", "/arena/use-cases/landscapes/votes.csv", "").await.status, 403);
    assert_eq!(admin.send("GET", "/arena/use-cases/landscapes/votes.csv", "").await.status, 200);
    // A pair belongs to whoever was shown it.
    let pair = visit::value(&owner.get(&format!("{path}/vote")).await, "pair");
    let answer = other.post(&format!("{path}/vote"), &format!("pair={pair}&verdict=tie")).await;
    assert_eq!(answer.status, 404);
    for visit in [&owner, &other] {
        let pair = visit::value(&visit.get(&format!("{path}/vote")).await, "pair");
        let answer = visit.post(&format!("{path}/vote"), &format!("pair={pair}&verdict=tie")).await;
        assert_eq!(answer.status, 303);
    }
    assert!(owner.get("/arena").await.contains("2 votes"));
    // A page of another site can send no vote.
    let answer = room_send_foreign(&room, &path, &owner).await;
    assert_eq!(answer, 403);
}

async fn room_send_foreign(room: &Room, path: &str, visit: &Visit<'_>) -> u16 {
    let headers = [
        ("cookie", visit.cookie.as_str()),
        ("sec-fetch-site", "cross-site"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    visit::send(room, "POST", &format!("{path}/delete"), &headers, "".into()).await.status.as_u16()
}

#[tokio::test]
async fn the_pages_speak_chinese_too() {
    let room = Room::new().await;
    let mut visit = Visit::of(&room);
    visit.language = "zh-CN";
    let page = visit.get("/arena/new").await;
    assert!(page.contains("新建挑战") && page.contains("lang=\"zh\""), "{page}");
    let path = made(&visit, &format!("{FORM}&begin=bits")).await;
    assert!(visit.get(&path).await.contains("排行榜"));
}
