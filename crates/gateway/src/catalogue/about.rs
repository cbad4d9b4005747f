//! What people say about models, and prompts that show what they do: known of this family, and read from the file of others.

use zoetrope_api::images::{About, Example};

use super::section::{Mistakes, Section};

/// The table `about` of a model.
pub(super) fn read(section: &Section<'_>) -> About {
    let about = About {
        overview: section.text("overview").unwrap_or_default(),
        strengths: section.texts("strengths").unwrap_or_default(),
        limitations: section.texts("limitations").unwrap_or_default(),
        background: section.text("background").unwrap_or_default(),
        best_for: section.texts("best_for").unwrap_or_default(),
    };
    section.done();
    about
}

/// The list `examples` of a model.
pub(super) fn examples(model: &Section<'_>, mistakes: &Mistakes) -> Option<Vec<Example>> {
    let items = model.items("examples")?.into_iter();
    let read = items.filter_map(|(place, value)| {
        let section = Section::of(place, value, mistakes)?;
        let (title, prompt) = (section.text("title"), section.text("prompt"));
        let url = section.text("url");
        for name in ["title", "prompt"] {
            if section.get(name).is_none() {
                section.wrong(name, "is missing; an example has a title and a prompt");
            }
        }
        section.done();
        Some(Example { title: title?, prompt: prompt?, url })
    });
    Some(read.collect())
}

/// What is known of the distilled model.
pub(super) fn turbo() -> (About, Vec<Example>) {
    let about = About {
        overview: "Z-Image Turbo draws in 8 steps what the model that it was distilled from takes 28 and more for, and without \
                   guidance: every step is one pass through a transformer of 6 billion parameters."
            .into(),
        strengths: texts(&[
            "Quick: 8 passes a picture",
            "Letters and signs in pictures, in English and Chinese",
            "Text to image and image to image by the same weights",
        ]),
        limitations: texts(&[
            "Made for no guidance: `cfg_scale` harms its pictures, `negative_prompt` does nothing",
            "Pictures of one prompt resemble each other more than those of Z-Image",
            "Up to 4 megapixels",
        ]),
        background: BACKGROUND.into(),
        best_for: texts(&["Drafts and previews", "Many pictures for little", "Whoever waits for the answer"]),
    };
    (about, EXAMPLES.iter().map(example).collect())
}

/// What is known of the undistilled model.
pub(super) fn base() -> (About, Vec<Example>) {
    let about = About {
        overview: "Z-Image is the undistilled model: it follows guidance and negative prompts, and adapters are trained on it."
            .into(),
        strengths: texts(&[
            "Guidance, and what is not to be seen",
            "More variety between the pictures of one prompt",
            "Adapters are trained on it",
        ]),
        limitations: texts(&["28 steps, each of two passes where it is guided", "Up to 4 megapixels"]),
        background: BACKGROUND.into(),
        best_for: texts(&["Pictures that are chosen from several", "Training adapters"]),
    };
    (about, EXAMPLES.iter().map(example).collect())
}

/// What is known of the one that sees pictures.
pub(super) fn edit() -> (About, Vec<Example>) {
    let about = About {
        overview: "Z-Image Omni and Edit draw from a prompt that speaks of pictures: each is seen by a vision tower and as latents, and none is \
                   painted over."
            .into(),
        strengths: texts(&["Up to 16 pictures in one prompt", "Text to image by the same weights"]),
        limitations: texts(&[
            "50 steps, each of two passes where it is guided, and every picture makes them longer",
            "No mask: what changes is said in words",
        ]),
        background: BACKGROUND.into(),
        best_for: texts(&["Changing a picture by words", "Bringing what several pictures show together"]),
    };
    (about, EXAMPLES.iter().map(example).collect())
}

const BACKGROUND: &str = "A transformer of 6 billion parameters in which text and picture are one sequence, a language model of \
                          4 billion as text encoder, and an autoencoder with 16 channels. Flow matching; each step is one of Euler's.";

/// Title and prompt.
const EXAMPLES: [(&str, &str); 4] = [
    (
        "Lighthouse",
        "A lighthouse on a cliff at dusk, storm clouds, waves breaking on the rocks, long exposure",
    ),
    (
        "Shop sign",
        "A small bakery at a street corner in the morning, a wooden sign that says \"DAILY BREAD\"",
    ),
    (
        "Portrait",
        "Portrait of an old fisherman in a yellow raincoat, window light from the left, shallow focus",
    ),
    ("Ink", "A bamboo grove in the rain, ink on paper, few strokes, much empty space"),
];

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

fn example((title, prompt): &(&str, &str)) -> Example {
    Example { title: title.to_string(), prompt: prompt.to_string(), url: None }
}
