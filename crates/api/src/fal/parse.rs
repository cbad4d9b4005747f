//! What was sent to a task that cannot be wrong. All wrong fields are reported together, as Pydantic would.

use serde_json::{Value, json};

use super::endpoint::{Endpoint, Makes, Start};
use super::field::{Kind, LORA_SCALE, fields};
use super::problem::Problem;
use super::read::{Reader, not_among};
use crate::task::{
    Control, Delivery, Format, Generate, Lora, Preprocess, Reference, Size, Task, Train, TrainingType,
};
use crate::{ImageSize, NAMED_SIZES, OnFlagged};

/// Pixels of one picture: fal's "up to 4 megapixels", so that 2048 × 2048 is one.
pub const PIXELS_MAX: u64 = 2048 * 2048;
/// Pixels of one side: what the engine draws. fal's pages have 14142.
pub const SIDE_MAX: i64 = ImageSize::SIDE_MAX as i64;
/// Where an object leaves a side out.
const SIDE_DEFAULT: u32 = 512;
/// Bytes of a prompt; the encoder reads 512 tokens of it.
pub const PROMPT_BYTES_MAX: usize = 100_000;

/// The task that `body`, sent to `endpoint`, asks for.
pub fn parse(endpoint: &Endpoint, body: &Value) -> Result<Task, Vec<Problem>> {
    let Value::Object(body) = body else {
        let msg = "Input should be a valid dictionary or object to extract fields from";
        return Err(vec![Problem::new(&[], "model_attributes_type", msg).input(body)]);
    };
    let fields = fields(endpoint);
    let mut read = Reader { body, fields: &fields, problems: Vec::new() };
    let task = match endpoint.makes {
        Makes::Pictures { from, .. } => Task::Generate(Box::new(read.generate(endpoint, from))),
        Makes::Adapter { .. } => Task::Train(read.train(endpoint)),
    };
    match read.problems.is_empty() {
        true => Ok(task),
        false => Err(read.problems),
    }
}

impl Reader<'_> {
    fn generate(&mut self, endpoint: &Endpoint, from: Start) -> Generate {
        let prompt = self.prompt("prompt");
        let starts = matches!(from, Start::Image | Start::Inpaint);
        let image = starts.then(|| Reference {
            place: self.place("image_url"),
            strength: self.number("strength").unwrap_or(0.6),
        });
        let mask = (from == Start::Inpaint).then(|| self.place("mask_image_url"));
        let control = self.control(from);
        let size = self.image_size();
        let steps = self.integer("num_inference_steps").unwrap_or(8) as u32;
        let seed = self.seed();
        let inline = self.flag("sync_mode");
        let count = self.integer("num_images").unwrap_or(1) as u32;
        let safety_checker = self.flag("enable_safety_checker");
        let format = match self.choice("output_format").as_str() {
            "jpeg" => Format::Jpeg,
            "webp" => Format::Webp,
            _ => Format::Png,
        };
        let acceleration = self.choice("acceleration").parse().unwrap_or_default();
        let expand_prompt = self.flag("enable_prompt_expansion");
        Generate {
            model: endpoint.model,
            prompt,
            negative_prompt: self.prompt("negative_prompt"),
            size,
            steps,
            seed,
            count,
            guidance_scale: self.number("guidance_scale").unwrap_or(0.0),
            image,
            mask,
            control,
            references: Vec::new(),
            loras: self.loras(),
            acceleration,
            format,
            quality: None,
            delivery: if inline { Delivery::Inline } else { Delivery::Stored },
            safety_checker,
            on_flagged: OnFlagged::Blank,
            expand_prompt,
            previews: false,
            keep_seconds: None,
        }
    }

    fn control(&mut self, from: Start) -> Option<Control> {
        let image = match from {
            Start::Prompt | Start::Image => return None,
            Start::Inpaint => None,
            Start::Control => Some(self.place("image_url")),
        };
        let (start, end) = (self.number("control_start"), self.number("control_end"));
        let (start, end) = (start.unwrap_or(0.0), end.unwrap_or(0.8));
        if start > end {
            let msg = format!("control_start is {start} and must not be above control_end, {end}");
            self.wrong("control_start", "value_error", &msg, &json!(start));
        }
        let preprocess = match from {
            Start::Control => Preprocess::named(&self.choice("preprocess")).unwrap_or_default(),
            _ => Preprocess::None,
        };
        if matches!(preprocess, Preprocess::Depth | Preprocess::Pose) {
            let name = self.choice("preprocess");
            let msg = format!(
                "{name} needs a further model, which this server has not; send the {name} image itself with preprocess none, or take canny"
            );
            let problem = Problem::new(&[json!("preprocess")], "feature_not_supported", msg);
            self.problems.push(problem.input(&json!(name)));
        }
        let scale = self.number("control_scale").unwrap_or(0.75);
        Some(Control { image, preprocess, scale, start, end })
    }

    fn train(&mut self, endpoint: &Endpoint) -> Train {
        Train {
            model: endpoint.model,
            data: self.place("image_data_url"),
            steps: self.integer("steps").unwrap_or(1000) as u32,
            learning_rate: self.positive("learning_rate").unwrap_or(1e-4),
            training_type: TrainingType::named(&self.choice("training_type")),
            // Forms send what was left empty as an empty text.
            default_caption: Some(self.prompt("default_caption")).filter(|c| !c.trim().is_empty()),
            keep_seconds: None,
        }
    }

    fn image_size(&mut self) -> Size {
        let fallback = Size::Pixels { width: 1024, height: 1024 };
        let Some((value, Kind::ImageSize { auto })) = self.value("image_size") else {
            return fallback;
        };
        let path = json!("image_size");
        match &value {
            Value::Object(object) => {
                let mut side = |name: &str| match object.get(name) {
                    Some(sent) => self.whole(&[path.clone(), json!(name)], sent, 1, SIDE_MAX),
                    None => Some(i64::from(SIDE_DEFAULT)),
                };
                let (width, height) = (side("width"), side("height"));
                let (Some(width), Some(height)) = (width, height) else { return fallback };
                if (width * height) as u64 > PIXELS_MAX {
                    let msg = format!(
                        "{width}x{height} are {:.1} megapixels; the most is 2048x2048 or as many pixels in another ratio",
                        (width * height) as f64 / 1e6
                    );
                    let problem = Problem::new(&[path], "image_too_large", msg);
                    self.problems.push(
                        problem.with("max_width", 2048).with("max_height", 2048).input(&value),
                    );
                }
                Size::Pixels { width: width as u32, height: height as u32 }
            }
            Value::String(name) if auto && name == "auto" => Size::Auto,
            other => {
                let named = |name: &str| NAMED_SIZES.iter().find(|(known, ..)| *known == name);
                if let Some((_, width, height)) = other.as_str().and_then(named) {
                    return Size::Pixels { width: *width, height: *height };
                }
                let names = size_names(auto);
                self.problems.push(not_among(&[path], &names, other));
                fallback
            }
        }
    }

    fn loras(&mut self) -> Vec<Lora> {
        let Some((value, Kind::Loras { max })) = self.value("loras") else { return Vec::new() };
        let Value::Array(list) = &value else {
            self.wrong("loras", "list_type", "Input should be a valid list", &value);
            return Vec::new();
        };
        if list.len() > max {
            let msg = format!(
                "List should have at most {max} items after validation, not {}",
                list.len()
            );
            let problem =
                Problem::new(&[json!("loras")], "too_long", msg).with("field_type", "List");
            let problem = problem.with("max_length", max).with("actual_length", list.len());
            self.problems.push(problem.input(&value));
            return Vec::new();
        }
        list.iter().enumerate().filter_map(|(at, entry)| self.lora(at, entry)).collect()
    }

    fn lora(&mut self, at: usize, entry: &Value) -> Option<Lora> {
        let path = |name: &str| [json!("loras"), json!(at), json!(name)];
        let scale = match entry.get("scale").filter(|scale| !scale.is_null()) {
            Some(scale) => self.float(&path("scale"), scale, LORA_SCALE.0, LORA_SCALE.1),
            None => Some(1.0),
        };
        let found = match entry.get("path") {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(other) => {
                let msg = "Input should be a valid string with an address, a hub id or a name";
                Err(Problem::new(&path("path"), "string_type", msg).input(other))
            }
            None => Err(Problem::new(&path("path"), "missing", "Field required").input(entry)),
        };
        Some(Lora { path: self.keep(found)?, scale: scale? })
    }
}

/// The names that `image_size` takes.
pub fn size_names(auto: bool) -> Vec<&'static str> {
    let names = NAMED_SIZES.iter().map(|(name, ..)| *name);
    names.chain(auto.then_some("auto")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::Acceleration;
    use crate::fal::endpoint::ENDPOINTS;
    use crate::task::{Model, Place};

    fn endpoint(path: &str) -> &'static Endpoint {
        let id = path.strip_prefix("../").map_or(format!("z-image/{path}"), String::from);
        Endpoint::find(&format!("fal-ai/{id}")).unwrap()
    }

    fn pictures(path: &str, body: Value) -> Generate {
        match parse(endpoint(path), &body).unwrap() {
            Task::Generate(task) => *task,
            other => panic!("{other:?}"),
        }
    }

    fn training(path: &str, body: Value) -> Train {
        let endpoint = Endpoint::find(&format!("fal-ai/{path}")).unwrap();
        match parse(endpoint, &body).unwrap() {
            Task::Train(task) => task,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_prompt_alone_gets_every_default() {
        let task = pictures("turbo", json!({"prompt": "a fox", "unknown": 1}));
        assert_eq!(
            task,
            Generate {
                model: Model::Turbo,
                prompt: "a fox".into(),
                negative_prompt: String::new(),
                size: Size::Pixels { width: 1024, height: 768 },
                steps: 8,
                seed: None,
                count: 1,
                guidance_scale: 0.0,
                image: None,
                mask: None,
                control: None,
                references: Vec::new(),
                loras: Vec::new(),
                acceleration: Acceleration::Regular,
                format: Format::Png,
                quality: None,
                delivery: Delivery::Stored,
                safety_checker: true,
                on_flagged: OnFlagged::Blank,
                expand_prompt: false,
                previews: false,
                keep_seconds: None,
            }
        );
        let base = pictures("base", json!({"prompt": ""}));
        assert_eq!((base.steps, base.guidance_scale), (28, 4.0));
        let image = json!({"prompt": "x", "image_url": "data:image/png;base64,", "seed": -1});
        let image = pictures("turbo/image-to-image", image);
        assert_eq!((image.size, image.seed), (Size::Auto, Some(u64::MAX)));
        assert_eq!(image.image.unwrap().place, Place::Input("image_url".into()));
        let image = json!({"prompt": "x", "image_url": "https://a.example/b.png"});
        let image = pictures("turbo/image-to-image", image).image.unwrap();
        assert_eq!(image.place, Place::Url("https://a.example/b.png".into()));
    }

    #[test]
    fn control_and_inpainting_get_every_default() {
        let body = json!({"prompt": "x", "image_url": "https://a.example/edges.png"});
        let task = pictures("turbo/controlnet", body);
        let place = Place::Url("https://a.example/edges.png".into());
        let (preprocess, scale) = (Preprocess::None, 0.75);
        let control = Control { image: Some(place), preprocess, scale, start: 0.0, end: 0.8 };
        assert_eq!((task.size, &task.image, &task.mask), (Size::Auto, &None, &None));
        assert_eq!(task.control, Some(control.clone()));
        let body = json!({"prompt": "x", "image_url": "data:image/png;base64,", "preprocess": "canny",
            "control_scale": 0.5, "control_end": "1", "loras": [{"path": "a/b"}]});
        let task = pictures("turbo/controlnet/lora", body);
        let got = task.control.unwrap();
        assert_eq!((got.preprocess, got.scale, got.end), (Preprocess::Canny, 0.5, 1.0));
        assert_eq!((got.image, task.loras.len()), (Some(Place::Input("image_url".into())), 1));
        let body = json!({"prompt": "x", "image_url": "data:image/png;base64,", "mask_image_url": "https://a.example/m.png"});
        let task = pictures("turbo/inpaint", body);
        assert_eq!(task.image.unwrap().strength, 1.0);
        assert_eq!(task.mask, Some(Place::Url("https://a.example/m.png".into())));
        assert_eq!(task.control, Some(Control { image: None, ..control }));
    }

    #[test]
    fn values_are_read_as_pydantic_reads_them() {
        let body = json!({"prompt": "x", "num_inference_steps": "4", "num_images": 2.0, "sync_mode": "yes",
            "image_size": {"width": 100}, "seed": null, "output_format": "webp", "acceleration": "high"});
        let task = pictures("turbo", body);
        assert_eq!(task.acceleration, Acceleration::High);
        assert_eq!((task.steps, task.count, task.delivery), (4, 2, Delivery::Inline));
        assert_eq!(task.size, Size::Pixels { width: 100, height: 512 });
    }

    #[test]
    fn a_zip_alone_gets_every_default_of_its_trainer() {
        let place = Place::Url("https://a.example/b.zip".into());
        let body = json!({"image_data_url": "https://a.example/b.zip"});
        let train = |path: &str| training(path, body.clone());
        assert_eq!(
            train("z-image-trainer"),
            Train {
                model: Model::Turbo,
                data: place.clone(),
                steps: 1000,
                learning_rate: 1e-4,
                training_type: Some(TrainingType::Balanced),
                default_caption: None,
                keep_seconds: None,
            }
        );
        for (path, model) in [
            ("z-image-turbo-trainer", Model::Turbo),
            ("z-image-turbo-trainer-v2", Model::Turbo),
            ("z-image-base-trainer", Model::Base),
        ] {
            let task = train(path);
            assert_eq!((task.model, task.steps, task.learning_rate), (model, 2000, 5e-4));
            assert_eq!((task.training_type, &task.data), (None, &place));
        }
        let body = json!({"image_data_url": "data:application/zip;base64,", "steps": "100", "learning_rate": 1,
            "training_type": "style", "default_caption": " "});
        let task = training("z-image-trainer", body);
        assert_eq!(task.data, Place::Input("image_data_url".into()));
        assert_eq!((task.steps, task.learning_rate), (100, 1.0));
        assert_eq!((task.training_type, task.default_caption), (Some(TrainingType::Style), None));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let cases = [
            ("turbo", json!({}), vec!["prompt missing"]),
            ("turbo", json!([]), vec![" model_attributes_type"]),
            (
                "turbo",
                json!({"prompt": 3, "num_inference_steps": 31, "num_images": 0, "output_format": "jpg", "acceleration": "max"}),
                vec![
                    "prompt string_type",
                    "num_inference_steps less_than_equal",
                    "num_images greater_than_equal",
                    "output_format literal_error",
                    "acceleration literal_error",
                ],
            ),
            (
                "turbo",
                json!({"prompt": "x", "image_size": {"width": 0, "height": 20000}, "seed": 1.5, "sync_mode": "maybe"}),
                vec![
                    "image_size.width greater_than_equal",
                    "image_size.height less_than_equal",
                    "seed int_from_float",
                    "sync_mode bool_parsing",
                ],
            ),
            (
                "turbo",
                json!({"prompt": "x", "image_size": "auto"}),
                vec!["image_size literal_error"],
            ),
            (
                "turbo",
                json!({"prompt": "x", "image_size": {"width": 3000, "height": 3000}}),
                vec!["image_size image_too_large"],
            ),
            (
                "turbo",
                json!({"prompt": "x", "enable_prompt_expansion": "often"}),
                vec!["enable_prompt_expansion bool_parsing"],
            ),
            (
                "turbo/lora",
                json!({"prompt": "x", "loras": [{}, {"path": "a/b", "scale": 9}]}),
                vec!["loras.0.path missing", "loras.1.scale less_than_equal"],
            ),
            ("turbo/lora", json!({"prompt": "x", "loras": [1, 2, 3, 4]}), vec!["loras too_long"]),
            (
                "turbo/controlnet",
                json!({"prompt": "x", "image_url": "https://a.example/b.png", "preprocess": "depth", "control_scale": 2}),
                vec!["preprocess feature_not_supported", "control_scale less_than_equal"],
            ),
            (
                "turbo/inpaint",
                json!({"prompt": "x", "image_url": "https://a.example/b.png", "control_start": 0.9}),
                vec!["mask_image_url missing", "control_start value_error"],
            ),
            (
                "base",
                json!({"prompt": "x", "guidance_scale": "much"}),
                vec!["guidance_scale float_parsing"],
            ),
            (
                "../z-image-trainer",
                json!({"steps": 99, "learning_rate": 0, "training_type": "all", "default_caption": 1}),
                vec![
                    "image_data_url missing",
                    "steps greater_than_equal",
                    "learning_rate greater_than",
                    "training_type literal_error",
                    "default_caption string_type",
                ],
            ),
            (
                "../z-image-base-trainer",
                json!({"image_data_url": 7, "steps": 10_001, "learning_rate": "nan"}),
                vec![
                    "image_data_url string_type",
                    "steps less_than_equal",
                    "learning_rate finite_number",
                ],
            ),
        ];
        for (path, body, want) in cases {
            let problems = parse(endpoint(path), &body).unwrap_err();
            let name = |part: &Value| part.as_str().map_or(part.to_string(), String::from);
            let short = |p: &Problem| {
                let loc: Vec<_> = p.loc[1..].iter().map(name).collect();
                format!("{} {}", loc.join("."), p.kind)
            };
            assert_eq!(problems.iter().map(short).collect::<Vec<_>>(), want, "{body}");
        }
    }

    #[test]
    fn a_problem_looks_as_fal_s() {
        let problem =
            &parse(endpoint("turbo"), &json!({"prompt": "x", "num_images": 9})).unwrap_err()[0];
        let want = json!({"loc": ["body", "num_images"], "msg": "Input should be less than or equal to 4",
            "type": "less_than_equal", "ctx": {"le": 4}, "input": 9,
            "url": "https://docs.fal.ai/errors/#less_than_equal"});
        assert_eq!(serde_json::to_value(problem).unwrap(), want);
    }

    #[test]
    fn each_example_passes_its_own_validation() {
        for endpoint in ENDPOINTS {
            let mut body = Map::new();
            for field in fields(endpoint) {
                let value = field.example.or(field.default).expect("an example or a default");
                body.insert(field.name.into(), value);
            }
            parse(endpoint, &Value::Object(body)).unwrap();
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_sent_panics(name in "prompt|image_size|seed|loras|num_images|strength|image_data_url|learning_rate|training_type", text in ".{0,40}", number in proptest::num::f64::ANY) {
            for value in [json!(text), json!(number), json!([text]), json!({"width": number, "path": text}), json!(null)] {
                for endpoint in ENDPOINTS {
                    let _ = parse(endpoint, &json!({ &name: value }));
                }
            }
        }
    }
}
