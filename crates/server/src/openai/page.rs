//! `/models/{creator}/{model}/llms.txt`: what a model is, takes and costs, for language models and those who prefer text.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use zoetrope_api::images::llms_txt;
use zoetrope_gateway::catalogue::Choice;

use crate::openai::models::sheet;
use crate::state::App;
use crate::surface::Origin;

/// The page at `path`, `{creator}/{model}/llms.txt` or `{model}/llms.txt`; `None` where no model is called so.
pub(crate) fn page(app: &App, origin: &Origin, path: &str) -> Option<Response> {
    let name = path.strip_suffix("/llms.txt")?;
    let catalogue = app.settings.gateway.catalogue();
    let model = catalogue.models.iter().find(|model| {
        name == model.id
            || name.split_once('/') == Some((model.owned_by.as_str(), model.id.as_str()))
    })?;
    let text = llms_txt(&sheet(app, model, &Choice::Any), &origin.run);
    Some(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
