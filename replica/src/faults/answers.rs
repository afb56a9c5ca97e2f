//! What leaves a faulty replica for clients in place of true answers, below TLS.
//!
//! Invariant: over many answers every byte position of a small one is changed in turn, with every bit.

use bytes::{Bytes, BytesMut};
use quorate_crypto::Bounded;
use quorate_merkle::{Key, PartialTrie};
use quorate_metadata::keys::KIND_ENTRY;
use quorate_protocol::client::{ClientReply, Notice, ReadAnswer};
use quorate_protocol::{Ino, Vote};
use quorate_transport::faults::Fate;
use quorate_transport::frame::{LENGTH_BYTES, encode_frame};

/// Two of three answers are corrupted; the true ones in between keep clients asking.
const TRUE_SHARE: u64 = 3;
/// Bytes from one changed position to the next; a prime, so that few lengths are a multiple of it.
const STRIDE: u64 = 61;
/// Inode numbers of directories of which a name is hidden.
const DIRECTORIES_TRIED: Ino = 16;

/// Changes one byte, at another position for each turn.
pub(super) fn corrupt(turn: u64, frame: &Bytes) -> Fate {
    let length = frame.len().saturating_sub(LENGTH_BYTES) as u64;
    if turn.is_multiple_of(TRUE_SHARE) || length == 0 {
        return Fate::AsItIs;
    }
    // Numbers the lies without gaps; one step more after each round, for lengths that the stride divides.
    let lie = turn - turn / TRUE_SHARE - 1;
    let position = (lie.wrapping_mul(STRIDE) + lie / length) % length + LENGTH_BYTES as u64;
    let mask = 1_u8.rotate_left(u32::try_from(lie % 8).unwrap_or_default());
    let mut bent = BytesMut::from(frame.as_ref());
    if let Some(byte) = usize::try_from(position).ok().and_then(|position| bent.get_mut(position)) {
        *byte ^= mask;
    }
    Fate::Instead(bent.freeze())
}

/// Leaves out the first name of a directory that is shown from its beginning; what is left is a copy of a state that
/// might have been.
pub(super) fn hide_entry(reply: &ClientReply) -> Fate {
    let ClientReply::Read(answer) = reply else { return Fate::AsItIs };
    let without = (1..=DIRECTORIES_TRIED).find_map(|ino| without_an_entry(answer, ino));
    let frame = without.and_then(|answer| encode_frame(&ClientReply::Read(answer)).ok());
    frame.map_or(Fate::AsItIs, Fate::Instead)
}

/// The answer without the first entry of a directory, if it holds that.
fn without_an_entry(answer: &ReadAnswer, ino: Ino) -> Option<ReadAnswer> {
    let mut copy = PartialTrie::decode(&answer.proof).ok()?;
    let edge = |kind: u8| {
        let mut key = [0; 32];
        key.first_chunk_mut::<8>()?.copy_from_slice(&ino.to_be_bytes());
        *key.get_mut(8)? = kind;
        Some(Key(key))
    };
    let (first, _) = copy.scan(&edge(KIND_ENTRY)?, Some(&edge(KIND_ENTRY + 1)?)).next()?.ok()?;
    copy.remove(&first).ok().filter(|removed| *removed)?;
    let proof = PartialTrie::encode(&copy).ok()?.try_into().ok()?;
    Some(ReadAnswer { proof, ..answer.clone() })
}

/// Says that it has committed nothing; its reads come from old states (`deeds`).
pub(super) fn stale(reply: &ClientReply) -> Fate {
    match reply {
        ClientReply::Highest { .. } => {
            let nothing = ClientReply::Highest { height: 0, certificate: None };
            encode_frame(&nothing).map_or(Fate::Withheld, Fate::Instead)
        }
        _ => Fate::AsItIs,
    }
}

/// Its COMMITs as clients are shown them.
pub(super) fn bend_commits(notice: &Notice, bend: &dyn Fn(&Vote) -> Vote) -> Fate {
    match notice {
        Notice::Commits(votes) => {
            let votes = Bounded::try_collect(votes.iter().map(bend)).unwrap_or_default();
            encode_frame(&Notice::Commits(votes)).map_or(Fate::Withheld, Fate::Instead)
        }
        Notice::Results(_) | Notice::Certified(_) => Fate::AsItIs,
    }
}
