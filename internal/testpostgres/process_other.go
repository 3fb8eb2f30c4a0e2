//go:build !linux

package testpostgres

import (
	"errors"
	"os"
	"syscall"
)

// An account is whom the server runs as: here the user of the test.
type account struct{}

func serverAccount() (account, error) {
	if os.Geteuid() == 0 {
		return account{}, errors.New("PostgreSQL does not run as root: run the tests as another user")
	}
	return account{}, nil
}

func (account) own(string) error { return nil }

func (account) attributes() *syscall.SysProcAttr { return nil }

func childrenOf(int) []int { return nil }

func kill(int) {}
