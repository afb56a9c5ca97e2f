//! The exported log over HTTP: what tlog-tiles asks of a server, nothing beside the log, and patience with no one.

use super::{export, some_heights};
use crate::harness::{Cluster, PATIENCE, quorate};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

/// `tlog serve` on a free port.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(log: &Path) -> Self {
        let mut command = quorate(["audit", "tlog", "serve", "--listen", "127.0.0.1:0"]);
        let mut process = command.arg(log).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().trim_end_matches('/').rsplit('/').next().unwrap().parse();
        Self { process, address: address.unwrap_or_else(|error| panic!("{error}: {line}")) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status, head and body of an answer.
    fn ask(&self, method: &str, path: &str) -> (u16, String, Vec<u8>) {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: log\r\nConnection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head, bytes[end + 4..].to_vec())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_log_is_served_and_nothing_else_of_the_machine() {
    let cluster = Cluster::start();
    some_heights(&cluster, "d", 20);
    let log = cluster.home().join("log");
    let size = export(&cluster, &log, &[])["size"].as_u64().unwrap();
    std::fs::write(log.join("secret"), "not for you").unwrap();
    let server = Server::start(&log);
    let file = |name: &str| std::fs::read(log.join(name)).unwrap();
    let (tile, bundle) = (format!("tile/0/000.p/{size}"), format!("tile/entries/000.p/{size}"));
    for (name, kind, caching) in [
        ("checkpoint", "text/plain; charset=utf-8", "max-age=2"),
        ("policy", "text/plain; charset=utf-8", "max-age=300"),
        (&tile, "application/octet-stream", "immutable"),
        (&bundle, "application/octet-stream", "immutable"),
    ] {
        let (status, head, body) = server.ask("GET", &format!("/{name}"));
        assert_eq!((status, &body), (200, &file(name)), "{name}");
        assert!(head.contains(&format!("content-type: {kind}\r\n")), "{head}");
        let cached = head.lines().find(|line| line.starts_with("cache-control: ")).unwrap();
        assert!(cached.contains(caching), "{head}");
        let (status, head, body) = server.ask("HEAD", &format!("/{name}"));
        assert_eq!((status, body.len()), (200, 0));
        assert!(head.contains(&format!("content-length: {}", file(name).len())), "{head}");
    }
    for path in [
        "/",
        "/secret",
        "/../secret",
        "/tile/0/../../secret",
        "/%2e%2e/secret",
        "/tile/0/001",
        "/tile/9/000",
        "//policy",
        "/checkpoint/",
        "/tile/0/000.p/0",
        "http://log/../etc/passwd",
        "/etc/passwd",
    ] {
        let (status, _, body) = server.ask("GET", path);
        assert!(matches!(status, 400 | 404) && !body.starts_with(b"not for"), "{path}: {status}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(server.ask(method, "/checkpoint").0, 405, "{method}");
    }
    // Garbage and a head without end cost the one who sends them the connection, and nobody else anything.
    let mut garbage = server.connect();
    garbage.write_all(&[0xff; 100]).unwrap();
    let mut endless = server.connect();
    endless.write_all(b"GET /checkpoint HTTP/1.1\r\n").unwrap();
    let sent =
        (0..64).try_for_each(|_| endless.write_all(&[b"X: ".as_slice(), &[b'y'; 1000], b"\r\n"].concat()));
    let mut answer = Vec::new();
    let read = endless.read_to_end(&mut answer);
    assert!(
        sent.is_err() || read.is_err() || answer.starts_with(b"HTTP/1.1 4"),
        "an endless head is refused"
    );
    assert_eq!(server.ask("GET", "/checkpoint").0, 200);
    // Two requests on one connection.
    let mut stream = server.connect();
    let request = "GET /policy HTTP/1.1\r\nHost: log\r\n\r\nGET /checkpoint HTTP/1.1\r\nHost: log\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut both = Vec::new();
    stream.read_to_end(&mut both).unwrap();
    assert_eq!(String::from_utf8_lossy(&both).matches("HTTP/1.1 200 OK").count(), 2);
}

#[test]
fn only_an_exported_log_is_served() {
    let place = tempfile::tempdir().unwrap();
    let mut command = quorate(["audit", "tlog", "serve", "--listen", "127.0.0.1:0"]);
    crate::harness::run(command.arg(place.path()), PATIENCE).expect_one_line(2, &["is no exported log"]);
}
