package peer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
)

// Directory is the folder of a data directory that holds a node's identity.
const Directory = "cluster"

// Files of an identity.
const (
	keyFile         = "node.key"
	certificateFile = "node.pem"
	authorityFile   = "authority.json"

	// maxFile bounds what is read of each, in octets.
	maxFile = 1 << 20
)

// Steps of what is written.
const (
	stepDirectory   durable.Step = "peer: create directory"
	stepKey         durable.Step = "peer: write the node's key"
	stepAuthority   durable.Step = "peer: write the copy of the cluster's CA"
	stepCertificate durable.Step = "peer: write the node's certificate"
)

// ErrNoIdentity says that a directory holds no node's identity.
var ErrNoIdentity = errors.New("this node has no identity in a cluster")

// folder is where an identity lives. Each file is replaced as a whole, and any
// combination of an older and a newer one is good: see [Open].
type folder struct {
	dir  string
	hook durable.Hook
}

func folderOf(c Config) folder { return folder{dir: filepath.Join(c.Dir, Directory), hook: c.Hook} }

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

// prepare makes the directory and clears away what a crash left in it.
func (f folder) prepare() error {
	return f.hook.Around(stepDirectory, f.dir, func() error {
		if err := durable.EnsurePrivateDir(f.dir); err != nil {
			return err
		}
		_, err := durable.RemoveStaleTemp(f.dir)
		return err
	})
}

func (f folder) write(step durable.Step, name string, data []byte) error {
	path := f.path(name)
	return f.hook.Around(step, path, func() error {
		return durable.WriteFileOwned(path, data, durable.Ownership{UID: durable.Keep, GID: durable.Keep, Mode: 0o600})
	})
}

func (f folder) read(name string) ([]byte, error) {
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d octets", file.Name(), maxFile)
	}
	return data, err
}

// key reads the node's key; the error matches fs.ErrNotExist if there is none.
func (f folder) key() (crypto.Signer, error) {
	data, err := f.read(keyFile)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	key, err := pki.ParseKeyPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; move the file away, and the next start makes another key", f.path(keyFile), err)
	}
	return key, nil
}

// ensureKey reads the node's key, or makes one that is on disk before it is used.
func (f folder) ensureKey() (key crypto.Signer, made bool, err error) {
	key, err = f.key()
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if key, err = pki.GenerateKey(pki.ECDSAP256); err != nil {
		return nil, false, err
	}
	text, err := pki.MarshalKeyPEM(key)
	if err != nil {
		return nil, false, err
	}
	defer clear(text)
	return key, true, f.write(stepKey, keyFile, text)
}

// certificate reads the node's certificate; nil if there is none that can be
// read: another one is made then.
func (f folder) certificate() (*x509.Certificate, error) {
	data, err := f.read(certificateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	chain, err := pki.ParseChainPEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.path(certificateFile), err)
	}
	return chain[0], nil
}

func (f folder) saveCertificate(cert *x509.Certificate) error {
	return f.write(stepCertificate, certificateFile, pki.EncodeChainPEM([]*x509.Certificate{cert}))
}

// A copy is the cluster's CA as it lies in the file: public certificates, and
// keys sealed with the seal key, which lies elsewhere.
type authorityCopy struct {
	Version     int             `json:"version"`
	ModifyIndex uint64          `json:"modify_index"`
	Authorities []authorityJSON `json:"authorities"`
}

type authorityJSON struct {
	Certificate []byte `json:"certificate"`
	SealedKey   []byte `json:"sealed_key"`
	State       string `json:"state,omitempty"`
}

const copyVersion = 1

func encodeAuthority(stored *fleet.ClusterCA) ([]byte, error) {
	c := authorityCopy{Version: copyVersion, ModifyIndex: stored.ModifyIndex}
	for _, a := range stored.Authorities {
		c.Authorities = append(c.Authorities, authorityJSON{Certificate: a.Certificate, SealedKey: a.SealedKey, State: string(a.State)})
	}
	return json.MarshalIndent(c, "", "  ")
}

func decodeAuthority(data []byte) (*fleet.ClusterCA, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var c authorityCopy
	if err := decoder.Decode(&c); err != nil {
		return nil, err
	}
	if c.Version != copyVersion {
		return nil, fmt.Errorf("it is of version %d, this program reads version %d", c.Version, copyVersion)
	}
	stored := &fleet.ClusterCA{ModifyIndex: c.ModifyIndex}
	for _, a := range c.Authorities {
		stored.Authorities = append(stored.Authorities, fleet.ClusterAuthority{
			Certificate: a.Certificate, SealedKey: a.SealedKey, State: fleet.AuthorityState(a.State),
		})
	}
	return stored, nil
}

// authority reads the copy of the cluster's CA. The error wraps ErrNoIdentity if
// there is none.
func (f folder) authority() (*fleet.ClusterCA, error) {
	data, err := f.read(authorityFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", f.dir, ErrNoIdentity)
	}
	if err != nil {
		return nil, err
	}
	stored, err := decodeAuthority(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup of this data directory, or let the node join again", f.path(authorityFile), err)
	}
	return stored, nil
}

func (f folder) saveAuthority(stored *fleet.ClusterCA) error {
	data, err := encodeAuthority(stored)
	if err != nil {
		return err
	}
	return f.write(stepAuthority, authorityFile, data)
}
