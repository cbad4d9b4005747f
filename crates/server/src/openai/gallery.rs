//! Pictures that were made by a model's name are shown to those who look through pictures, as long as their addresses live.

use zoetrope_files::Name;
use zoetrope_gateway::answer::Answer;
use zoetrope_jobs::NewPicture;

use crate::state::App;

/// Shows what `answer` has at addresses; what is in the answer alone is kept nowhere. A database that cannot be written to now loses
/// nobody's picture.
pub(super) async fn show(app: &App, owner: &str, prompt: &str, answer: &Answer) {
    let picture = |made: &zoetrope_gateway::answer::Picture| {
        let (_, file) = made.url.as_ref()?.rsplit_once("/files/")?;
        Some(NewPicture {
            file: Name::parse(file)?.as_str().into(),
            model: answer.model.id.clone(),
            prompt: made.revised_prompt.clone().unwrap_or_else(|| prompt.into()),
            width: made.size.width,
            height: made.size.height,
            seed: made.seed,
        })
    };
    let pictures: Vec<NewPicture> = answer.pictures.iter().filter_map(picture).collect();
    if pictures.is_empty() {
        return;
    }
    if let Err(error) = app.settings.queue.show_pictures((&answer.id, owner), &pictures).await {
        tracing::warn!(%error, "pictures could not be put into the gallery");
    }
}
