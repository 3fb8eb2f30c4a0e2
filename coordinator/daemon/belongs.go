package daemon

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/certctl/certctl/coordinator/jointoken"
	"github.com/certctl/certctl/coordinator/server"
	"github.com/certctl/certctl/shared/pki"
)

// ErrOtherCluster says that a data directory belongs to another cluster than a join
// token.
var ErrOtherCluster = errors.New("belongs to another cluster than the join token")

// CheckToken compares a data directory that is set up with a join token, by the
// roots of the built-in CA that the directory's node has kept. known is false if it
// has kept none: a node has none before its first run. The error wraps
// ErrOtherCluster if the token is of none of them.
func CheckToken(dataDir string, token jointoken.Token) (known bool, err error) {
	path := filepath.Join(dataDir, server.RootFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("data directory: %w", err)
	}
	roots, err := pki.ParseChainPEM(text)
	if err != nil {
		return false, fmt.Errorf("%s: %w; remove it, and the next start of the node writes it anew", path, err)
	}
	var names []string
	for _, root := range roots {
		if sha256.Sum256(root.Raw) == token.RootPin {
			return true, nil
		}
		names = append(names, pki.Fingerprint(root))
	}
	return true, fmt.Errorf("data directory %s %w: its root is %s, and the token's is %x; use an empty directory",
		dataDir, ErrOtherCluster, strings.Join(names, ", "), token.RootPin)
}
