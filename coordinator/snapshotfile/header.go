package snapshotfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Header says what a file is a snapshot of. It is not secret.
type Header struct {
	// ClusterID names the cluster, after the first root of its built-in CA; it
	// is empty if the cluster had no CA yet.
	ClusterID string `json:"cluster_id,omitempty"`
	NodeID    string `json:"node_id"` // that wrote it
	// Index is the log index that the state was at, and Term Raft's term then.
	Index uint64    `json:"index"`
	Term  uint64    `json:"term,omitempty"`
	Time  time.Time `json:"time"`
	// Version is the program's, Level the level of its commands.
	Version string `json:"version"`
	Level   uint32 `json:"level"`
	// SealKeys are the ids of the seal keys that the private keys in it are
	// sealed with: whoever restores it needs them.
	SealKeys []string `json:"seal_keys,omitempty"`
	// Rows counts the records of the tables that are of interest to a person.
	Rows map[string]int `json:"rows,omitempty"`
}

// Bounds of a file.
const (
	// MaxHeader bounds the header, in octets.
	MaxHeader = 64 << 10
	// MaxBlock bounds one block of the content.
	MaxBlock = 1 << 20
	// MaxContent bounds the content, unpacked.
	MaxContent = 16 << 30
)

const (
	magic         = "certctl snapshot\n"
	formatVersion = 1
)

// Reasons why a file cannot be read. They say how to mend it.
var (
	ErrForeign   = errors.New("this is not a snapshot of certctl; give a file that \"certctl snapshot save\" or a scheduled backup has written")
	ErrEncrypted = errors.New("this file is encrypted; give the passphrase or the identity that it was encrypted for (--passphrase-file, --identity-file)")
	ErrCutShort  = errors.New("the snapshot is cut short: its end is missing; copy it again, or take an older one")
	ErrDamaged   = errors.New("the snapshot is damaged; copy it again, or take an older one")
	ErrNewer     = errors.New("the snapshot is of a later version of certctl; use that version to read it")
)

// encryptedMagic is how a file of age begins, and armouredMagic its text form.
const (
	encryptedMagic = "age-encryption.org/"
	armouredMagic  = "-----BEGIN AGE ENC"
)

func (h *Header) encode() ([]byte, error) {
	text, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("snapshot: encode the header: %w", err)
	}
	if len(text) > MaxHeader {
		return nil, fmt.Errorf("snapshot: a header of %d octets, at most %d are allowed", len(text), MaxHeader)
	}
	return text, nil
}

// decodeHeader is strict: a file of this version has no other fields.
func decodeHeader(text []byte) (Header, error) {
	var h Header
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&h); err != nil {
		return Header{}, fmt.Errorf("%w: header: %w", ErrDamaged, err)
	}
	if decoder.More() || h.NodeID == "" || h.Time.IsZero() {
		return Header{}, fmt.Errorf("%w: header: it is not whole", ErrDamaged)
	}
	return h, nil
}
