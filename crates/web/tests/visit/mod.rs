//! Somebody who looks at the pages: sends forms as a browser would without scripts.

#![allow(dead_code, clippy::unwrap_used)] // each test uses what it needs

use axum::body::Body;
use axum::http::Request;
use futures_util::StreamExt;
use tower::ServiceExt;
use zoetrope_jobs::Scope;
use zoetrope_server::{app_with, keys};

use crate::room::{Answer, Room};

/// Who looks, and in which language.
pub(crate) struct Visit<'a> {
    room: &'a Room,
    /// The session's.
    pub(crate) cookie: String,
    pub(crate) language: &'static str,
    /// The key's id, of whoever signed in.
    pub(crate) owner: String,
}

impl<'a> Visit<'a> {
    /// Whoever sits at this machine, or a stranger where keys are needed.
    pub(crate) fn of(room: &'a Room) -> Self {
        Self { room, cookie: String::new(), language: "en", owner: "local".into() }
    }

    /// Somebody with a new key.
    pub(crate) async fn signed_in(room: &'a Room, scope: Scope) -> Self {
        let (key, text) = keys::make("test", scope, 4, 0);
        room.queue.insert_key(&key).await.unwrap();
        let stranger = Self::of(room);
        let answer = stranger.post("/sign-in", &format!("key={text}")).await;
        let cookie = answer.header("set-cookie").split(';').next().unwrap().to_string();
        assert!(cookie.starts_with("zoetrope_session="), "{answer:?}");
        Self { cookie, owner: key.id, ..stranger }
    }

    /// The page at `path`, which has to be there.
    pub(crate) async fn get(&self, path: &str) -> String {
        let answer = self.send("GET", path, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.text()
    }

    /// Sends a form.
    pub(crate) async fn post(&self, path: &str, form: &str) -> Answer {
        self.send("POST", path, form).await
    }

    pub(crate) async fn send(&self, method: &str, path: &str, form: &str) -> Answer {
        self.send_as(method, path, "application/x-www-form-urlencoded", form.to_string()).await
    }

    /// The same of a body of another type.
    pub(crate) async fn send_as(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let headers = [
            ("cookie", self.cookie.as_str()),
            ("accept", "text/html"),
            ("accept-language", self.language),
            ("sec-fetch-site", "same-origin"),
            ("origin", "http://127.0.0.1:7860"),
            ("content-type", content_type),
        ];
        send(self.room, method, path, &headers, body.into()).await
    }
}

/// Sends anything to the pages.
pub(crate) async fn send(
    room: &Room,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Body,
) -> Answer {
    let router = app_with(room.app.clone(), zoetrope_web::router(room.app.clone()));
    let path = path.split('#').next().unwrap();
    let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:7860");
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        request = request.header(*name, *value);
    }
    let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let (mut bytes, mut body) = (Vec::new(), body.into_data_stream());
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part.unwrap());
    }
    Answer { status: parts.status, headers: parts.headers, bytes, cut_off: false }
}

/// The value of the hidden field `name`.
pub(crate) fn value(page: &str, name: &str) -> String {
    let marker = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.split_once(&marker).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().unwrap().into()
}
