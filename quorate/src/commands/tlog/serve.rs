//! `quorate audit tlog serve`: an exported log over HTTP/1.1.
//!
//! Invariants: only `checkpoint`, `policy` and the names of tiles in their one form are looked up, so no path leads
//! out of the directory; connections, their time, requests and answers are bounded.

use super::directory::{CHECKPOINT, LogDirectory, POLICY};
use crate::args::TlogServeArgs;
use crate::failure::{CommandResult, Failure};
use crate::say;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use quorate_audit::tlog::TilePath;
use std::convert::Infallible;
use std::io::{Error, ErrorKind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may last, whatever it does: a slow client is cut off, and a good one comes again.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a request's head may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Most bytes of an answer: a bundle of 256 headers has 77 kB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long after an accept that failed, for instance because there are too many open files, it is tried again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// The checkpoint changes, and is wanted fresh.
const FRESH: HeaderValue = HeaderValue::from_static("public, max-age=2");
/// The policy changes with the members.
const RATHER_FRESH: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// What has the name of a tile never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// What a path names.
#[derive(Copy, Clone)]
enum Wanted {
    Checkpoint,
    Policy,
    Tile(TilePath),
}

/// Serves until the process is told to end.
pub fn run(args: &TlogServeArgs) -> CommandResult {
    let directory = LogDirectory::new(&args.directory);
    if directory.read_policy().is_err() {
        return Err(Failure::new(format!("{} is no exported log", args.directory.display())));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(|error| {
            Failure::new(format!(
                "cannot listen on {}: {error}; name another address with --listen",
                args.listen
            ))
        })?;
        say!("serving {} at http://{}/", args.directory.display(), listener.local_addr()?);
        serve(&listener, Arc::new(directory)).await
    })
}

async fn serve(listener: &TcpListener, directory: Arc<LogDirectory>) -> CommandResult {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return Ok(ExitCode::SUCCESS) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let directory = Arc::clone(&directory);
        tokio::spawn(async move {
            let answers = hyper::service::service_fn(move |request| answer(Arc::clone(&directory), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), answers);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIME_MAX, connection).await {
                tracing::debug!(%error, "a connection");
            }
            drop(place);
        });
    }
}

async fn answer(
    directory: Arc<LogDirectory>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let head_only = request.method() == Method::HEAD;
    if !head_only && request.method() != Method::GET {
        let mut refused = said(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    let Some(wanted) = wanted(request.uri().path()) else { return Ok(nothing()) };
    // Files are read where they hold up nobody.
    let read = tokio::task::spawn_blocking(move || read(&directory, wanted)).await;
    Ok(match read.unwrap_or_else(|error| Err(Error::other(error))) {
        Ok(bytes) => {
            let (kind, caching) = match wanted {
                Wanted::Checkpoint => (TEXT, FRESH),
                Wanted::Policy => (TEXT, RATHER_FRESH),
                Wanted::Tile(_) => (BINARY, FOR_EVER),
            };
            // The length is told in both cases; hyper leaves the body of an answer to HEAD away.
            let mut response = Response::new(Full::new(Bytes::from(bytes)));
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response.headers_mut().insert(CACHE_CONTROL, caching);
            response
        }
        Err(error) if error.kind() == ErrorKind::NotFound => nothing(),
        Err(error) => {
            tracing::warn!(%error, path = request.uri().path(), "a file of the log cannot be read");
            said(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n")
        }
    })
}

fn wanted(path: &str) -> Option<Wanted> {
    match path.strip_prefix('/')? {
        CHECKPOINT => Some(Wanted::Checkpoint),
        POLICY => Some(Wanted::Policy),
        tile => TilePath::parse(tile).map(Wanted::Tile),
    }
}

fn read(directory: &LogDirectory, wanted: Wanted) -> Result<Vec<u8>, Error> {
    let bytes = match wanted {
        Wanted::Checkpoint => directory.read_checkpoint()?.ok_or_else(|| Error::from(ErrorKind::NotFound))?,
        Wanted::Policy => directory.read_policy()?,
        Wanted::Tile(path) => directory.read_tile_up_to(&path, ANSWER_BYTES_MAX)?,
    };
    if bytes.len() > ANSWER_BYTES_MAX { Err(Error::other("it is too large")) } else { Ok(bytes) }
}

fn nothing() -> Response<Full<Bytes>> {
    said(StatusCode::NOT_FOUND, "not a file of the log\n")
}

fn said(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_directory() {
        assert!(matches!(wanted("/checkpoint"), Some(Wanted::Checkpoint)));
        assert!(matches!(wanted("/policy"), Some(Wanted::Policy)));
        assert!(matches!(wanted("/tile/entries/x001/x234/067.p/5"), Some(Wanted::Tile(_))));
        for path in [
            "/",
            "",
            "checkpoint",
            "//checkpoint",
            "/checkpoint/",
            "/./checkpoint",
            "/../checkpoint",
            "/tile/0/../0/000",
            "/tile/0/%2e%2e/000",
            "/tile/0/000/../../../etc/passwd",
            "/etc/passwd",
            "/tile/0/0000",
            "/tile/0/000.p/0",
            "/tile/0/000\\..",
            "/heads",
            "/.tmp123",
            "/tile",
            "/tile/0/",
        ] {
            assert!(wanted(path).is_none(), "{path}");
        }
    }
}
