//! Null operations through consensus, without a mount: what ordering, certifying and syncing cost alone; and
//! linearizable reads.
//!
//! Invariant: an operation counts when the client holds its certificate, a read when its proof was checked.

use crate::{BenchError, Report};
use quorate_client::{Client, ClientError, Freshness};
use quorate_protocol::query::Query;
use quorate_protocol::{Credential, Groups, OperationBody};
use serde::Serialize;
use std::time::{Duration, Instant};

/// What clients do.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Null operations.
    Null,
    /// Linearizable reads of the totals of the filesystem.
    Read,
}

impl Work {
    const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Read => "read",
        }
    }
}

/// Runs `concurrency` of these at a time, spread over the clients, for `duration`.
///
/// # Errors
/// [`BenchError`] when there is nothing to run; failed operations are counted.
pub async fn run(
    clients: &[Client],
    concurrency: usize,
    duration: Duration,
    work: Work,
) -> Result<Report, BenchError> {
    if clients.is_empty() || concurrency == 0 || duration.is_zero() {
        return Err(BenchError::Parameters("sessions, concurrency and seconds must be at least 1"));
    }
    let began = Instant::now();
    let tasks: Vec<_> = (0..concurrency)
        .zip(clients.iter().cycle())
        .map(|(_, client)| tokio::spawn(worker(client.clone(), began, duration, work)))
        .collect();
    let mut latencies = Vec::new();
    let mut errors = 0;
    for task in tasks {
        let (mine, failed) = task.await.map_err(|_| BenchError::Worker)?;
        latencies.extend(mine);
        errors += failed;
    }
    Ok(Report::new(work.name(), concurrency, latencies, errors, began.elapsed()))
}

async fn worker(client: Client, began: Instant, duration: Duration, work: Work) -> (Vec<Duration>, u64) {
    let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    let mut latencies = Vec::new();
    let mut errors = 0;
    while began.elapsed() < duration {
        let start = Instant::now();
        let done = match work {
            Work::Null => client.execute(&credential, OperationBody::Null).await.map(drop),
            Work::Read => client.read(&credential, Query::Totals, Freshness::Linearizable).await.map(drop),
        };
        match done {
            Ok(()) => latencies.push(start.elapsed()),
            Err(error) => {
                errors += 1;
                tracing::warn!(%error, "an operation of the bench failed");
                if matches!(error, ClientError::Closed) {
                    break;
                }
            }
        }
    }
    (latencies, errors)
}
