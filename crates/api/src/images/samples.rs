//! How a model is asked for, in cURL, JavaScript and Python: the part of its page that people copy.

use std::fmt::Write;

use super::schema::ModelSheet;

/// The samples of each mode of `model`, for a server at `base`.
pub(super) fn samples(page: &mut String, model: &ModelSheet, base: &str) {
    let id = &model.id;
    let _ = write!(
        page,
        r#"## Code Examples

### Text to Image

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
        r#"### Image Edit

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
