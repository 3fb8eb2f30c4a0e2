package revocation

import (
	"crypto/x509"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// private takes every authority for one of one's own, as those of tests are.
func private([]*x509.Certificate) bool { return false }

func public([]*x509.Certificate) bool { return true }

func newTestChecker(t *testing.T, isPublic func([]*x509.Certificate) bool, now func() time.Time) *checker {
	t.Helper()
	fetch := newFetcher()
	t.Cleanup(fetch.close)
	return newChecker(fetch, now, DefaultInterval, isPublic)
}
