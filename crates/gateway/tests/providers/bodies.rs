//! A request in, exactly this body out: every parameter either reaches the provider or is told as dropped.

use std::time::Duration;

use serde_json::{Value, json};
use zoetrope_files::Format;

use crate::loopback::{Request, Server};
use crate::room::{
    ALIBABA, At, FAL, FAL_EDIT, LIKE_OPENAI, OPENAI, PROMPT, REPLICATE, Room, ZOETROPE, base64,
    data_uri, file, plan, png, request,
};
use crate::upstream::Script;

/// Every parameter of a generation at once, and one that nobody knows.
fn everything(size: &str) -> Value {
    json!({
        "n": 2,
        "seed": 5_000_000_000_u64,
        "size": size,
        "cfg_scale": 3.5,
        "num_inference_steps": 60,
        "negative_prompt": "fog",
        "output_format": "webp",
        "output_compression": 70,
        "response_format": "b64_json",
        "acceleration": "high",
        "go_fast": true,
        "enable_prompt_expansion": true,
        "enable_safety_checker": false,
        "sampler": "heun",
        "variation_seed": 7,
        "variation_strength": 0.25,
        "prompt_weighting": true,
        "quality": "hd",
        "style": "vivid",
        "background": "opaque",
        "moderation": "low",
        "user": "somebody",
        "watermark": true,
    })
}

/// Sends `body` as a request to a provider of `at`; what it was asked, and what was dropped and changed for it.
async fn asked(at: At, body: Value) -> (Vec<Request>, Vec<String>, Vec<(String, Value)>) {
    let room = Room::new().await;
    let server = Script::default().start(at).await;
    let provider = room.provider(at, &server.url(""));
    let work = room.work(request(body.clone()), Duration::from_secs(5)).await;
    let plan = plan(&*provider, at, &work.request, &work.sources).unwrap();
    for done in room.make(&*provider, at, request(body), Duration::from_secs(5)).await {
        done.unwrap_or_else(|failure| panic!("{at:?}: {failure:?}"));
    }
    let (dropped, changed): (Vec<_>, Vec<_>) =
        plan.changes.into_iter().partition(|change| change.to.is_null());
    let dropped = dropped.into_iter().map(|change| change.parameter).collect();
    let changed = changed.into_iter().map(|change| (change.parameter, change.to)).collect();
    (submissions(&server), dropped, changed)
}

fn submissions(server: &Server) -> Vec<Request> {
    let posts = server.seen().into_iter().filter(|request| request.method == "POST");
    let mut posts: Vec<Request> = posts.collect();
    // Parallel calls come in any order.
    posts.sort_by(|one, other| one.body.cmp(&other.body));
    posts
}

#[track_caller]
fn check_bodies(requests: &[Request], target: &str, bodies: &[Value]) {
    let got: Vec<Value> =
        requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    assert_eq!(got, bodies);
    for request in requests {
        assert_eq!(request.target, target);
        assert_eq!(request.header("content-type"), Some("application/json"));
        let user_agent = request.header("user-agent").unwrap();
        assert!(user_agent.starts_with("zoetrope/"), "{user_agent}");
    }
}

#[tokio::test]
async fn fal_is_asked_in_its_own_words() {
    let (requests, dropped, changed) = asked(FAL, everything("1024x768")).await;
    let body = json!({
        "prompt": PROMPT,
        "image_size": {"width": 1024, "height": 768},
        "num_images": 2,
        "seed": 5_000_000_000_u64,
        "num_inference_steps": 60,
        // Its own WebP has no quality to choose: the gateway makes it from what loses nothing.
        "output_format": "png",
        "acceleration": "high",
        "enable_prompt_expansion": true,
        "enable_safety_checker": false,
        "watermark": true,
    });
    check_bodies(&requests, "/fal-ai/z-image/turbo", &[body]);
    assert_eq!(requests[0].header("authorization"), Some("Key id:hush-hush"));
    let seconds: u64 = requests[0].header("x-fal-request-timeout").unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    let want =
        ["cfg_scale", "negative_prompt", "go_fast", "quality", "style", "background", "moderation"];
    check_names_and_ours(dropped, &want);
    assert!(changed.is_empty(), "{changed:?}");
}

/// What only engines of our own take.
const OURS: [&str; 4] = ["sampler", "variation_seed", "variation_strength", "prompt_weighting"];

/// As [`check_names`] for providers that have none of ours.
#[track_caller]
fn check_names_and_ours(got: Vec<String>, want: &[&str]) {
    check_names(got, &mut [want, &OURS].concat());
}

/// Whatever their order: that of the body, in which JSON has none.
#[track_caller]
fn check_names(mut got: Vec<String>, want: &mut [&str]) {
    got.sort();
    want.sort_unstable();
    assert_eq!(got, want);
}

#[tokio::test]
async fn noise_levels_reach_engines_of_ours_and_are_told_as_dropped_elsewhere() {
    let body = json!({"sigmas": [1.0, 0.5]});
    let (requests, dropped, _) = asked(ZOETROPE, body.clone()).await;
    let sent: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!((&sent["sigmas"], dropped.len()), (&body["sigmas"], 0));
    let (_, dropped, _) = asked(ALIBABA, body).await;
    assert_eq!(dropped, ["sigmas"]);
}

#[tokio::test]
async fn alibaba_is_asked_once_a_picture_and_always_for_a_size() {
    let (requests, dropped, changed) = asked(ALIBABA, everything("1024x768")).await;
    let body = |seed: u64| {
        json!({
            "model": "z-image-turbo",
            "input": {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]},
            "parameters": {"size": "1024*768", "seed": seed, "prompt_extend": true, "watermark": true},
        })
    };
    let path = "/api/v1/services/aigc/multimodal-generation/generation";
    check_bodies(&requests, path, &[body(705_032_704), body(705_032_705)]);
    assert_eq!(requests[0].header("authorization"), Some("Bearer id:hush-hush"));
    let want = [
        "cfg_scale",
        "num_inference_steps",
        "negative_prompt",
        "acceleration",
        "go_fast",
        "enable_safety_checker",
        "quality",
        "style",
        "background",
        "moderation",
    ];
    check_names_and_ours(dropped, &want);
    assert_eq!(changed, [("seed".to_string(), json!(705_032_704))]);
    let (requests, ..) = asked(ALIBABA, json!({})).await;
    let body = json!({
        "model": "z-image-turbo",
        "input": {"messages": [{"role": "user", "content": [{"text": PROMPT}]}]},
        "parameters": {"size": "1024*1024", "prompt_extend": false},
    });
    check_bodies(&requests, path, &[body]);
}

#[tokio::test]
async fn replicate_is_asked_with_a_wait_and_within_its_bounds() {
    let (requests, dropped, changed) = asked(REPLICATE, everything("1024x768")).await;
    let body = |seed: u64| {
        json!({"input": {
            "prompt": PROMPT,
            "width": 1024,
            "height": 768,
            "seed": seed,
            "num_inference_steps": 50,
            "guidance_scale": 3.5,
            "output_format": "webp",
            "output_quality": 70,
            "go_fast": true,
            "watermark": true,
        }})
    };
    let path = "/v1/models/prunaai/z-image-turbo/predictions";
    check_bodies(&requests, path, &[body(5_000_000_000), body(5_000_000_001)]);
    assert_eq!(requests[0].header("authorization"), Some("Bearer id:hush-hush"));
    let wait = requests[0].header("prefer").unwrap();
    assert!(["wait=3", "wait=4"].contains(&wait), "{wait}");
    assert_eq!(requests[0].header("cancel-after"), Some("5s"));
    let want = [
        "negative_prompt",
        "acceleration",
        "enable_prompt_expansion",
        "enable_safety_checker",
        "quality",
        "style",
        "background",
        "moderation",
    ];
    check_names_and_ours(dropped, &want);
    assert_eq!(changed, [("num_inference_steps".to_string(), json!(50))]);
}

#[tokio::test]
async fn a_version_at_replicate_is_asked_for_by_its_number_and_has_its_own_sizes() {
    let at = At { upstream: "prunaai/z-image-turbo:5fd5416a", ..REPLICATE };
    let (requests, ..) = asked(at, json!({"size": "16:9", "resolution": "2K"})).await;
    let body: Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!(requests[0].target, "/v1/predictions");
    assert_eq!(body["version"], "5fd5416a");
    assert_eq!((&body["input"]["width"], &body["input"]["height"]), (&json!(1440), &json!(816)));
    assert_eq!(body["input"]["output_format"], "jpg");
}

#[tokio::test]
async fn openai_s_own_models_are_asked_for_what_they_have() {
    let (requests, dropped, _) = asked(OPENAI, everything("1536x1024")).await;
    let body = json!({
        "model": "gpt-image-1",
        "prompt": PROMPT,
        "n": 2,
        "size": "1536x1024",
        "output_format": "webp",
        "output_compression": 70,
        "quality": "high",
        "background": "opaque",
        "moderation": "low",
        "watermark": true,
    });
    check_bodies(&requests, "/images/generations", &[body]);
    let want = [
        "seed",
        "cfg_scale",
        "num_inference_steps",
        "negative_prompt",
        "acceleration",
        "go_fast",
        "enable_prompt_expansion",
        "enable_safety_checker",
        "style",
    ];
    check_names_and_ours(dropped, &want);
}

#[tokio::test]
async fn servers_like_openai_s_are_asked_for_base64_one_picture_a_call() {
    let (requests, dropped, _) = asked(LIKE_OPENAI, everything("1024x768")).await;
    let body = |seed: u64| {
        json!({
            "model": "z-image",
            "prompt": PROMPT,
            "negative_prompt": "fog",
            "n": 1,
            "size": "1024x768",
            "seed": seed,
            "response_format": "b64_json",
            "num_inference_steps": 60,
            "guidance_scale": 3.5,
            "quality": "hd",
            "style": "vivid",
            "background": "opaque",
            "watermark": true,
        })
    };
    check_bodies(&requests, "/images/generations", &[body(5_000_000_000), body(5_000_000_001)]);
    let want = [
        "acceleration",
        "go_fast",
        "enable_prompt_expansion",
        "enable_safety_checker",
        "moderation",
    ];
    check_names_and_ours(dropped, &want);
}

#[tokio::test]
async fn another_zoetrope_is_asked_in_our_own_words() {
    let (requests, dropped, changed) = asked(ZOETROPE, everything("1000x700")).await;
    let body = json!({
        "model": "z-image-turbo",
        "prompt": PROMPT,
        "negative_prompt": "fog",
        "n": 2,
        "size": "1000x700",
        "seed": 5_000_000_000_u64,
        "output_format": "webp",
        "output_compression": 70,
        "response_format": "b64_json",
        "num_inference_steps": 60,
        "cfg_scale": 3.5,
        "acceleration": "high",
        "go_fast": true,
        "enable_prompt_expansion": true,
        "enable_safety_checker": false,
        "sampler": "heun",
        "variation_seed": 7,
        "variation_strength": 0.25,
        "prompt_weighting": true,
        "watermark": true,
    });
    check_bodies(&requests, "/v1/images/generations", &[body]);
    assert_eq!(requests[0].header("traceparent"), crate::room::caller().trace.as_deref());
    check_names(dropped, &mut ["quality", "style", "background", "moderation"]);
    assert!(changed.is_empty(), "{changed:?}");
}

#[tokio::test]
async fn an_edit_at_fal_starts_from_a_data_uri_and_is_as_large_as_it() {
    let image = png(96, 80);
    let body = json!({"image": data_uri(&image), "mask": data_uri(&image), "strength": 0.3});
    let (requests, dropped, _) = asked(FAL_EDIT, body).await;
    let body = json!({
        "prompt": PROMPT,
        "image_size": {"width": 96, "height": 80},
        "num_images": 1,
        "output_format": "png",
        "image_url": data_uri(&image),
        "strength": 0.3,
    });
    check_bodies(&requests, "/fal-ai/z-image/turbo/image-to-image", &[body]);
    check_names(dropped, &mut ["mask"]);
}

#[tokio::test]
async fn an_edit_at_openai_s_servers_is_a_form_with_files_of_their_true_type() {
    let (image, second) = (png(64, 64), file(Format::Jpeg, 64, 64));
    let cases = [(LIKE_OPENAI, "/images/edits"), (ZOETROPE, "/v1/images/edits")];
    for (at, target) in cases {
        let images = json!([data_uri(&image), data_uri(&second)]);
        let body = json!({"image": images, "mask": data_uri(&image), "strength": 0.25});
        let (requests, ..) = asked(at, body).await;
        assert_eq!((requests.len(), requests[0].target.as_str()), (1, target));
        let form = String::from_utf8_lossy(&requests[0].body).into_owned();
        let kind = requests[0].header("content-type").unwrap();
        let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
        let parts: Vec<&str> = form.split(&format!("--{boundary}")).collect();
        let part = |name: &str| {
            let head = format!("\r\nContent-Disposition: form-data; name=\"{name}\"");
            parts
                .iter()
                .find_map(|part| part.strip_prefix(&head))
                .unwrap_or_else(|| panic!("{name}"))
        };
        assert_eq!(part("prompt"), format!("\r\n\r\n{PROMPT}\r\n"));
        assert_eq!(part("strength"), "\r\n\r\n0.25\r\n");
        assert_eq!(part("n"), "\r\n\r\n1\r\n");
        assert_eq!(part("size"), "\r\n\r\n64x64\r\n");
        assert_eq!(part("response_format"), "\r\n\r\nb64_json\r\n");
        assert!(
            part("mask").starts_with("; filename=\"image.png\"\r\nContent-Type: image/png\r\n")
        );
        // Whatever the data URI said of it.
        let jpeg = "; filename=\"image.jpeg\"\r\nContent-Type: image/jpeg\r\n";
        assert!(form.contains(&format!("name=\"image[]\"{jpeg}")), "{at:?}");
        let holds = |file: &[u8]| requests[0].body.windows(file.len()).any(|part| part == file);
        assert!(holds(&image) && holds(&second), "{at:?}");
    }
}

#[tokio::test]
async fn a_kind_of_picture_that_is_not_taken_becomes_one_that_is() {
    for (format, name) in [(Format::Gif, "gif"), (Format::Avif, "avif")] {
        let bytes = file(format, 48, 32);
        let uri = format!("data:image/png;base64,{}", base64(&bytes)); // whatever its sender calls it
        let sent = async |at: At| asked(at, json!({"image": uri})).await.0.remove(0).body;
        let holds = |body: &[u8], part: &[u8]| body.windows(part.len()).any(|one| one == part);
        let openai = sent(LIKE_OPENAI).await;
        let png = b"filename=\"image.png\"\r\nContent-Type: image/png\r\n\r\n\x89PNG";
        assert!(holds(&openai, png) && !holds(&openai, &bytes), "{name}");
        let ours = sent(ZOETROPE).await;
        let head = format!("filename=\"image.{name}\"\r\nContent-Type: image/{name}\r\n");
        assert!(holds(&ours, head.as_bytes()) && holds(&ours, &bytes), "{name}");
        let fal: Value = serde_json::from_slice(&sent(FAL_EDIT).await).unwrap();
        let uri = format!("data:image/{name};base64,{}", base64(&bytes));
        assert_eq!(fal["image_url"], uri);
    }
}
