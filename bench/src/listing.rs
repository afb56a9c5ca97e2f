//! A directory of very many entries: made through consensus, then listed whole, page by verified page by a client,
//! and through a mount.
//!
//! Invariant: a listing counts only when it has shown every entry exactly once.

use crate::report::Machine;
use crate::{BenchError, Report};
use quorate_client::{Client, Freshness};
use quorate_execution::Answer;
use quorate_protocol::file::Name;
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Groups, OperationBody};
use serde::Serialize;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Entries of a page.
const PAGE: u16 = 128;

/// What came of it: one JSON line.
#[derive(Clone, Debug, Serialize)]
pub struct Listing {
    workload: &'static str,
    entries: u64,
    making_seconds: f64,
    /// Through the mount, from opendir to the end, without a look at attributes.
    mount_seconds: f64,
    /// Pages of 128 entries that a client asks for, each verified, one after the other.
    pages: Report,
    machine: Machine,
}

fn root() -> Credential {
    Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal }
}

/// Makes `entries` files in a new directory below `path`, which lies in a mount, and lists it. It is not removed.
///
/// # Errors
/// [`BenchError`]: an operation fails, or a listing is not complete.
pub async fn run(
    clients: &[Client],
    path: &Path,
    entries: u64,
    concurrency: usize,
) -> Result<Listing, BenchError> {
    let Some(client) = clients.first() else {
        return Err(BenchError::Parameters("sessions must be at least 1"));
    };
    let directory = path.join(format!("quorate-bench-listing-{}", std::process::id()));
    let of = |what| move |source| BenchError::Io { what, source };
    std::fs::create_dir(&directory).map_err(of("create the bench's directory"))?;
    let parent = std::fs::metadata(&directory).map_err(of("look at the bench's directory"))?.ino();
    let began = Instant::now();
    make(clients, parent, entries, concurrency).await?;
    let making_seconds = began.elapsed().as_secs_f64();
    let pages = pages(client, parent, entries).await?;
    let began = Instant::now();
    let listed = std::fs::read_dir(&directory).map_err(of("list the bench's directory"))?;
    let mut names = BTreeSet::new();
    let mut count = 0_u64;
    for entry in listed {
        names.insert(entry.map_err(of("list the bench's directory"))?.file_name());
        count += 1;
    }
    let mount_seconds = began.elapsed().as_secs_f64();
    if count != entries || names.len() as u64 != entries {
        return Err(BenchError::Parameters("the mount has not listed every entry once"));
    }
    let machine = Machine::here();
    Ok(Listing { workload: "listing", entries, making_seconds, mount_seconds, pages, machine })
}

async fn make(clients: &[Client], parent: u64, entries: u64, concurrency: usize) -> Result<(), BenchError> {
    let next = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..concurrency)
        .zip(clients.iter().cycle().cloned())
        .map(|(_, client)| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= entries {
                        return Ok::<(), BenchError>(());
                    }
                    client.execute(&root(), create(parent, number)).await?;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|_| BenchError::Worker)??;
    }
    Ok(())
}

fn create(parent: u64, number: u64) -> OperationBody {
    let mut entropy = [1; 16];
    entropy.iter_mut().zip(number.to_le_bytes()).for_each(|(byte, of)| *byte = of);
    OperationBody::Create {
        parent,
        name: Name::new(format!("entry-{number}").as_bytes()).expect("a short name"),
        mode: 0o644,
        umask: 0,
        exclusive: true,
        open: None,
        ino: None,
        entropy,
    }
}

/// Lists the directory page by page.
async fn pages(client: &Client, ino: u64, entries: u64) -> Result<Report, BenchError> {
    let (mut latencies, mut after, mut count) = (Vec::<Duration>::new(), 0, 0_u64);
    let began = Instant::now();
    loop {
        let start = Instant::now();
        let query = Query::Directory { ino, after, limit: PAGE, attributes: false };
        let Answer::Directory(page) = client.read(&root(), query, Freshness::Floor).await? else {
            return Err(BenchError::Parameters("a page is no page"));
        };
        latencies.push(start.elapsed());
        count += page.entries.len() as u64;
        match page.entries.last() {
            Some(last) if !page.complete => after = last.cookie,
            _ => break,
        }
    }
    // "." and ".." as well.
    if count != entries + 2 {
        return Err(BenchError::Parameters("the pages do not show every entry once"));
    }
    Ok(Report::new("page", 1, latencies, 0, began.elapsed()))
}
