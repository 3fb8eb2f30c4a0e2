package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/certctl/certctl/shared/wire"
)

// sample makes a state file with something of everything, over several pages,
// and returns its path and its content in readable form.
func sample(t testing.TB) string {
	t.Helper()
	path := testPath(t)
	s := openAt(t, path, Options{})
	for i := range 40 {
		name := fmt.Sprintf("web-%02d", i)
		put(t, s, name, epoch.Add(time.Duration(i)*time.Hour), epoch.AddDate(0, 0, i))
		require.NoError(t, s.Update(name, func(tx *CertificateTx) error {
			tx.Record.Current.ChainPEM = string(bytes.Repeat([]byte{'A' + byte(i%26)}, 1500))
			tx.Emit(wire.Event{Kind: wire.EventIssued, Certificate: name})
			return nil
		}))
	}
	_, err := remove(s, "web-07")
	require.NoError(t, err)
	require.NoError(t, s.SaveIdentity(&Identity{AgentID: "agent-1", KeyID: "key-1"}))
	require.NoError(t, s.PutOrder(Order{Request: wire.OrderRequest{ID: "order-1", CSR: []byte{1, 2, 3}}}))
	require.NoError(t, s.SaveIssuerState("letsencrypt", json.RawMessage(`{"key_id":"key-2"}`)))
	require.NoError(t, s.SaveSyncState(SyncState{AckedRevision: 5}))
	require.NoError(t, s.SaveDesired(&wire.Desired{Digest: "digest-1", Assignments: []wire.Assignment{
		{Name: "www", Revision: 3, Certificate: json.RawMessage(`{"names":["www.example.com"]}`)},
	}}))
	_, err = s.FollowCommands([]wire.Command{{ID: "command-1", Kind: wire.CommandRenew, Certificate: "web-01", Serial: "aa"}}, nil)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	return path
}

// dump is everything in the file, in order.
func dump(t testing.TB, s *Store) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, s.view(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, bucket *bolt.Bucket) error {
			return bucket.ForEach(func(key, value []byte) error {
				fmt.Fprintf(&b, "%s %x %x\n", name, key, value)
				return nil
			})
		})
	}))
	return b.String()
}

func dumpFile(t testing.TB, path string) string {
	t.Helper()
	s := openAt(t, path, Options{})
	defer func() { require.NoError(t, s.Close()) }()
	return dump(t, s)
}

// requireRefused opens the file and requires a refusal of that kind that names
// the file and the mend and leaves every octet as it was.
func requireRefused(t testing.TB, path string, kind error) {
	t.Helper()
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	s, err := Open(path, Options{})
	if err == nil {
		require.NoError(t, s.Close())
	}
	require.ErrorIs(t, err, kind)
	var refused *Error
	require.ErrorAs(t, err, &refused)
	assert.Contains(t, err.Error(), path)
	assert.NotEmpty(t, refused.Mend)
	after, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(before, after), "a refused file must stay as it is")
}

func TestRefusesTruncatedFile(t *testing.T) {
	whole, err := os.ReadFile(sample(t))
	require.NoError(t, err)
	page := os.Getpagesize()
	meta, err := readMeta(bytes.NewReader(whole), int64(len(whole)))
	require.NoError(t, err)
	used := int(meta.highWater * meta.pageSize)
	sizes := []int{1, 15, 16, 17, 79, 80, 81, page - 1, page, page + 1, 2*page - 1, 2 * page, 3 * page, used - 1, used - page}
	for range 25 {
		sizes = append(sizes, 80+rand.N(used-80))
	}
	dir := filepath.Dir(testPath(t))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	path := filepath.Join(dir, "state.db")
	for _, size := range sizes {
		require.NoError(t, os.WriteFile(path, whole[:size], 0o600))
		if size < 20 {
			requireRefused(t, path, ErrForeign) // not even bbolt's mark is left
		} else {
			requireRefused(t, path, ErrDamaged)
		}
	}
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	requireRefused(t, path, ErrDamaged)
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	require.NoError(t, openAt(t, path, Options{}).Close(), "refusals leave no lock behind")
}

// TestFlippedBitsAreFoundOrHarmless changes the file at random places. Each
// change must be found, or be in a place that holds nothing, so that the content
// is exactly the same; a change of a meta page may also lead to the state before
// the last commit, as after a power cut.
func TestFlippedBitsAreFoundOrHarmless(t *testing.T) {
	path := sample(t)
	s := openAt(t, path, Options{})
	before := dump(t, s)
	require.NoError(t, s.SaveSyncState(SyncState{AckedRevision: 6}))
	last := dump(t, s)
	require.NoError(t, s.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	pageSize := os.Getpagesize()
	found, foundMeta, harmless := 0, 0, 0
	for i := range 150 {
		damaged := bytes.Clone(whole)
		at := rand.N(len(damaged))
		if i%10 == 0 {
			at = rand.N(2)*pageSize + pageHeader + rand.N(metaLength)
		}
		switch i % 3 {
		case 0:
			damaged[at] ^= 1 << rand.N(8)
		case 1:
			damaged[at] = byte(rand.N(256))
		default:
			copy(damaged[at/pageSize*pageSize:], bytes.Repeat([]byte{byte(rand.N(256))}, pageSize))
		}
		require.NoError(t, os.WriteFile(path, damaged, 0o600))
		opened, err := Open(path, Options{})
		if err != nil {
			require.True(t, errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeign), "octet %d: %v", at, err)
			found++
			left, err := os.ReadFile(path)
			require.NoError(t, err)
			require.True(t, bytes.Equal(damaged, left), "a refused file must stay as it is")
			continue
		}
		content := dump(t, opened)
		require.NoError(t, opened.Close())
		if at < 2*pageSize && content == before {
			foundMeta++
			continue
		}
		require.Equal(t, last, content, "octet %d", at)
		harmless++
	}
	t.Logf("%d refused, %d led to the previous commit, %d harmless", found, foundMeta, harmless)
	assert.Greater(t, found, 20)
	assert.Greater(t, harmless, 0)
}

func TestRefusesForeignFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	require.NoError(t, os.Mkdir(dir, 0o700))
	garbage := make([]byte, 70_000)
	for i := range garbage {
		garbage[i] = byte(rand.N(256))
	}
	for name, content := range map[string][]byte{
		"text": []byte("hello\n"), "random": garbage, "zeros": make([]byte, 1<<16), "sqlite": append([]byte("SQLite format 3\x00"), make([]byte, 8192)...),
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		requireRefused(t, path, ErrForeign)
	}

	for name, fill := range map[string]func(*bolt.Tx) error{
		"empty":   func(*bolt.Tx) error { return nil },
		"other":   func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("things")); return err },
		"no mark": func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte(bucketMeta)); return err },
		"other mark": func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket([]byte(bucketMeta))
			if err != nil {
				return err
			}
			return b.Put([]byte(metaMagic), []byte("another program"))
		},
	} {
		path := filepath.Join(dir, "bbolt "+name)
		// Without its list of free pages, bbolt writes to a file on opening it.
		db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true})
		require.NoError(t, err)
		require.NoError(t, db.Update(fill))
		require.NoError(t, db.Close())
		requireRefused(t, path, ErrForeign)
	}

	path := filepath.Join(dir, "directory")
	require.NoError(t, os.Mkdir(path, 0o700))
	_, err := Open(path, Options{})
	require.Error(t, err)
	assert.Contains(t, err.Error(), path)
}

// tamper changes the file through bbolt, past this package.
func tamper(t testing.TB, path string, change func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(change))
	require.NoError(t, db.Close())
}

func TestRefusesContradictions(t *testing.T) {
	del := func(bucket string, key []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			require.True(t, has(tx.Bucket([]byte(bucket)), key))
			return tx.Bucket([]byte(bucket)).Delete(key)
		}
	}
	set := func(bucket, key string, payload string) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			return tx.Bucket([]byte(bucket)).Put([]byte(key), seal(bucket, []byte(key), []byte(payload)))
		}
	}
	index := func(bucket string, key, value []byte) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket([]byte(bucket)).Put(key, value) }
	}
	first := func(bucket string) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			key, _ := tx.Bucket([]byte(bucket)).Cursor().First()
			return tx.Bucket([]byte(bucket)).Delete(key)
		}
	}
	cases := map[string]func(*bolt.Tx) error{
		"bucket missing":    func(tx *bolt.Tx) error { return tx.DeleteBucket([]byte(bucketOrders)) },
		"counters missing":  del(bucketMeta, []byte(metaCounters)),
		"counters not JSON": set(bucketMeta, metaCounters, "{"),
		"digest":            set(bucketMeta, metaCounters, `{"revision":1000,"event":1000,"outbox":{"certificate.issued":40}}`),
		"instance missing":  del(bucketMeta, []byte(metaInstance)),
		"schema missing":    del(bucketMeta, []byte(metaSchema)),
		"schema unsealed":   index(bucketMeta, []byte(metaSchema), []byte("1")),
		"created":           set(bucketMeta, metaCreated, `"yesterday"`),
		"creation missing":  del(bucketMeta, []byte(metaCreated)),
		"identity of another name": func(tx *bolt.Tx) error {
			meta := tx.Bucket([]byte(bucketMeta))
			value := bytes.Clone(meta.Get([]byte(metaIdentity)))
			return errors.Join(meta.Delete([]byte(metaIdentity)), meta.Put([]byte("identitx"), value))
		},
		"sync state":                set(bucketMeta, metaSync, `[]`),
		"identity":                  set(bucketMeta, metaIdentity, `7`),
		"record missing":            first(bucketCertificates),
		"record of another name":    set(bucketCertificates, "web-01", `{"name":"web-02","names":[]}`),
		"record not JSON":           set(bucketCertificates, "web-01", `{"name":`),
		"record unsealed":           index(bucketCertificates, []byte("web-01"), []byte(`{"name":"web-01","names":[]}`)),
		"schedule missing":          first(bucketSchedule),
		"schedule too many":         index(bucketSchedule, momentKey(epoch.Add(-time.Hour), "ghost"), nil),
		"expiry missing":            first(bucketExpiry),
		"expiry too many":           index(bucketExpiry, momentKey(epoch.Add(-time.Hour), "ghost"), nil),
		"row missing":               first(bucketRows),
		"row too many":              set(bucketRows, "ghost", `{"revision":1,"data":{}}`),
		"row not JSON":              set(bucketRows, "web-01", `x`),
		"revision missing":          first(bucketRevisions),
		"revision too many":         index(bucketRevisions, numberKey(1), []byte("ghost")),
		"removal of a live one":     set(bucketRemovals, string(numberKey(1)), "web-01"),
		"removal without a number":  set(bucketRemovals, "x", "web-07"),
		"removal unsealed":          index(bucketRemovals, numberKey(1), []byte("web-07")),
		"removal moved":             index(bucketRemovals, numberKey(2), seal(bucketRemovals, numberKey(1), []byte("web-07"))),
		"schedule with a value":     index(bucketSchedule, momentKey(epoch, "web-00"), []byte{0x80}),
		"expiry with a value":       index(bucketExpiry, momentKey(epoch, "web-00"), []byte{0x80}),
		"event kind with a value":   index(bucketKinds, kindKey(wire.EventIssued, 1), []byte{0x80}),
		"event missing":             first(bucketEvents),
		"event not JSON":            set(bucketEvents, string(numberKey(3)), `x`),
		"event of another number":   set(bucketEvents, string(numberKey(3)), `{"sequence":4,"kind":"certificate.issued"}`),
		"event kind missing":        first(bucketKinds),
		"event kind too many":       index(bucketKinds, kindKey("x", 1), nil),
		"event subject missing":     first(bucketSubjects),
		"event subject too many":    index(bucketSubjects, subjectKey("x", "y"), numberKey(1)),
		"order not JSON":            set(bucketOrders, "order-1", `x`),
		"order of another id":       set(bucketOrders, "order-1", `{"request":{"id":"order-2"}}`),
		"collected unsealed":        index(bucketCollected, []byte("order-1"), nil),
		"issuer state not JSON":     set(bucketIssuers, "letsencrypt", `x`),
		"assignment not JSON":       set(bucketAssignments, "www", `x`),
		"assignment of another":     set(bucketAssignments, "www", `{"name":"web","certificate":{}}`),
		"desired not JSON":          set(bucketMeta, metaDesired, `x`),
		"desired missing":           del(bucketMeta, []byte(metaDesired)),
		"command not JSON":          set(bucketCommands, "command-1", `x`),
		"command of another id":     set(bucketCommands, "command-1", `{"request":{"id":"command-2"},"state":"done"}`),
		"command of no state":       set(bucketCommands, "command-1", `{"request":{"id":"command-1"},"state":"x"}`),
		"issuer state of no schema": set(bucketMeta, metaSchema, string(numberKey(0))),
	}
	whole, err := os.ReadFile(sample(t))
	require.NoError(t, err)
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(privateDir(t), "state.db")
			require.NoError(t, os.WriteFile(path, whole, 0o600))
			tamper(t, path, change)
			requireRefused(t, path, ErrDamaged)
		})
	}
}

// Damage that is met while the file is open is reported like damage at Open.
func TestDamageWhileOpen(t *testing.T) {
	s := openTest(t, Options{})
	put(t, s, "web", epoch, epoch)
	require.NoError(t, s.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketCertificates)).Put([]byte("web"), []byte("garbage"))
	}))
	_, _, err := s.Certificate("web")
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, s.Path())
	_, err = s.Certificates()
	require.ErrorIs(t, err, ErrDamaged)
	_, err = s.KeyIDs()
	require.ErrorIs(t, err, ErrDamaged)
	err = s.Update("web", func(*CertificateTx) error { return nil })
	require.ErrorIs(t, err, ErrDamaged)
	_, err = remove(s, "web")
	require.ErrorIs(t, err, ErrDamaged)
}

// leafPage makes a page with entries of that kind.
func leafPage(id uint64, flags uint32, keys []string, values [][]byte) []byte {
	page := make([]byte, pageHeader+len(keys)*pageElement)
	native.PutUint64(page, id)
	native.PutUint16(page[8:], flagLeaf)
	native.PutUint16(page[10:], uint16(len(keys)))
	for i, key := range keys {
		at := pageHeader + i*pageElement
		native.PutUint32(page[at:], flags)
		native.PutUint32(page[at+4:], uint32(len(page)-at))
		native.PutUint32(page[at+8:], uint32(len(key)))
		native.PutUint32(page[at+12:], uint32(len(values[i])))
		page = slices.Concat(page, []byte(key), values[i])
	}
	return page
}

func TestPagesThatBboltNeverWrites(t *testing.T) {
	inline := func(page []byte) []byte { return append(make([]byte, bucketValue), page...) }
	record := leafPage(0, 0, []string{"a", "b"}, [][]byte{{1}, nil})
	c := &pageCheck{meta: boltMeta{pageSize: 4096, highWater: 4}, seen: make([]bool, 4)}
	require.NoError(t, c.entries(leafPage(3, elementBucket, []string{"x"}, [][]byte{inline(record)}), nil, nil, 0, false))

	beyond := leafPage(0, 0, []string{"a"}, [][]byte{{1}})
	native.PutUint32(beyond[pageHeader+12:], 1<<31)
	branch := leafPage(3, 0, nil, nil)
	native.PutUint16(branch[8:], flagBranch)
	for text, page := range map[string][]byte{
		"a small bucket holds a bucket":     leafPage(3, elementBucket, []string{"x"}, [][]byte{inline(leafPage(0, elementBucket, []string{"y"}, [][]byte{inline(record)}))}),
		"out of order":                      leafPage(3, 0, []string{"b", "a"}, [][]byte{nil, nil}),
		"an unknown kind":                   leafPage(3, 7, []string{"a"}, [][]byte{nil}),
		"a bucket has no root":              leafPage(3, elementBucket, []string{"a"}, [][]byte{{1, 2}}),
		"a small bucket's page is missing":  leafPage(3, elementBucket, []string{"a"}, [][]byte{inline(nil)}),
		"lies outside of it":                beyond,
		"a branch page has no entries":      branch,
		"stands where one with data should": make([]byte, 4096),
		"outside the file's 4":              leafPage(3, elementBucket, []string{"a"}, [][]byte{append(numberKeyNative(9), make([]byte, 8)...)}),
		"is too small for them":             record[:pageHeader+pageElement],
	} {
		err := c.entries(page, nil, nil, 0, false)
		require.ErrorIs(t, err, ErrDamaged, text)
		require.ErrorContains(t, err, text)
	}
}

func numberKeyNative(n uint64) []byte { return native.AppendUint64(nil, n) }

func FuzzPages(f *testing.F) {
	whole, err := os.ReadFile(sample(f))
	require.NoError(f, err)
	f.Add(uint32(100), []byte{1, 2, 3})
	f.Add(uint32(os.Getpagesize()*2+8), []byte{0x10})
	f.Add(uint32(os.Getpagesize()*3+12), []byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		damaged := bytes.Clone(whole)
		copy(damaged[int(at)%len(damaged):], change)
		if err := checkPages(bytes.NewReader(damaged), int64(len(damaged))); err != nil {
			require.True(t, errors.Is(err, ErrDamaged) || errors.Is(err, ErrForeign), "%v", err)
		}
		// And as a file on its own, without a valid meta page before it.
		_ = checkPages(bytes.NewReader(change), int64(len(change)))
	})
}
