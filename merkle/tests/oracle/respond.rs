//! The crate's answers to the requests of `docs/SPEC/merkle.md`, section 3.5: what the oracle must answer too.

use std::sync::Arc;

use quorate_crypto::Hash;
use quorate_merkle::{Key, Missing, PartialTrie, ProofError, Trie};
use serde_json::{Value, json};

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap())
}

fn key(value: &Value) -> Key {
    Key(bytes(value).try_into().unwrap())
}

/// The answer to a request.
pub fn respond(request: &Value) -> Value {
    if let Some(pairs) = request.get("map") {
        return json!(root_of(pairs).to_string());
    }
    if let Some(length) = request.get("input_len").and_then(Value::as_u64) {
        return blake3_of(request, length as usize);
    }
    let root = Hash(bytes(&request["root"]).try_into().unwrap());
    let copy = bytes(&request["copy"]);
    if let Some(mask) = request.get("mask") {
        return json!(each_byte_changed(&copy, &root, bytes(mask)[0]));
    }
    match PartialTrie::verify(&copy, &root) {
        Err(ProofError::RootMismatch) => json!("wrong root"),
        Err(_) => json!("refused"),
        Ok(trie) => request["questions"].as_array().unwrap().iter().map(|each| ask(&trie, each)).collect(),
    }
}

fn root_of(pairs: &Value) -> Hash {
    let mut trie = Trie::new();
    for pair in pairs.as_array().unwrap() {
        trie.insert(key(&pair[0]), bytes(&pair[1]).into()).unwrap();
    }
    trie.root()
}

fn ask(trie: &Trie, question: &Value) -> Value {
    answer(trie, question).unwrap_or_else(|Missing(_)| json!(["missing"]))
}

fn answer(trie: &Trie, question: &Value) -> Result<Value, Missing> {
    let first = key(&question[1]);
    Ok(match question[0].as_str().unwrap() {
        "get" => trie.get(&first)?.map_or(json!(["absent"]), |value| json!(["value", hex(&value)])),
        "value hash" => {
            trie.value_hash(&first)?.map_or(json!(["absent"]), |hash| json!(["value hash", hash.to_string()]))
        }
        "last before" => {
            trie.last_before(&first)?.map_or(json!(["left edge"]), |last| json!(["key", last.to_string()]))
        }
        "scan" => {
            let hi = (!question[2].is_null()).then(|| key(&question[2]));
            let limit = question[3].as_u64().map_or(usize::MAX, |limit| limit as usize);
            let rows: Vec<(Key, Arc<[u8]>)> =
                trie.scan(&first, hi.as_ref()).take(limit).collect::<Result<_, _>>()?;
            let pairs = rows.iter().map(|(key, value)| json!([key.to_string(), hex(value)]));
            std::iter::once(json!("entries")).chain(pairs).collect()
        }
        other => panic!("unknown question {other}"),
    })
}

fn each_byte_changed(copy: &[u8], root: &Hash, mask: u8) -> String {
    let verdict = |position: usize| {
        let mut changed = copy.to_vec();
        changed[position] ^= mask;
        match PartialTrie::verify(&changed, root) {
            Err(ProofError::RootMismatch) => 'w',
            Err(_) => 'f',
            Ok(_) => '-',
        }
    };
    (0..copy.len()).map(verdict).collect()
}

fn blake3_of(request: &Value, length: usize) -> Value {
    let input: Vec<u8> = (0..=250).cycle().take(length).collect();
    let key = request["key"].as_str().unwrap().as_bytes().try_into().unwrap();
    let derived = blake3::derive_key(request["context"].as_str().unwrap(), &input);
    json!([blake3::keyed_hash(key, &input).to_string(), hex(&derived)])
}
