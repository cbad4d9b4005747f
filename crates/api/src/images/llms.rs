//! `llms.txt` of a model: the page that language models read, in the order of the catalogues that have one.

use std::fmt::{Arguments, Write};

use super::about::{About, Example};
use super::parameter::{Group, Scope, Support};
use super::record::{ArenaFigure, Board, Performance, Record};
use super::request::Mode;
use super::samples::samples;
use super::schema::{ModelSheet, ParameterSheet, PriceSheet, ProviderSheet};
use crate::Micros;

/// The page of `model`, of which `record` is known; `base` is where this server answers, without a slash at the end.
pub fn llms_txt(model: &ModelSheet, record: &Record, base: &str) -> String {
    let ModelSheet { id, name, description, owned_by, family, status, .. } = model;
    let mut page = format!(
        "# {name}\n\n> {description}\n\n## Quick Reference\n\n- Model ID: {id}\n- Creator: {owned_by}\n- Status: {status}\n\
         - Family: {family}\n- Base URL: {base}/v1\n\n## Specifications\n\n- Max Resolution: {}\n- Input Modalities: {}\n\
         - Output Modalities: {}\n- Supported Modes: {}\n\n",
        model.max_resolution,
        model.modalities.input.join(", "),
        model.modalities.output.join(", "),
        titles(model.modes.iter().copied()),
    );
    parameters(&mut page, model);
    page.push_str("## Model Identifiers\n\n");
    let names = std::iter::once(id).chain(model.providers.iter().map(|provider| &provider.key));
    names.chain(&model.aliases).for_each(|name| line(&mut page, format_args!("- `{name}`")));
    if !model.tags.is_empty() {
        line(&mut page, format_args!("\n## Tags\n\n{}", model.tags.join(", ")));
    }
    page.push_str("\n## Available Providers\n\n");
    model.providers.iter().for_each(|provider| describe(&mut page, provider));
    performance(&mut page, &record.performance);
    arena(&mut page, &record.arena);
    gallery(&mut page, &model.examples, &record.arena);
    samples(&mut page, model, base);
    about(&mut page, &model.about);
    questions(&mut page, model, base);
    let _ = write!(
        page,
        "## Links\n\n- [Parameters as JSON]({base}/v1/models/{id}?schema=true)\n- [All models]({base}/llms.txt)\n\
         - [Page for people]({base}/models/{owned_by}/{id})\n- [Gallery of what was made here]({base}/gallery)\n"
    );
    page
}

/// A `String` takes everything.
fn line(page: &mut String, text: Arguments<'_>) {
    let _ = page.write_fmt(text);
    page.push('\n');
}

/// Modes as people write them.
fn titles<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let title = |name: &'a str| -> &'a str { Mode::named(name).map_or(name, |mode| mode.title()) };
    names.map(title).collect::<Vec<_>>().join(", ")
}

fn parameters(page: &mut String, model: &ModelSheet) {
    line(
        page,
        format_args!(
            "## API Parameters\n\nAs JSON, with what each provider makes of them: `GET /v1/models/{}?schema=true`.",
            model.id
        ),
    );
    let mut group: Option<Group> = None;
    for parameter in &model.schema.parameters {
        if group != Some(parameter.group) {
            group = Some(parameter.group);
            line(page, format_args!("\n### {}\n", parameter.group.title()));
        }
        line(page, format_args!("- {}", described(parameter, &model.providers)));
    }
    page.push('\n');
}

/// Name, type, whether it must be sent, what it means, its default, its values, its modes, and who alone has it.
fn described(parameter: &ParameterSheet, providers: &[ProviderSheet]) -> String {
    let required = parameter.modes.values().any(|support| *support == Support::Required);
    let mut text = format!(
        "`{}` ({}){}: {}",
        parameter.name,
        parameter.kind,
        if required { " — REQUIRED" } else { "" },
        parameter.description
    );
    if let Some(word) = parameter.default.as_str() {
        let _ = write!(text, " Default: {word}.");
    } else if !parameter.default.is_null() {
        let _ = write!(text, " Default: {}.", parameter.default);
    }
    match (&parameter.values, parameter.minimum, parameter.maximum) {
        (Some(values), ..) => {
            let _ = write!(text, " Values: {}.", values.join(", "));
        }
        (None, Some(least), Some(most)) => {
            let _ = write!(text, " Values: {least} to {most}.");
        }
        _ => {}
    }
    let modes = parameter.modes.iter().filter(|(_, support)| **support != Support::NotAvailable);
    let _ = write!(text, " Modes: {}", titles(modes.map(|(mode, _)| *mode)));
    if let (Scope::Provider, Some([only])) = (parameter.scope, parameter.providers.as_deref()) {
        let named = providers.iter().find(|provider| provider.provider == *only);
        let name = named.map_or(only.as_str(), |provider| provider.provider_name.as_str());
        let _ = write!(text, ". Only available via {name}");
    }
    text
}

fn describe(page: &mut String, provider: &ProviderSheet) {
    let ProviderSheet { key, provider_name, provider_model_id, .. } = provider;
    line(
        page,
        format_args!(
            "### {provider_name}\n\n- Config Key: `{key}`\n- Provider Model ID: `{provider_model_id}`\n- Modes: {}\n- Pricing: {}",
            titles(provider.modes.iter().copied()),
            priced(&provider.pricing)
        ),
    );
    if let Some(source) = &provider.source {
        line(page, format_args!("- Source: {source}"));
    }
    page.push('\n');
}

/// As catalogues print them: a price of a picture with three decimals, others with four. What a flag adds to the same unit is
/// told as the whole price, as providers do.
fn priced(prices: &[PriceSheet]) -> String {
    let amount = |price: &PriceSheet, micros: i64| {
        let dollars = Micros(micros).dollars();
        match price.unit {
            "image" => format!("${dollars:.3}/image"),
            unit => format!("${dollars:.4}/{unit}"),
        }
    };
    let [own, surcharges @ ..] = prices else { return "not known".into() };
    if prices.iter().all(|price| price.price_micros == 0) {
        return "free".into();
    }
    let mut texts = vec![amount(own, own.price_micros)];
    texts.extend(surcharges.iter().map(|price| {
        let flag = price.parameter.as_deref().unwrap_or_default();
        match price.unit == own.unit {
            true => {
                format!("{} with `{flag}`", amount(price, own.price_micros + price.price_micros))
            }
            false => format!("+{} with `{flag}`", amount(price, price.price_micros)),
        }
    }));
    texts.join(", ")
}

fn performance(page: &mut String, all: &[Performance]) {
    page.push_str("## Performance Metrics\n\n");
    if all.is_empty() {
        page.push_str("Nothing was measured in the last 30 days.\n\n");
        return;
    }
    page.push_str("Of the requests of the last 30 days, the quickest first.\n\n");
    let ms =
        |ms: Option<f64>| ms.map_or_else(|| "not known".into(), |ms| format!("{} ms", whole(ms)));
    for one in all {
        let times = &one.generation_time_ms;
        line(
            page,
            format_args!(
                "### {}\n\n- Generation Time (p50): {}\n- Generation Time (p95): {}\n- Generation Time (average): {}",
                one.provider_name,
                ms(times.p50),
                ms(times.p95),
                ms(times.average)
            ),
        );
        if let Some(rate) = one.success_rate {
            line(page, format_args!("- Success Rate: {rate:.1}%"));
        }
        let first = &one.time_to_first_byte_ms;
        line(
            page,
            format_args!(
                "- Total Requests: {}\n- Time to First Byte (p50): {}\n- Time to First Byte (p95): {}\n",
                whole(one.total_requests as f64),
                ms(first.p50),
                ms(first.p95)
            ),
        );
    }
}

/// A number without decimals, its thousands apart.
fn whole(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn arena(page: &mut String, figures: &[ArenaFigure]) {
    let of = |board: Board| {
        let mut of: Vec<&ArenaFigure> = figures.iter().filter(|one| one.board == board).collect();
        match board {
            Board::Challenge => of.sort_by(|one, other| other.rating.total_cmp(&one.rating)),
            Board::UseCase => of.sort_by_key(|one| one.rank),
        }
        of
    };
    let challenges = of(Board::Challenge);
    page.push_str("## Arena Benchmarks\n\n");
    if challenges.is_empty() {
        page.push_str("Nobody has voted yet.\n\n");
    }
    for one in challenges {
        line(
            page,
            format_args!(
                "### {}\n\n- Elo: {:.0}\n- Record: {}\n- Rank: #{} of {}\n",
                headed(one),
                one.rating,
                record(one),
                one.rank,
                one.of
            ),
        );
    }
    let cases = of(Board::UseCase);
    if cases.is_empty() {
        return;
    }
    page.push_str("## Use Cases & Category Performance\n\n");
    for one in cases {
        line(
            page,
            format_args!(
                "### {}\n\n- Rank: #{} of {}\n- Elo: {:.0}\n- Record: {}\n- Win Rate: {:.1}%\n",
                headed(one),
                one.rank,
                one.of,
                one.rating,
                record(one),
                one.win_rate().unwrap_or_default()
            ),
        );
    }
}

/// A board's name and mode.
fn headed(figure: &ArenaFigure) -> String {
    match figure.mode {
        Some(mode) => format!("{} ({})", figure.title, titles(std::iter::once(mode))),
        None => figure.title.clone(),
    }
}

/// Won, lost and neither.
fn record(figure: &ArenaFigure) -> String {
    let ArenaFigure { wins, losses, ties, .. } = figure;
    format!("{wins}W / {losses}L / {ties}T ({} battles)", figure.battles())
}

/// What it draws: prompts that somebody chose, and the challenges that it was in.
fn gallery(page: &mut String, examples: &[Example], figures: &[ArenaFigure]) {
    let challenges = figures.iter().filter(|one| one.board == Board::Challenge);
    let count = examples.len() + challenges.clone().count();
    if count == 0 {
        return;
    }
    line(page, format_args!("## Image Gallery\n\n{count} entries.\n"));
    if !examples.is_empty() {
        page.push_str("### Curated Examples\n\n");
        for Example { title, prompt, url } in examples {
            match url {
                Some(url) => line(page, format_args!("- [{title}]({url}): \"{prompt}\"")),
                None => line(page, format_args!("- {title}: \"{prompt}\"")),
            }
        }
        page.push('\n');
    }
    if challenges.clone().next().is_some() {
        page.push_str("### Arena Competition Results\n\n");
        challenges.for_each(|one| {
            line(page, format_args!("- {}: #{} of {}", one.title, one.rank, one.of));
        });
        page.push('\n');
    }
    if let Some(first) = examples.first() {
        line(page, format_args!("## Example Prompt\n\n> {}\n", first.prompt));
    }
}

fn about(page: &mut String, about: &About) {
    if *about == About::default() {
        return;
    }
    page.push_str("## About\n\n");
    let text = |page: &mut String, title: &str, text: &str| {
        if !text.is_empty() {
            line(page, format_args!("### {title}\n\n{text}\n"));
        }
    };
    let list = |page: &mut String, title: &str, items: &[String]| {
        let items: Vec<String> = items.iter().map(|item| format!("- {item}")).collect();
        text(page, title, &items.join("\n"));
    };
    text(page, "Overview", &about.overview);
    list(page, "Strengths", &about.strengths);
    list(page, "Limitations", &about.limitations);
    text(page, "Technical Background", &about.background);
    list(page, "Best For", &about.best_for);
}

fn questions(page: &mut String, model: &ModelSheet, base: &str) {
    let ModelSheet { id, name, max_resolution, .. } = model;
    let prices: Vec<String> = model
        .providers
        .iter()
        .map(|one| format!("{} via {} (`{}`)", priced(&one.pricing), one.provider_name, one.key))
        .collect();
    let mut names: Vec<&str> =
        model.providers.iter().map(|one| one.provider_name.as_str()).collect();
    names.dedup();
    let routes = match model.modes.contains(&Mode::ImageEdit.name()) {
        true => "`/images/generations` and `/images/edits`",
        false => "`/images/generations`",
    };
    let _ = write!(
        page,
        "## FAQ\n\n### How much does {name} cost?\n\n{}.\n\n### How do I use {name} over the API?\n\n\
         With any client of OpenAI's Images API: base URL `{base}/v1`, model `{id}`, routes {routes}.\n\n\
         ### Who serves {name}?\n\n{}.\n\n### How large can its pictures be?\n\nUp to {max_resolution}.\n\n",
        prices.join("; "),
        names.join(", "),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(board: Board, title: &str, rating: f64, record: (u64, u64, u64)) -> ArenaFigure {
        let (wins, losses, ties) = record;
        let (title, mode) = (title.into(), Some("text-to-image"));
        ArenaFigure { board, title, mode, rating, wins, losses, ties, rank: 3, of: 21 }
    }

    #[test]
    fn prices_are_printed_as_catalogues_print_them() {
        let price = |unit, price_micros, parameter: Option<&str>| PriceSheet {
            unit,
            price_micros,
            parameter: parameter.map(String::from),
        };
        let cases = [
            (vec![price("megapixel", 5_000, None)], "$0.0050/megapixel"),
            (
                vec![price("image", 15_000, None), price("image", 15_000, Some("x"))],
                "$0.015/image, $0.030/image with `x`",
            ),
            (
                vec![price("megapixel", 5_000, None), price("request", 2_500, Some("x"))],
                "$0.0050/megapixel, +$0.0025/request with `x`",
            ),
            (vec![price("megapixel", 0, None)], "free"),
            (vec![], "not known"),
        ];
        for (prices, want) in cases {
            assert_eq!(priced(&prices), want);
        }
    }

    #[test]
    fn the_arena_s_figures_are_in_the_order_of_their_boards() {
        let figures = [
            figure(Board::Challenge, "Low", 969.6, (0, 28, 0)),
            figure(Board::Challenge, "High", 1201.4, (11, 5, 2)),
            figure(Board::UseCase, "Portraits", 1206.0, (11, 5, 2)),
        ];
        let mut page = String::new();
        arena(&mut page, &figures);
        let [high, low] =
            ["### High (Text to Image)", "### Low"].map(|part| page.find(part).unwrap());
        assert!(high < low);
        for part in [
            "- Elo: 1201\n- Record: 11W / 5L / 2T (18 battles)\n- Rank: #3 of 21\n",
            "## Use Cases & Category Performance\n\n### Portraits (Text to Image)\n\n- Rank: #3 of 21\n- Elo: 1206\n",
            "- Win Rate: 61.1%\n",
        ] {
            assert!(page.contains(part), "{part:?} is not in\n{page}");
        }
    }

    #[test]
    fn numbers_have_their_thousands_apart() {
        let cases = [
            (0.0, "0"),
            (999.4, "999"),
            (1000.0, "1,000"),
            (55_626.0, "55,626"),
            (1e6, "1,000,000"),
        ];
        for (number, want) in cases {
            assert_eq!(whole(number), want);
        }
    }
}
