package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"math"
	"time"
)

// bbolt has no checksums over its data pages. Every value here therefore
// starts with the CRC-32C of where it stands and of what it is, so that a
// flipped bit is found and not obeyed.
const sealSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(bucket string, key, payload []byte) uint32 {
	// Lengths first, so that no two (bucket, key, payload) have the same text.
	var n [8]byte
	binary.BigEndian.PutUint32(n[:4], uint32(len(bucket)))
	binary.BigEndian.PutUint32(n[4:], uint32(len(key)))
	sum := crc32.Update(0, castagnoli, n[:])
	sum = crc32.Update(sum, castagnoli, []byte(bucket))
	sum = crc32.Update(sum, castagnoli, key)
	return crc32.Update(sum, castagnoli, payload)
}

func seal(bucket string, key, payload []byte) []byte {
	value := make([]byte, sealSize, sealSize+len(payload))
	binary.BigEndian.PutUint32(value, checksum(bucket, key, payload))
	return append(value, payload...)
}

// unseal returns the payload, which shares value's memory.
func unseal(bucket string, key, value []byte) ([]byte, error) {
	if len(value) < sealSize || binary.BigEndian.Uint32(value) != checksum(bucket, key, value[sealSize:]) {
		return nil, damage("the checksum of %s %s does not match", bucket, quoteKey(key))
	}
	return value[sealSize:], nil
}

func decode(bucket string, key, value []byte, into any) error {
	payload, err := unseal(bucket, key, value)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(payload, into); err != nil {
		return damage("%s %s cannot be read: %w", bucket, quoteKey(key), err)
	}
	return nil
}

// A moment as key: seconds since 1970 with the sign bit flipped, then
// nanoseconds. Unlike nanoseconds since 1970 it holds every date that a
// certificate can (RFC 5280, section 4.1.2.5: 99991231235959Z).
const momentSize = 12

func momentKey(t time.Time, name string) []byte {
	key := make([]byte, momentSize, momentSize+len(name))
	binary.BigEndian.PutUint64(key, uint64(t.Unix())^(1<<63))
	binary.BigEndian.PutUint32(key[8:], uint32(t.Nanosecond()))
	return append(key, name...)
}

var errShortKey = errors.New("key is too short")

func splitMoment(key []byte) (time.Time, string, error) {
	if len(key) <= momentSize {
		return time.Time{}, "", errShortKey
	}
	seconds := int64(binary.BigEndian.Uint64(key) ^ (1 << 63))
	return time.Unix(seconds, int64(binary.BigEndian.Uint32(key[8:]))).UTC(), string(key[momentSize:]), nil
}

func numberKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func splitNumber(key []byte) (uint64, error) {
	if len(key) != 8 {
		return 0, errShortKey
	}
	return binary.BigEndian.Uint64(key), nil
}

// maxCounter leaves room above every number that a counterpart may make us
// adopt, so that counters never wrap.
const maxCounter = math.MaxUint64 >> 2
