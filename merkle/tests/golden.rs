//! The vectors of `docs/SPEC/merkle.md`. Certified history hangs on them: a change here is a new format.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, clippy::indexing_slicing)]

mod common;

use common::{Model, bytes, naive_root, trie_of};
use quorate_crypto::{Hash, encode};
use quorate_merkle::log::{consistency_proof, inclusion_proof};
use quorate_merkle::rfc6962::{self, leaf_hash as log_leaf_hash};
use quorate_merkle::{
    Key, LogFrontier, PartialTrie, ReceiptsTree, Touched, Trie, empty_root, inner_hash, leaf_hash, value_hash,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// `ino u64 BE, kind u8`, zeros.
fn key(ino: u64, kind: u8) -> Key {
    let mut key = Key::MIN;
    key.0[..8].copy_from_slice(&ino.to_be_bytes());
    key.0[8] = kind;
    key
}

fn model() -> Model {
    Model::from([
        (key(1, 0x00), b"root".to_vec()),
        (key(1, 0x01), b"directory key".to_vec()),
        (key(2, 0x00), b"file".to_vec()),
        (key(2, 0x08), b"content".to_vec()),
        (Key([0xff; 32]), Vec::new()),
    ])
}

const EMPTY_ROOT: &str = "9aca464f771b8e4cb9ecbee7975af74881735bdb376cc87fca61b259683e6f7d";
const VALUE_OF_NOTHING: &str = "9d901f1ce77e991a3682594458b312f8771b7b6b6b7b394f2fb74c165c9322ac";
const VALUE_OF_ROOT: &str = "fcee694a94c5d8d683bc610aff8d99b15dfdbad71840f183ba765b7155271c55";
const LEAF: &str = "b16db3322c5cf996a68c42fd220a16efde9dfa79062bacfc14fe4eda6fea3f2f";
const INNER_0: &str = "ada1ded93db87b8ef8fb0da45953d8d56f2813bcd898f13846274e5cfd3bcc1f";
const INNER_255: &str = "0a1db56c4ca8e5cce16d9514b655a39077bbb19b1f3d314826f452ae82fba6f1";
const ROOT_OF_ONE: &str = "b16db3322c5cf996a68c42fd220a16efde9dfa79062bacfc14fe4eda6fea3f2f";
const ROOT_OF_FIVE: &str = "afc7c46b37ed2ac855bef4d5439261f958c2a855818a9aebf118e993b274cd71";
const PROOF_OF_PRESENCE: &str = "\
    010100013e014702000000000000000100000000000000000000000000000000000000000000000004000000726f6f74\
    048218588c4c7610d20a52f6613952ee20b8f7ac0b0a1409ef234420e51143ebc40436b004a22d213ba49b17f1769cd1\
    eb87c3594d6abee0515f90449c8b2b4b1496045aa52ca7e9bb37a27d23cee3a40a2c1abf402aa4881aad6e610d347157\
    3dc087";
const PROOF_OF_ABSENCE: &str = "\
    010100013e04f93b5361b8a75dc51a0c0dabcdb7758e069f46826a15047edf92539769a0cb4f01440300000000000000\
    02000000000000000000000000000000000000000000000000d78d04f92f97a3751ef9e050db58a04a211621b3e1777f\
    841719ec8528ab35f404032a980a39124c72945c448bbb2e984d408c476143f6510d8d5e0ffddeb08ff4045aa52ca7e9\
    bb37a27d23cee3a40a2c1abf402aa4881aad6e610d3471573dc087";
const PROOF_OF_PAGE: &str = "\
    010100013e014704b16db3322c5cf996a68c42fd220a16efde9dfa79062bacfc14fe4eda6fea3f2f0300000000000000\
    010100000000000000000000000000000000000000000000005f8279253df318721844b74867b2dee86327b68dadbd92\
    917c8445060b5176d5014402000000000000000200000000000000000000000000000000000000000000000004000000\
    66696c6502000000000000000208000000000000000000000000000000000000000000000007000000636f6e74656e74\
    03ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff9d901f1ce77e991a3682594458b312\
    f8771b7b6b6b7b394f2fb74c165c9322ac";

#[test]
fn hashes() {
    assert_eq!(empty_root().to_string(), EMPTY_ROOT);
    assert_eq!(Trie::new().root(), empty_root());
    assert_eq!(value_hash(b"").to_string(), VALUE_OF_NOTHING);
    assert_eq!(value_hash(b"root").to_string(), VALUE_OF_ROOT);
    assert_eq!(leaf_hash(&key(1, 0), &value_hash(b"root")).to_string(), LEAF);
    let (left, right) = (Hash([0x11; 32]), Hash([0x22; 32]));
    assert_eq!(inner_hash(0, &left, &right).to_string(), INNER_0);
    assert_eq!(inner_hash(255, &left, &right).to_string(), INNER_255);
}

#[test]
fn roots() {
    let mut one = Trie::new();
    one.insert(key(1, 0), bytes(b"root")).unwrap();
    assert_eq!(one.root().to_string(), ROOT_OF_ONE);
    assert_eq!(trie_of(&model()).root().to_string(), ROOT_OF_FIVE);
    assert_eq!(hex(&naive_root(&model())), ROOT_OF_FIVE);
}

#[test]
fn proofs() {
    let trie = trie_of(&model());
    let assert_proof = |touched: &Touched, expected: &str| {
        assert_eq!(hex(&trie.prove(touched).unwrap()), expected);
        PartialTrie::verify(&unhex(expected), &trie.root()).unwrap()
    };
    let mut presence = Touched::new();
    presence.key(key(1, 0));
    let copy = assert_proof(&presence, PROOF_OF_PRESENCE);
    assert_eq!(copy.get(&key(1, 0)), Ok(Some(bytes(b"root"))));
    let mut absence = Touched::new();
    absence.key(key(3, 0));
    let copy = assert_proof(&absence, PROOF_OF_ABSENCE);
    assert_eq!(copy.get(&key(3, 0)), Ok(None));
    let mut page = Touched::new();
    page.range(key(2, 0), Some(key(3, 0)));
    let copy = assert_proof(&page, PROOF_OF_PAGE);
    assert_eq!(copy.scan(&key(2, 0), Some(&key(3, 0))).count(), 2);
    assert_eq!(hex(&Trie::new().prove(&page).unwrap()), "0100");
}

/// The eight leaves that implementations of Certificate Transparency test with, and their published roots.
#[test]
fn rfc_6962() {
    let leaves: Vec<Vec<u8>> =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
            .map(unhex)
            .to_vec();
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let hashes: Vec<Hash> = leaves.iter().map(|leaf| log_leaf_hash(leaf)).collect();
    let mut frontier = LogFrontier::new();
    for (size, root) in roots.iter().enumerate() {
        assert_eq!(frontier.root().to_string(), *root);
        assert_eq!(rfc6962::root(&hashes[..size]).to_string(), *root);
        assert_eq!(ReceiptsTree::from_leaves(&leaves[..size]).unwrap().root().to_string(), *root);
        if size == 7 {
            assert_eq!(hex(&encode(&frontier)), FRONTIER_OF_SEVEN);
        }
        if let Some(leaf) = leaves.get(size) {
            frontier.append(leaf).unwrap();
        }
    }
    let inclusion = inclusion_proof(&hashes, 5).unwrap();
    assert_eq!(inclusion.iter().map(Hash::to_string).collect::<Vec<_>>(), INCLUSION_OF_5_IN_8);
    let consistency = consistency_proof(&hashes, 6).unwrap();
    assert_eq!(consistency.iter().map(Hash::to_string).collect::<Vec<_>>(), CONSISTENCY_OF_6_WITH_8);
    let path = ReceiptsTree::from_leaves(&leaves).unwrap().prove_many(&[1, 5]).unwrap();
    assert_eq!(hex(&encode(&path)), RECEIPTS_PATH_OF_1_AND_5);
}

const FRONTIER_OF_SEVEN: &str = "\
    070000000000000003000000d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b70ebc5d34\
    37fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6ab08693ec2e721597130641e8211e7eedccb4c264\
    13963eee6c1e2ed16ffb1a5f";
const INCLUSION_OF_5_IN_8: [&str; 3] = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
];
const CONSISTENCY_OF_6_WITH_8: [&str; 3] = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
];
const RECEIPTS_PATH_OF_1_AND_5: &str = "\
    040000006e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01dbc1a0643b12e4d2d7c77918f\
    44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f5\
    0de3031eca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
