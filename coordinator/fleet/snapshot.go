package fleet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/fxamacker/cbor/v2"

	"github.com/certctl/certctl/coordinator/fleet/tables"
)

// A snapshot is a stream: the magic, then frames of a length, a CRC-32C and a
// CBOR payload. The first frame is the header, the last one the end with the
// number of records; those between hold records, table by table, in the order
// of their ids. Equal states give equal streams.
const (
	snapshotMagic   = "certctl fleet\n"
	snapshotVersion = 1

	snapshotFrame    = 256 << 10 // a frame is closed at this size
	maxSnapshotFrame = 8 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of Restore.
var (
	ErrSnapshotDamaged = errors.New("the snapshot is damaged; restore the node from an older snapshot, a backup or its peers")
	ErrSnapshotNewer   = errors.New("the snapshot is of a later version; upgrade this node to the version that wrote it")
)

type snapshotHeader struct {
	Version uint32 `cbor:"1,keyasint"`
	Index   uint64 `cbor:"2,keyasint"`
}

type snapshotRecords struct {
	_       struct{} `cbor:",toarray"`
	Table   Table    // "" ends the snapshot
	Count   uint64   // records so far, these included
	Records []cbor.RawMessage
}

// Snapshot is a picture of the state, pinned when it was taken at no cost. It
// may be persisted while the state goes on.
type Snapshot struct {
	txn   *tables.Txn
	index uint64
}

// Snapshot pins the state.
func (s *State) Snapshot() *Snapshot {
	v := s.View()
	return &Snapshot{txn: v.txn, index: v.Index()}
}

// Index is the log index that the snapshot was taken at.
func (s *Snapshot) Index() uint64 { return s.index }

// Persist writes the snapshot.
func (s *Snapshot) Persist(w io.Writer) error {
	out := snapshotWriter{w: bufio.NewWriterSize(w, 64<<10)}
	out.raw([]byte(snapshotMagic))
	out.frame(snapshotHeader{Version: snapshotVersion, Index: s.index})
	for _, schema := range schemas {
		records := s.txn.Scan(string(schema.table), indexID, nil)
		for record := records.Next(); record != nil && out.err == nil; record = records.Next() {
			out.record(schema.table, record)
		}
		out.flush(schema.table)
	}
	out.frame(snapshotRecords{Count: out.count})
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return fmt.Errorf("fleet snapshot: write: %w", out.err)
	}
	return nil
}

// snapshotWriter keeps the first error and does nothing after it.
type snapshotWriter struct {
	w       *bufio.Writer
	pending []cbor.RawMessage
	size    int
	count   uint64
	err     error
}

func (o *snapshotWriter) record(table Table, record any) {
	data, err := encoder.Marshal(record)
	if err != nil {
		o.err = err
		return
	}
	o.pending = append(o.pending, data)
	o.size += len(data)
	o.count++
	if o.size >= snapshotFrame {
		o.flush(table)
	}
}

func (o *snapshotWriter) flush(table Table) {
	if len(o.pending) > 0 {
		o.frame(snapshotRecords{Table: table, Count: o.count, Records: o.pending})
	}
	o.pending, o.size = nil, 0
}

func (o *snapshotWriter) frame(payload any) {
	data, err := encoder.Marshal(payload)
	if err != nil {
		o.err = errors.Join(o.err, err)
		return
	}
	var head [8]byte
	binary.BigEndian.PutUint32(head[:4], uint32(len(data))) // far below 4 GiB
	binary.BigEndian.PutUint32(head[4:], crc32.Checksum(data, castagnoli))
	o.raw(head[:])
	o.raw(data)
}

func (o *snapshotWriter) raw(data []byte) {
	if o.err == nil {
		_, o.err = o.w.Write(data)
	}
}

// Restore replaces the whole state by a snapshot. Readers go on with what they
// have; new views show the new state. On an error the state is unchanged; it
// wraps ErrSnapshotDamaged, ErrSnapshotNewer or the reader's error.
func (s *State) Restore(r io.Reader) error {
	in := &snapshotReader{r: bufio.NewReaderSize(r, 64<<10)}
	db, index, err := in.load()
	if err != nil {
		return fmt.Errorf("fleet snapshot: %w", err)
	}
	s.db.Store(db)
	s.forgotten.Store(forgottenBefore(db, index))
	s.index.Store(index)
	return nil
}

// forgottenBefore is what may have been forgotten by the time of a snapshot: all
// that is older than the oldest command in it, and others of the same entry.
func forgottenBefore(db *tables.Tables, index uint64) uint64 {
	view := &View{txn: db.Read()}
	if oldest, ok := view.txn.FirstPrefix(string(tableSeen), indexOrder, nil).(*seenCommand); ok {
		return oldest.Index
	}
	return index
}

type snapshotReader struct {
	r *bufio.Reader
}

func (in *snapshotReader) load() (*tables.Tables, uint64, error) {
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(in.r, magic); err != nil {
		return nil, 0, cut(err)
	}
	if string(magic) != snapshotMagic {
		return nil, 0, fmt.Errorf("%w: it does not begin like one", ErrSnapshotDamaged)
	}
	header, err := in.header()
	if err != nil {
		return nil, 0, err
	}
	db, err := in.records()
	if err != nil {
		return nil, 0, err
	}
	view := &View{txn: db.Read()}
	if err := view.check(header.Index); err != nil {
		return nil, 0, err
	}
	return db, header.Index, nil
}

func (in *snapshotReader) header() (snapshotHeader, error) {
	var header snapshotHeader
	data, err := in.frame()
	if err != nil {
		return header, err
	}
	// A later header may have fields that this version does not know; its
	// version is looked at first.
	var fields map[uint64]cbor.RawMessage
	var version uint32
	if decoder.Unmarshal(data, &fields) != nil || decoder.Unmarshal(fields[1], &version) != nil {
		return header, fmt.Errorf("%w: header", ErrSnapshotDamaged)
	}
	if version > snapshotVersion {
		return header, fmt.Errorf("%w: version %d, known is %d", ErrSnapshotNewer, version, snapshotVersion)
	}
	if err := decoder.Unmarshal(data, &header); err != nil {
		return header, fmt.Errorf("%w: header: %w", ErrSnapshotDamaged, err)
	}
	return header, nil
}

// frame reads one frame and checks its sum.
func (in *snapshotReader) frame() ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(in.r, head[:]); err != nil {
		return nil, cut(err)
	}
	size := binary.BigEndian.Uint32(head[:4])
	if size > maxSnapshotFrame {
		return nil, fmt.Errorf("%w: a frame of %d bytes", ErrSnapshotDamaged, size)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(in.r, data); err != nil {
		return nil, cut(err)
	}
	if crc32.Checksum(data, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, fmt.Errorf("%w: a checksum is wrong", ErrSnapshotDamaged)
	}
	return data, nil
}

// cut tells a stream that ends too early from one that cannot be read.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut short", ErrSnapshotDamaged)
	}
	return err
}

// loaded is records of one table on their way from a snapshot into the tables.
type loaded struct {
	table   Table
	records []any
}

// Records are handed on in batches, of which so many wait.
const (
	loadBatch   = 2048
	loadWaiting = 2
)

var errLoadStopped = errors.New("the records are not wanted any more")

// records reads all frames up to the end and stores what they hold. Reading and
// decoding goes on beside the storing, and that on as many processors as there are:
// a node that starts has nothing else to do.
func (in *snapshotReader) records() (*tables.Tables, error) {
	batches, stop := make(chan loaded, loadWaiting), make(chan struct{})
	var readErr error // valid once batches is closed
	go func() {
		defer close(batches)
		var batch loaded
		send := func() error {
			select {
			case batches <- batch:
				batch = loaded{}
				return nil
			case <-stop:
				return errLoadStopped
			}
		}
		readErr = in.each(func(table Table, record any) error {
			if table != batch.table || len(batch.records) == loadBatch {
				if err := send(); err != nil {
					return err
				}
				batch = loaded{table: table, records: make([]any, 0, loadBatch)}
			}
			batch.records = append(batch.records, record)
			return nil
		})
		if readErr == nil {
			readErr = send()
		}
	}()
	loader := tables.NewLoader(databaseSchema())
	var err error
	for batch := range batches {
		if err != nil || len(batch.records) == 0 {
			continue
		}
		if err = loader.Add(string(batch.table), batch.records); err != nil {
			err = fmt.Errorf("%w: table %s: %w", ErrSnapshotDamaged, batch.table, err)
			close(stop)
		}
	}
	if err != nil {
		return nil, err
	}
	return loader.Tables(), readErr
}

// check compares what was loaded with the snapshot's own bookkeeping.
func (v *View) check(index uint64) error {
	if got := v.Index(); got != index {
		return fmt.Errorf("%w: it is of index %d and says %d", ErrSnapshotDamaged, got, index)
	}
	for _, s := range schemas {
		if s.table == tableInfos || s.table == tablePosition {
			continue
		}
		rows := 0
		for records := v.scan(s.table, indexID, nil); records.Next() != nil; {
			rows++
		}
		if want := v.info(s.table).Rows; rows != want {
			return fmt.Errorf("%w: table %s has %d records instead of %d", ErrSnapshotDamaged, s.table, rows, want)
		}
	}
	return nil
}

func decodeAs[T any](raw []byte) (any, error) {
	record := new(T)
	if err := decoder.Unmarshal(raw, record); err != nil {
		return nil, err
	}
	return record, nil
}

var recordDecoders = map[Table]func(raw []byte) (any, error){
	tablePosition:          decodeAs[position],
	tableInfos:             decodeAs[tableInfo],
	TableCA:                decodeAs[CA],
	TableEnrollmentTokens:  decodeAs[EnrollmentToken],
	TableAPITokens:         decodeAs[APIToken],
	TableAgents:            decodeAs[Agent],
	TablePresence:          decodeAs[presence],
	TableOrders:            decodeAs[Order],
	TableAssignments:       decodeAs[Assignment],
	TableAssignmentReports: decodeAs[AssignmentReport],
	TableCampaigns:         decodeAs[Campaign],
	TableAgentCommands:     decodeAs[AgentCommand],
	TableIssued:            decodeAs[Issued],
	TableRevocations:       decodeAs[Revocation],
	TableRevocationList:    decodeAs[RevocationList],
	TableDays:              decodeAs[Day],
	TableClusterCA:         decodeAs[ClusterCA],
	TableNodes:             decodeAs[ClusterNode],
	TableJoinTokens:        decodeAs[JoinToken],
	tableStaged:            decodeAs[stagedPiece],
	tableSeen:              decodeAs[seenCommand],
	TableCertificates: func(raw []byte) (any, error) {
		record := new(Certificate)
		if err := decoder.Unmarshal(raw, record); err != nil {
			return nil, err
		}
		record.hash = record.rowHash()
		return record, nil
	},
}
