//! Requests for pictures as clients send them, and what is told of those that cannot be used.

use bytes::Bytes;
use serde_json::{Value, json};
use zoetrope_api::images::{
    Form, ImageRequest, Input, Pixels, Problem, Ratio, Route, SizeWish, Tier, parse_form,
    parse_json,
};
use zoetrope_api::{Controls, Format, Sampler, Sigmas, Variation};

fn parsed(mut body: Value, route: Route) -> Result<ImageRequest, Problem> {
    let body = body.as_object_mut().expect("an object");
    body.entry("model").or_insert(json!("z-image-turbo"));
    if route != Route::Variations {
        body.entry("prompt").or_insert(json!("a house"));
    }
    parse_json(body, route)
}

fn generation(body: Value) -> Result<ImageRequest, Problem> {
    parsed(body, Route::Generations)
}

#[test]
fn sizes_come_in_many_words() {
    let shape = |across, down, tier| SizeWish::Shape { ratio: Some(Ratio { across, down }), tier };
    let exactly = |width, height| SizeWish::Exactly(Pixels::new(width, height));
    let cases = [
        (json!({}), SizeWish::Auto),
        (json!({"size": "auto"}), SizeWish::Auto),
        (json!({"size": ""}), SizeWish::Auto),
        (json!({"size": "1024x768"}), exactly(1024, 768)),
        (json!({"size": "1024X768"}), exactly(1024, 768)),
        (json!({"size": "1024*768"}), exactly(1024, 768)),
        (json!({"size": "1024×768"}), exactly(1024, 768)),
        (json!({"width": 640, "height": "480"}), exactly(640, 480)),
        (json!({"size": "640x480", "width": 640, "height": 480}), exactly(640, 480)),
        (json!({"size": "16:9"}), shape(16, 9, None)),
        (json!({"aspect_ratio": "16:9", "resolution": "2k"}), shape(16, 9, Some(Tier::Two))),
        (json!({"size": "auto", "aspect_ratio": "auto"}), SizeWish::Auto),
        (json!({"size": "2K"}), SizeWish::Shape { ratio: None, tier: Some(Tier::Two) }),
        (json!({"size": "1360x768", "aspect_ratio": "16:9"}), exactly(1360, 768)),
    ];
    for (body, want) in cases {
        assert_eq!(generation(body.clone()).map(|request| request.size), Ok(want), "{body}");
    }
}

#[test]
fn the_answer_s_form_is_what_each_client_reads() {
    let cases = [
        ("z-image-turbo", Route::Generations, json!({}), Form::Url),
        ("gpt-image-1", Route::Generations, json!({}), Form::Base64),
        ("chatgpt-image-latest", Route::Generations, json!({}), Form::Base64),
        ("gpt-image-1", Route::Generations, json!({"response_format": "url"}), Form::Url),
        ("z-image-turbo", Route::Generations, json!({"response_format": "b64_json"}), Form::Base64),
        ("z-image-turbo", Route::Generations, json!({"sync_mode": true}), Form::DataUri),
        ("z-image-turbo", Route::Generations, json!({"stream": true}), Form::Base64),
        ("z-image-turbo", Route::Edits, json!({}), Form::Both),
        ("z-image-turbo", Route::Edits, json!({"response_format": "url"}), Form::Url),
    ];
    for (model, route, mut body, want) in cases {
        body["model"] = model.into();
        if route == Route::Edits {
            body["image"] = "https://a.example/b.png".into();
        }
        let form = parsed(body.clone(), route).map(|request| request.reply.form);
        assert_eq!(form, Ok(want), "{model} {body}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (json!({"model": null}), "model", "`model` is missing; GET /v1/models lists what there is"),
        (json!({"prompt": " "}), "prompt", "`prompt` is empty; say what to show"),
        (json!({"prompt": 5}), "prompt", "`prompt` is 5; it must be a string"),
        (
            json!({"sampler": "ddim"}),
            "sampler",
            "`sampler` is `ddim`; send one of euler, heun, dpmpp_2m, unipc",
        ),
        (
            json!({"sigmas": [0.5, 0.7]}),
            "sigmas",
            "`sigmas` must fall from at most 1 to above 0, each below the one before",
        ),
        (
            json!({"sigmas": "1; 0.5"}),
            "sigmas",
            "`sigmas` must be a list of at most 200 numbers from 0 to 1",
        ),
        (
            json!({"sigmas": [1, 0.5], "num_inference_steps": 8}),
            "num_inference_steps",
            "`num_inference_steps` is not the 2 levels of `sigmas`; send one of them",
        ),
        (json!({"sigmas": []}), "sigmas", "`sigmas` has 0 levels; give 1 to 200, one a step"),
        (
            json!({"variation_seed": 3, "variation_strength": 2}),
            "variation_strength",
            "`variation_strength` is 2; it must be a number from 0 to 1",
        ),
        (
            json!({"variation_strength": 0.5}),
            "variation_strength",
            "`variation_strength` says how far, but there is no `variation_seed`; send both",
        ),
        (json!({"n": 11}), "n", "`n` is 11; it must be a whole number from 1 to 10"),
        (json!({"n": "two"}), "n", "`n` is `two`; it must be a whole number from 1 to 10"),
        (json!({"n": 1.5}), "n", "`n` is 1.5; it must be a whole number from 1 to 10"),
        (json!({"seed": "x"}), "seed", "`seed` is `x`; it must be a whole number of 64 bits"),
        (
            json!({"size": "big"}),
            "size",
            "`size` is `big`; send pixels as 1024x768, a ratio as 16:9, or auto",
        ),
        (json!({"size": "0x512"}), "size", "`size` is `0x512`; sides are from 1 to 8192 pixels"),
        (json!({"size": "1:99"}), "size", "`size` is 1:99; at most 32:1 and 1:32 are drawn"),
        (
            json!({"width": 512}),
            "height",
            "`height` is missing beside `width`; send both, or `size`",
        ),
        (
            json!({"size": "1024x1024", "aspect_ratio": "16:9"}),
            "aspect_ratio",
            "`aspect_ratio` is 16:9, but 1024x1024 is sent too; send one of them",
        ),
        (
            json!({"size": "512x512", "resolution": "1K"}),
            "resolution",
            "`resolution` is about 1024x1024 pixels, but 512x512 is sent too; send one of them",
        ),
        (
            json!({"output_format": "bmp"}),
            "output_format",
            "`output_format` is `bmp`; send one of png, jpeg, webp, gif, avif",
        ),
        (
            json!({"response_format": "file"}),
            "response_format",
            "`response_format` is `file`; send one of url, b64_json",
        ),
        (
            json!({"output_compression": 101}),
            "output_compression",
            "`output_compression` is 101; it must be a whole number from 0 to 100",
        ),
        (json!({"stream": "maybe"}), "stream", "`stream` is `maybe`; it must be true or false"),
        (
            json!({"cfg_scale": -1}),
            "cfg_scale",
            "`cfg_scale` is -1; it must be a number from 0 to 20",
        ),
        (
            json!({"image": "https://a.example/b.png"}),
            "image",
            "`image` is not taken here; send it to images/edits",
        ),
    ];
    for (body, param, message) in cases {
        let problem = generation(body.clone()).expect_err(&body.to_string());
        assert_eq!((problem.param.as_deref(), problem.message.as_str()), (Some(param), message));
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let problem = generation(json!({"n": 0, "seed": true, "acceleration": "max"})).unwrap_err();
    for name in ["`n`", "`seed`", "`acceleration`"] {
        assert!(problem.message.contains(name), "{problem}");
    }
}

#[test]
fn what_nobody_knows_is_kept_and_counted_as_sent() {
    let body = json!({"quality": "hd", "style": "vivid", "strength": 0.5, "n": null, "loras": [{"path": "x"}]});
    let request = generation(body).unwrap();
    let names: Vec<_> = request.extras.keys().map(String::as_str).collect();
    assert_eq!(names, ["loras", "quality", "strength", "style"]);
    assert_eq!(request.given, ["loras", "model", "prompt", "quality", "strength", "style"]);
    assert_eq!(request.count, 1);
}

#[test]
fn seeds_of_every_kind_are_taken() {
    for (seed, want) in
        [(json!(7), 7), (json!("7"), 7), (json!(-1), u64::MAX), (json!(u64::MAX), u64::MAX)]
    {
        assert_eq!(generation(json!({"seed": seed})).unwrap().seed, Some(want));
    }
}

#[test]
fn what_is_set_beside_seed_and_steps_is_read_from_json_and_forms() {
    let want = Controls {
        sampler: Sampler::UniPc,
        sigmas: Some(Sigmas::new(vec![1.0, 0.5]).unwrap()),
        variation: Some(Variation { seed: 9, strength: Variation::STRENGTH_DEFAULT }),
        prompt_weighting: true,
        ..Controls::default()
    };
    let body = json!({"sampler": "unipc", "sigmas": [1, 0.5], "variation_seed": 9, "prompt_weighting": true});
    let request = generation(body).unwrap();
    assert_eq!((&request.controls, request.extras.len()), (&want, 0));
    let lists: [&[(&str, &str)]; 4] = [
        &[("sigmas", "1, 0.5")],
        &[("sigmas", "[1.0, 0.5]")],
        // As OpenAI's clients send lists beside files.
        &[("sigmas[]", "1"), ("sigmas[]", "0.5")],
        &[("sigmas[0]", "1"), ("sigmas[1]", "0.5")],
    ];
    for sigmas in lists {
        let others = [
            ("model", "z-image"),
            ("prompt", "x"),
            ("sampler", "UniPC"),
            ("variation_seed", "9"),
            ("prompt_weighting", "true"),
        ];
        let texts = [&others, sigmas].concat();
        let texts =
            texts.into_iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        let request = parse_form(texts, Vec::new(), Route::Generations).unwrap();
        assert_eq!((&request.controls, request.extras.len()), (&want, 0));
    }
    // A schema's defaults, sent as they are.
    let defaults = json!({"sampler": "euler", "variation_strength": Variation::STRENGTH_DEFAULT, "prompt_weighting": false});
    assert!(generation(defaults).unwrap().controls.are_default());
    assert!(generation(json!({})).unwrap().controls.are_default());
}

#[test]
fn pictures_of_an_edit_come_in_many_forms() {
    let url = "https://a.example/b.png";
    let cases = [
        (json!({"image": url}), 1),
        (json!({"image": [url, "data:image/png;base64,aGk="]}), 2),
        (json!({"image_url": url}), 1),
        (json!({"images": [{"image_url": url}, {"url": url}]}), 2),
        (json!({"images": [{"type": "image_url", "image_url": {"url": url}}]}), 1),
    ];
    for (body, count) in cases {
        let request = parsed(body.clone(), Route::Edits).unwrap_or_else(|e| panic!("{body}: {e}"));
        assert_eq!(request.edit.unwrap().images.len(), count, "{body}");
    }
    let wrong = [
        json!({}),
        json!({"image": "house.png"}),
        json!({"image": 5}),
        json!({"image": {"file_id": "file-1"}}),
        json!({"image": vec![url; 17]}),
        json!({"image": url, "mask": [url, url]}),
        json!({"image": url, "strength": 2}),
    ];
    for body in wrong {
        assert!(parsed(body.clone(), Route::Edits).is_err(), "{body}");
    }
}

#[test]
fn a_form_is_read_like_json() {
    let texts = [
        ("image[]", "https://a.example/b.png"),
        ("model", "m"),
        ("prompt", "p"),
        ("n", "2"),
        ("stream", "false"),
    ];
    let texts = texts.map(|(name, text)| (name.to_string(), text.to_string())).to_vec();
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let files = vec![
        ("image[]".to_string(), bytes("one")),
        ("mask".to_string(), bytes("mask")),
        ("image[1]".to_string(), bytes("two")),
    ];
    let request = parse_form(texts, files, Route::Edits).unwrap();
    let edit = request.edit.unwrap();
    assert_eq!(edit.images.len(), 3);
    assert_eq!(edit.images[1], Input::Bytes(bytes("one")));
    assert_eq!(edit.mask, Some(Input::Bytes(bytes("mask"))));
    assert_eq!((request.count, request.reply.partials), (2, None));
    assert_eq!(request.given, ["image", "model", "n", "prompt", "stream", "mask"]);
}

#[test]
fn a_variation_needs_no_prompt() {
    let request = parsed(json!({"image": "https://a.example/b.png"}), Route::Variations).unwrap();
    assert_eq!(request.prompt, "");
    assert_eq!(request.edit.unwrap().strength, Some(0.7));
}

#[test]
fn qualities_and_formats_go_by_two_names() {
    let request = generation(json!({"output_format": "jpg", "output_quality": 40})).unwrap();
    assert_eq!((request.format, request.quality), (Some(Format::Jpeg), Some(40)));
    assert!(generation(json!({"output_compression": 50, "output_quality": 40})).is_err());
}
