//! `?dryRun=true`: what a request would cost, and what would be made of its parameters, without a picture.

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use zoetrope_api::images::ImageRequest;
use zoetrope_gateway::answer::Estimate;
use zoetrope_gateway::price::{Component, ComponentKind};

use crate::answer::json_answer;
use crate::openai::answer::changes;

pub(super) fn answer(estimate: &Estimate, request: &ImageRequest) -> Response {
    let (dropped, converted) = changes(&estimate.changes);
    let alternatives = estimate.alternatives.iter().map(|(deployment, total)| {
        json!({"provider": deployment.provider, "key": deployment.key, "total_cost_micros": total.0})
    });
    let body = json!({
        "estimated": true,
        "model": estimate.model.id,
        "provider": estimate.deployment.provider,
        "total_cost_micros": estimate.total.0,
        "currency": "USD",
        "components": estimate.components.iter().map(component).collect::<Vec<_>>(),
        "effective_parameters": {
            "n": request.count,
            "size": estimate.size.to_string(),
            "output_format": estimate.format.extension(),
        },
        "alternatives": alternatives.collect::<Vec<_>>(),
        "parameters_dropped": dropped,
        "parameters_converted": converted,
    });
    json_answer(StatusCode::OK, &body)
}

fn component(component: &Component) -> Value {
    let quantity = component.quantity_millionths as f64 / 1e6;
    let kind = match component.kind {
        ComponentKind::Input => "input",
        ComponentKind::Output => "output",
    };
    json!({
        "type": kind,
        "metric": component.unit.name(),
        "quantity": quantity,
        "billable_quantity": quantity,
        "unit_price": component.unit_price.dollars(),
        "total_cost": component.total.0,
    })
}
