//! How providers do: what `providers/performance` answers and pages of models show.

use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde_json::{Value, json};
use zoetrope_api::Micros;
use zoetrope_api::images::{FirstByteTime, GenerationTime, Performance, Problem};
use zoetrope_jobs::{Calls, Histogram, Whose};

use crate::extract;
use crate::openai::answer::rendered;
use crate::openai::caller::{asks, failed, problem};
use crate::openai::window::{Window, time};
use crate::state::App;

pub(super) async fn performance(State(app): State<App>, headers: HeaderMap, uri: Uri) -> Response {
    rendered(performance_of(&app, &headers, &uri).await)
}

async fn performance_of(app: &App, headers: &HeaderMap, uri: &Uri) -> Result<Value, Problem> {
    asks(app, headers).await?;
    let window: Window = extract::query(uri).map_err(problem)?;
    let (from, until) = window.span(app.now_ms())?;
    let data = measured(app, (from, until), |calls| window.admits(calls)).await.map_err(failed)?;
    Ok(json!({
        "object": "list",
        "window": {"start": time(from), "end": time(until)},
        "data": data,
    }))
}

/// What was measured of each provider with each model from one moment to another, of the calls that `admits` lets pass; by
/// model, the quickest first.
pub(crate) async fn measured(
    app: &App,
    (from, until): (i64, i64),
    admits: impl Fn(&Calls) -> bool,
) -> zoetrope_jobs::Result<Vec<Performance>> {
    let calls = app.settings.queue.calls(from, until, Whose::All).await?;
    // A provider may serve one model under several ids.
    let mut sums: Vec<Calls> = Vec::new();
    for calls in calls.into_iter().filter(admits) {
        let same = |sum: &&mut Calls| sum.provider == calls.provider && sum.model == calls.model;
        match sums.iter_mut().find(same) {
            Some(sum) => sum.add(&calls),
            None => sums.push(calls),
        }
    }
    let median = |sum: &Calls| sum.total.quantile_us(0.5).unwrap_or(f64::INFINITY);
    sums.sort_by(|one, other| {
        one.model.cmp(&other.model).then(median(one).total_cmp(&median(other)))
    });
    let catalogue = app.settings.gateway.catalogue();
    let title = |name: &str| {
        catalogue.providers.get(name).map_or(name.to_string(), |entry| entry.title.clone())
    };
    Ok(sums.iter().map(|sum| performed(sum, title(&sum.provider))).collect())
}

fn performed(sum: &Calls, title: String) -> Performance {
    let average = (sum.completed > 0).then(|| sum.completed_us as f64 / sum.completed as f64);
    let quantile = |histogram: &Histogram, share| ms(histogram.quantile_us(share));
    Performance {
        object: "provider_performance",
        provider: sum.provider.clone(),
        provider_name: title,
        model: sum.model.clone(),
        total_requests: sum.calls,
        completed_requests: sum.completed,
        success_rate: percent(sum.completed, sum.completed + sum.faults),
        raw_success_rate: percent(sum.completed, sum.calls),
        generation_time_ms: GenerationTime {
            p50: quantile(&sum.total, 0.5),
            p95: quantile(&sum.total, 0.95),
            average: ms(average),
        },
        time_to_first_byte_ms: FirstByteTime {
            p50: quantile(&sum.first_byte, 0.5),
            p95: quantile(&sum.first_byte, 0.95),
        },
        images: sum.pictures,
        cost: Micros(sum.cost_micros).dollars(),
        total_cost_micros: sum.cost_micros,
    }
}

/// Milliseconds with one decimal.
fn ms(us: Option<f64>) -> Option<f64> {
    us.map(|us| (us / 100.0).round() / 10.0)
}

/// With one decimal; nothing of nothing.
fn percent(part: i64, whole: i64) -> Option<f64> {
    (whole != 0).then(|| (1000.0 * part as f64 / whole as f64).round() / 10.0)
}
