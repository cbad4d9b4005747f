//! What would be asked, worked out without asking: sizes, parts, formats, and what is told about them.

use proptest::prelude::*;
use serde_json::{Value, json};
use zoetrope_api::Format;
use zoetrope_api::images::{Fit, ImageRequest, Mode, Pixels, Ratio, SizeRule, SizeWish, Tier};
use zoetrope_gateway::plan::{Encoding, Part, Plan, Unsuited};
use zoetrope_gateway::source::Sources;

use crate::room::{
    ALIBABA, At, FAL, FAL_EDIT, LIKE_OPENAI, OPENAI, REPLICATE, Room, ZOETROPE, data_uri,
    deployment, plan, png, request,
};

const SIX: [At; 6] = [FAL, ALIBABA, REPLICATE, OPENAI, LIKE_OPENAI, ZOETROPE];

async fn planned(at: At, body: Value) -> Result<Plan, Unsuited> {
    let room = Room::new().await;
    let provider = room.provider(at, "http://127.0.0.1:1");
    let request = request(body);
    let sources = Sources::fetch(&request, &room.house).await.unwrap();
    plan(&*provider, at, &request, &sources)
}

fn size_of(plan: &Plan) -> String {
    plan.fit.made.to_string()
}

#[tokio::test]
async fn shapes_become_what_each_provider_makes() {
    let cases = [
        (FAL, json!({"size": "16:9"}), "1360x768"),
        (FAL, json!({"aspect_ratio": "16:9", "resolution": "2K"}), "2048x1152"),
        (ALIBABA, json!({"aspect_ratio": "3:2", "resolution": "512"}), "640x432"),
        (ALIBABA, json!({}), "1024x1024"),
        (REPLICATE, json!({"resolution": "4K"}), "2048x2048"),
        (OPENAI, json!({"size": "16:9"}), "1536x1024"),
        (OPENAI, json!({"size": "1:1"}), "1024x1024"),
        (LIKE_OPENAI, json!({"size": "9:16"}), "768x1360"),
        (ZOETROPE, json!({"width": 1000, "height": 700}), "1000x700"),
    ];
    for (at, body, want) in cases {
        assert_eq!(size_of(&planned(at, body.clone()).await.unwrap()), want, "{at:?} {body}");
    }
}

#[tokio::test]
async fn what_became_of_a_size_is_told() {
    let told = |plan: Plan| {
        let all = plan.changes.into_iter();
        all.map(|change| (change.parameter, change.from, change.to)).collect::<Vec<_>>()
    };
    let line = |name: &str, from: &str, to: &str| (name.to_string(), json!(from), json!(to));
    let cases = [
        (FAL, json!({"size": "1024x768"}), vec![]),
        (FAL, json!({"size": "auto"}), vec![]),
        (FAL, json!({"size": "16:9"}), vec![line("size", "16:9", "1360x768")]),
        (FAL, json!({"size": "1000x700"}), vec![line("size", "1000x700", "1008x704")]),
        (ZOETROPE, json!({"size": "1000x700"}), vec![]),
        (REPLICATE, json!({"resolution": "4K"}), vec![line("resolution", "4K", "2048x2048")]),
    ];
    for (at, body, want) in cases {
        assert_eq!(told(planned(at, body.clone()).await.unwrap()), want, "{at:?} {body}");
    }
}

#[tokio::test]
async fn what_no_provider_of_a_kind_can_make_is_refused_by_name() {
    let many = json!([data_uri(&png(64, 64)), data_uri(&png(64, 64))]);
    let cases = [
        (ALIBABA, json!({"size": "4096x4096"}), Some("size"), "cannot be made"),
        (OPENAI, json!({"size": "1024x768"}), Some("size"), "1536x1024"),
        (ALIBABA, json!({"prompt": "x".repeat(801)}), Some("prompt"), "at most 800"),
        (
            FAL,
            json!({"size": "1:1", "resolution": "2K", "output_format": "avif"}),
            Some("output_format"),
            "1600",
        ),
        (FAL_EDIT, json!({"image": many}), Some("image"), "does not support multiple input images"),
    ];
    for (at, body, parameter, words) in cases {
        let unsuited = planned(at, body.clone()).await.unwrap_err();
        assert_eq!(unsuited.parameter.as_deref(), parameter, "{body}");
        assert!(unsuited.message.contains(words), "{unsuited}");
    }
    // Of another Zoetrope it may be asked.
    let large = json!({"size": "1:1", "resolution": "2K", "output_format": "avif"});
    assert!(planned(ZOETROPE, large).await.is_ok());
}

#[tokio::test]
async fn a_mode_that_a_deployment_has_not_is_refused() {
    let room = Room::new().await;
    let provider = room.provider(FAL, "http://127.0.0.1:1");
    let mut text_only = (*deployment(FAL)).clone();
    text_only.modes = vec![Mode::TextToImage];
    let text_only = std::sync::Arc::new(text_only);
    let edit = request(json!({"image": data_uri(&png(64, 64))}));
    let abilities = provider.abilities(&text_only, Mode::ImageEdit);
    let sources = Sources::default();
    let refused = zoetrope_gateway::plan::work_out(&edit, &sources, &text_only, &abilities);
    assert_eq!(
        refused.unwrap_err().message,
        "Model 'theirs/z-image-turbo' does not support image editing. Supported modes: text-to-image"
    );
}

#[tokio::test]
async fn pictures_are_shared_out_among_as_few_calls_as_make_them() {
    let part = |first, count, seed| Part { first, count, seed };
    let most = u64::from(u32::MAX / 2);
    let cases = [
        (FAL, json!({"n": 6, "seed": 9}), vec![part(0, 4, Some(9)), part(4, 2, Some(13))]),
        (ZOETROPE, json!({"n": 6}), vec![part(0, 6, None)]),
        (ALIBABA, json!({"n": 2, "seed": most}), vec![part(0, 1, Some(most)), part(1, 1, Some(0))]),
        (
            REPLICATE,
            json!({"n": 2, "seed": -1}),
            vec![part(0, 1, Some(u64::MAX >> 1)), part(1, 1, Some(0))],
        ),
    ];
    for (at, body, want) in cases {
        assert_eq!(planned(at, body.clone()).await.unwrap().parts, want, "{at:?} {body}");
    }
}

#[tokio::test]
async fn a_format_is_asked_for_where_there_is_one_and_made_where_there_is_not() {
    let bare = |format| Encoding { format, quality: None };
    let at_70 = |format| Encoding { format, quality: Some(70) };
    let jpeg_70 = || json!({"output_format": "jpeg", "output_compression": 70});
    let cases = [
        (FAL, json!({}), bare(Format::Png), None),
        (FAL, json!({"output_format": "jpeg"}), bare(Format::Jpeg), None),
        (FAL, jpeg_70(), bare(Format::Png), Some(at_70(Format::Jpeg))),
        (FAL, json!({"output_format": "gif"}), bare(Format::Png), Some(bare(Format::Gif))),
        (
            FAL,
            json!({"size": "1000x700", "output_format": "webp"}),
            bare(Format::Png),
            Some(bare(Format::Webp)),
        ),
        (ALIBABA, json!({"output_format": "png"}), bare(Format::Png), None),
        (ALIBABA, json!({"output_format": "jpeg"}), bare(Format::Png), Some(bare(Format::Jpeg))),
        (REPLICATE, json!({}), bare(Format::Jpeg), None),
        (REPLICATE, jpeg_70(), at_70(Format::Jpeg), None),
        (REPLICATE, json!({"output_quality": 70}), at_70(Format::Jpeg), None),
        (REPLICATE, json!({"output_format": "avif"}), bare(Format::Png), Some(bare(Format::Avif))),
        (OPENAI, jpeg_70(), at_70(Format::Jpeg), None),
        (ZOETROPE, json!({"output_format": "gif"}), bare(Format::Gif), None),
    ];
    for (at, body, ask, encode) in cases {
        let plan = planned(at, body.clone()).await.unwrap();
        assert_eq!((plan.ask, plan.encode), (ask, encode), "{at:?} {body}");
    }
    let plan = planned(FAL, json!({"output_compression": 70})).await.unwrap();
    assert_eq!(plan.changes[0].parameter, "output_compression");
    assert_eq!(plan.changes[0].reason, "png has no quality");
}

fn wish() -> impl Strategy<Value = SizeWish> {
    let tiers = prop::sample::select(vec![Tier::Half, Tier::One, Tier::OneAndHalf, Tier::Two]);
    (1u32..=21, 1u32..=21, tiers)
        .prop_filter("no narrower than 3:1", |(across, down, _)| {
            across.max(down) <= &(3 * across.min(down))
        })
        .prop_map(|(across, down, tier)| SizeWish::Shape {
            ratio: Some(Ratio { across, down }),
            tier: Some(tier),
        })
}

/// Sizes that are made come out as they are: the same is made of them.
fn check_fit(rule: &SizeRule, wish: SizeWish) {
    let Ok(Fit { made, given, .. }) = rule.fit(wish, None) else {
        panic!("{wish:?} cannot be made by {rule:?}");
    };
    assert!(rule.allows(made));
    assert_eq!(made, given);
    if rule.only.is_empty() {
        let wanted = wish.wanted(None);
        assert!(made.is_like(wanted.ratio()), "{wanted} became {made}");
        // Where it is larger or smaller, the provider's limits say so.
        let off = made.count() as f64 / wanted.count() as f64 - 1.0;
        assert!(off.abs() <= 0.05 || !rule.allows(wanted), "{wanted} became {made}");
    }
    let again = rule.fit(SizeWish::Exactly(made), None).unwrap();
    assert_eq!(again.made, made);
}

#[tokio::test]
async fn sizes_are_legal_and_of_the_shape_that_was_asked_for() {
    let room = Room::new().await;
    let rules: Vec<SizeRule> = SIX
        .into_iter()
        .map(|at| {
            let provider = room.provider(at, "http://127.0.0.1:1");
            provider.abilities(&deployment(at), Mode::TextToImage).sizes
        })
        .collect();
    proptest!(|(wish in wish())| {
        for rule in &rules {
            check_fit(rule, wish);
        }
    });
}

/// Everything that was sent is either somebody's or told.
#[tokio::test]
async fn nothing_is_dropped_in_silence() {
    let room = Room::new().await;
    for at in SIX {
        let provider = room.provider(at, "http://127.0.0.1:1");
        let abilities = provider.abilities(&deployment(at), Mode::TextToImage);
        for (name, value) in [
            ("seed", json!(1)),
            ("negative_prompt", json!("fog")),
            ("cfg_scale", json!(2)),
            ("num_inference_steps", json!(9)),
            ("acceleration", json!("none")),
            ("go_fast", json!(false)),
            ("enable_prompt_expansion", json!(false)),
            ("enable_safety_checker", json!(true)),
            ("sampler", json!("unipc")),
            ("sigmas", json!([1, 0.25])),
            ("variation_seed", json!(5)),
            ("prompt_weighting", json!(false)),
            ("style", json!("natural")),
            ("moderation", json!("auto")),
        ] {
            let request: ImageRequest = request(json!({name: value}));
            let plan = plan(&*provider, at, &request, &Sources::default()).unwrap();
            let told = plan.changes.iter().any(|change| change.parameter == name);
            assert_ne!(told, abilities.handling(name).is_some(), "{at:?} {name}");
        }
    }
    let long = "x".repeat(500);
    let plan = planned(FAL, json!({"negative_prompt": long})).await.unwrap();
    assert!(plan.changes[0].from.as_str().unwrap().chars().count() < 100);
    assert_eq!(plan.fit.made, Pixels::new(1024, 1024));
}
