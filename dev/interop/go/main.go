// Command interop checks a log that the ledger's crate wrote, and writes one for the crate to check, with the packages of
// Go's checksum database and of transparency.dev. lib/transparency/tests/interop.rs runs it. It also checks a log that a
// ledger serves, with the key in LEDGER_KEY if it needs one.
//
//	go run . check FOLDER
//	go run . make FOLDER
//	go run . fetch URL VKEY
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = 8
	width  = 1 << height
)

// proofs are roots and proofs for the other side to compare with its own.
type proofs struct {
	Heads []struct {
		Size int64     `json:"size"`
		Root tlog.Hash `json:"root"`
	} `json:"heads"`
	Inclusion []struct {
		Leaf     int64       `json:"leaf"`
		Size     int64       `json:"size"`
		LeafHash tlog.Hash   `json:"leaf_hash"`
		Hashes   []tlog.Hash `json:"hashes"`
	} `json:"inclusion"`
	Consistency []struct {
		From   int64       `json:"from"`
		To     int64       `json:"to"`
		Hashes []tlog.Hash `json:"hashes"`
	} `json:"consistency"`
}

func main() {
	log.SetFlags(0)
	if len(os.Args) == 4 && os.Args[1] == "fetch" {
		if err := fetch(os.Args[2], os.Args[3]); err != nil {
			log.Fatal(err)
		}
		return
	}
	if len(os.Args) != 3 {
		log.Fatal("usage: interop check|make FOLDER, or interop fetch URL VKEY")
	}
	commands := map[string]func(folder) error{"check": check, "make": makeLog}
	command, ok := commands[os.Args[1]]
	if !ok {
		log.Fatalf("unknown command %s", os.Args[1])
	}
	if err := command(folder(os.Args[2])); err != nil {
		log.Fatal(err)
	}
}

// source is where a log's files are read, by their paths below its prefix.
type source interface {
	read(path string) ([]byte, error)
}

// prefix is the URL below which a ledger serves a log.
type prefix string

func (p prefix) read(path string) ([]byte, error) {
	request, err := http.NewRequest(http.MethodGet, string(p)+"/"+path, nil)
	if err != nil {
		return nil, err
	}
	if key := os.Getenv("LEDGER_KEY"); key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, response.Status)
	}
	return io.ReadAll(response.Body)
}

// fetch checks that every entry of a served log is in the tree that its checkpoint signs.
func fetch(url, vkey string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	log := prefix(url)
	signed, err := log.read("checkpoint")
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return err
	}
	tree, err := parseCheckpoint(opened.Text, verifier.Name())
	if err != nil {
		return err
	}
	if err := checkEntries(log, tree, tlog.TileHashReader(tree, tiles{log})); err != nil {
		return err
	}
	fmt.Printf("checked %d entries\n", tree.N)
	return nil
}

// folder has a log's files under their paths below its prefix, and beside them its keys and proofs.
type folder string

func (f folder) read(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), filepath.FromSlash(path)))
}

func (f folder) write(path string, data []byte) error {
	file := filepath.Join(string(f), filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// path returns a tile's path as tlog-tiles has it: without the height, which is always 8.
func path(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
}

// entriesPath returns the path of the bundle whose hashes a tile of level 0 has.
func entriesPath(tile tlog.Tile) string {
	return strings.Replace(path(tile), "tile/0/", "tile/entries/", 1)
}

// tiles reads the tiles of a source for Go's package.
type tiles struct{ from source }

func (t tiles) Height() int                         { return height }
func (t tiles) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(wanted))
	for i, tile := range wanted {
		var err error
		if data[i], err = t.from.read(path(tile)); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func check(f folder) error {
	tree, err := openCheckpoint(f)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	hashes := tlog.TileHashReader(tree, tiles{f})
	if err := checkProofs(f, hashes); err != nil {
		return fmt.Errorf("proofs: %w", err)
	}
	if err := checkEntries(f, tree, hashes); err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	fmt.Printf("checked %d entries\n", tree.N)
	return nil
}

func openCheckpoint(f folder) (tlog.Tree, error) {
	logKey, err := f.read("log.vkey")
	if err != nil {
		return tlog.Tree{}, err
	}
	logVerifier, err := note.NewVerifier(strings.TrimSpace(string(logKey)))
	if err != nil {
		return tlog.Tree{}, err
	}
	witnessKey, err := f.read("witness.vkey")
	if err != nil {
		return tlog.Tree{}, err
	}
	witnessVerifier, err := cosignature.NewVerifierForCosignatureV1(strings.TrimSpace(string(witnessKey)))
	if err != nil {
		return tlog.Tree{}, err
	}
	signed, err := f.read("checkpoint")
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(signed, note.VerifierList(logVerifier, witnessVerifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	if len(opened.Sigs) != 2 || len(opened.UnverifiedSigs) != 1 {
		return tlog.Tree{}, fmt.Errorf("%d known and %d unknown signatures", len(opened.Sigs), len(opened.UnverifiedSigs))
	}
	if _, err := cosignature.CoSigV1Timestamp(opened.Sigs[1]); err != nil {
		return tlog.Tree{}, err
	}
	return parseCheckpoint(opened.Text, logVerifier.Name())
}

func parseCheckpoint(text, origin string) (tlog.Tree, error) {
	var size int64
	var root string
	if count, err := fmt.Sscanf(text, origin+"\n%d\n%s\n", &size, &root); count != 2 {
		return tlog.Tree{}, err
	}
	hash, err := tlog.ParseHash(root)
	if err != nil {
		return tlog.Tree{}, err
	}
	if text != fmt.Sprintf("%s\n%d\n%s\n", origin, size, hash) {
		return tlog.Tree{}, errors.New("the text has another form")
	}
	return tlog.Tree{N: size, Hash: hash}, nil
}

func checkProofs(f folder, hashes tlog.HashReader) error {
	data, err := f.read("proofs.json")
	if err != nil {
		return err
	}
	var written proofs
	if err := json.Unmarshal(data, &written); err != nil {
		return err
	}
	roots := map[int64]tlog.Hash{}
	for _, head := range written.Heads {
		root, err := tlog.TreeHash(head.Size, hashes)
		if err != nil || root != head.Root {
			return fmt.Errorf("size %d has root %s, not %s (%v)", head.Size, root, head.Root, err)
		}
		roots[head.Size] = root
	}
	for _, proof := range written.Inclusion {
		made, err := tlog.ProveRecord(proof.Size, proof.Leaf, hashes)
		if err != nil || !slices.Equal(made, proof.Hashes) {
			return fmt.Errorf("leaf %d in %d has proof %v, not %v (%v)", proof.Leaf, proof.Size, made, proof.Hashes, err)
		}
		if err := tlog.CheckRecord(proof.Hashes, proof.Size, roots[proof.Size], proof.Leaf, proof.LeafHash); err != nil {
			return err
		}
	}
	for _, proof := range written.Consistency {
		made, err := tlog.ProveTree(proof.To, proof.From, hashes)
		if err != nil || !slices.Equal(made, proof.Hashes) {
			return fmt.Errorf("%d to %d has proof %v, not %v (%v)", proof.From, proof.To, made, proof.Hashes, err)
		}
		if err := tlog.CheckTree(proof.Hashes, proof.To, roots[proof.To], proof.From, roots[proof.From]); err != nil {
			return err
		}
	}
	if len(written.Inclusion) == 0 || len(written.Consistency) == 0 {
		return errors.New("there are none")
	}
	return nil
}

// checkEntries compares every entry with its hash, which the reader has proven to be in the tree.
func checkEntries(from source, tree tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += width {
		tile := tlog.Tile{H: height, N: first / width, W: int(min(width, tree.N-first))}
		bundle, err := from.read(entriesPath(tile))
		if err != nil {
			return err
		}
		var indexes []int64
		for at := range int64(tile.W) {
			indexes = append(indexes, tlog.StoredHashIndex(0, first+at))
		}
		leaves, err := hashes.ReadHashes(indexes)
		if err != nil {
			return err
		}
		for at, leaf := range leaves {
			if len(bundle) < 2 || len(bundle) < 2+int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("entry %d is cut short", first+int64(at))
			}
			length := 2 + int(binary.BigEndian.Uint16(bundle))
			if tlog.RecordHash(bundle[2:length]) != leaf {
				return fmt.Errorf("entry %d is not in the tree", first+int64(at))
			}
			bundle = bundle[length:]
		}
		if len(bundle) != 0 {
			return fmt.Errorf("bundle %d is too long", tile.N)
		}
	}
	return nil
}

const (
	origin = "go.example/log"
	size   = 70_000
)

func makeLog(f folder) error {
	hashes, err := writeTiles(f)
	if err != nil {
		return err
	}
	root, err := tlog.TreeHash(size, hashes)
	if err != nil {
		return err
	}
	if err := writeCheckpoint(f, fmt.Sprintf("%s\n%d\n%s\n", origin, size, root)); err != nil {
		return err
	}
	return writeProofs(f, hashes)
}

func writeTiles(f folder) (tlog.HashReader, error) {
	var stored []tlog.Hash
	hashes := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			found[i] = stored[index]
		}
		return found, nil
	})
	var bundle bytes.Buffer
	for leaf := range int64(size) {
		// Of different lengths, as other logs have them.
		entry := bytes.Repeat([]byte{byte(leaf)}, int(leaf%97))
		entry = binary.BigEndian.AppendUint64(entry, uint64(leaf))
		more, err := tlog.StoredHashes(leaf, entry, hashes)
		if err != nil {
			return nil, err
		}
		stored = append(stored, more...)
		bundle.Write(binary.BigEndian.AppendUint16(nil, uint16(len(entry))))
		bundle.Write(entry)
		if leaf%width == width-1 || leaf == size-1 {
			tile := tlog.Tile{H: height, N: leaf / width, W: int(leaf%width) + 1}
			if err := f.write(entriesPath(tile), bundle.Bytes()); err != nil {
				return nil, err
			}
			bundle.Reset()
		}
	}
	for _, tile := range tlog.NewTiles(height, 0, size) {
		data, err := tlog.ReadTileData(tile, hashes)
		if err != nil {
			return nil, err
		}
		if err := f.write(path(tile), data); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

// writeCheckpoint signs as a log, as a witness, and as a witness whose kind of key the crate doesn't know.
func writeCheckpoint(f folder, text string) error {
	logSecret, logKey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return err
	}
	logSigner, err := note.NewSigner(logSecret)
	if err != nil {
		return err
	}
	witnessSecret, plainKey, err := note.GenerateKey(rand.Reader, "witness.example/go")
	if err != nil {
		return err
	}
	witnessKey, err := cosignature.VKeyToCosignatureV1(plainKey)
	if err != nil {
		return err
	}
	witnessSigner, err := cosignature.NewSignerForCosignatureV1(witnessSecret)
	if err != nil {
		return err
	}
	newerSecret, newerKey, err := cosignature.GenerateMLDSAKey("witness.example/newer")
	if err != nil {
		return err
	}
	newerSigner, err := cosignature.NewMLDSASigner(newerSecret)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: text}, logSigner, newerSigner, witnessSigner)
	if err != nil {
		return err
	}
	files := map[string]string{
		"checkpoint":   string(signed),
		"log.vkey":     logKey + "\n",
		"witness.vkey": witnessKey + "\n",
		"newer.vkey":   newerKey + "\n",
		"signed_at":    fmt.Sprintln(time.Now().Unix()),
	}
	for path, text := range files {
		if err := f.write(path, []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

func writeProofs(f folder, hashes tlog.HashReader) error {
	var made struct {
		Heads       []any `json:"heads"`
		Inclusion   []any `json:"inclusion"`
		Consistency []any `json:"consistency"`
	}
	sizes := []int64{1, 2, 3, 255, 256, 257, 511, 512, 1000, 65_535, 65_536, 65_537, 69_999, size}
	for _, to := range sizes {
		root, err := tlog.TreeHash(to, hashes)
		if err != nil {
			return err
		}
		made.Heads = append(made.Heads, map[string]any{"size": to, "root": root})
		for _, from := range sizes {
			if from > to {
				continue
			}
			consistency, err := tlog.ProveTree(to, from, hashes)
			if err != nil {
				return err
			}
			made.Consistency = append(made.Consistency, map[string]any{"from": from, "to": to, "hashes": orEmpty(consistency)})
			leaf := from - 1
			inclusion, err := tlog.ProveRecord(to, leaf, hashes)
			if err != nil {
				return err
			}
			leafHash, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, leaf)})
			if err != nil {
				return err
			}
			made.Inclusion = append(made.Inclusion, map[string]any{
				"leaf": leaf, "size": to, "leaf_hash": leafHash[0], "hashes": orEmpty(inclusion),
			})
		}
	}
	data, err := json.Marshal(made)
	if err != nil {
		return err
	}
	return f.write("proofs.json", data)
}

func orEmpty[T ~[]tlog.Hash](hashes T) []tlog.Hash {
	return append([]tlog.Hash{}, hashes...)
}
