//! The vectors of pruned copies: what honest ones answer, what a liar makes of a true trie, and what is no copy.

use quorate_merkle::{Key, Touched};
use serde_json::{Value, json};

use super::common::{Model, Shown, bit, naive_copy, naive_inner, naive_leaf, naive_root, rows_of, trie_of};
use super::respond::hex;
use super::vectors::{ENTRY, Vector, absent, bits, directories, example, key, page, present};

fn get(key: &Key) -> Value {
    json!(["get", key.to_string()])
}

fn value_hash(key: &Key) -> Value {
    json!(["value hash", key.to_string()])
}

fn last_before(key: &Key) -> Value {
    json!(["last before", key.to_string()])
}

fn scan(lo: &Key, hi: Option<&Key>, limit: Option<usize>) -> Value {
    json!(["scan", lo.to_string(), hi.map(Key::to_string), limit])
}

fn value(bytes: &[u8]) -> Value {
    json!(["value", hex(bytes)])
}

/// The rows of a range, the first `limit` of them.
fn entries(model: &Model, lo: &Key, hi: Option<&Key>, limit: usize) -> Value {
    let rows = rows_of(model, lo, hi).into_iter().take(limit);
    std::iter::once(json!("entries"))
        .chain(rows.map(|(key, value)| json!([key.to_string(), hex(&value)])))
        .collect()
}

fn missing() -> Value {
    json!(["missing"])
}

fn absence() -> Value {
    json!(["absent"])
}

/// A copy that leads to the root of the model; pairs of question and answer.
fn sound(name: &str, model: &Model, copy: &[u8], asked: Vec<(Value, Value)>) -> Vector {
    let (questions, answers): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
    let request = json!({ "root": hex(&naive_root(model)), "copy": hex(copy), "questions": questions });
    Vector { name: name.to_owned(), request, answer: json!(answers) }
}

/// A copy of which nothing may be believed.
fn unsound(name: &str, model: &Model, copy: &[u8], verdict: &str) -> Vector {
    let request = json!({ "root": hex(&naive_root(model)), "copy": hex(copy), "questions": [] });
    Vector { name: name.to_owned(), request, answer: json!(verdict) }
}

/// All of them.
pub fn proofs() -> Vec<Vector> {
    [of_the_specification(), of_directories(), liars(), malformed()].into_iter().flatten().collect()
}

fn of_the_specification() -> Vec<Vector> {
    let model = example();
    let prove = |touched: &Touched| trie_of(&model).prove(touched).unwrap();
    let (a, b, c, d) = (key(1, &[0]), key(1, &[1]), key(2, &[0]), key(2, &[8]));
    let hash_of = |value: &[u8]| json!(["value hash", quorate_merkle::value_hash(value).to_string()]);
    let none = key(3, &[0]);
    vec![
        sound(
            "a value",
            &model,
            &prove(&present()),
            vec![
                (get(&a), value(b"root")),
                (value_hash(&a), hash_of(b"root")),
                (last_before(&a), json!(["left edge"])),
                // Proof for another key, and touched stubs.
                (get(&b), missing()),
                (get(&Key::MAX), missing()),
                (last_before(&b), missing()),
                (scan(&a, None, None), missing()),
                (scan(&a, Some(&b), None), missing()),
                (scan(&a, None, Some(1)), entries(&model, &a, None, 1)),
                (scan(&a, None, Some(2)), missing()),
            ],
        ),
        sound(
            "an absence: the walk ends in another leaf",
            &model,
            &prove(&absent()),
            vec![
                (get(&none), absence()),
                (value_hash(&none), absence()),
                (get(&c), missing()),
                (value_hash(&c), hash_of(b"file")),
                (get(&d), missing()),
                // The walk's end is neither the predecessor nor the successor: nothing in order is shown by it.
                (scan(&none, None, None), missing()),
                (last_before(&none), missing()),
            ],
        ),
        sound(
            "a page",
            &model,
            &prove(&page()),
            vec![
                (scan(&c, Some(&none), None), entries(&model, &c, Some(&none), 9)),
                (scan(&c, Some(&none), Some(2)), entries(&model, &c, Some(&none), 9)),
                (scan(&none, Some(&c), None), json!(["entries"])),
                (scan(&c, Some(&c), None), json!(["entries"])),
                (last_before(&c), json!(["key", b.to_string()])),
                (last_before(&none), json!(["key", d.to_string()])),
                (get(&c), value(b"file")),
                (get(&key(2, &[0, 1])), absence()),
                (get(&b), missing()),
                (scan(&b, Some(&none), None), missing()),
                (scan(&c, None, None), missing()),
                (last_before(&b), missing()),
            ],
        ),
        sound(
            "anything, of the empty trie",
            &Model::new(),
            &[1, 0],
            vec![
                (get(&a), absence()),
                (value_hash(&a), absence()),
                (scan(&Key::MIN, None, None), json!(["entries"])),
                (scan(&Key::MIN, None, Some(1)), json!(["entries"])),
                (last_before(&Key::MAX), json!(["left edge"])),
            ],
        ),
    ]
}

/// The range of a directory's entries.
fn directory(ino: u64) -> (Key, Key) {
    (key(ino, &[ENTRY]), key(ino, &[ENTRY + 1]))
}

fn of_directories() -> Vec<Vector> {
    let model = directories();
    let prove = |ranges: &[(Key, Option<Key>)]| {
        let mut touched = Touched::new();
        ranges.iter().for_each(|(lo, hi)| touched.range(*lo, *hi));
        trie_of(&model).prove(&touched).unwrap()
    };
    let names: Vec<Key> =
        rows_of(&model, &directory(6).0, Some(&directory(6).1)).iter().map(|row| row.0).collect();
    let (lo, hi) = directory(6);
    let all = |limit| entries(&model, &lo, Some(&hi), limit);
    let after = names[2].successor().unwrap();
    let of_another = directory(7);
    vec![
        sound(
            "a whole directory",
            &model,
            &prove(&[(lo, Some(hi))]),
            vec![
                (scan(&lo, Some(&hi), None), all(9)),
                (scan(&lo, Some(&hi), Some(4)), all(4)),
                (scan(&after, Some(&hi), None), entries(&model, &after, Some(&hi), 9)),
                (last_before(&lo), json!(["key", key(6, &[0]).to_string()])),
                (get(&names[3]), value(&model[&names[3]])),
                // Proof for another inode.
                (scan(&of_another.0, Some(&of_another.1), None), missing()),
                (get(&key(6, &[0])), missing()),
            ],
        ),
        sound(
            "the first page of three",
            &model,
            &prove(&[(lo, Some(after))]),
            vec![
                (scan(&lo, Some(&hi), Some(3)), all(3)),
                (scan(&lo, Some(&after), None), all(3)),
                // A page cut short is not the whole.
                (scan(&lo, Some(&hi), Some(4)), missing()),
                (scan(&lo, Some(&hi), None), missing()),
                (last_before(&after), json!(["key", names[2].to_string()])),
            ],
        ),
        sound(
            "the page after it",
            &model,
            &prove(&[(after, Some(hi))]),
            vec![
                (scan(&after, Some(&hi), None), entries(&model, &after, Some(&hi), 9)),
                (scan(&lo, Some(&hi), None), missing()),
            ],
        ),
        sound(
            "an empty directory: two leaves side by side",
            &model,
            &prove(&[(directory(5).0, Some(directory(5).1))]),
            vec![
                (scan(&directory(5).0, Some(&directory(5).1), None), json!(["entries"])),
                (last_before(&directory(5).1), json!(["key", key(5, &[0]).to_string()])),
            ],
        ),
        sound(
            "the rest of the trie, without an upper end",
            &model,
            &prove(&[(key(7, &[0]), None)]),
            vec![
                (scan(&key(7, &[0]), None, None), entries(&model, &key(7, &[0]), None, 9)),
                (scan(&Key::MAX, None, None), json!(["entries"])),
                (last_before(&Key::MAX), json!(["key", key(8, &[0]).to_string()])),
            ],
        ),
        sound(
            "a name that is there, and one that is not",
            &model,
            &trie_of(&model)
                .prove(&{
                    let mut touched = Touched::new();
                    touched.key(names[1]);
                    touched.key(key(6, &[ENTRY, 0xff]));
                    touched
                })
                .unwrap(),
            vec![
                (get(&names[1]), value(&model[&names[1]])),
                (get(&key(6, &[ENTRY, 0xff])), absence()),
                (get(&names[5]), missing()),
                (scan(&lo, Some(&hi), None), missing()),
            ],
        ),
    ]
}

/// What a liar makes of a true trie.
fn liars() -> Vec<Vector> {
    let model = directories();
    let (lo, hi) = directory(6);
    let rows = rows_of(&model, &lo, Some(&hi));
    let whole = scan(&lo, Some(&hi), None);
    // All of the page but for one leaf, which is shown as said; with both neighbours of the page.
    let neighbours = [key(6, &[0]), key(7, &[0])];
    let page_with = |changed: &Key, how: Shown| {
        naive_copy(&model, |key| match key {
            _ if key == changed => how,
            _ if neighbours.contains(key) => Shown::Key,
            _ if *key >= lo && *key < hi => Shown::Value,
            _ => Shown::Nothing,
        })
    };
    let without = |gone: &Key| {
        let mut less = model.clone();
        less.remove(gone);
        naive_copy(&less, |key| if *key >= lo && *key < hi { Shown::Value } else { Shown::Key })
    };
    let older = {
        let mut older = model.clone();
        older.insert(rows[0].0, vec![1, 1, 1]);
        naive_copy(&older, |_| Shown::Value)
    };
    let (middle, last) = (rows[2].0, rows[rows.len() - 1].0);
    vec![
        sound(
            "hidden entry: behind a stub",
            &model,
            &page_with(&middle, Shown::Nothing),
            vec![(whole.clone(), missing()), (get(&middle), missing())],
        ),
        sound(
            "hidden entry: its value pruned",
            &model,
            &page_with(&middle, Shown::Key),
            vec![
                (whole.clone(), missing()),
                (get(&middle), missing()),
                (scan(&lo, Some(&middle), None), entries(&model, &lo, Some(&middle), 9)),
            ],
        ),
        unsound("hidden entry: left out", &model, &without(&middle), "wrong root"),
        unsound("hidden entry: the walk goes around it", &model, &around(&model, 5), "wrong root"),
        sound(
            "truncated page: the last entry behind a stub",
            &model,
            &page_with(&last, Shown::Nothing),
            vec![
                (whole.clone(), missing()),
                (scan(&lo, Some(&hi), Some(5)), entries(&model, &lo, Some(&hi), 5)),
            ],
        ),
        unsound("truncated page: the last entry left out", &model, &without(&last), "wrong root"),
        sound(
            "a page without its predecessor",
            &model,
            &page_with(&neighbours[0], Shown::Nothing),
            vec![(whole.clone(), missing()), (last_before(&lo), missing())],
        ),
        sound(
            "a page without its successor",
            &model,
            &page_with(&neighbours[1], Shown::Nothing),
            vec![
                (whole.clone(), missing()),
                (scan(&lo, Some(&hi), Some(6)), entries(&model, &lo, Some(&hi), 6)),
                (last_before(&hi), missing()),
            ],
        ),
        unsound("the root of another version", &model, &older, "wrong root"),
        unsound("nothing, for a trie that holds something", &model, &[1, 0], "wrong root"),
        unsound(
            "something, for the empty trie",
            &Model::new(),
            &naive_copy(&model, |_| Shown::Key),
            "wrong root",
        ),
        unsound("swapped siblings: leaves", &example(), &swapped_leaves(), "refused"),
        unsound("swapped siblings: hashes of stubs", &example(), &swapped_stubs(), "wrong root"),
    ]
}

/// A copy that branches at a bit of the liar's choice, with the hashes of the true children.
fn around(model: &Model, position: usize) -> Vec<u8> {
    let rows: Vec<_> = model.iter().collect();
    let (first, last) = (rows[0], rows[rows.len() - 1]);
    let branch = (0..256).find(|position| bit(first.0, *position) != bit(last.0, *position)).unwrap();
    let right: Model =
        model.iter().filter(|(key, _)| bit(key, branch)).map(|(k, v)| (*k, v.clone())).collect();
    let left = naive_copy(
        &model.iter().filter(|(key, _)| !bit(key, branch)).map(|(k, v)| (*k, v.clone())).collect(),
        |_| Shown::Key,
    );
    [&[1, 1, position as u8], &left[1..], &stub(naive_root(&right))].concat()
}

fn swapped_leaves() -> Vec<u8> {
    let model = example();
    let [c, d] = [key(2, &[0]), key(2, &[8])].map(|key| leaf(&key, &model[&key]));
    let first =
        naive_inner(71, naive_leaf(&key(1, &[0]), b"root"), naive_leaf(&key(1, &[1]), b"directory key"));
    let right = inner(68, &d, &c);
    [&[1][..], &inner(0, &inner(62, &stub(first), &right), &stub(naive_leaf(&Key::MAX, b"")))].concat()
}

fn swapped_stubs() -> Vec<u8> {
    // The copy of "a value" ends in the stubs beside the path, the deepest first; two of them change places.
    let mut copy = trie_of(&example()).prove(&present()).unwrap();
    let length = copy.len();
    let (upper, lower) = (copy[length - 32..].to_vec(), copy[length - 65..length - 33].to_vec());
    copy[length - 32..].copy_from_slice(&lower);
    copy[length - 65..length - 33].copy_from_slice(&upper);
    copy
}

fn inner(position: u8, left: &[u8], right: &[u8]) -> Vec<u8> {
    [&[1, position], left, right].concat()
}

fn leaf(key: &Key, value: &[u8]) -> Vec<u8> {
    [&[2], &key.0[..], &(value.len() as u32).to_le_bytes(), value].concat()
}

fn pruned(key: &Key) -> Vec<u8> {
    [&[3], &key.0[..], &[7; 32]].concat()
}

fn stub(hash: [u8; 32]) -> Vec<u8> {
    [&[4], &hash[..]].concat()
}

/// What is not the encoding of any copy, whatever the root.
fn malformed() -> Vec<Vector> {
    let (zero, nine) = (bits(&[]), bits(&[9]));
    let hidden = stub([7; 32]);
    let good = trie_of(&example()).prove(&page()).unwrap();
    let with = |nodes: &[u8]| [&[1], nodes].concat();
    let long_value = [&leaf(&zero, b"abc")[..33], &[4, 0, 0, 0], b"abc"].concat();
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("no bytes", vec![]),
        ("a format and nothing", vec![1]),
        ("format 0", [&[0], &good[1..]].concat()),
        ("format 2", [&[2], &good[1..]].concat()),
        ("trailing byte", [&good[..], &[0]].concat()),
        ("trailing byte after the empty trie", vec![1, 0, 0]),
        ("trailing node", [&good[..], &pruned(&nine)].concat()),
        ("cut in the middle", good[..good.len() / 2].to_vec()),
        ("cut by one byte", good[..good.len() - 1].to_vec()),
        ("an unknown tag", with(&[5])),
        ("a value longer than the rest", with(&long_value)),
        ("the empty trie on the left", with(&inner(9, &[0], &pruned(&nine)))),
        ("the empty trie on the right", with(&inner(9, &pruned(&zero), &[0]))),
        ("a stub as the root", with(&hidden)),
        ("two stubs under one node", with(&inner(9, &hidden, &hidden))),
        ("two stubs under a lower node", with(&inner(8, &pruned(&zero), &inner(9, &hidden, &hidden)))),
        ("a bit equal to its parent's", with(&inner(9, &inner(9, &pruned(&zero), &hidden), &hidden))),
        ("a bit below its parent's", with(&inner(9, &inner(8, &pruned(&zero), &hidden), &hidden))),
        ("a leaf on the wrong side", with(&inner(9, &pruned(&nine), &hidden))),
        (
            "a leaf on the wrong side of a node further up",
            with(&inner(3, &inner(9, &hidden, &pruned(&bits(&[3, 9]))), &hidden)),
        ),
        ("a key twice", with(&inner(9, &pruned(&zero), &pruned(&zero)))),
        (
            "leaves that differ before their node's bit",
            with(&inner(9, &pruned(&zero), &pruned(&bits(&[5, 9])))),
        ),
        (
            "the same with a stub between",
            with(&inner(9, &pruned(&zero), &inner(12, &hidden, &pruned(&bits(&[5, 9, 12]))))),
        ),
        (
            "the same with a stub before",
            with(&inner(9, &inner(12, &pruned(&zero), &hidden), &pruned(&bits(&[5, 9])))),
        ),
    ];
    cases
        .iter()
        .map(|(name, copy)| unsound(&format!("refused: {name}"), &example(), copy, "refused"))
        .collect()
}
