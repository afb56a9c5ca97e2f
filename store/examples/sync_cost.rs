//! Prints what it costs to append to the log and to sync it, and to store blocks, on the disk that holds
//! a directory: `cargo run --release -p quorate-store --example sync_cost -- DIRECTORY`.
//!
//! Beside the log stand the same writes to a file that grows, which shows what filling ahead is worth.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_crypto::Hash;
use quorate_protocol::BatchTime;
use quorate_protocol::blocks::BlockDescriptor;
use quorate_protocol::record::Record;
use quorate_store::{BlockOptions, Blocks, Directory, Identity, Log, LogOptions, Upload};

const ROUNDS: usize = 200;
/// Bytes of an encoded `Record::Entered`, and of a frame around it.
const RECORD_BYTES: usize = 17;
const FRAME_BYTES: usize = 88;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let place = base.join(format!("quorate-sync-cost-{}", std::process::id()));
    std::fs::create_dir_all(&place)?;
    let result = measure(&place);
    std::fs::remove_dir_all(&place)?;
    result
}

fn measure(place: &Path) -> Result<(), Box<dyn Error>> {
    let identity = Identity { cluster: Hash::ZERO, replica: 0 };
    let directory = Directory::create(&place.join("replica"), identity)?;
    let mut log = Log::open(&directory, LogOptions::default())?;
    println!("log: median of {ROUNDS} times append and sync, beside write and sync of a growing file");
    for records in [1, 10, 50, 200, 1000] {
        let batch = vec![Record::Entered { epoch: 0, view: 0 }; records];
        let own = median(|| Ok(log.append(&batch).and_then(|()| log.sync())?))?;
        let mut plain = File::create(place.join("plain"))?;
        let bytes = vec![7; records * FRAME_BYTES];
        let grown = median(|| {
            plain.write_all(&bytes)?;
            Ok(plain.sync_data()?)
        })?;
        println!("{:>9} bytes in {records:>4} records: {own:>10.1?} {grown:>10.1?}", records * RECORD_BYTES);
    }
    log.close()?;
    let (blocks, _) = Blocks::open(&directory, BlockOptions::default())?;
    println!("blocks: median of {} times one upload", ROUNDS / 10);
    for (count, length) in [(1, 16 << 10), (16, 16 << 10), (1, 1 << 20), (8, 1 << 20)] {
        let mut round = 0u32;
        let mut times = Vec::new();
        for _ in 0..ROUNDS / 10 {
            let contents: Vec<Vec<u8>> = (0..count)
                .map(|_| {
                    round += 1;
                    let mut content = vec![0; length];
                    blake3::Hasher::new().update(&round.to_le_bytes()).finalize_xof().fill(&mut content);
                    content
                })
                .collect();
            let descriptors: Vec<_> =
                contents.iter().map(|content| BlockDescriptor::copies(content)).collect();
            let uploads: Vec<_> = descriptors
                .iter()
                .zip(&contents)
                .map(|(descriptor, content)| Upload { descriptor, content })
                .collect();
            let start = Instant::now();
            blocks.put(&uploads, BatchTime(u64::from(round)))?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        println!(
            "{count:>4} of {length:>8} bytes: {:>10.1?}",
            times.get(times.len() / 2).unwrap_or(&Duration::ZERO)
        );
    }
    Ok(())
}

fn median(mut action: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        action()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(ROUNDS / 2).copied().unwrap_or_default())
}
