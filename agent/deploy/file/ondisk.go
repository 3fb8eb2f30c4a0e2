package file

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/certctl/certctl/shared/pki"
)

// onDisk compares the files with leaf.
func (t *Target) onDisk(leaf *x509.Certificate) error {
	for _, spec := range t.files {
		content, err := readFile(spec.path)
		if err != nil {
			return fmt.Errorf("%s file: %w", spec.kind, err)
		}
		if spec.kind.leaf() {
			found := firstCertificate(content)
			if found == nil {
				return fmt.Errorf("%s file %s holds no certificate", spec.kind, spec.path)
			}
			if !found.Equal(leaf) {
				return fmt.Errorf("%s file %s: %w", spec.kind, spec.path, mismatch(pki.Fingerprint(found), pki.Fingerprint(leaf)))
			}
		}
		if spec.kind.secret() {
			if err := keyMatches(content, leaf); err != nil {
				return fmt.Errorf("%s file %s: %w", spec.kind, spec.path, err)
			}
		}
	}
	return nil
}

// readFile follows links, as the program that reads the file does.
func readFile(path string) ([]byte, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

// keyMatches looks for the private key among the PEM blocks, which in a combined
// file stand before certificates.
func keyMatches(content []byte, leaf *x509.Certificate) error {
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return errors.New("holds no private key")
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		key, err := pki.ParseKeyPEM(pem.EncodeToMemory(block))
		if err != nil {
			return err
		}
		return pki.MatchKey(leaf, key)
	}
}
