//! The queue's own requests, by endpoint.

use std::collections::BTreeMap;

use maud::{Markup, html};
use zoetrope_jobs::{Finished, Histogram, Status};
use zoetrope_server::App;

use super::window::Window;
use super::{seconds_of, share, short, whole};
use crate::fault::Fault;
use crate::plot::{Kind, Plot, SERIES_MAX, Series, scrolled};
use crate::show::dollars;
use crate::text::performance::Performance;

/// What one endpoint did.
#[derive(Default)]
struct Sum {
    requests: i64,
    completed: i64,
    faults: i64,
    inference_ms: i64,
    cost_micros: i64,
    drawn: Histogram,
    waited: Histogram,
}

impl Sum {
    fn add(&mut self, request: &Finished) {
        self.requests += 1;
        self.cost_micros += request.cost_micros;
        if let Some(waited) = request.waited_ms {
            self.waited.count_one(1000 * waited);
        }
        match request.status {
            Status::Success => {
                self.completed += 1;
                let ms = request.inference_ms.unwrap_or(0);
                self.inference_ms += ms;
                self.drawn.count_one(1000 * ms);
            }
            Status::Error => self.faults += 1,
            Status::UserError => {}
        }
    }

    fn average_us(&self) -> Option<f64> {
        (self.completed > 0).then(|| 1000.0 * self.inference_ms as f64 / self.completed as f64)
    }
}

pub(super) async fn section(
    app: &App,
    words: &Performance,
    window: &Window,
) -> Result<Markup, Fault> {
    let requests = app.queue().finished(window.from_ms, window.until_ms).await?;
    let mut sums = BTreeMap::<&str, Sum>::new();
    let mut steps = BTreeMap::<(i64, &str), Sum>::new();
    for request in &requests {
        sums.entry(&request.endpoint).or_default().add(request);
        let step = (window.step_of(request.finished_ms), request.endpoint.as_str());
        steps.entry(step).or_default().add(request);
    }
    let mut busiest: Vec<(&str, i64)> =
        sums.iter().map(|(name, sum)| (*name, sum.requests)).collect();
    busiest.sort_by_key(|(_, requests)| std::cmp::Reverse(*requests));
    busiest.truncate(SERIES_MAX);
    let plot = |title, write: fn(f64) -> String, kind, of: fn(&Sum) -> Option<f64>| {
        let values = |name: &str| window.ticks().map(|at| of(steps.get(&(at, name))?)).collect();
        let line =
            |(name, _): &(&str, i64)| Series { name: name.to_string(), values: values(name) };
        Plot {
            title,
            ticks: window.ticks().map(|at| window.tick(at)).collect(),
            tick: words.time,
            series: busiest.iter().map(line).collect(),
            write,
            kind,
            numbers: words.numbers,
            nothing: words.nothing,
        }
        .render()
    };
    Ok(html! {
        section aria-labelledby="engine" {
            h2 #engine { (words.engine) }
            p.soft.small { (words.engine_why) }
            @if sums.is_empty() { p.empty { (words.nothing) } } @else {
                (scrolled(&format!("{}: {}", words.engine, words.numbers), html! {
                    table {
                        thead {
                            tr {
                                th scope="col" { (words.endpoint) }
                                @for head in [words.p50, words.p95, words.average, words.waited_p50, words.waited_p95, words.success, words.requests, words.cost] {
                                    th.number scope="col" { (head) }
                                }
                            }
                        }
                        tbody { @for (name, sum) in &sums { (row(name, sum)) } }
                    }
                }))
                div.plots {
                    (plot(words.draw_plot, short, Kind::Lines, |sum| Some(sum.drawn.quantile_us(0.5)? / 1e6)))
                    (plot(words.requests_plot, whole, Kind::Bars, |sum| Some(sum.requests as f64)))
                }
            }
        }
    })
}

fn row(name: &str, sum: &Sum) -> Markup {
    html! {
        tr {
            th scope="row" { (name) }
            td.number { (seconds_of(sum.drawn.quantile_us(0.5))) }
            td.number { (seconds_of(sum.drawn.quantile_us(0.95))) }
            td.number { (seconds_of(sum.average_us())) }
            td.number { (seconds_of(sum.waited.quantile_us(0.5))) }
            td.number { (seconds_of(sum.waited.quantile_us(0.95))) }
            td.number { (share(sum.completed, sum.completed + sum.faults)) }
            td.number { (sum.requests) }
            td.number { (dollars(sum.cost_micros as f64 / 1e6)) }
        }
    }
}
