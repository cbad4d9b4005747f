//! Bodies of requests: JSON over HTTP, msgpack over a websocket. Whatever is accepted must be within fal's limits.

use serde_json::Value;
use zoetrope_api::fal::{ENDPOINTS, PIXELS_MAX, parse};
use zoetrope_api::task::{Generate, Size, Task, Train};

/// A body as JSON.
pub fn json(data: &[u8]) {
    if let Ok(body) = serde_json::from_slice(data) {
        check(&body);
    }
}

/// A frame as msgpack.
pub fn msgpack(data: &[u8]) {
    if let Ok(body) = rmp_serde::from_slice(data) {
        check(&body);
    }
}

fn check(body: &Value) {
    for endpoint in ENDPOINTS {
        match parse(endpoint, body) {
            Ok(task) => {
                match &task {
                    Task::Generate(task) => pictures_within_limits(task),
                    Task::Train(task) => training_within_limits(task),
                }
                let stored = serde_json::to_string(&task).expect("a task is plain data");
                let read: Task =
                    serde_json::from_str(&stored).expect("a worker reads what was accepted");
                assert_eq!(read, task);
            }
            Err(problems) => {
                assert!(!problems.is_empty(), "refused without a reason");
                for problem in problems {
                    assert_eq!(problem.loc[0], "body");
                    assert!(!problem.msg.is_empty());
                }
            }
        }
    }
}

fn pictures_within_limits(task: &Generate) {
    if let Size::Pixels { width, height } = task.size {
        let pixels = u64::from(width) * u64::from(height);
        assert!((1..=PIXELS_MAX).contains(&pixels), "{width}x{height}");
    }
    assert!((1..=50).contains(&task.steps) && (1..=4).contains(&task.count), "{task:?}");
    assert!(task.guidance_scale.is_finite() && task.loras.len() <= 3, "{task:?}");
    assert!(task.loras.iter().all(|lora| (0.0..=4.0).contains(&lora.scale)), "{task:?}");
    let strengths = task.image.iter().map(|image| image.strength);
    assert!(strengths.into_iter().all(|strength| (0.0..=1.0).contains(&strength)), "{task:?}");
}

fn training_within_limits(task: &Train) {
    assert!((100..=10_000).contains(&task.steps), "{task:?}");
    assert!(task.learning_rate > 0.0 && task.learning_rate.is_finite(), "{task:?}");
}
