//! Plots, rendered here: lines or bars in an SVG that takes the width it gets, and the same numbers as a table behind it.
//!
//! Words and numbers stand beside the drawing as text, so that they keep their size on a phone and can be read aloud.

use maud::{Markup, html};

/// What is drawn.
pub(crate) struct Plot<'a> {
    /// What it shows, and in which unit.
    pub(crate) title: &'a str,
    /// What stands in front of each row of the table: times, or steps.
    pub(crate) ticks: Vec<String>,
    /// What the first column of the table is called.
    pub(crate) tick: &'a str,
    pub(crate) series: Vec<Series>,
    /// How a value is written.
    pub(crate) write: fn(f64) -> String,
    pub(crate) kind: Kind,
    /// What opens the table.
    pub(crate) numbers: &'a str,
    /// What is shown where there is nothing to draw.
    pub(crate) nothing: &'a str,
}

/// One line, or one colour of the bars.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// A value for each tick, where there is one.
    pub(crate) values: Vec<Option<f64>>,
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lines,
    /// On top of each other.
    Bars,
}

/// Units of the drawing; it is stretched to whatever room there is.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 240.0;
/// Lines that can be told apart; more are a table's business.
pub(crate) const SERIES_MAX: usize = 6;

impl Plot<'_> {
    /// The figure.
    pub(crate) fn render(&self) -> Markup {
        let most = self.most();
        html! {
            figure.plot {
                figcaption { (self.title) }
                @if most.is_none() {
                    p.soft.small { (self.nothing) }
                } @else {
                    @let top = nice(most.unwrap_or(0.0));
                    @if self.series.len() > 1 { (self.legend()) }
                    div.drawing {
                        div.scale aria-hidden="true" {
                            span { ((self.write)(top)) }
                            span { ((self.write)(top / 2.0)) }
                            span { ((self.write)(0.0)) }
                        }
                        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(self.spoken()) {
                            @for at in [0.0, 0.5, 1.0] {
                                line.grid x1="0" x2=(WIDTH) y1=(HEIGHT * at) y2=(HEIGHT * at) {}
                            }
                            @match self.kind {
                                Kind::Lines => (self.lines(top)),
                                Kind::Bars => (self.bars(top)),
                            }
                        }
                        div.ticks aria-hidden="true" {
                            @for tick in self.shown_ticks() { span { (tick) } }
                        }
                    }
                    details.numbers { summary { (self.numbers) } (self.table()) }
                }
            }
        }
    }

    /// The highest value, or the highest of the stacks; `None` where there is none.
    fn most(&self) -> Option<f64> {
        let at =
            |tick: usize| self.series.iter().filter_map(move |series| *series.values.get(tick)?);
        let values = (0..self.ticks.len()).filter_map(|tick| match self.kind {
            Kind::Lines => at(tick).reduce(f64::max),
            Kind::Bars => at(tick).reduce(|a, b| a + b),
        });
        values.reduce(f64::max)
    }

    fn x(&self, tick: usize) -> f64 {
        match (self.kind, self.ticks.len()) {
            (Kind::Lines, 0 | 1) => WIDTH / 2.0,
            (Kind::Lines, count) => WIDTH * tick as f64 / (count - 1) as f64,
            (Kind::Bars, count) => WIDTH * tick as f64 / count.max(1) as f64,
        }
    }

    fn lines(&self, top: f64) -> Markup {
        let y = |value: f64| HEIGHT - HEIGHT * value / top;
        html! {
            @for (number, series) in self.series.iter().enumerate() {
                path class=(format!("line s{number}")) d=(self.path(series, &y)) {}
            }
        }
    }

    /// Lines between neighbours; a value without neighbours is a dot: a line of no length with round ends.
    fn path(&self, series: &Series, y: &dyn Fn(f64) -> f64) -> String {
        let mut path = String::new();
        let value = |tick: usize| series.values.get(tick).copied().flatten();
        for tick in 0..self.ticks.len() {
            let Some(found) = value(tick) else { continue };
            let joined = tick > 0 && value(tick - 1).is_some();
            let alone = !joined && value(tick + 1).is_none();
            let (x, y) = (self.x(tick), y(found));
            path.push_str(&format!("{}{x:.1} {y:.1}", if joined { 'L' } else { 'M' }));
            if alone {
                path.push_str("h0");
            }
        }
        path
    }

    fn bars(&self, top: f64) -> Markup {
        let width = WIDTH / self.ticks.len().max(1) as f64;
        html! {
            @for tick in 0..self.ticks.len() {
                @for (number, from, to) in self.stack(tick) {
                    rect class=(format!("bar s{number}")) x=(format!("{:.2}", self.x(tick) + width * 0.1))
                        width=(format!("{:.2}", width * 0.8)) y=(format!("{:.2}", HEIGHT - HEIGHT * to / top))
                        height=(format!("{:.2}", HEIGHT * (to - from) / top)) {}
                }
            }
        }
    }

    /// The number of each series, and from where to where it reaches.
    fn stack(&self, tick: usize) -> Vec<(usize, f64, f64)> {
        let mut reached = 0.0;
        let mut parts = Vec::new();
        for (number, series) in self.series.iter().enumerate() {
            if let Some(value) =
                series.values.get(tick).copied().flatten().filter(|value| *value > 0.0)
            {
                parts.push((number, reached, reached + value));
                reached += value;
            }
        }
        parts
    }

    fn legend(&self) -> Markup {
        html! {
            ul.legend {
                @for (number, series) in self.series.iter().enumerate() {
                    li {
                        svg viewBox="0 0 24 12" width="24" height="12" aria-hidden="true" {
                            @match self.kind {
                                Kind::Lines => path class=(format!("line s{number}")) d="M2 6H22" {},
                                Kind::Bars => rect class=(format!("bar s{number}")) x="4" y="1" width="16" height="10" {},
                            }
                        }
                        (series.name)
                    }
                }
            }
        }
    }

    /// First, middle and last: more would not fit a phone.
    fn shown_ticks(&self) -> Vec<&str> {
        let ticks = &self.ticks;
        match ticks.len() {
            0 => Vec::new(),
            1 | 2 => ticks.iter().map(String::as_str).collect(),
            count => [0, count / 2, count - 1].iter().map(|at| ticks[*at].as_str()).collect(),
        }
    }

    /// For whoever does not see the drawing: what it is, and each line's last value. The table has all.
    fn spoken(&self) -> String {
        let last = |series: &Series| {
            let value = series.values.iter().rev().find_map(|value| *value)?;
            Some(format!("{} {}", series.name, (self.write)(value)))
        };
        let lasts: Vec<String> = self.series.iter().filter_map(last).collect();
        format!("{}: {}", self.title, lasts.join(", "))
    }

    fn table(&self) -> Markup {
        let head = html! {
            tr {
                th scope="col" { (self.tick) }
                @for series in &self.series { th.number scope="col" { (series.name) } }
            }
        };
        let cell = |series: &Series, at: usize| match series.values.get(at).copied().flatten() {
            Some(value) => (self.write)(value),
            None => "–".into(),
        };
        let rows = html! {
            @for (at, tick) in self.ticks.iter().enumerate() {
                tr {
                    th scope="row" { (tick) }
                    @for series in &self.series { td.number { (cell(series, at)) } }
                }
            }
        };
        scrolled(
            &format!("{}: {}", self.title, self.numbers),
            html! { table { thead { (head) } tbody { (rows) } } },
        )
    }
}

/// A table that may be wider than a phone: it can be scrolled by keyboard too, and says what it is.
pub(crate) fn scrolled(label: &str, table: Markup) -> Markup {
    html! { div.table tabindex="0" role="region" aria-label=(label) { (table) } }
}

/// The next of 1, 2, 5, 10, … that is not below `most`, so that the middle of the scale can be read too.
fn nice(most: f64) -> f64 {
    if !(most > 0.0 && most.is_finite()) {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= most * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(values: Vec<Vec<Option<f64>>>, kind: Kind) -> String {
        let ticks = (0..values.first().map_or(0, Vec::len)).map(|n| format!("t{n}")).collect();
        let name = |n: usize| format!("<b>{n}</b>");
        let series = values.into_iter().enumerate();
        let series = series.map(|(n, values)| Series { name: name(n), values }).collect();
        let plot = Plot {
            title: "Seconds & more",
            ticks,
            tick: "Time",
            series,
            write: |value| format!("{value:.1}"),
            kind,
            numbers: "Numbers",
            nothing: "Nothing yet",
        };
        plot.render().into_string()
    }

    #[test]
    fn the_scale_ends_where_it_can_be_read() {
        let cases = [
            (0.0, 1.0),
            (0.03, 0.05),
            (1.0, 1.0),
            (1.1, 2.0),
            (7.0, 10.0),
            (f64::NAN, 1.0),
            (2300.0, 5000.0),
        ];
        for (most, expected) in cases {
            assert!((nice(most) / expected - 1.0).abs() < 1e-12, "{most}");
        }
    }

    #[test]
    fn lines_end_where_values_are_missing_and_lonely_ones_are_dots() {
        let drawn = plot(vec![vec![Some(0.0), Some(10.0), None, Some(5.0), None]], Kind::Lines);
        assert!(drawn.contains("d=\"M0.0 240.0L250.0 0.0M750.0 120.0h0\""), "{drawn}");
        assert!(!drawn.contains("legend"), "{drawn}");
    }

    #[test]
    fn bars_stand_on_each_other_and_every_number_is_in_the_table() {
        let drawn = plot(vec![vec![Some(1.0), None], vec![Some(4.0), Some(2.5)]], Kind::Bars);
        assert_eq!(drawn.matches("<rect class=\"bar s1\" x=\"100").count(), 0);
        assert_eq!(drawn.matches("<rect").count(), 3 + 2, "three parts and the legend's two");
        assert!(
            drawn.contains("y=\"192.00\" height=\"48.00\"")
                && drawn.contains("y=\"0.00\" height=\"192.00\""),
            "{drawn}"
        );
        for cell in [
            "<td class=\"number\">1.0</td>",
            "<td class=\"number\">–</td>",
            "<td class=\"number\">2.5</td>",
        ] {
            assert!(drawn.contains(cell), "{cell}");
        }
    }

    #[test]
    fn names_are_text_and_nothing_is_said_to_be_nothing() {
        let drawn = plot(vec![vec![Some(1.0)], vec![Some(2.0)]], Kind::Lines);
        assert!(!drawn.contains("<b>") && drawn.contains("&lt;b&gt;0&lt;/b&gt;"), "{drawn}");
        assert!(drawn.contains("Seconds &amp; more"));
        let empty = plot(vec![vec![None, None]], Kind::Lines);
        assert!(empty.contains("Nothing yet") && !empty.contains("<svg"), "{empty}");
    }
}
