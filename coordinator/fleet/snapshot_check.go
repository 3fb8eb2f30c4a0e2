package fleet

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// View is the state that the snapshot is a picture of.
func (s *Snapshot) View() *View { return &View{txn: s.txn} }

// CheckSnapshot reads a snapshot's stream to its end and returns its index. It
// proves that the stream is whole and that every record in it can be decoded,
// and keeps none of them. Errors are those of Restore.
func CheckSnapshot(r io.Reader) (index uint64, err error) {
	in := &snapshotReader{r: bufio.NewReaderSize(r, 64<<10)}
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(in.r, magic); err != nil {
		return 0, fmt.Errorf("fleet snapshot: %w", cut(err))
	}
	if string(magic) != snapshotMagic {
		return 0, fmt.Errorf("fleet snapshot: %w: it does not begin like one", ErrSnapshotDamaged)
	}
	header, err := in.header()
	if err == nil {
		err = in.each(func(Table, any) error { return nil })
	}
	if err != nil {
		return 0, fmt.Errorf("fleet snapshot: %w", err)
	}
	return header.Index, nil
}

// each reads all frames up to the end and gives each record to keep.
func (in *snapshotReader) each(keep func(table Table, record any) error) error {
	var count uint64
	for {
		data, err := in.frame()
		if err != nil {
			return err
		}
		var frame snapshotRecords
		if err := decoder.Unmarshal(data, &frame); err != nil {
			return fmt.Errorf("%w: %w", ErrSnapshotDamaged, err)
		}
		count += uint64(len(frame.Records))
		if count != frame.Count {
			return fmt.Errorf("%w: %d records where %d are expected", ErrSnapshotDamaged, count, frame.Count)
		}
		if frame.Table == "" {
			break
		}
		decode, known := recordDecoders[frame.Table]
		if !known {
			return fmt.Errorf("%w: table %.40q", ErrSnapshotNewer, frame.Table)
		}
		for _, raw := range frame.Records {
			record, err := decode(raw)
			if err == nil {
				err = keep(frame.Table, record)
			}
			if err != nil {
				return fmt.Errorf("%w: table %s: %w", ErrSnapshotDamaged, frame.Table, err)
			}
		}
	}
	if _, err := in.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: something follows its end", ErrSnapshotDamaged)
	}
	return nil
}
