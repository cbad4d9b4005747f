//! The fields of endpoints that a control network has a part in, and what they mean.

use serde_json::{Value, json};

use super::endpoint::Draws;
use super::field::{Field, Kind, field};
use super::problem::Problem;
use super::read::Reader;
use crate::task::{Control, Preprocess};

/// Those of `draws`.
pub(super) fn fields(draws: Draws) -> Vec<Field> {
    if !matches!(draws, Draws::Inpaint | Draws::Control) {
        return Vec::new();
    }
    let share = |name, default: f64, description| {
        field(name, Kind::Number { min: 0.0, max: 1.0 }, json!(default), description)
    };
    let mut out = vec![
        share("control_scale", 0.75, "How strongly the control network works."),
        share("control_start", 0.0, "The share of the steps after which it begins to work."),
        share("control_end", 0.8, "The share of the steps after which it ends."),
    ];
    if draws == Draws::Control {
        out.push(field(
            "preprocess",
            Kind::Choice(&Preprocess::NAMES),
            json!("none"),
            "What is made of the image first: nothing, where it is edges, depth or a pose already, its edges (canny), or its depth, for which the server needs a network. pose is not supported: send the pose's skeleton.",
        ));
    }
    out
}

impl Reader<'_> {
    /// A control network's work, for endpoints that have one.
    pub(super) fn control(&mut self, draws: Draws) -> Option<Control> {
        let image = match draws {
            Draws::Control => Some(self.place("image_url")),
            Draws::Inpaint => None,
            Draws::Text | Draws::Image | Draws::Tiles => return None,
        };
        let (start, end) = (self.number("control_start"), self.number("control_end"));
        let (start, end) = (start.unwrap_or(0.0), end.unwrap_or(0.8));
        if start > end {
            let msg = format!("control_start is {start} and must not be above control_end, {end}");
            self.wrong("control_start", "value_error", msg, &json!(start));
        }
        let preprocess = match draws {
            Draws::Control => self.preprocess(),
            _ => Preprocess::None,
        };
        let scale = self.number("control_scale").unwrap_or(0.75);
        Some(Control { image, preprocess, scale, start, end })
    }

    fn preprocess(&mut self) -> Preprocess {
        let name = self.choice("preprocess");
        let preprocess = Preprocess::named(&name).unwrap_or_default();
        if preprocess == Preprocess::Pose {
            let msg = "pose needs a model that Zoetrope does not have; send the pose's skeleton itself with preprocess none, or take canny or depth";
            let problem = Problem::new(&[json!("preprocess")], "feature_not_supported", msg);
            self.problems.push(problem.input(&Value::from(name)));
        }
        preprocess
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fal::endpoint::Endpoint;
    use crate::fal::parse::parse;
    use crate::task::{Generate, Place, Size, Task};

    fn pictures(path: &str, body: &Value) -> Generate {
        let endpoint = Endpoint::find(&format!("fal-ai/z-image/turbo/{path}")).unwrap();
        match parse(endpoint, body).unwrap() {
            Task::Generate(task) => *task,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn control_and_inpainting_get_every_default() {
        let task = pictures(
            "controlnet",
            &json!({"prompt": "x", "image_url": "https://a.example/edges.png"}),
        );
        let place = Place::Url("https://a.example/edges.png".into());
        let (preprocess, scale) = (Preprocess::None, 0.75);
        let control = Control { image: Some(place), preprocess, scale, start: 0.0, end: 0.8 };
        assert_eq!((task.size, &task.image, &task.mask), (Size::Auto, &None, &None));
        assert_eq!(task.control, Some(control.clone()));
        let body = json!({"prompt": "x", "image_url": "data:image/png;base64,", "preprocess": "canny",
            "control_scale": 0.5, "control_end": "1", "loras": [{"path": "a/b"}]});
        let task = pictures("controlnet/lora", &body);
        let got = task.control.unwrap();
        assert_eq!((got.preprocess, got.scale, got.end), (Preprocess::Canny, 0.5, 1.0));
        assert_eq!((got.image, task.loras.len()), (Some(Place::Input("image_url".into())), 1));
        let mut deep = body.clone();
        deep["preprocess"] = "depth".into();
        let got = pictures("controlnet/lora", &deep).control.unwrap();
        assert_eq!(got.preprocess, Preprocess::Depth);
        let body = json!({"prompt": "x", "image_url": "data:image/png;base64,", "mask_image_url": "https://a.example/m.png"});
        let task = pictures("inpaint", &body);
        assert_eq!((task.image.unwrap().strength, task.size), (1.0, Size::Auto));
        assert_eq!(task.mask, Some(Place::Url("https://a.example/m.png".into())));
        assert_eq!(task.control, Some(Control { image: None, ..control }));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let kinds = |path: &str, body: &Value| {
            let endpoint = Endpoint::find(&format!("fal-ai/z-image/turbo/{path}")).unwrap();
            let problems = parse(endpoint, body).unwrap_err();
            let short = |p: &Problem| format!("{} {}", p.loc[1].as_str().unwrap(), p.kind);
            problems.iter().map(short).collect::<Vec<_>>()
        };
        let image = "https://a.example/b.png";
        let body =
            json!({"prompt": "x", "image_url": image, "preprocess": "pose", "control_scale": 2});
        assert_eq!(
            kinds("controlnet", &body),
            ["preprocess feature_not_supported", "control_scale less_than_equal"]
        );
        let body = json!({"prompt": "x", "image_url": image, "control_start": 0.9});
        assert_eq!(
            kinds("inpaint", &body),
            ["mask_image_url missing", "control_start value_error"]
        );
    }
}
