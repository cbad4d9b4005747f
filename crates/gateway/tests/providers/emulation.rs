//! What the gateway does in place of providers: several calls, other formats, other sizes.

use std::time::Duration;

use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::Pixels;
use zoetrope_files::{Limits, decode, glance};
use zoetrope_gateway::provider::{Content, Made};

use crate::room::{
    ALIBABA, At, FAL, LIKE_OPENAI, REPLICATE, Room, ZOETROPE, file, picture, png, request,
};
use crate::upstream::Script;

/// What `at` makes of `body`, where it always answers with `file`.
async fn made(at: At, file: Vec<u8>, body: Value) -> Vec<Made> {
    let (room, server) = (Room::new().await, Script::of(file).start(at).await);
    let provider = room.provider(at, &server.url(""));
    let done = room.make(&*provider, at, request(body), Duration::from_secs(20)).await;
    done.into_iter().flat_map(|outcome| outcome.unwrap().pictures).collect()
}

/// The file, looked at: what is said of it is true.
#[track_caller]
fn bytes(made: &Made) -> Vec<u8> {
    let bytes = match &made.content {
        Content::Bytes(bytes) => bytes.to_vec(),
        Content::Base64(text) => {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.decode(text).unwrap()
        }
        Content::Stored { .. } => panic!("nothing is stored yet"),
    };
    let seen = glance(&bytes).unwrap();
    assert_eq!((seen.format, Pixels::new(seen.width, seen.height)), (made.format, made.size));
    bytes
}

#[tokio::test]
async fn more_pictures_than_a_call_makes_are_made_by_several() {
    let (room, server) = (Room::new().await, Script::default().start(REPLICATE).await);
    let provider = room.provider(REPLICATE, &server.url(""));
    let body = request(json!({"n": 3, "seed": 7}));
    let done = room.make(&*provider, REPLICATE, body, Duration::from_secs(5)).await;
    let seeds: Vec<_> =
        done.iter().map(|outcome| outcome.as_ref().unwrap().pictures[0].seed).collect();
    assert_eq!(seeds, [Some(7), Some(8), Some(9)]);
}

#[tokio::test]
async fn every_format_comes_from_providers_that_have_it_not() {
    for at in [FAL, ALIBABA, REPLICATE, LIKE_OPENAI] {
        for (name, format) in Format::NAMES.into_iter().zip(Format::ALL) {
            let all =
                made(at, png(128, 96), json!({"output_format": name, "output_compression": 80}))
                    .await;
            assert_eq!(all[0].format, format, "{at:?}");
            let bytes = bytes(&all[0]);
            if format != Format::Avif {
                let back = decode(&bytes, &Limits::default()).unwrap().picture;
                assert_eq!((back.width, back.height), (128, 96));
            }
        }
    }
}

#[tokio::test]
async fn a_quality_is_heeded_where_a_format_has_one() {
    let size = |name: &'static str, quality: u8| async move {
        let body = json!({"output_format": name, "output_compression": quality});
        bytes(&made(ALIBABA, png(256, 256), body).await[0]).len()
    };
    for name in ["jpeg", "webp", "avif"] {
        let (low, high) = (size(name, 20).await, size(name, 95).await);
        assert!(low * 2 < high, "{name}: {low} {high}");
    }
}

#[tokio::test]
async fn sizes_that_are_not_made_are_cut_from_the_next_larger() {
    let whole = picture(1008, 704);
    for at in [FAL, ALIBABA, REPLICATE, LIKE_OPENAI] {
        let all =
            made(at, png(1008, 704), json!({"size": "1000x700", "output_format": "png"})).await;
        assert_eq!(all[0].size, Pixels::new(1000, 700), "{at:?}");
        let cut = decode(&bytes(&all[0]), &Limits::default()).unwrap().picture;
        assert_eq!(cut, whole.cropped(0, 0, 1000, 700));
    }
    // Too small for it: drawn large, and made smaller.
    let all = made(ALIBABA, png(512, 512), json!({"size": "256x256"})).await;
    assert_eq!(all[0].size, Pixels::new(256, 256));
    bytes(&all[0]);
}

#[tokio::test]
async fn pixels_that_were_asked_for_are_given_even_if_the_provider_made_others() {
    for at in [LIKE_OPENAI, ZOETROPE] {
        for file in [png(1024, 1024), png(300, 200)] {
            let all = made(at, file, json!({"size": "640x480"})).await;
            assert_eq!(all[0].size, Pixels::new(640, 480), "{at:?}");
            bytes(&all[0]);
        }
    }
    // Of a shape that was asked for, what was made is told.
    let all = made(LIKE_OPENAI, png(300, 200), json!({"size": "16:9"})).await;
    assert_eq!(all[0].size, Pixels::new(300, 200));
}

#[tokio::test]
async fn a_format_that_was_asked_for_is_given_even_if_the_provider_made_another() {
    let jpeg = file(zoetrope_files::Format::Jpeg, 64, 64);
    let all = made(ZOETROPE, jpeg.clone(), json!({"output_format": "webp"})).await;
    assert_eq!(all[0].format, Format::Webp);
    let all = made(ZOETROPE, jpeg.clone(), json!({})).await;
    assert_eq!((all[0].format, bytes(&all[0])), (Format::Jpeg, jpeg));
}

#[tokio::test]
async fn a_prompt_that_was_drawn_anew_is_told_where_that_was_asked_for() {
    let expanded = made(ALIBABA, png(64, 64), json!({"enable_prompt_expansion": true})).await;
    assert_eq!(expanded[0].revised_prompt.as_deref(), Some("a lighthouse, drawn anew"));
    let plain = made(ALIBABA, png(64, 64), json!({})).await;
    assert_eq!(plain[0].revised_prompt, None);
}
