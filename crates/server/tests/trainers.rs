//! Trainers over HTTP: what they take, what they answer, and the documents about them.

#![allow(clippy::unwrap_used)]

mod room;

use room::{Room, Setup, completed};
use serde_json::{Value, json};
use zoetrope_api::task::{Place, Task};
use zoetrope_jobs::{Attempt, End, Preview, Scope};

const TRAINER: &str = "fal-ai/z-image-trainer";
const ALL: [&str; 4] = [
    TRAINER,
    "fal-ai/z-image-turbo-trainer",
    "fal-ai/z-image-turbo-trainer-v2",
    "fal-ai/z-image-base-trainer",
];

fn zip() -> Value {
    json!({"image_data_url": "https://pictures.example/a.zip"})
}

fn trained() -> End {
    let file = |name: &str| json!({"url": format!("http://127.0.0.1:7860/files/{name}"), "file_name": name});
    let response = json!({"diffusers_lora_file": file("pytorch_lora_weights.safetensors"), "config_file": file("config.json")});
    End { response: response.to_string(), billable_units: Some(2.0), ..completed() }
}

#[tokio::test]
async fn a_training_goes_through_the_queue_as_a_picture_does() {
    let room = Room::new().await;
    for id in ALL {
        let submitted = room.post(&format!("/queue/{id}"), zip()).await;
        assert_eq!(submitted.status, 200, "{submitted:?}");
        let body = submitted.json();
        let request = body["request_id"].as_str().unwrap();
        // Owner and alias are the whole of a trainer's id.
        let base = format!("http://127.0.0.1:7860/queue/{id}/requests/{request}");
        assert_eq!(body["status_url"], format!("{base}/status"));

        let lease = room.claim().await;
        let task: Task = serde_json::from_str(&lease.request.task).unwrap();
        let Task::Train(task) = task else { panic!("{task:?}") };
        assert_eq!(task.data, Place::Url("https://pictures.example/a.zip".into()));
        lease.log("INFO", "Step 1/2000: loss 0.5").await.unwrap();
        let status = room.get(&format!("/queue/{id}/requests/{request}/status?logs=1")).await;
        assert_eq!(status.json()["logs"][0]["message"], "Step 1/2000: loss 0.5");
        lease.finish(Attempt::End(trained())).await.unwrap();
        let result = room.get(&format!("/queue/{id}/requests/{request}")).await;
        assert_eq!(result.header("x-fal-billable-units"), "2");
        assert_eq!(
            result.json()["diffusers_lora_file"]["file_name"],
            "pytorch_lora_weights.safetensors"
        );
    }
}

#[tokio::test]
async fn a_training_costs_by_its_steps() {
    let room = Room::new().await;
    let prices = room.get("/platform/v1/models/pricing").await.json()["prices"].clone();
    let price = |id: &str| {
        let prices = prices.as_array().unwrap();
        prices.iter().find(|price| price["endpoint_id"] == id).unwrap().clone()
    };
    assert_eq!(
        price(TRAINER),
        json!({"endpoint_id": TRAINER, "unit_price": 2.26, "unit": "1000 steps", "currency": "USD"})
    );
    assert_eq!(price("fal-ai/z-image/turbo")["unit"], "megapixels");
    room.post(&format!("/queue/{TRAINER}"), zip()).await;
    room.claim().await.finish(Attempt::End(trained())).await.unwrap();
    let list = room.get("/platform/v1/models/requests/by-endpoint").await.json();
    assert_eq!(list["items"][0]["cost"], json!(4.52));
}

#[tokio::test]
async fn every_wrong_field_of_a_training_is_told_at_once() {
    let room = Room::new().await;
    let body = json!({"steps": 10_001, "learning_rate": -1, "training_type": "face", "default_caption": ["x"]});
    for way in ["queue", "run"] {
        let answer = room.post(&format!("/{way}/{TRAINER}"), body.clone()).await;
        assert_eq!(answer.status, 422);
        let detail = answer.json()["detail"].clone();
        let found: Vec<(&Value, &Value)> =
            detail.as_array().unwrap().iter().map(|p| (&p["loc"], &p["type"])).collect();
        let expected = [
            (json!(["body", "image_data_url"]), json!("missing")),
            (json!(["body", "steps"]), json!("less_than_equal")),
            (json!(["body", "learning_rate"]), json!("greater_than")),
            (json!(["body", "training_type"]), json!("literal_error")),
            (json!(["body", "default_caption"]), json!("string_type")),
        ];
        assert_eq!(found, expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    }
    // A field of another trainer is unknown to this one, and unknown fields are left out.
    let mut body = zip();
    body["training_type"] = json!("face");
    let answer = room.post("/queue/fal-ai/z-image-base-trainer", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn a_stream_shows_samples_and_realtime_is_not_there() {
    let room = Room::new().await;
    let uri = format!("/run/{TRAINER}/stream");
    let work = async {
        let lease = loop {
            match room.queue.claim().await.unwrap() {
                Some(lease) => break lease,
                None => tokio::task::yield_now().await,
            }
        };
        let picture = "data:image/jpeg;base64,".to_string();
        lease.preview(&Preview { step: 250, of: 1000, picture }).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await; // previews go with the end
        lease.finish(Attempt::End(trained())).await.unwrap();
    };
    let (answer, ()) = tokio::join!(room.post(&uri, zip()), work);
    let events = answer.events();
    assert_eq!((events.len(), &events[0]["progress"]), (2, &json!(0.25)));
    assert_eq!(events.last().unwrap()["config_file"]["file_name"], "config.json");

    let answer = room.get(&format!("/run/{TRAINER}/realtime")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.json()["detail"].as_str().unwrap().contains("Path /realtime not found"));
}

#[tokio::test]
async fn a_running_training_is_cancelled_like_anything_else() {
    let room = Room::with(Setup { keys_required: true, ..Setup::default() }).await;
    let (_, key) = room.key(Scope::Api, 1).await;
    let headers = [("authorization", key.as_str())];
    let submitted =
        room.send("POST", &format!("/queue/{TRAINER}"), &headers, zip().to_string()).await;
    let request = submitted.json()["request_id"].as_str().unwrap().to_string();
    let lease = room.claim().await;
    let cancel = format!("/queue/{TRAINER}/requests/{request}/cancel");
    assert_eq!(room.send("PUT", &cancel, &headers, "").await.status, 202);
    assert!(lease.cancel_asked().await.unwrap());
}

#[tokio::test]
async fn the_documents_know_the_trainers() {
    let room = Room::new().await;
    for id in ALL {
        let uri = format!("/api/openapi/queue/openapi.json?endpoint_id={id}");
        let document = room.get(&uri).await.json();
        assert_eq!(document["info"]["x-fal-metadata"]["category"], "training");
        let result = format!("/{id}/requests/{{request_id}}");
        let schema = &document["paths"][&result]["get"]["responses"]["200"]["content"]["application/json"]
            ["schema"]["$ref"];
        let pointer = schema.as_str().unwrap().trim_start_matches('#');
        let output = document.pointer(pointer).unwrap();
        assert_eq!(output["required"], json!(["diffusers_lora_file", "config_file"]));
        let page = room.get(&format!("/models/{id}/llms.txt")).await.text();
        for field in ["image_data_url", "steps", "learning_rate", "default_caption"] {
            assert!(page.contains(&format!("**`{field}`**")), "{id}: {field}");
        }
        assert_eq!(page.contains("**`training_type`**"), id == TRAINER);
    }
    let served = room.get("/").await.json()["endpoints"].clone();
    let served: Vec<&Value> = served.as_array().unwrap().iter().map(|e| &e["id"]).collect();
    assert!(ALL.iter().all(|id| served.contains(&&json!(id))), "{served:?}");
}
