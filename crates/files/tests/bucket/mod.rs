//! A bucket on a loopback port: as much of S3 as a store uses.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex};

use crate::loopback::{Request, Server, Step, answer};

const LAST_MODIFIED: (&str, &str) = ("last-modified", "Tue, 24 Nov 2026 12:00:00 GMT");

#[derive(Default)]
pub(crate) struct Bucket {
    /// Key to bytes.
    pub(crate) objects: BTreeMap<String, Vec<u8>>,
    /// Upload to its pieces by number.
    pub(crate) uploads: BTreeMap<String, BTreeMap<u32, Vec<u8>>>,
    begun: usize,
}

/// A server and what lies in its bucket `files`.
pub(crate) async fn start() -> (Server, Arc<Mutex<Bucket>>) {
    let bucket = Arc::new(Mutex::new(Bucket::default()));
    let shared = bucket.clone();
    let server = Server::start(move |request| shared.lock().unwrap().handle(request)).await;
    (server, bucket)
}

impl Bucket {
    fn handle(&mut self, request: &Request) -> Vec<Step> {
        let signed = request.header("authorization").is_some_and(|v| v.contains("Credential=us/"));
        if !signed {
            return answer(403, &[], b"");
        }
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let key = path.strip_prefix("/files").unwrap().trim_start_matches('/').to_string();
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let upload = query.get("uploadId").cloned();
        match (request.method.as_str(), upload) {
            ("PUT", Some(upload)) => {
                let number = query["partNumber"].parse().unwrap();
                // A piece may still be on its way when the upload is given up.
                match self.uploads.get_mut(&upload) {
                    Some(pieces) => {
                        pieces.insert(number, request.body.clone());
                        answer(200, &[("etag", "\"piece\"")], b"")
                    }
                    None => answer(404, &[], b""),
                }
            }
            ("PUT", None) => {
                self.objects.insert(key, request.body.clone());
                answer(200, &[("etag", "\"whole\"")], b"")
            }
            ("POST", Some(upload)) => {
                let pieces = self.uploads.remove(&upload).unwrap();
                self.objects.insert(key, pieces.into_values().flatten().collect());
                let tag = "<ETag>\"whole\"</ETag>";
                xml("CompleteMultipartUploadResult", tag)
            }
            ("POST", None) if query.contains_key("delete") => self.delete_listed(&request.body),
            ("POST", None) => {
                self.begun += 1;
                let id = format!("upload-{}", self.begun);
                self.uploads.insert(id.clone(), BTreeMap::new());
                let id = format!("<UploadId>{id}</UploadId>");
                xml("InitiateMultipartUploadResult", &id)
            }
            ("DELETE", Some(upload)) => {
                self.uploads.remove(&upload);
                answer(204, &[], b"")
            }
            ("GET", None) if query.contains_key("list-type") => self.list(&query["prefix"]),
            ("GET" | "HEAD", None) => self.get(&key, request),
            other => panic!("the bucket does not know {other:?} {}", request.target),
        }
    }

    fn get(&self, key: &str, request: &Request) -> Vec<Step> {
        let Some(bytes) = self.objects.get(key) else { return answer(404, &[], b"") };
        let tag = ("etag", "\"whole\"");
        if request.method == "HEAD" {
            let length = bytes.len().to_string();
            let headers = [tag, LAST_MODIFIED, ("content-length", &length)];
            return vec![Step::Send(crate::loopback::head(200, &headers))];
        }
        let Some(range) = request.header("range") else {
            return answer(200, &[tag, LAST_MODIFIED], bytes);
        };
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let first: usize = first.parse().unwrap();
        let end = bytes.len().min(last.parse::<usize>().unwrap() + 1);
        if first >= end {
            return answer(416, &[], b"");
        }
        let shown = format!("bytes {first}-{}/{}", end - 1, bytes.len());
        answer(206, &[tag, LAST_MODIFIED, ("content-range", &shown)], &bytes[first..end])
    }

    fn list(&self, prefix: &str) -> Vec<Step> {
        let mut found = "<IsTruncated>false</IsTruncated>".to_string();
        for (key, bytes) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
            let size = bytes.len();
            write!(
                found,
                "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>\"whole\"</ETag>\
                 <LastModified>2026-11-24T12:00:00.000Z</LastModified></Contents>"
            )
            .unwrap();
        }
        xml("ListBucketResult", &found)
    }

    fn delete_listed(&mut self, body: &[u8]) -> Vec<Step> {
        let text = String::from_utf8_lossy(body);
        let mut deleted = String::new();
        for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            self.objects.remove(key);
            write!(deleted, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
        }
        xml("DeleteResult", &deleted)
    }
}

fn xml(root: &str, inside: &str) -> Vec<Step> {
    answer(
        200,
        &[("content-type", "application/xml")],
        format!("<{root}>{inside}</{root}>").as_bytes(),
    )
}
