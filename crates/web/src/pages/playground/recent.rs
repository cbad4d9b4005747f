//! `/playground/recent`: the last pictures, each a way back to its request.

use axum::extract::State;
use maud::{Markup, html};
use zoetrope_jobs::Search;
use zoetrope_server::App;

use crate::fault::Fault;
use crate::text::playground::Playground;
use crate::visitor::Visitor;

/// Pictures that are shown.
const RECENT: i64 = 12;

pub(super) async fn show(State(app): State<App>, visitor: Visitor) -> Result<Markup, Fault> {
    let search = Search { owner: visitor.owner().into(), most: RECENT, ..Search::default() };
    let pictures = app.queue().pictures(&search).await?;
    let words = Playground::of(visitor.look.language);
    Ok(html! {
        @if !pictures.is_empty() {
            h2 { (words.recent) }
            ul.strip {
                @for picture in &pictures {
                    @let to = format!("/requests/{}", picture.request);
                    li {
                        a href=(to) hx-get=(to) hx-target="#result" hx-swap="innerHTML" {
                            img src={ "/gallery/" (picture.number) "/small.webp" } alt=(picture.prompt) loading="lazy" width="96" height="96";
                        }
                    }
                }
            }
        }
    })
}
