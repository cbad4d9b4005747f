//! `llms.txt` of the whole server: all that can be asked for, with the way to each page.

use std::fmt::Write;

/// Something that can be asked for.
#[derive(Clone, Debug)]
pub struct Listed {
    /// As people write it.
    pub title: String,
    /// One line.
    pub summary: String,
    /// Where its own page is.
    pub page: String,
}

/// The page: `models` by OpenAI's API, `endpoints` by fal's. `base` and `queue` are where those answer, without a slash at the end.
pub fn catalogue_txt(models: &[Listed], endpoints: &[Listed], base: &str, queue: &str) -> String {
    let mut page = format!(
        "# Zoetrope\n\n> Pictures from texts and pictures, made by this server or by those that it asks, over OpenAI's Images API and fal's.\n\n\
         ## Models\n\nOver OpenAI's API at {base}/v1.\n\n"
    );
    let list = |page: &mut String, all: &[Listed]| {
        for Listed { title, summary, page: own } in all {
            let _ = writeln!(page, "- [{title}]({own}): {summary}");
        }
    };
    list(&mut page, models);
    let _ = write!(
        page,
        "\n## Endpoints\n\nOver fal's API at {base}, and by its queue at {queue}.\n\n"
    );
    list(&mut page, endpoints);
    let _ = write!(
        page,
        "\n## Documents\n\n- [OpenAPI of the Images API]({base}/v1/openapi.json)\n- [Models as JSON]({base}/v1/models)\n\
         - [How providers do]({base}/v1/providers/performance)\n"
    );
    page
}
