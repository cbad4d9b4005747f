//! One set: its pictures with captions that are edited in place, and the form that begins a training.

use std::collections::HashMap;

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use zoetrope_jobs::{Picture, Search, TrainingPicture, TrainingSet};
use zoetrope_server::App;

use super::pictures::{self, CAPTION_MAX, of_name};
use super::start::{self, Sent};
use crate::fault::Fault;
use crate::icons::{self, icon};
use crate::layout::{Page, Tab, page};
use crate::text::common::Common;
use crate::text::filled;
use crate::text::training::Training as Words;
use crate::visitor::Visitor;

/// Pictures of the gallery to choose from.
const CHOICE: i64 = 60;
/// Fewer pictures learn badly.
const FEW: usize = 10;

/// The set called `id`, if `visitor` may see it.
pub(super) async fn mine(visitor: &Visitor, app: &App, id: &str) -> Result<TrainingSet, Fault> {
    let found = app.queue().training_set(id).await?.filter(|set| visitor.caller.sees(&set.owner));
    found.ok_or_else(|| Fault::not_found("There is no such set; it may have been deleted."))
}

pub(super) async fn show(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Markup, Fault> {
    let set = mine(&visitor, &app, &id).await?;
    page_of(&visitor, &app, &set, (&Sent::fresh(&set), &[])).await
}

/// `wrong` are fields of the training and what is wrong with them.
pub(super) async fn page_of(
    visitor: &Visitor,
    app: &App,
    set: &TrainingSet,
    (sent, wrong): (&Sent, &[(String, String)]),
) -> Result<Markup, Fault> {
    let (words, common) = (Words::of(visitor.look.language), Common::of(visitor.look.language));
    let all = app.queue().training_pictures(&set.id).await?;
    let search = Search { owner: visitor.owner().into(), most: CHOICE, ..Search::default() };
    let gallery = app.queue().pictures(&search).await?;
    let path = format!("/training/sets/{}", set.id);
    let body = html! {
        div.head {
            h1 { (set.name) }
            span.soft { (filled(words.pictures_count, &[&all.len()])) }
            form.push method="post" action=(format!("{path}/delete")) data-confirm=(words.delete_set_sure) {
                button.danger { (words.delete_set) }
            }
        }
        @if !all.is_empty() && all.len() < FEW { p.soft { (filled(words.few, &[&all.len()])) } }
        form #captions method="post" action=(format!("{path}/captions")) data-saved=(words.saved) {
            ul.captions { @for (at, picture) in all.iter().enumerate() { (captioned(words, &path, at, picture)) } }
            div.row { button.primary name="all" value="save" { (words.save) } }
            fieldset.all {
                legend { (words.all) }
                div.row {
                    label.hidden for="word" { (words.word) }
                    input #word name="word" placeholder="ohwx" maxlength="80" aria-describedby="word-help";
                    button name="all" value="front" { (words.put_in_front) }
                    button name="all" value="names" { (words.use_names) }
                }
                p.help #word-help { (words.put_help) }
            }
        }
        details.more open[all.is_empty()] {
            summary { (words.add) }
            form.stack method="post" action=(format!("{path}/pictures")) enctype="multipart/form-data" {
                (pictures::field(words, true))
                button { (words.add_files) }
            }
            h2 { (words.from_gallery) }
            @if gallery.is_empty() { p.soft { (words.nothing_in_gallery) } } @else {
                p.help { (words.from_gallery_help) }
                form.stack method="post" action=(format!("{path}/gallery")) {
                    ul.choice { @for picture in &gallery { (choice(picture)) } }
                    button { (words.add_files) }
                }
            }
        }
        section aria-labelledby="start" {
            h2 #start { (words.start_title) }
            (start::form(words, set, &all, sent, wrong))
        }
        p { a.button.quiet href="/training" { (common.training) } }
    };
    let scripts = &["training.js"];
    Ok(page(&visitor.look, Page { title: &set.name, tab: Some(Tab::Training), scripts, body }))
}

/// A picture with its caption; all captions are one form, so that they can be saved without scripts.
fn captioned(words: &Words, path: &str, at: usize, picture: &TrainingPicture) -> Markup {
    let TrainingPicture { id, file, name, caption, width, height, .. } = picture;
    html! {
        li.card {
            img src=(format!("/files/{file}")) width=(width) height=(height) alt=(filled(words.picture_of, &[name, width, height]))
                loading=(if at < 6 { "eager" } else { "lazy" });
            label.small.soft for=(format!("caption-{id}")) { (name) span.hidden { " " (filled(words.caption_of, &[name])) } }
            textarea id=(format!("caption-{id}")) name=(format!("caption-{id}")) rows="3" maxlength=(CAPTION_MAX) { (caption) }
            button.quiet.small.danger formaction=(format!("{path}/remove/{id}")) aria-label=(filled(words.remove, &[name])) { (icon(icons::BIN)) }
        }
    }
}

fn choice(picture: &Picture) -> Markup {
    let file = picture.thumbnail.as_ref().unwrap_or(&picture.file);
    html! {
        li {
            label {
                input type="checkbox" name="picture" value=(picture.number);
                img src=(format!("/files/{file}")) width=(picture.width) height=(picture.height) alt=(picture.prompt) loading="lazy";
            }
        }
    }
}

/// Saves what captions were sent: all of them by the form, or one by the script.
pub(super) async fn caption(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
    Form(sent): Form<HashMap<String, String>>,
) -> Result<Response, Fault> {
    let set = mine(&visitor, &app, &id).await?;
    let text = |name: &str| sent.get(name).map_or("", |text| text.trim());
    let (all, word) = (text("all"), text("word"));
    let mut saved = 0;
    for picture in app.queue().training_pictures(&set.id).await? {
        let Some(caption) = sent.get(&format!("caption-{}", picture.id)) else { continue };
        let caption = caption.trim().replace("\r\n", "\n");
        let stem = picture.name.rsplit_once('.').map_or(picture.name.as_str(), |(stem, _)| stem);
        let caption = match all {
            "names" if caption.is_empty() => of_name(stem),
            "front" if !word.is_empty() && !begins(&caption, word) => {
                format!("{word}, {caption}").trim_end_matches([',', ' ']).to_string()
            }
            _ => caption,
        };
        if caption.chars().count() > CAPTION_MAX {
            let text =
                format!("{}: the caption has more than {CAPTION_MAX} characters.", picture.name);
            return Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        }
        if caption != picture.caption {
            app.queue().caption_training_picture(&set.id, &picture.id, &caption).await?;
        }
        saved += 1;
    }
    if visitor.look.partial {
        return Ok((StatusCode::OK, format!("{saved}")).into_response());
    }
    Ok(Redirect::to(&format!("/training/sets/{}", set.id)).into_response())
}

/// Whether the word stands in front already.
fn begins(caption: &str, word: &str) -> bool {
    caption.strip_prefix(word).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

pub(super) async fn remove(
    visitor: Visitor,
    State(app): State<App>,
    Path((id, picture)): Path<(String, String)>,
    form: Form<HashMap<String, String>>,
) -> Result<Response, Fault> {
    let set = mine(&visitor, &app, &id).await?;
    app.queue().delete_training_picture(&set.id, &picture).await?;
    // The button is in the captions' form: what was typed into the others is not lost.
    caption(visitor, State(app), Path(id), form).await
}

pub(super) async fn delete(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Redirect, Fault> {
    let set = mine(&visitor, &app, &id).await?;
    app.queue().delete_training_set(&set.id).await?;
    Ok(Redirect::to("/training"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_put_in_front_once() {
        for (caption, expected) in
            [("ohwx", true), ("ohwx, a house", true), ("ohwxx", false), ("a house", false)]
        {
            assert_eq!(begins(caption, "ohwx"), expected, "{caption}");
        }
    }
}
