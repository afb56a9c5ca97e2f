//! Where `quorate audit` takes committed heights from: a replica's log, a bundle, or a live cluster.
//!
//! Invariant: what is given is trusted with nothing; of another cluster than the cluster file's it is refused.

use crate::args::HistoryArgs;
use crate::commands::connect;
use crate::failure::{Failure, complain};
use quorate_audit::{BundleReader, NoBundle, Source, SourceError};
use quorate_client::Observer;
use quorate_crypto::Hash;
use quorate_protocol::Height;
use quorate_protocol::peer::{Batch, CommittedBatch};
use quorate_protocol::record::Record;
use quorate_store::log::{LogError, LogReader};
use quorate_store::read_marker;
use quorate_transport::ClusterFile;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::BufReader;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Batches above the last committed height that a log may hold; the protocol's window keeps below it.
const PENDING_MAX: usize = 4096;

/// Opens the source that is asked for; without any the live cluster, as the principal with this key file.
pub fn open(cluster: &ClusterFile, place: &HistoryArgs) -> Result<Box<dyn Source + Send>, Failure> {
    open_above(cluster, place, 0)
}

/// The same without the heights up to this one. Of a live cluster they are not fetched, otherwise passed over.
pub fn open_above(
    cluster: &ClusterFile,
    place: &HistoryArgs,
    height: Height,
) -> Result<Box<dyn Source + Send>, Failure> {
    if place.dir.is_none() && place.bundle.is_none() {
        return Ok(Box::new(LiveSource::start(place, height)?));
    }
    Ok(Box::new(Above { source: stored(cluster, place)?, height }))
}

/// A directory or a bundle.
fn stored(cluster: &ClusterFile, place: &HistoryArgs) -> Result<Box<dyn Source + Send>, Failure> {
    if let Some(directory) = &place.dir {
        let identity = read_marker(directory)?.identity;
        if identity.cluster != cluster.cluster() {
            return Err(Failure::new(format!(
                "{} is of cluster {}, not of {}",
                directory.display(),
                identity.cluster,
                cluster.cluster()
            )));
        }
        let window = u64::from(cluster.genesis().parameters.window);
        return Ok(Box::new(LogSource::new(LogReader::open(directory)?, window)));
    }
    if let Some(path) = &place.bundle {
        let of = |error: String| Failure::new(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(|error| of(format!("cannot open it: {error}")))?;
        let bundle =
            BundleReader::new(BufReader::new(file), &cluster.cluster()).map_err(|error| match error {
                NoBundle::Cluster(_) => of(format!("{error}, not of {}", cluster.cluster())),
                other => of(other.to_string()),
            })?;
        return Ok(Box::new(bundle));
    }
    Err(Failure::new("neither a directory nor a bundle is named"))
}

/// A source without its first heights.
struct Above {
    source: Box<dyn Source + Send>,
    height: Height,
}

impl Source for Above {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        loop {
            match self.source.next()? {
                Some(committed) if committed.batch.header.height <= self.height => {}
                other => return Ok(other),
            }
        }
    }
}

/// The live cluster, as a source without an end: at the last height it waits for more, and when nobody answers it
/// says so once and asks again, at this interval. It begins above this height.
pub fn following(
    place: &HistoryArgs,
    height: Height,
    interval: Duration,
) -> Result<Box<dyn Source + Send>, Failure> {
    Ok(Box::new(Following { live: LiveSource::start(place, height)?, interval, silent: false }))
}

/// The committed heights of a replica's log, read as they lie on the disk.
struct LogSource {
    reader: LogReader,
    /// Batches whose certificate has not come yet, by header hash.
    pending: BTreeMap<Hash, Batch>,
    next: Height,
    /// How far a record may be above the next height to be committed.
    window: u64,
}

impl LogSource {
    fn new(reader: LogReader, window: u64) -> Self {
        Self { reader, pending: BTreeMap::new(), next: 1, window }
    }

    /// The height that a damaged record says it is of.
    fn height_of(&self, error: &LogError) -> Option<Height> {
        match error {
            // The damage may be in the height itself: a record is of a height in flight, or the claim is void.
            LogError::Damaged { position, .. } => self
                .reader
                .claimed_height(*position)
                .filter(|height| (self.next..=self.next.saturating_add(self.window)).contains(height)),
            _ => None,
        }
    }
}

impl Source for LogSource {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        loop {
            let record = self.reader.next_record().map_err(|error| SourceError::Damaged {
                height: self.height_of(&error),
                text: error.to_string(),
            })?;
            match record {
                None => return Ok(None),
                Some((_, Record::Proposed { batch, .. })) => {
                    if self.pending.len() >= PENDING_MAX {
                        let text = "too many batches without a certificate".to_owned();
                        return Err(SourceError::Damaged { height: None, text });
                    }
                    self.pending.insert(batch.header.hash(), batch);
                }
                Some((position, Record::Committed(certificate))) if certificate.height == self.next => {
                    let Some(batch) = self.pending.remove(&certificate.header_hash) else {
                        let text = format!("the certificate at {position} has no batch in the log");
                        return Err(SourceError::Damaged { height: Some(certificate.height), text });
                    };
                    let height = self.next;
                    self.pending.retain(|_, batch| batch.header.height > height);
                    self.next = height.saturating_add(1);
                    return Ok(Some(CommittedBatch { batch, certificate }));
                }
                Some(_) => {}
            }
        }
    }
}

/// The committed heights of a live cluster.
struct LiveSource {
    runtime: Runtime,
    observer: Observer,
    fetched: VecDeque<CommittedBatch>,
    next: Height,
}

impl LiveSource {
    fn start(place: &HistoryArgs, above: Height) -> Result<Self, Failure> {
        let key = place.key.as_ref().ok_or_else(|| {
            Failure::new(
                "a live cluster needs --key (or QUORATE_KEY); a stored one --dir DIRECTORY or --bundle FILE",
            )
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let observer = runtime.block_on(connect::observe(&place.cluster, key))?;
        Ok(Self { runtime, observer, fetched: VecDeque::new(), next: above.saturating_add(1) })
    }
}

impl Source for LiveSource {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        if self.fetched.is_empty() {
            let batches = self
                .runtime
                .block_on(self.observer.history(self.next))
                .map_err(|error| SourceError::Unavailable(error.to_string()))?;
            self.fetched.extend(batches);
        }
        let batch = self.fetched.pop_front();
        if let Some(batch) = &batch {
            self.next = batch.batch.header.height.saturating_add(1);
        }
        Ok(batch)
    }
}

/// A live cluster that is asked again and again.
struct Following {
    live: LiveSource,
    interval: Duration,
    /// Whether nobody answered the last time.
    silent: bool,
}

impl Source for Following {
    fn next(&mut self) -> Result<Option<CommittedBatch>, SourceError> {
        loop {
            match self.live.next() {
                Ok(Some(committed)) => {
                    self.silent = false;
                    return Ok(Some(committed));
                }
                Ok(None) => self.silent = false,
                Err(SourceError::Unavailable(text)) => {
                    if !self.silent {
                        complain(&format!("nobody shows height {}: {text}; asking again", self.live.next));
                    }
                    self.silent = true;
                }
                Err(damaged @ SourceError::Damaged { .. }) => return Err(damaged),
            }
            // In the runtime, so that the connections stay.
            let interval = self.interval;
            self.live.runtime.block_on(async { tokio::time::sleep(interval).await });
        }
    }
}
