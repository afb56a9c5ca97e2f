//! Heights of the past: as the command line names them, and which can be read.
//!
//! Invariant: which height a time means is told by certified headers alone; which heights replicas keep is their word.

use crate::args::{At, AuditHeightsArgs, Output};
use crate::commands::connect;
use crate::failure::{CommandResult, Failure};
use crate::say;
use quorate_client::{ClientError, Observer};
use quorate_protocol::client::Refusal;
use quorate_protocol::{BatchTime, Header, Height};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

/// The header of the height that is meant, which is committed.
pub async fn find(observer: &Observer, at: At) -> Result<Header, Failure> {
    let head = observer.refresh().await?;
    match at {
        At::Height(height) if height > head => Err(Failure::new(format!(
            "height {height} is above the head of the cluster, which is at height {head}"
        ))),
        At::Height(height) => Ok(observer.header(height).await?),
        At::Time(time) => {
            let now = UNIX_EPOCH.elapsed().unwrap_or_default();
            if u128::from(time.0) > now.as_nanos() {
                return Err(Failure::new(format!("{} lies in the future", text(time))));
            }
            Ok(observer.height_at(time).await?)
        }
    }
}

/// Why a height that is committed cannot be read.
pub fn unreadable(height: Height, error: ClientError) -> Failure {
    match error {
        ClientError::Refused { refusal: Refusal::NotRetained { horizon, .. }, .. } => Failure::new(format!(
            "height {height} is below the horizon: replicas say that they keep heights from {horizon} on (`quorate audit heights`); how much they keep is set by `quorate replica --keep-seconds` and `--keep-heights`"
        )),
        ClientError::Refused { text, .. } => Failure::new(format!("height {height} cannot be read: {text}")),
        other => Failure::new(format!("height {height} cannot be read: {other}")),
    }
}

/// A batch time in words.
pub fn text(time: BatchTime) -> String {
    match UNIX_EPOCH.checked_add(Duration::from_nanos(time.0)) {
        Some(time) => humantime::format_rfc3339_nanos(time).to_string(),
        None => format!("@{}", time.0 / 1_000_000_000),
    }
}

/// What a replica keeps, as it says.
struct Kept {
    replica: u8,
    heights: Result<(Height, Height), String>,
}

/// Lists which heights can still be read.
pub fn list(args: &AuditHeightsArgs) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (kept, headers) = runtime.block_on(async {
        let observer = connect::observe(&args.cluster.cluster, &args.cluster.key).await?;
        let status = observer.status().await;
        let kept: Vec<Kept> = status
            .replicas
            .into_iter()
            .map(|state| {
                let heights = state.status.map(|status| (status.horizon, status.committed));
                Kept { replica: state.replica, heights }
            })
            .collect();
        let mut headers = BTreeMap::new();
        for height in kept.iter().filter_map(|kept| kept.heights.as_ref().ok()).flat_map(|(a, b)| [*a, *b]) {
            // What one replica makes up has no certified header.
            if let std::collections::btree_map::Entry::Vacant(place) = headers.entry(height)
                && let Ok(header) = observer.header(height).await
            {
                place.insert(header);
            }
        }
        Ok::<_, Failure>((kept, headers))
    })?;
    if headers.is_empty() {
        return Err(Failure::new("no replica says which heights it keeps"));
    }
    match args.output {
        Output::Text => print(&kept, &headers),
        Output::Json => say!("{}", json(&kept, &headers)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The lowest and the highest height that some replica keeps, of those whose headers are certified.
fn span(headers: &BTreeMap<Height, Header>) -> Option<(&Header, &Header)> {
    Some((headers.first_key_value()?.1, headers.last_key_value()?.1))
}

fn print(kept: &[Kept], headers: &BTreeMap<Height, Header>) {
    let shown = |height: &Height| match headers.get(height) {
        Some(header) => format!("{height} ({})", text(header.time)),
        None => format!("{height} (no certified header of it can be had)"),
    };
    for Kept { replica, heights } in kept {
        match heights {
            Ok((horizon, applied)) => {
                say!("replica {replica} keeps {} to {}", shown(horizon), shown(applied));
            }
            Err(reason) => say!("replica {replica} does not answer: {reason}"),
        }
    }
    if let Some((first, last)) = span(headers) {
        say!("heights {} to {} can be read, as replicas say", first.height, last.height);
    }
}

fn json(kept: &[Kept], headers: &BTreeMap<Height, Header>) -> serde_json::Value {
    let shown = |height: &Height| {
        let header = headers.get(height);
        serde_json::json!({
            "height": height,
            "time": header.map(|header| text(header.time)),
            "header": header.map(|header| header.hash().to_string()),
            "state_root": header.map(|header| header.state_root.to_string()),
        })
    };
    let replicas: Vec<_> = kept
        .iter()
        .map(|Kept { replica, heights }| match heights {
            Ok((horizon, applied)) => serde_json::json!({
                "replica": replica, "from": shown(horizon), "to": shown(applied),
            }),
            Err(reason) => serde_json::json!({ "replica": replica, "error": reason }),
        })
        .collect();
    let span = span(headers);
    serde_json::json!({
        "from": span.map(|(first, _)| shown(&first.height)),
        "to": span.map(|(_, last)| shown(&last.height)),
        "replicas": replicas,
    })
}
