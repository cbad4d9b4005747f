//! Why a request did not become pictures, in the words of whoever sent it.

use serde_json::{Value, json};
use zoetrope_api::fal::{Problem, detail};
use zoetrope_jobs::{Attempt, End, Outcome};

/// The type of error of requests whose pictures may not be delivered: fal's and the gateway's.
pub(crate) const UNSAFE: &str = "content_policy_violation";

/// Why a request did not become pictures.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// Something that was sent cannot be used; trying again does not help. What was sent stays out of the log.
    #[error("the input cannot be used: {}", .0.kind)]
    Input(Box<Problem>),
    /// So many of its pictures were found unsafe, and its key gets none of those.
    #[error("{flagged} of its pictures were found unsafe")]
    Unsafe {
        /// How many.
        flagged: usize,
    },
    /// It was cancelled while it ran.
    #[error("cancelled")]
    Cancelled,
    /// The worker is going, and somebody else may have it.
    #[error("handed back")]
    Going,
    /// This machine has not enough memory for any request of this kind.
    #[error("not enough memory: {0}")]
    Memory(String),
    /// The engine failed; what it said stays in the log.
    #[error("{0}")]
    Engine(String),
    /// A store or a database failed for now.
    #[error("{0}")]
    Passing(String),
}

impl JobError {
    /// A problem of type `kind` with the input's `field`.
    pub(crate) fn field(path: &[Value], kind: &'static str, message: impl Into<String>) -> Self {
        Self::Input(Box::new(Problem::new(path, kind, message)))
    }

    /// What this means for the request.
    pub(crate) fn attempt(self) -> Attempt {
        match self {
            Self::Input(problem) => Attempt::End(model_error(422, &problem)),
            Self::Unsafe { flagged } => {
                let message = "The safety checker found what was drawn from this prompt unsafe";
                let problem = Problem::new(&[json!("prompt")], UNSAFE, message);
                Attempt::End(End { flagged: Some(flagged as i64), ..model_error(422, &problem) })
            }
            Self::Cancelled => Attempt::End(End::of_request(
                Outcome::Cancelled,
                499,
                "client_cancelled",
                "Request was cancelled",
            )),
            Self::Going => Attempt::HandedBack,
            Self::Memory(message) => {
                let message = format!("This server has not enough memory for it: {message}");
                let problem = Problem::new(&[], "internal_server_error", message);
                Attempt::End(model_error(500, &problem))
            }
            Self::Engine(_) => {
                let problem = Problem::new(
                    &[],
                    "internal_server_error",
                    "The engine failed on this request; the server's log says why",
                );
                Attempt::End(model_error(500, &problem))
            }
            Self::Passing(_) => Attempt::Again(End::of_request(
                Outcome::Failed,
                503,
                "runner_connection_error",
                "The worker could not reach its files or its database",
            )),
        }
    }
}

/// An error of the model: `{detail: […]}` with `status`.
fn model_error(status: u16, problem: &Problem) -> End {
    let kind = problem.kind;
    End {
        outcome: Outcome::Failed,
        status_code: status,
        response: detail(std::slice::from_ref(problem)).to_string(),
        error: Some(format!("Invalid status code: {status}")),
        error_type: Some(kind.into()),
        inference_ms: None,
        billable_units: Some(0.0),
        flagged: None,
    }
}

impl From<zoetrope_engine::Error> for JobError {
    fn from(error: zoetrope_engine::Error) -> Self {
        use zoetrope_engine::Error as E;
        match error {
            E::Interrupted => Self::Cancelled,
            E::Field(invalid) => {
                if let side @ ("width" | "height") = invalid.field {
                    let path = [json!("image_size"), json!(side)];
                    return Self::field(
                        &path,
                        "value_error",
                        format!("`{side}` {}", invalid.problem),
                    );
                }
                let field = match invalid.field {
                    "size" => "image_size",
                    "steps" => "num_inference_steps",
                    "image" => "image_url",
                    "count" => "num_images",
                    other => other,
                };
                Self::field(
                    &[json!(field)],
                    "value_error",
                    format!("`{field}` {}", invalid.problem),
                )
            }
            E::Memory(message) => {
                let message = format!("There is not enough memory for this: {message}");
                Self::field(&[json!("image_size")], "value_error", message)
            }
            other => Self::Engine(other.to_string()),
        }
    }
}

impl From<zoetrope_trainer::Error> for JobError {
    fn from(error: zoetrope_trainer::Error) -> Self {
        use zoetrope_engine::Error as Engine;
        use zoetrope_trainer::Error as E;
        let field = |name: &str, message| Self::field(&[json!(name)], "value_error", message);
        match error {
            E::Field(invalid) => {
                field(invalid.field, format!("`{}` {}", invalid.field, invalid.problem))
            }
            E::NotANumber { step } => field(
                "learning_rate",
                format!("The loss of step {step} is not a number; send a lower learning rate"),
            ),
            E::Engine(Engine::Interrupted) => Self::Cancelled,
            // No field of a training changes what it needs.
            E::Engine(Engine::Memory(message)) => Self::Memory(message),
            other => Self::Engine(other.to_string()),
        }
    }
}

impl From<zoetrope_jobs::Error> for JobError {
    fn from(error: zoetrope_jobs::Error) -> Self {
        Self::Passing(error.to_string())
    }
}
