// Checks an exported log with Go's own packages for notes and tiled logs, which nobody here wrote: the checkpoint
// under a tlog-policy, every entry against the tiles, the tiles against the signed root, and tlog-proof files.
//
//	check POLICY DIRECTORY [PROOF]...      exit 0 it holds, 1 it does not
//
// What those packages do not know is done here, and nothing else: reading the policy, the three lines of a
// checkpoint and the lines of a proof, and the message of a cosignature (type 0x04).
package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func check(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func ensure(holds bool, what string) {
	if !holds {
		check(fmt.Errorf("does not hold"), what)
	}
}

// A cosigner is a note.Verifier for tlog-cosignature lines.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (c cosigner) Name() string    { return c.name }
func (c cosigner) KeyHash() uint32 { return c.hash }
func (c cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	message := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(message), sig[8:])
}

func newCosigner(vkey string) cosigner {
	parts := strings.SplitN(vkey, "+", 3)
	ensure(len(parts) == 3, vkey)
	key, err := base64.StdEncoding.DecodeString(parts[2])
	check(err, vkey)
	ensure(len(key) == 1+ed25519.PublicKeySize && key[0] == 4, vkey)
	hash := sha256.Sum256(append([]byte(parts[0]+"\n"), key...))
	ensure(fmt.Sprintf("%x", hash[:4]) == parts[1], vkey)
	return cosigner{parts[0], binary.BigEndian.Uint32(hash[:4]), key[1:]}
}

// The policy of one log and one group of cosigners.
type policy struct {
	origin    string
	verifiers []note.Verifier
	logs      int
	cosigners map[string]bool
	needed    int
}

func readPolicy(path string) policy {
	text, err := os.ReadFile(path)
	check(err, "the policy")
	p := policy{cosigners: map[string]bool{}}
	for _, line := range strings.Split(string(text), "\n") {
		items := strings.Fields(line)
		switch {
		case len(items) == 2 && items[0] == "log":
			v, err := note.NewVerifier(items[1])
			check(err, line)
			p.origin = v.Name()
			p.verifiers = append(p.verifiers, v)
			p.logs++
		case len(items) == 3 && items[0] == "witness":
			c := newCosigner(items[2])
			p.verifiers = append(p.verifiers, c)
			p.cosigners[c.name] = true
		case len(items) > 3 && items[0] == "group":
			p.needed, err = strconv.Atoi(items[2])
			check(err, line)
		}
	}
	ensure(p.logs > 0 && p.needed > 0, "the policy")
	return p
}

// The head of a checkpoint that the policy accepts, signed by as many replicas as must cosign it.
func (p policy) open(checkpoint []byte) tlog.Tree {
	n, err := note.Open(checkpoint, note.VerifierList(p.verifiers...))
	check(err, "the checkpoint")
	notes, cosigners := 0, 0
	for _, sig := range n.Sigs {
		if p.cosigners[sig.Name] {
			cosigners++
		} else {
			notes++
		}
	}
	if notes < p.needed || cosigners < p.needed {
		check(fmt.Errorf("%d signatures and %d cosignatures, %d are needed", notes, cosigners, p.needed), "the checkpoint")
	}
	lines := strings.Split(n.Text, "\n")
	ensure(len(lines) == 4 && lines[0] == p.origin && lines[3] == "", "the text of the checkpoint")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	check(err, "the size")
	root, err := tlog.ParseHash(lines[2])
	check(err, "the root")
	return tlog.Tree{N: size, Hash: root}
}

// Tiles in a directory; here the path of a tile does not name its height, which is 8.
type tiles string

func (d tiles) Height() int                                 { return 8 }
func (d tiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {}
func (d tiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, t := range tiles {
		data, err := os.ReadFile(filepath.Join(string(d), strings.Replace(t.Path(), "tile/8/", "tile/", 1)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// All entries, out of their bundles.
func entries(directory string, size int64) [][]byte {
	var all [][]byte
	for n := int64(0); n*256 < size; n++ {
		width := size - n*256
		if width > 256 {
			width = 256
		}
		path := tlog.Tile{H: 8, L: 0, N: n, W: int(width)}.Path()
		bundle, err := os.ReadFile(filepath.Join(directory, strings.Replace(path, "tile/8/0/", "tile/entries/", 1)))
		check(err, "a bundle")
		for len(bundle) > 0 {
			length := int(binary.BigEndian.Uint16(bundle))
			all = append(all, bundle[2:2+length])
			bundle = bundle[2+length:]
		}
	}
	ensure(int64(len(all)) == size, "the number of entries")
	return all
}

func checkTiles(directory string, tree tlog.Tree) {
	reader := tlog.TileHashReader(tree, tiles(directory))
	root, err := tlog.TreeHash(tree.N, reader)
	check(err, "the tiles")
	ensure(root == tree.Hash, "the root of the tiles")
	all := entries(directory, tree.N)
	var indexes []int64
	for i := range all {
		indexes = append(indexes, tlog.StoredHashIndex(0, int64(i)))
	}
	hashes, err := reader.ReadHashes(indexes)
	check(err, "the leaves")
	for i, entry := range all {
		ensure(hashes[i] == tlog.RecordHash(entry), fmt.Sprintf("entry %d", i))
	}
	for _, i := range []int64{0, tree.N / 2, tree.N - 1} {
		proof, err := tlog.ProveRecord(tree.N, i, reader)
		check(err, "a proof of inclusion")
		check(tlog.CheckRecord(proof, tree.N, tree.Hash, i, tlog.RecordHash(all[i])), "a proof of inclusion")
	}
	for old := int64(1); old < tree.N; old += 1 + tree.N/7 {
		older, err := tlog.TreeHash(old, reader)
		check(err, "an older root")
		proof, err := tlog.ProveTree(tree.N, old, reader)
		check(err, "a proof of consistency")
		check(tlog.CheckTree(proof, tree.N, tree.Hash, old, older), "a proof of consistency")
	}
}

func checkProof(p policy, path string) {
	text, err := os.ReadFile(path)
	check(err, path)
	parts := strings.SplitN(string(text), "\n\n", 2)
	ensure(len(parts) == 2, path)
	tree := p.open([]byte(parts[1]))
	lines := strings.Split(parts[0], "\n")
	ensure(len(lines) >= 3 && lines[0] == "c2sp.org/tlog-proof@v1", path)
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	check(err, path)
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	check(err, path)
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		check(err, path)
		proof = append(proof, hash)
	}
	check(tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entry)), path)
}

func main() {
	p := readPolicy(os.Args[1])
	checkpoint, err := os.ReadFile(filepath.Join(os.Args[2], "checkpoint"))
	check(err, "the checkpoint")
	tree := p.open(checkpoint)
	checkTiles(os.Args[2], tree)
	for _, path := range os.Args[3:] {
		checkProof(p, path)
	}
	fmt.Printf("size %d root %v\n", tree.N, tree.Hash)
}
