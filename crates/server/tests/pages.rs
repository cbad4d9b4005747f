//! Pages of text about models: in the order, words and numbers of the catalogue that they follow (lumenfall.ai, whose page of the same
//! model was read for this table), and with what was measured here.

#![allow(clippy::unwrap_used)]

mod painter;
mod room;

use painter::Painter;
use room::{Room, Setup};
use serde_json::{Map, json};
use tokio::sync::watch;
use zoetrope_arena::pairs::Next;
use zoetrope_arena::rating::Verdict;
use zoetrope_arena::{Arena, Contender, Draft, drawing};
use zoetrope_gateway::caller::Caller;
use zoetrope_gateway::catalogue::Catalogue;
use zoetrope_jobs::{KeyLimits, Scope};

const PAGE: &str = "/models/alibaba/z-image-turbo/llms.txt";

/// A parameter as a page shows it.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    group: String,
    name: String,
    kind: String,
    required: bool,
    default: Option<String>,
    /// In the order of the alphabet: pages sort them as they like.
    values: Vec<String>,
    modes: String,
    only: Option<String>,
}

const BOTH: &str = "Image Edit, Text to Image";

/// The seed's rows: group, name, type, required, default, values, modes, who alone has it.
type Seed = (
    &'static str,
    &'static str,
    &'static str,
    bool,
    &'static str,
    &'static [&'static str],
    &'static str,
    &'static str,
);
#[rustfmt::skip]
const SEED: [Seed; 20] = [
    ("Core Parameters", "prompt", "string", true, "", &[], BOTH, ""),
    ("Core Parameters", "seed", "integer", false, "", &[], BOTH, ""),
    ("Size & Layout", "size", "string", false, "", &[], BOTH, ""),
    ("Size & Layout", "aspect_ratio", "string", false, "", &[], BOTH, ""),
    ("Size & Layout", "resolution", "string", false, "", &[], BOTH, ""),
    ("Media Inputs", "image", "file", true, "", &[], "Image Edit", ""),
    ("Output & Format", "response_format", "string", false, "url", &["b64_json", "url"], BOTH, ""),
    ("Output & Format", "output_format", "string", false, "", &["avif", "gif", "jpeg", "png", "webp"], BOTH, ""),
    ("Output & Format", "output_compression", "integer", false, "", &[], BOTH, ""),
    ("Output & Format", "n", "integer", false, "1", &[], BOTH, ""),
    ("Additional Parameters", "cfg_scale", "number", false, "", &[], BOTH, ""),
    ("Additional Parameters", "strength", "number", false, "", &[], "Image Edit", ""),
    ("Additional Parameters", "acceleration", "string", false, "", &["high", "none", "regular"], BOTH, "fal.ai"),
    ("Additional Parameters", "enable_prompt_expansion", "boolean", false, "", &[], BOTH, "fal.ai"),
    ("Additional Parameters", "enable_safety_checker", "boolean", false, "", &[], BOTH, "fal.ai"),
    ("Additional Parameters", "go_fast", "boolean", false, "", &[], "Text to Image", "Replicate"),
    ("Additional Parameters", "height", "integer", false, "", &[], "Text to Image", "Replicate"),
    ("Additional Parameters", "num_inference_steps", "integer", false, "", &[], BOTH, ""),
    ("Additional Parameters", "output_quality", "integer", false, "", &[], "Text to Image", "Replicate"),
    ("Additional Parameters", "sync_mode", "boolean", false, "", &[], BOTH, "fal.ai"),
];

/// Where ours differ, and why.
#[rustfmt::skip]
const DIFFERENT: [(&str, &str, &str, &str); 6] = [
    // fal's edits take no guidance, and the others make none.
    ("cfg_scale", "modes", BOTH, "Text to Image"),
    // Alibaba has it under another name.
    ("enable_prompt_expansion", "only", "fal.ai", ""),
    // The gateway makes a size, a quality and a data URI of these for everybody.
    ("height", "modes and only", "Text to Image; Replicate", "Image Edit, Text to Image; "),
    ("width", "modes and only", "Text to Image; Replicate", "Image Edit, Text to Image; "),
    ("output_quality", "modes and only", "Text to Image; Replicate", "Image Edit, Text to Image; "),
    ("sync_mode", "only", "fal.ai", ""),
];

/// What the gateway adds for everybody, and the seed's page does not have.
const ADDED: [&str; 5] = ["model", "stream", "partial_images", "strict", "user"];

/// The seed's providers, and nobody else.
fn seed_s_providers() -> Catalogue {
    let text = r#"
        [providers]
        fal = { key = "k" }
        alibaba = { key = "k" }
        replicate = { key = "k" }
        [models.z-image-turbo]
        deployments = ["fal", "alibaba", "replicate"]
    "#;
    Catalogue::read(&text.parse().unwrap(), &|_| None).unwrap()
}

fn expected() -> Vec<Row> {
    let mut rows: Vec<Row> = SEED
        .iter()
        .map(|(group, name, kind, required, default, values, modes, only)| Row {
            group: group.to_string(),
            name: name.to_string(),
            kind: kind.to_string(),
            required: *required,
            default: (!default.is_empty()).then(|| default.to_string()),
            values: values.iter().map(|value| value.to_string()).collect(),
            modes: modes.to_string(),
            only: (!only.is_empty()).then(|| only.to_string()),
        })
        .collect();
    let width = Row {
        name: "width".into(),
        ..rows.iter().find(|row| row.name == "height").unwrap().clone()
    };
    rows.push(width);
    for (name, what, theirs, ours) in DIFFERENT {
        let row = rows.iter_mut().find(|row| row.name == name).unwrap();
        let only = row.only.clone().unwrap_or_default();
        let told = match what {
            "modes" => row.modes.clone(),
            "only" => only,
            _ => format!("{}; {only}", row.modes),
        };
        assert_eq!(told, theirs, "{name}: the difference is from something else");
        let (modes, only) = match what {
            "modes" => (ours.to_string(), row.only.clone()),
            "only" => (row.modes.clone(), None),
            _ => (ours.trim_end_matches("; ").to_string(), None),
        };
        (row.modes, row.only) = (modes, only);
    }
    rows
}

/// The rows of a page.
fn rows(page: &str) -> Vec<Row> {
    let section = page.split("## API Parameters\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let (mut group, mut rows) = (String::new(), Vec::new());
    for line in section.lines() {
        if let Some(title) = line.strip_prefix("### ") {
            group = title.into();
        }
        let Some(rest) = line.strip_prefix("- `") else { continue };
        let (name, rest) = rest.split_once("` (").unwrap();
        let (kind, rest) = rest.split_once(')').unwrap();
        let between = |from: &str, to: &str| {
            let (_, rest) = rest.rsplit_once(from)?;
            Some(rest.split(to).next().unwrap().to_string())
        };
        // Limits are no values.
        let values = between(" Values: ", ".").filter(|values| !values.contains(" to "));
        let mut values: Vec<String> =
            values.map(|values| values.split(", ").map(String::from).collect()).unwrap_or_default();
        values.sort();
        rows.push(Row {
            group: group.clone(),
            name: name.into(),
            kind: kind.into(),
            required: rest.starts_with(" — REQUIRED:"),
            default: between(" Default: ", "."),
            values,
            modes: between(" Modes: ", ".").unwrap(),
            only: between(" Only available via ", "\n"),
        });
    }
    rows
}

#[tokio::test]
async fn the_parameters_are_those_of_the_seed_s_page() {
    let room = Room::with(Setup { catalogue: seed_s_providers(), ..Setup::default() }).await;
    let page = room.get(PAGE).await.text();
    let ours = rows(&page);
    for name in ADDED {
        assert!(ours.iter().any(|row| row.name == name), "{name}\n{page}");
    }
    let mut ours: Vec<Row> =
        ours.into_iter().filter(|row| !ADDED.contains(&row.name.as_str())).collect();
    // The seed's page says of it only how it is written.
    ours.iter_mut().filter(|row| row.name == "resolution").for_each(|row| row.values.clear());
    assert_eq!(ours, expected(), "{page}");
    let schema = room.get("/v1/models/z-image-turbo?schema=true").await.json();
    let names: Vec<&str> = schema["schema"]["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| parameter["name"].as_str().unwrap())
        .filter(|name| !ADDED.contains(name))
        .collect();
    let expected: Vec<String> = expected().into_iter().map(|row| row.name).collect();
    assert_eq!(names, expected, "the JSON has them in the same order");
}

#[tokio::test]
async fn the_page_has_the_seed_s_order_and_numbers() {
    let room = Room::with(Setup { catalogue: seed_s_providers(), ..Setup::default() }).await;
    let page = room.get(PAGE).await.text();
    let order = [
        "# Z-Image Turbo\n\n> ",
        "## Quick Reference\n\n- Model ID: z-image-turbo\n- Creator: alibaba\n- Status: active\n- Family: z-image\n- Base URL: http://127.0.0.1:7860/v1\n",
        "## Specifications\n\n- Max Resolution: 2048x2048\n- Input Modalities: text, image\n- Output Modalities: image\n- Supported Modes: Text to Image, Image Edit\n",
        "## API Parameters\n",
        "## Model Identifiers\n\n- `z-image-turbo`\n- `fal/z-image-turbo`\n- `fal/z-image-turbo-edit`\n- `alibaba/z-image-turbo`\n- `replicate/z-image-turbo`\n",
        "## Tags\n",
        "## Available Providers\n",
        "### fal.ai\n\n- Config Key: `fal/z-image-turbo`\n- Provider Model ID: `fal-ai/z-image/turbo`\n- Modes: Text to Image\n- Pricing: $0.0050/megapixel",
        "- Provider Model ID: `z-image-turbo`\n- Modes: Text to Image\n- Pricing: $0.015/image, $0.030/image",
        "- Provider Model ID: `prunaai/z-image-turbo`\n- Modes: Text to Image\n- Pricing: $0.0050/megapixel\n",
        "## Performance Metrics\n",
        "## Arena Benchmarks\n",
        "## Image Gallery\n",
        "## Example Prompt\n",
        "## Code Examples\n\n### Text to Image\n\n```bash",
        "```javascript",
        "```python",
        "### Image Edit\n\n```bash",
        "## About\n\n### Overview\n",
        "### Strengths\n",
        "### Limitations\n",
        "### Technical Background\n",
        "### Best For\n",
        "## FAQ\n",
        "## Links\n",
    ];
    let mut rest = page.as_str();
    for part in order {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is not next in\n{rest}"));
        rest = &rest[at + part.len()..];
    }
}

/// Two models draw a challenge's four prompts, and somebody prefers the first each time.
async fn vote(room: &Room) {
    let (queue, store, now) = (room.queue.clone(), room.store.clone(), room.now.clone());
    let now_ms = std::sync::Arc::new(move || now.load(std::sync::atomic::Ordering::Relaxed));
    let arena = Arena::new(queue, store, room.gateway.clone(), now_ms);
    let caller = Caller {
        owner: "local".into(),
        concurrency_max: 8,
        base: "http://127.0.0.1:7860".into(),
        trace: None,
        limits: KeyLimits::default(),
    };
    let draft = Draft {
        name: "Houses".into(),
        use_case: "Landscapes".into(),
        prompts: "a house\na boat\na tree\nthe sea".into(),
        width: 64,
        height: 64,
        seed: 7,
    };
    let challenge = arena.create(&draft, &caller).await.unwrap();
    let mut ids = Vec::new();
    for model in ["z-image-turbo", "fal-ai/z-image/base"] {
        let known = (&room.gateway, &caller);
        let contender = Contender::check(model, model, Map::new(), known).await.unwrap();
        assert!(arena.enter(&challenge, &contender).await.unwrap());
        ids.push(contender.id());
    }
    let (stop, stopped) = watch::channel(false);
    let drawing = tokio::spawn(drawing::draw(arena.clone(), stopped));
    while room.queue.arena_progress().await.unwrap()[&challenge.id].waiting > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        room.later(50);
    }
    stop.send(true).unwrap();
    drawing.await.unwrap();
    while let Next::Pair(shown) = arena.next(&challenge, "me").await.unwrap() {
        let pictures = room.queue.arena_pictures(&challenge.id).await.unwrap();
        let left =
            pictures.iter().find(|one| one.file.as_deref() == Some(shown.left.as_str())).unwrap();
        let verdict = if left.contender == ids[0] { Verdict::Left } else { Verdict::Right };
        arena.cast(&shown.pair, "me", verdict).await.unwrap();
    }
}

#[tokio::test]
async fn what_was_measured_and_voted_is_on_the_page() {
    let text = r#"
        [models.z-image-turbo]
        deployments = [{ provider = "local", price = { unit = "image", dollars = 0.01 } }]
    "#;
    let catalogue = Catalogue::read(&text.parse().unwrap(), &|_| None).unwrap();
    let room = Room::with(Setup { keys_required: true, catalogue, ..Setup::default() }).await;
    let (_, key) = room.key(Scope::Api, 4).await;
    let headers = [("authorization", key.as_str())];
    let fresh = room.send("GET", PAGE, &headers, "").await.text();
    assert!(fresh.contains("Nothing was measured in the last 30 days."), "{fresh}");
    assert!(fresh.contains("Nobody has voted yet.") && !fresh.contains("## Use Cases"), "{fresh}");
    let _painter = Painter::of(&room);
    let body = json!({"model": "z-image-turbo", "prompt": "a house", "size": "64x64"}).to_string();
    let drawn = room.send("POST", "/v1/images/generations", &headers, body).await;
    assert_eq!(drawn.status, 200, "{drawn:?}");
    room.gateway.settle().await;
    vote(&room).await;
    room.gateway.settle().await;
    let page = room.send("GET", PAGE, &headers, "").await.text();
    for part in [
        "### This server\n\n- Generation Time (p50): ",
        "- Success Rate: 100.0%\n- Total Requests: 5\n- Time to First Byte (p50): ",
        "### Houses\n\n- Elo: ",
        "- Record: 4W / 0L / 0T (4 battles)\n- Rank: #1 of 2\n",
        "## Use Cases & Category Performance\n\n### landscapes\n\n- Rank: #1 of 2\n",
        "- Win Rate: 100.0%\n",
        "## Image Gallery\n\n5 entries.\n",
        "### Arena Competition Results\n\n- Houses: #1 of 2\n",
    ] {
        assert!(page.contains(part), "{part:?} is not in\n{page}");
    }
    let stranger = room.get(PAGE).await.text();
    assert!(!stranger.contains("Total Requests"), "how much is drawn is nobody's business");
    assert!(stranger.contains("### Houses\n\n- Elo: "));
}

#[tokio::test]
async fn the_server_s_own_page_leads_to_all_others() {
    let room = Room::new().await;
    let page = room.get("/llms.txt").await;
    assert!(page.header("content-type").starts_with("text/plain"), "{page:?}");
    let text = page.text();
    let links = text.lines().filter_map(|line| line.split("](http://127.0.0.1:7860").nth(1));
    let links: Vec<&str> = links.map(|rest| rest.split(')').next().unwrap()).collect();
    assert!(links.iter().filter(|link| link.ends_with("/llms.txt")).count() > 10, "{text}");
    for link in links {
        let answer = room.get(link).await;
        assert_eq!(answer.status, 200, "{link}");
    }
}
