package peer

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/certctl/certctl/coordinator/ca"
	"github.com/certctl/certctl/coordinator/clusterca"
	"github.com/certctl/certctl/coordinator/fleet"
	"github.com/certctl/certctl/internal/counts"
	"github.com/certctl/certctl/shared/durable"
	"github.com/certctl/certctl/shared/pki"
)

// good checks that an identity can be used now.
func good(t testing.TB, i *Identity) {
	t.Helper()
	c := i.present()
	assert.Empty(t, i.unfit(c.leaf, c.roots))
	id, err := c.roots.Verify([]*x509.Certificate{c.leaf}, clusterca.Server, i.config.Now())
	require.NoError(t, err)
	assert.Equal(t, i.ID(), id)
}

func TestCreateAndOpen(t *testing.T) {
	w := newTown(t)
	c := w.config("a")
	exists, err := Exists(c.Dir)
	require.NoError(t, err)
	require.False(t, exists)
	_, err = Open(c)
	require.ErrorIs(t, err, ErrNoIdentity)

	pub, err := EnsureKey(c) // as a node does that is going to join
	require.NoError(t, err)
	exists, err = Exists(c.Dir)
	require.NoError(t, err)
	require.False(t, exists, "a key is not an identity")
	made, err := Create(c, w.stored)
	require.NoError(t, err)
	good(t, made)
	exists, err = Exists(c.Dir)
	require.NoError(t, err)
	require.True(t, exists)
	require.True(t, pki.SamePublicKey(pub, made.Leaf().PublicKey))
	again, err := EnsureKey(c)
	require.NoError(t, err)
	require.True(t, pki.SamePublicKey(pub, again))

	opened, err := Open(c)
	require.NoError(t, err)
	good(t, opened)
	assert.True(t, made.Leaf().Equal(opened.Leaf()), "nothing was renewed")
	assert.Equal(t, w.stored, opened.Authority())
	assert.Equal(t, made.ClusterID(), opened.ClusterID())
	var node fleet.ClusterNode
	require.NoError(t, opened.Describe(&node))
	fingerprint, err := pki.PublicKeyFingerprint(pub)
	require.NoError(t, err)
	assert.Equal(t, fleet.ClusterNode{
		ID: "a", KeyFingerprint: fingerprint, Trusts: []string{w.stored.Authorities[0].Fingerprint()},
		Signer: w.stored.Authorities[0].Fingerprint(), CertificateNotAfter: made.Leaf().NotAfter,
	}, node)
	if filepath.Separator == '/' {
		for _, name := range []string{keyFile, certificateFile, authorityFile} {
			info, err := os.Stat(filepath.Join(c.Dir, Directory, name))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
		}
	}

	c.SealKey = ca.NewSealKey()
	_, err = Open(c)
	require.ErrorIs(t, err, ca.ErrWrongSealKey)
}

func TestConfigsAreChecked(t *testing.T) {
	w := newTown(t)
	for name, change := range map[string]func(*Config){
		"a relative directory": func(c *Config) { c.Dir = "data" },
		"no node id":           func(c *Config) { c.NodeID = "" },
		"no seal key":          func(c *Config) { c.SealKey = ca.SealKey{} },
		"no log":               func(c *Config) { c.Log = nil },
		"a negative interval":  func(c *Config) { c.CheckEvery = -1 },
	} {
		c := w.config("a")
		change(&c)
		_, err := Create(c, w.stored)
		require.Error(t, err, name)
		_, err = Open(c)
		require.Error(t, err, name)
	}
	identity, err := Create(w.config("a"), w.stored)
	require.NoError(t, err)
	a := w.settleAs(identity, true)
	for name, change := range map[string]func(*NetworkConfig){
		"no listener":       func(c *NetworkConfig) { c.Listener = nil },
		"no identity":       func(c *NetworkConfig) { c.Identity = nil },
		"no log":            func(c *NetworkConfig) { c.Log = nil },
		"no address":        func(c *NetworkConfig) { c.Advertise = "" },
		"no port":           func(c *NetworkConfig) { c.Advertise = "host:0" },
		"a negative limit":  func(c *NetworkConfig) { c.MaxIncoming = -1 },
		"a negative period": func(c *NetworkConfig) { c.HandshakeTimeout = -1 },
	} {
		c := a.config
		change(&c)
		_, err := New(c)
		require.Error(t, err, name)
	}
}

// What is missing or broken of the files is made again, or said.
func TestOpenRepairs(t *testing.T) {
	w := newTown(t)
	for name, c := range map[string]struct {
		damage func(dir string) error
		fails  bool
		newKey bool
	}{
		"no certificate":    {func(dir string) error { return os.Remove(filepath.Join(dir, certificateFile)) }, false, false},
		"a bad certificate": {func(dir string) error { return os.WriteFile(filepath.Join(dir, certificateFile), []byte("x"), 0o600) }, false, false},
		"a huge certificate": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, certificateFile), make([]byte, maxFile+1), 0o600)
		}, false, false},
		"no key":     {func(dir string) error { return os.Remove(filepath.Join(dir, keyFile)) }, false, true},
		"a bad key":  {func(dir string) error { return os.WriteFile(filepath.Join(dir, keyFile), []byte("x"), 0o600) }, true, false},
		"a bad copy": {func(dir string) error { return os.WriteFile(filepath.Join(dir, authorityFile), []byte("{}"), 0o600) }, true, false},
		"a copy of nothing": {func(dir string) error {
			return os.WriteFile(filepath.Join(dir, authorityFile), []byte(`{"version":1}`), 0o600)
		}, true, false},
		"a leftover of write": {func(dir string) error { return os.WriteFile(filepath.Join(dir, ".certctl-1.tmp"), []byte("x"), 0o600) }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			config := w.config("a")
			made, err := Create(config, w.stored)
			require.NoError(t, err)
			dir := filepath.Join(config.Dir, Directory)
			require.NoError(t, c.damage(dir))
			opened, err := Open(config)
			if c.fails {
				require.ErrorContains(t, err, dir)
				return
			}
			require.NoError(t, err)
			good(t, opened)
			assert.Equal(t, c.newKey, !pki.SamePublicKey(made.Leaf().PublicKey, opened.Leaf().PublicKey))
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			assert.Len(t, entries, 3)
		})
	}
}

// A node that was away for a year, or whose clock was wrong, comes back by itself.
func TestOpenRenewsAnExpiredCertificate(t *testing.T) {
	w := newTown(t)
	c := w.config("a")
	now := new(clock).set(time.Now())
	c.Now = now.now
	made, err := Create(c, w.stored)
	require.NoError(t, err)
	for _, at := range []time.Time{time.Now().Add(366 * 24 * time.Hour), time.Now().Add(-20 * time.Hour)} {
		now.set(at)
		opened, err := Open(c)
		require.NoError(t, err)
		good(t, opened)
		assert.False(t, made.Leaf().Equal(opened.Leaf()))
	}
	now.set(time.Now().Add(11 * 365 * 24 * time.Hour))
	_, err = Open(c)
	require.ErrorIs(t, err, clusterca.ErrExpired)
}

func TestRunRenewsInTime(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		seal := ca.NewSealKey()
		first, err := clusterca.Create(seal, time.Now())
		require.NoError(t, err)
		c := Config{Dir: dir, NodeID: "a", SealKey: seal, Log: slog.New(slog.DiscardHandler), CheckEvery: 6 * time.Hour}
		stored := &fleet.ClusterCA{Authorities: []fleet.ClusterAuthority{first}}
		identity, err := Create(c, stored)
		require.NoError(t, err)
		changed := identity.Changed()
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- identity.Run(ctx) }()
		begin, was := time.Now(), identity.Leaf()
		for range 4 {
			<-changed
			after := time.Since(begin)
			assert.GreaterOrEqual(t, after, 20*24*time.Hour)
			assert.LessOrEqual(t, after, 20*24*time.Hour+7*time.Hour)
			assert.True(t, time.Now().Before(was.NotAfter))
			assert.False(t, was.Equal(identity.Leaf()))
			good(t, identity)
			begin, was = time.Now(), identity.Leaf()
		}
		cancel()
		require.NoError(t, <-ended)
	})
}

// A certificate that is no good now, because the clock was set, does not wait for
// the next look.
func TestAClockThatIsSetRenewsAtTheNextHandshake(t *testing.T) {
	w := newTown(t)
	c := w.config("a")
	now := new(clock).set(time.Now().Add(60 * 24 * time.Hour)) // wrong by far
	c.Now, c.CheckEvery = now.now, time.Hour
	identity, err := Create(c, w.stored)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- identity.Run(ctx) }()
	a, b := w.settleAs(identity, true).start(), w.member("b")
	now.set(time.Now()) // and set right
	require.Eventually(t, func() bool {
		answer, err := a.ask(b)
		return err == nil && answer == "a echo hello"
	}, patience, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
}

// A full disk takes no connections away: the new certificate is used all the same.
func TestACertificateThatCannotBeWrittenIsUsed(t *testing.T) {
	w := newTown(t)
	c := w.config("a")
	full := false
	c.Hook = func(step durable.Step, _ string, done bool) error {
		if full && !done {
			return syscall.ENOSPC
		}
		return nil
	}
	logged := new(records)
	c.Log = logged.logger()
	identity, err := Create(c, w.stored)
	require.NoError(t, err)
	was := identity.Leaf()
	full = true
	renewed, err := identity.Renew(true)
	require.NoError(t, err)
	assert.True(t, renewed)
	assert.False(t, was.Equal(identity.Leaf()))
	assert.Len(t, logged.with("could not be written"), 1)
	good(t, identity)

	opened, err := Open(c)
	require.NoError(t, err, "nor is it a reason not to start")
	good(t, opened)

	// What it says that it trusts has to be on disk, though.
	begun, err := clusterca.Begin(w.stored, w.seal, "test", time.Now())
	require.NoError(t, err)
	next := &fleet.ClusterCA{Authorities: begun.Authorities, ModifyIndex: 2}
	_, err = identity.Adopt(next)
	require.ErrorIs(t, err, syscall.ENOSPC)
	assert.Len(t, identity.Roots(), 1)
	full = false
	changed, err := identity.Adopt(next)
	require.NoError(t, err)
	assert.True(t, changed)
	assert.Len(t, identity.Roots(), 2)
}

func TestAdopt(t *testing.T) {
	w := newTown(t)
	w.stored.ModifyIndex = 0
	c := w.config("a")
	identity, err := Create(c, w.stored)
	require.NoError(t, err)
	leaf := identity.Leaf()
	adopt := func(stored *fleet.ClusterCA) bool {
		t.Helper()
		changed, err := identity.Adopt(stored)
		require.NoError(t, err)
		good(t, identity)
		return changed
	}
	// The state has what this node founded the cluster with: its index is new.
	known := &fleet.ClusterCA{Authorities: w.stored.Authorities, ModifyIndex: 10}
	assert.False(t, adopt(known))
	assert.EqualValues(t, 10, identity.Authority().ModifyIndex)
	assert.False(t, adopt(known))

	begun, err := clusterca.Begin(known, w.seal, "test", time.Now())
	require.NoError(t, err)
	published := &fleet.ClusterCA{Authorities: begun.Authorities, ModifyIndex: 20}
	assert.True(t, adopt(published))
	assert.True(t, leaf.Equal(identity.Leaf()), "the old root signs still")
	var node fleet.ClusterNode
	require.NoError(t, identity.Describe(&node))
	next, _, err := clusterca.Next(published, []*fleet.ClusterNode{&node}, []string{"a"}, "test")
	require.NoError(t, err)
	active := &fleet.ClusterCA{Authorities: next.Authorities, ModifyIndex: 30}
	assert.True(t, adopt(active))
	assert.False(t, leaf.Equal(identity.Leaf()), "the new root signs")

	// A node that starts catches up from an older state.
	for _, older := range []*fleet.ClusterCA{known, published} {
		assert.False(t, adopt(older))
		assert.Equal(t, active.Authorities, identity.Authority().Authorities)
	}
	opened, err := Open(c)
	require.NoError(t, err)
	assert.Equal(t, active, opened.Authority())
	assert.True(t, identity.Leaf().Equal(opened.Leaf()))

	// Another cluster's state, at whatever index, is the truth for who has it.
	other := newTown(t)
	first, err := clusterca.Create(w.seal, time.Now())
	require.NoError(t, err)
	other.stored.Authorities[0] = first
	assert.True(t, adopt(other.stored))
	assert.NotEqual(t, opened.ClusterID(), identity.ClusterID())

	_, err = identity.Adopt(&fleet.ClusterCA{ModifyIndex: 99})
	require.ErrorIs(t, err, clusterca.ErrDamaged)
	_, err = identity.Adopt(newTown(t).stored)
	require.ErrorIs(t, err, ca.ErrWrongSealKey)
	good(t, identity)
}

// A life is all that is ever written of an identity. It returns the roots that the
// node has said it trusts, as far as it came.
func life(c Config, stages []*fleet.ClusterCA) (said []string, err error) {
	if _, err := EnsureKey(c); err != nil {
		return nil, err
	}
	identity, err := Create(c, stages[0])
	if err != nil {
		return nil, err
	}
	for _, stored := range stages[1:] {
		if _, err := identity.Adopt(stored); err != nil {
			return said, err
		}
		var node fleet.ClusterNode
		if err := identity.Describe(&node); err != nil {
			return said, err
		}
		said = node.Trusts
		if _, err := identity.Renew(true); err != nil {
			return said, err
		}
	}
	return said, nil
}

var errCrash = errors.New("the machine stops here")

// After a stop before or after every step of a whole life, a next start makes a
// usable identity that trusts what the node has said it trusts.
func TestIdentityAfterACrashAtEachStep(t *testing.T) {
	w := newTown(t)
	stages := []*fleet.ClusterCA{w.stored}
	probe, err := Create(w.config("a"), w.stored)
	require.NoError(t, err)
	w.rotate([]*Identity{probe}, func() { stages = append(stages, w.stored) })
	require.Len(t, stages, 4)

	met := map[durable.Step]int{}
	points := 0
	for {
		c := w.config("a")
		reached, crashed := 0, false
		c.Hook = func(step durable.Step, _ string, done bool) error {
			if crashed {
				return errCrash // nothing is written after the machine has stopped
			}
			if reached == points {
				crashed = true
				met[step]++
				return errCrash
			}
			reached++
			return nil
		}
		said, err := life(c, stages)
		if !crashed {
			require.NoError(t, err)
			break
		}
		points++
		c.Hook = nil
		opened, err := Open(c)
		if errors.Is(err, ErrNoIdentity) {
			require.Empty(t, said)
			opened, err = Create(c, stages[0]) // the join is repeated
		}
		require.NoError(t, err)
		good(t, opened)
		var trusts []string
		for _, root := range opened.Roots() {
			trusts = append(trusts, pki.Fingerprint(root))
		}
		for _, root := range said {
			if !slices.Contains(trusts, root) {
				// Only a later stage, which dropped it, may take a root back.
				require.Contains(t, []uint64{3, 4}, opened.Authority().ModifyIndex)
			}
		}
		// And it goes on from there.
		for _, stored := range stages {
			_, err := opened.Adopt(stored)
			require.NoError(t, err)
			good(t, opened)
		}
		assert.Equal(t, stages[3], opened.Authority())
		again, err := Open(c)
		require.NoError(t, err)
		assert.True(t, opened.Leaf().Equal(again.Leaf()))
	}
	assert.ElementsMatch(t, []durable.Step{stepDirectory, stepKey, stepAuthority, stepCertificate}, slices.Collect(maps.Keys(met)))
	counts.Report(t, "peer-identity-crash-points", points, "stops of the machine in the life of a node's identity")
}

// Whatever a copy of the CA is read from, it is written in the same way.
func FuzzAuthorityCopy(f *testing.F) {
	w := newTown(f)
	data, err := encodeAuthority(w.stored)
	require.NoError(f, err)
	f.Add(data)
	f.Add([]byte(`{"version":1,"authorities":[{"certificate":"AA==","state":"published"}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		stored, err := decodeAuthority(data)
		if err != nil {
			return
		}
		_, _ = clusterca.Parse(stored)
		again, err := encodeAuthority(stored)
		require.NoError(t, err)
		same, err := decodeAuthority(again)
		require.NoError(t, err)
		require.Equal(t, stored, same)
	})
}
