//! `llms.txt` of a model: the page that language models read.

use std::fmt::Write;

use super::parameter::{Group, Scope, Support};
use super::schema::{ModelSheet, ParameterSheet, PriceSheet, ProviderSheet};
use crate::Micros;

/// The page of `model`; `base` is where this server answers, without a slash at the end.
pub fn llms_txt(model: &ModelSheet, base: &str) -> String {
    let ModelSheet { id, name, description, owned_by, family, status, .. } = model;
    let mut page = format!(
        "# {name}\n\n> {description}\n\n## Quick Reference\n\n- **Model ID**: `{id}`\n- **Creator**: {owned_by}\n- **Status**: {status}\n\
         - **Family**: {family}\n- **Base URL**: `{base}/v1`\n\n## Specifications\n\n- **Max Resolution**: {}\n- **Input Modalities**: {}\n\
         - **Output Modalities**: {}\n- **Supported Modes**: {}\n\n",
        model.max_resolution,
        model.modalities.input.join(", "),
        model.modalities.output.join(", "),
        model.modes.join(", "),
    );
    parameters(&mut page, model, base);
    page.push_str("## Model Identifiers\n\n");
    let names = std::iter::once(id).chain(model.providers.iter().map(|provider| &provider.key));
    names.chain(&model.aliases).for_each(|name| line(&mut page, format_args!("- `{name}`")));
    if !model.tags.is_empty() {
        line(&mut page, format_args!("\n## Tags\n\n{}", model.tags.join(", ")));
    }
    page.push_str("\n## Available Providers\n\n");
    model.providers.iter().for_each(|provider| describe(&mut page, provider));
    samples(&mut page, model, base);
    let _ = write!(
        page,
        "## Links\n\n- [Parameters as JSON]({base}/v1/models/{id}?schema=true)\n- [All models]({base}/v1/models)\n"
    );
    page
}

/// A `String` takes everything.
fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(text);
    page.push('\n');
}

fn parameters(page: &mut String, model: &ModelSheet, base: &str) {
    let id = &model.id;
    line(
        page,
        format_args!(
            "## API Parameters\n\nAs JSON, with what each provider makes of them: `GET {base}/v1/models/{id}?schema=true`"
        ),
    );
    let mut group: Option<Group> = None;
    for parameter in &model.schema.parameters {
        if group != Some(parameter.group) {
            group = Some(parameter.group);
            line(page, format_args!("\n### {}\n", parameter.group.title()));
        }
        line(page, format_args!("- {}", described(parameter)));
    }
    page.push('\n');
}

/// Name, type, whether it must be sent, what it means, its default, its values, its modes, and who alone has it.
fn described(parameter: &ParameterSheet) -> String {
    let required = parameter.modes.values().any(|support| *support == Support::Required);
    let mut text = format!(
        "**{}** ({}{}): {}",
        parameter.name,
        parameter.kind,
        if required { ", REQUIRED" } else { "" },
        parameter.description
    );
    if !parameter.default.is_null() {
        let _ = write!(text, " Default: `{}`.", parameter.default);
    }
    match (&parameter.values, parameter.minimum, parameter.maximum) {
        (Some(values), ..) => {
            let _ = write!(text, " Values: `{}`.", values.join("`, `"));
        }
        (None, Some(least), Some(most)) => {
            let _ = write!(text, " Values: {least} to {most}.");
        }
        _ => {}
    }
    let modes = parameter.modes.iter().filter(|(_, support)| **support != Support::NotAvailable);
    let modes: Vec<_> = modes.map(|(mode, _)| *mode).collect();
    let _ = write!(text, " Modes: {}.", modes.join(", "));
    if let (Scope::Provider, Some([only])) = (parameter.scope, parameter.providers.as_deref()) {
        let _ = write!(text, " Only available via {only}.");
    }
    text
}

fn describe(page: &mut String, provider: &ProviderSheet) {
    let ProviderSheet { key, provider_name, provider_model_id, .. } = provider;
    line(
        page,
        format_args!(
            "### {provider_name}\n\n- **Config Key**: `{key}`\n- **Provider Model ID**: `{provider_model_id}`\n- **Modes**: {}\n- **Pricing**: {}",
            provider.modes.join(", "),
            priced(&provider.pricing)
        ),
    );
    if let Some(source) = &provider.source {
        line(page, format_args!("- **Source**: {source}"));
    }
    page.push('\n');
}

fn priced(prices: &[PriceSheet]) -> String {
    let price = |price: &PriceSheet| {
        let dollars = Micros(price.price_micros).dollars();
        // As catalogues print them: what is small, with a digit more.
        let amount = match price.unit {
            "image" => format!("${dollars:.3}/image"),
            unit => format!("${dollars:.4}/{unit}"),
        };
        match &price.parameter {
            Some(parameter) => format!("{amount} with `{parameter}`"),
            None => amount,
        }
    };
    match prices {
        [] => "not known".into(),
        prices => prices.iter().map(price).collect::<Vec<_>>().join(", "),
    }
}

fn samples(page: &mut String, model: &ModelSheet, base: &str) {
    let id = &model.id;
    let _ = write!(
        page,
        r#"## Code Examples

### text-to-image

```bash
curl {base}/v1/images/generations \
  -H "Authorization: Bearer $API_KEY" -H "Content-Type: application/json" \
  -d '{{"model": "{id}", "prompt": "a lighthouse at dusk", "size": "1024x1024"}}'
```

```javascript
import OpenAI from "openai";

const client = new OpenAI({{ baseURL: "{base}/v1", apiKey: process.env.API_KEY }});
const answer = await client.images.generate({{ model: "{id}", prompt: "a lighthouse at dusk", size: "1024x1024" }});
console.log(answer.data[0].url);
```

```python
import os
from openai import OpenAI

client = OpenAI(base_url="{base}/v1", api_key=os.environ["API_KEY"])
answer = client.images.generate(model="{id}", prompt="a lighthouse at dusk", size="1024x1024")
print(answer.data[0].url)
```

"#
    );
    if !model.modes.contains(&"image-edit") {
        return;
    }
    let _ = write!(
        page,
        r#"### image-edit

```bash
curl {base}/v1/images/edits \
  -H "Authorization: Bearer $API_KEY" \
  -F model={id} -F prompt="the same at night" -F strength=0.6 -F image=@lighthouse.png
```

```javascript
import fs from "node:fs";

const edited = await client.images.edit({{
  model: "{id}", prompt: "the same at night", image: fs.createReadStream("lighthouse.png"), strength: 0.6,
}});
console.log(edited.data[0].url);
```

```python
edited = client.images.edit(
    model="{id}", prompt="the same at night", image=open("lighthouse.png", "rb"), extra_body={{"strength": 0.6}}
)
print(edited.data[0].url)
```

"#
    );
}
