//! A running binary in a temporary data folder, stopped with its test.

#![allow(dead_code, clippy::unwrap_used)] // each test uses what it needs

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_zoetrope");
/// More than anything takes on a busy machine of two cores, so that what hangs fails.
const PATIENCE: Duration = Duration::from_secs(180);

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(arguments).env_remove("FAL_KEY");
    for name in ["ZOETROPE_CONFIG", "ZOETROPE_DATA_DIR", "ZOETROPE_LISTEN", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command
}

/// Answers `GET` of these paths on loopback, and 404 to everything else; where.
pub(crate) fn web(files: Vec<(&'static str, Vec<u8>)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            let path = first.split(' ').nth(1).unwrap();
            let found = files.iter().find(|(name, _)| *name == path);
            let (status, bytes) = found.map_or(("404 Not Found", &[][..]), |(_, b)| ("200 OK", b));
            let length = bytes.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(bytes).unwrap();
        }
    });
    address
}

/// Runs the binary to its end.
pub(crate) fn zoetrope(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) struct Server {
    folder: Option<TempDir>,
    data_dir: String,
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), arguments)
    }

    /// Ports are the system's choice, unless the arguments have them.
    pub(crate) fn start_in(folder: TempDir, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// With variables of the environment.
    pub(crate) fn start_with(
        folder: TempDir,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let data_dir = folder.path().to_str().unwrap().to_string();
        let mut all = vec!["serve", "--data-dir", &data_dir, "--log", "warn"];
        if !arguments.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        if !arguments.contains(&"--tls-listen") {
            all.extend(["--tls-listen", "127.0.0.1:0"]);
        }
        all.extend(arguments);
        let mut command = command(&all);
        // What a machine's own cache holds is none of the tests' business.
        command.env("HF_HOME", folder.path().join("hf")).envs(variables.iter().copied());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line
            .trim()
            .strip_prefix("zoetrope answers at ")
            .unwrap_or_else(|| panic!("the server did not start: {line:?} {:?}", child.wait()));
        Self { folder: Some(folder), data_dir: data_dir.clone(), address: address.into(), child }
    }

    pub(crate) fn data_dir(&self) -> &str {
        &self.data_dir
    }

    /// Another server on the same data, once this one has ended.
    pub(crate) fn again(mut self, arguments: &[&str]) -> Self {
        let folder = self.folder.take().unwrap();
        Self::start_in(folder, arguments)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        terminate(&mut self.child);
    }

    /// Sends the signal called `name`, as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    pub(crate) fn worker(&self, arguments: &[&str]) -> Worker {
        let all = [&["worker", "--data-dir", &self.data_dir, "--log", "warn"], arguments].concat();
        Worker(command(&all).stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, Some(body))
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.call_as("Key local:local", method, path, body)
    }

    pub(crate) fn call_as(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let (status, mut answer) = self.send(key, method, path, body);
        let text = answer.body_mut().read_to_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn send(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, ureq::http::Response<ureq::Body>) {
        let url =
            if path.starts_with("http") { path.into() } else { format!("{}{path}", self.address) };
        let url = url.replace("0.0.0.0", "127.0.0.1");
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build()
            .into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", key)
            .header("content-type", "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = agent.run(request.body(body).unwrap()).unwrap();
        (answer.status().as_u16(), answer)
    }

    /// Uploads; the status.
    pub(crate) fn put_bytes(&self, url: &str, bytes: &[u8]) -> u16 {
        ureq::put(url).send(bytes).unwrap().status().as_u16()
    }

    pub(crate) fn get_bytes(&self, url: &str) -> Vec<u8> {
        let (status, mut answer) = self.send("Key local:local", "GET", url, None);
        assert_eq!(status, 200, "{url}");
        let mut bytes = Vec::new();
        answer.body_mut().as_reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The JSON of each event of a stream.
    pub(crate) fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let (status, mut answer) = self.send("Key local:local", "POST", path, Some(body));
        assert_eq!(status, 200);
        let text = answer.body_mut().read_to_string().unwrap();
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// Looks until the request's status is `wanted`.
    pub(crate) fn wait_for(&self, id: &str, wanted: &str) {
        let begun = Instant::now();
        loop {
            let path = format!("/queue/fal-ai/z-image/requests/{id}/status");
            let (_, status) = self.get(&path);
            if status["status"] == wanted {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "still {status}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The result of a request that succeeds.
    pub(crate) fn result(&self, id: &str) -> Value {
        self.wait_for(id, "COMPLETED");
        let (status, result) = self.get(&format!("/queue/fal-ai/z-image/requests/{id}"));
        assert_eq!(status, 200, "{result}");
        result
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

pub(crate) struct Worker(Child);

impl Worker {
    /// Asks it to stop, and waits until it has.
    pub(crate) fn terminate(&mut self) {
        terminate(&mut self.0);
    }
}

fn terminate(child: &mut Child) {
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it does not stop");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
