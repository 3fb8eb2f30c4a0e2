package store

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fill makes n certificates, due of which are due at epoch, in large
// transactions.
func fill(b *testing.B, s *Store, n, due int) {
	b.Helper()
	s.db.NoSync = true
	defer func() { s.db.NoSync = false }()
	const batch = 5000
	for begin := 0; begin < n; begin += batch {
		require.NoError(b, s.write(commitCertificates, func(c *change) error {
			for i := begin; i < min(begin+batch, n); i++ {
				name := fmt.Sprintf("certificate-%06d", i)
				next := epoch.Add(time.Duration(i+1) * time.Minute)
				if i%(n/due) == 0 {
					next = epoch.Add(-time.Duration(i) * time.Second)
				}
				record := &Certificate{Name: name, Phase: PhaseIdle, NextAction: next,
					Current: &Generation{KeyID: name, KeyAlgorithm: "ecdsa-p256", NotAfter: epoch.AddDate(0, 0, 90)}}
				if err := c.storeCertificate(places{}, record, true); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	require.NoError(b, s.db.Sync())
}

// BenchmarkDue shows that a tick costs what is due and not what exists.
func BenchmarkDue(b *testing.B) {
	for _, n := range []int{100, 1_000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("10-of-%d", n), func(b *testing.B) {
			s := openTest(b, Options{})
			fill(b, s, n, 10)
			for b.Loop() {
				names, err := s.Due(epoch, 0)
				if err != nil || len(names) != 10 {
					b.Fatal(len(names), err)
				}
			}
		})
	}
}

// BenchmarkHorizon shows that the horizon costs what is not safe and not what
// exists, but for the first time.
func BenchmarkHorizon(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("1-of-%d", n), func(b *testing.B) {
			s := openTest(b, Options{})
			fill(b, s, n, 10)
			require.NoError(b, s.Update("never", func(tx *CertificateTx) error { tx.Record.Issuer = "ca"; return nil }))
			first, err := s.Horizon(epoch)
			require.NoError(b, err)
			require.Len(b, first.NotSafe, 1)
			for b.Loop() {
				if h, err := s.Horizon(epoch); err != nil || len(h.NotSafe) != 1 {
					b.Fatal(h, err)
				}
			}
		})
	}
}

// BenchmarkUpdate is one synced change of one of n certificates.
func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("of-%d", n), func(b *testing.B) {
			s := openTest(b, Options{})
			fill(b, s, n, 10)
			i := 0
			for b.Loop() {
				i++
				err := s.Update(fmt.Sprintf("certificate-%06d", i%n), func(tx *CertificateTx) error {
					tx.Record.Renewals++
					tx.Emit(eventOf("x", tx.Record.Name))
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, n := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			path := testPath(b)
			s := openAt(b, path, Options{})
			fill(b, s, n, 10)
			require.NoError(b, s.Close())
			for b.Loop() {
				s, err := Open(path, Options{})
				if err != nil {
					b.Fatal(err)
				}
				require.NoError(b, s.Close())
			}
		})
	}
}
