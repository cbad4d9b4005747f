//! Calls to providers: a table of the whole time, and how it was step by step.

use std::collections::BTreeMap;

use maud::{Markup, html};
use zoetrope_jobs::{Calls, Whose};
use zoetrope_server::App;

use super::window::Window;
use super::{By, seconds_of, share, short, whole};
use crate::fault::Fault;
use crate::plot::{Kind, Plot, SERIES_MAX, Series, scrolled};
use crate::show::dollars;
use crate::text::performance::Performance;

/// `all` is whether costs are shown too.
pub(super) async fn section(
    app: &App,
    words: &Performance,
    (window, by): (&Window, By),
    all: bool,
) -> Result<Markup, Fault> {
    let calls = app.queue().calls(window.from_ms, window.until_ms, Whose::All).await?;
    let mut sums = grouped(calls.iter(), by);
    // Fastest first, as the catalogue's pages have it.
    let median = |calls: &Calls| calls.total.quantile_us(0.5).unwrap_or(f64::INFINITY);
    sums.sort_by(|one, other| median(&one.1).total_cmp(&median(&other.1)));
    let plots = if all {
        plots(app, words, (window, by), &sums).await?
    } else {
        html! {}
    };
    let name = match by {
        By::Provider => words.provider,
        By::Model => words.model,
    };
    Ok(html! {
        section aria-labelledby="providers" {
            h2 #providers { (words.providers) }
            p.soft.small { (words.providers_why) }
            @if sums.is_empty() { p.empty { (words.nothing) } } @else {
                (scrolled(&format!("{}: {}", words.providers, words.numbers), html! {
                    table {
                        thead {
                            tr {
                                th scope="col" { (name) }
                                @for head in [words.p50, words.p95, words.average, words.first_p50, words.first_p95, words.success, words.calls, words.pictures] {
                                    th.number scope="col" { (head) }
                                }
                                @if all { th.number scope="col" { (words.cost) } }
                            }
                        }
                        tbody { @for (name, calls) in &sums { (row(name, calls, all)) } }
                    }
                }))
                (plots)
            }
        }
    })
}

fn row(name: &str, calls: &Calls, all: bool) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            td.number { (seconds_of(calls.total.quantile_us(0.5))) }
            td.number { (seconds_of(calls.total.quantile_us(0.95))) }
            td.number { (seconds_of(average_us(calls))) }
            td.number { (seconds_of(calls.first_byte.quantile_us(0.5))) }
            td.number { (seconds_of(calls.first_byte.quantile_us(0.95))) }
            td.number { (share(calls.completed, calls.completed + calls.faults)) }
            td.number { (calls.calls) }
            td.number { (calls.pictures) }
            @if all { td.number { (dollars(calls.cost_micros as f64 / 1e6)) } }
        }
    }
}

fn average_us(calls: &Calls) -> Option<f64> {
    (calls.completed > 0).then(|| calls.completed_us as f64 / calls.completed as f64)
}

/// `calls` added up by provider or model, in order of names.
fn grouped<'a>(calls: impl Iterator<Item = &'a Calls>, by: By) -> Vec<(String, Calls)> {
    let mut sums = BTreeMap::<String, Calls>::new();
    for one in calls {
        let name = match by {
            By::Provider => &one.provider,
            By::Model => &one.model,
        };
        sums.entry(name.clone()).or_default().add(one);
    }
    sums.into_iter().collect()
}

/// The busiest of them over time.
async fn plots(
    app: &App,
    words: &Performance,
    (window, by): (&Window, By),
    sums: &[(String, Calls)],
) -> Result<Markup, Fault> {
    let all = app.queue().calls_over_time(window.from_ms, window.until_ms, window.step_ms).await?;
    let mut names: Vec<&(String, Calls)> = sums.iter().collect();
    names.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.calls));
    names.truncate(SERIES_MAX);
    let steps: Vec<Vec<(String, Calls)>> = window
        .ticks()
        .map(|at| grouped(all.iter().filter(|one| one.at_ms == at).map(|one| &one.calls), by))
        .collect();
    let line = |of: fn(&Calls) -> Option<f64>| -> Vec<Series> {
        let values = |name: &str| {
            let found = |step: &Vec<(String, Calls)>| {
                step.iter().find(|(known, _)| known == name).and_then(|(_, calls)| of(calls))
            };
            steps.iter().map(found).collect()
        };
        names.iter().map(|(name, _)| Series { name: name.clone(), values: values(name) }).collect()
    };
    let plot = |title, write: fn(f64) -> String, kind, of: fn(&Calls) -> Option<f64>| {
        Plot {
            title,
            ticks: window.ticks().map(|at| window.tick(at)).collect(),
            tick: words.time,
            series: line(of),
            write,
            kind,
            numbers: words.numbers,
            nothing: words.nothing,
        }
        .render()
    };
    Ok(html! {
        div.plots {
            (plot(words.p50_plot, short, Kind::Lines, |calls| Some(calls.total.quantile_us(0.5)? / 1e6)))
            (plot(words.p95_plot, short, Kind::Lines, |calls| Some(calls.total.quantile_us(0.95)? / 1e6)))
            (plot(words.average_plot, short, Kind::Lines, |calls| Some(average_us(calls)? / 1e6)))
            (plot(words.first_plot, short, Kind::Lines, |calls| Some(calls.first_byte.quantile_us(0.5)? / 1e6)))
            (plot(words.success_plot, short, Kind::Lines, |calls| {
                let judged = calls.completed + calls.faults;
                (judged > 0).then(|| 100.0 * calls.completed as f64 / judged as f64)
            }))
            (plot(words.calls_plot, whole, Kind::Bars, |calls| Some(calls.calls as f64)))
            (plot(words.cost_plot, short, Kind::Bars, |calls| Some(calls.cost_micros as f64 / 1e6)))
        }
    })
}
