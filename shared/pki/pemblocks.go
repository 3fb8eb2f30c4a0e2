package pki

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
)

var pemBegin = []byte("-----BEGIN ")

// decodePEM returns all blocks of data. Text around them is allowed (RFC 7468 section 2), but unlike pem.Decode it does
// not step over a damaged block: a chain that silently lost an intermediate is worse than an error.
func decodePEM(data []byte) ([]*pem.Block, error) {
	begun := bytes.Count(data, pemBegin)
	var blocks []*pem.Block
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		blocks = append(blocks, block)
	}
	if begun == 0 {
		return nil, errors.New("no PEM block found; want text that starts with \"-----BEGIN\"")
	}
	if len(blocks) != begun {
		return nil, fmt.Errorf("PEM is damaged: %d blocks begin but %d are whole; copy the file again", begun, len(blocks))
	}
	return blocks, nil
}
