//! Null operations through consensus, without a mount: what ordering, certifying and syncing cost alone.
//!
//! Invariant: an operation counts when the client holds its certificate.

use crate::{BenchError, Report};
use quorate_client::{Client, ClientError};
use quorate_protocol::{Credential, Groups, OperationBody};
use std::time::{Duration, Instant};

/// Runs `concurrency` null operations at a time, spread over the clients, for `duration`.
///
/// # Errors
/// [`BenchError`] when there is nothing to run; failed operations are counted.
pub async fn run(clients: &[Client], concurrency: usize, duration: Duration) -> Result<Report, BenchError> {
    if clients.is_empty() || concurrency == 0 || duration.is_zero() {
        return Err(BenchError::Parameters("sessions, concurrency and seconds must be at least 1"));
    }
    let began = Instant::now();
    let tasks: Vec<_> = (0..concurrency)
        .zip(clients.iter().cycle())
        .map(|(_, client)| tokio::spawn(work(client.clone(), began, duration)))
        .collect();
    let mut latencies = Vec::new();
    let mut errors = 0;
    for task in tasks {
        let (mine, failed) = task.await.map_err(|_| BenchError::Worker)?;
        latencies.extend(mine);
        errors += failed;
    }
    Ok(Report::new("null", concurrency, latencies, errors, began.elapsed()))
}

async fn work(client: Client, began: Instant, duration: Duration) -> (Vec<Duration>, u64) {
    let credential = Credential { uid: 0, gid: 0, groups: Groups::OfPrincipal };
    let mut latencies = Vec::new();
    let mut errors = 0;
    while began.elapsed() < duration {
        let start = Instant::now();
        match client.execute(&credential, OperationBody::Null).await {
            Ok(_) => latencies.push(start.elapsed()),
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
